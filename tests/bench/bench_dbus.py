"""`mh-dbus` beside a bare echo service on the same D-Bus library: Get and GetAll of Host, one by one and 50
in flight.

Run by `python tests/bench/bench_dbus.py [CALLS]`. The echo answers every call with the very body that the
agent answered before, so both marshal the same. Printed for each case: calls a second of both, their ratio
(aim: 0.7 or more) and the ratio of the processor time that one answer costs the server (echo's to ours),
which a busy machine disturbs less.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from libmh.bus import _open, library
from testbed.bus import private_bus
from testbed.child import child

HOST = ("org.matahariproject.Host", "/org/matahariproject/Host")
ECHO = ("org.example.Echo", "/org/example/Echo")
PROPERTIES = "org.freedesktop.DBus.Properties"
CASES: dict[str, tuple[str, list[str]]] = {
    "Get": ("ss", ["org.matahariproject.Host", "memory"]),
    "GetAll": ("s", ["org.matahariproject.Host"]),
}
LIBRARIES = ("dbus-fast", "dbus-next")
ROUNDS = 5
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    rate: float
    seconds_each: float


def echo(address: str) -> None:
    """The bare service: learns its bodies from the agent, then answers them."""
    asyncio.run(_echo(address))


async def _echo(address: str) -> None:
    lib = library()
    bus = await _open(address)  # the library's own dies when a reply does not fit into the socket
    bodies = {}
    for member, (signature, arguments) in CASES.items():
        reply = await bus.call(_message(HOST, member, signature, arguments))
        bodies[member] = (reply.signature, reply.body)

    def answer(message: Any) -> Any:
        known = bodies.get(message.member)
        return lib.message.new_method_return(message, *known) if known else None

    bus.add_message_handler(answer)
    await bus.request_name(ECHO[0])
    print("ready", flush=True)
    await bus.wait_for_disconnect()


def _message(place: tuple[str, str], member: str, signature: str, arguments: list[str]) -> Any:
    return library().message(
        destination=place[0],
        path=place[1],
        interface=PROPERTIES,
        member=member,
        signature=signature,
        body=arguments,
    )


async def ask(bus: Any, place: tuple[str, str], member: str, calls: int, flying: int) -> float:
    """Seconds that so many calls take."""
    signature, arguments = CASES[member]
    left = iter(range(calls))

    async def one() -> None:
        for _ in left:
            reply = await bus.call(_message(place, member, signature, arguments))
            assert reply.error_name is None, reply.body

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(flying)))
    return time.perf_counter() - started


async def measure(
    bus: Any, place: tuple[str, str], pid: int, member: str, calls: int, flying: int
) -> Measured:
    before = processor_seconds(pid)
    seconds = await ask(bus, place, member, calls, flying)
    return Measured(calls / seconds, (processor_seconds(pid) - before) / calls)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def services(name: str) -> Iterator[tuple[str, int, int]]:
    """A bus with both services on one library: its address and their pids."""
    env = {"MATAHARI_DBUS_LIBRARY": name}
    with tempfile.TemporaryDirectory() as state, private_bus() as address:
        agent = [sys.executable, "-m", "mh_dbus.main", "--bus", address, "--state", state]
        agent += ["--log-level", "warning"]
        with child(agent, env=env, stdout=subprocess.PIPE) as ours:
            _ready(ours)
            with child(
                [sys.executable, __file__, "--echo", address], env=env, stdout=subprocess.PIPE
            ) as bare:
                _ready(bare)
                yield address, ours.pid, bare.pid


def _ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline().split()[:1] in (["ready:"], ["ready"])


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Any]:
    bus = await _open(address)
    try:
        yield bus
    finally:
        bus.disconnect()


async def compare(address: str, ours: int, bare: int, calls: int) -> dict[str, float]:
    """The ratio of each case, printed as it comes."""
    found = {}
    async with client(address) as bus:
        for member in CASES:
            for flying in (1, 50):
                pairs = [
                    (
                        await measure(bus, HOST, ours, member, calls, flying),
                        await measure(bus, ECHO, bare, member, calls, flying),
                    )
                    for _ in range(ROUNDS)
                ]
                found[f"{member} x{flying}"] = _print(member, flying, pairs)
    return found


def _print(member: str, flying: int, pairs: list[tuple[Measured, Measured]]) -> float:
    ratio = statistics.median(ours.rate / bare.rate for ours, bare in pairs)
    cost = sum(bare.seconds_each for _, bare in pairs) / max(
        sum(ours.seconds_each for ours, _ in pairs), 1e-9
    )
    rates = [statistics.median(each.rate for each in column) for column in zip(*pairs, strict=True)]
    print(
        f"  {member:7} {flying:3} in flight: {rates[0]:8.0f}/s, echo {rates[1]:8.0f}/s,"
        f" ratio {ratio:.2f}, processor {cost:.2f}",
        flush=True,
    )
    return ratio


def main() -> int:
    """Print the ratios; 1 when one is below 0.7."""
    if sys.argv[1:2] == ["--echo"]:
        echo(sys.argv[2])
        return 0
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    worst = 1.0
    for name in LIBRARIES:
        print(f"{name}:", flush=True)
        with services(name) as (address, ours, bare):
            worst = min(worst, *asyncio.run(compare(address, ours, bare, calls)).values())
    print(f"worst ratio {worst:.2f}")
    return int(worst < 0.7)


if __name__ == "__main__":
    raise SystemExit(main())
