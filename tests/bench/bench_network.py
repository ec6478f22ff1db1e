"""The links of a host beside iproute2's, in a network namespace with 500 links more.

Run by `python tests/bench/bench_network.py` as root. Told: what `links` takes in the library, as a program
on the host calls it, beside `ip -j addr`; what it takes over D-Bus, unread and decoded by our client; one
link; how long after `ip link set` began an event is with a subscriber; what the agent takes while nothing
happens, and after a storm of 10,000 changes.
"""

import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import Cost, command, median, side_by_side, tell
from libmh.api.network import Network
from libmh.bus import connect as connect_bus
from libmh.client import Connection, connect
from namespaces import Namespace, namespace
from processes import ready_line
from testbed.bus import private_bus
from testbed.child import child
from waiting import wait_for

PAIRS = 250
RUNS = 15
CHANGES = 25
PAUSE = 0.25  # events of one link are at least 200 ms apart
IDLE = 20.0
STORM = 5000
LINKS_TIMES, ONE_MS, EVENT_MS, MEGABYTES, SHARE = 4.0, 5.0, 20.0, 45.0, 0.001


def lay(net: Namespace) -> None:
    """250 pairs, all up, each with an address."""
    net.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    net.batch([f"link add a{n} type veth peer name b{n}" for n in range(PAIRS)])
    lines = ("address add 10.1.{0}.1/24 dev a{0}", "link set a{0} up", "link set b{0} up")
    net.batch([line.format(n) for n in range(PAIRS) for line in lines])


IN_THE_LIBRARY = f"""
import statistics, time
from libmh import Network

def timed():
    began = time.perf_counter()
    network.links()
    return time.perf_counter() - began

network = Network()
timed()
print(statistics.median(timed() for _ in range({RUNS})))
"""
PLACE = ("org.matahariproject.Network", "/org/matahariproject/Network", "org.matahariproject.Network")


@contextmanager
def unread(address: str) -> Iterator[Callable[[], object]]:
    """The same call, whose answer is not made into links."""
    with asyncio.Runner() as runner:
        bus = runner.run(connect_bus(address))
        yield lambda: runner.run(bus.call(*PLACE, "links", raw=True))
        runner.run(bus.close())


def reading(net: Namespace, network: Network, address: str) -> None:
    with unread(address) as answered:
        ip = command(*net.command("ip", "-j", "addr"))
        ours, raw, theirs = side_by_side([network.links, answered, ip], RUNS)
    entering = median(command(*net.command("true")), RUNS)
    bare = median(command("true"), RUNS)
    theirs -= entering - bare  # nsenter is none of ip's work
    here = float(net.python(IN_THE_LIBRARY))
    tell(
        f"links, {len(network.links())} of them, in the library",
        f"{here * 1e3:.1f} ms: {here / theirs:.1f} times",
        beside=f"ip -j addr {theirs * 1e3:.1f} ms",
        owed=f"{LINKS_TIMES:g} times",
        holds=here <= LINKS_TIMES * theirs,
    )
    tell("the same over D-Bus, decoded", f"{ours * 1e3:.1f} ms: {ours / theirs:.1f} times")
    tell("the same over D-Bus, unread", f"{raw * 1e3:.1f} ms: {raw / theirs:.1f} times")
    one = median(lambda: network.link("a7"), RUNS) * 1e3
    tell("one link", f"{one:.2f} ms", owed=f"{ONE_MS:g} ms", holds=one <= ONE_MS)
    for what, read in (("addresses", network.addresses), ("routes", network.routes)):
        tell(f"{what}, {len(read())} of them", f"{median(read, RUNS) * 1e3:.1f} ms")


def events(net: Namespace, here: Connection) -> None:
    """From before the program is started that changes a link, and from after it has ended."""
    came: list[tuple[int, str]] = []

    def listen() -> None:
        for event in here.events("org.matahariproject.Network", "link_changed", 60):
            came.append((time.time_ns(), str(event.fields["iface"])))
            if event.fields["iface"] == "last":
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    sizes = itertools.count(1400)
    wait_for(lambda: net.ip(f"link set a99 mtu {next(sizes)}") == "" and came, seconds=10)
    late: list[float] = []
    for turn in range(CHANGES):
        threading.Event().wait(PAUSE)
        word = ("down", "up")[turn % 2]
        began, pair = time.time_ns(), (f"a{turn // 2}", f"b{turn // 2}")
        net.ip(f"link set {pair[1]} {word}")
        late.append((wait_for(partial(_first, came, pair, began)) - began) / 1e6)
    net.ip("link add last type bridge")
    thread.join(10)
    middle = statistics.median(late)
    tell(
        "an event, from the start of `ip link set`",
        f"{middle:.1f} ms, at most {max(late):.1f}",
        owed=f"{EVENT_MS:g} ms",
        holds=middle <= EVENT_MS,
    )


def _first(came: list[tuple[int, str]], names: tuple[str, ...], began: int) -> int:
    """When the first was told of these links; 0 where none was."""
    return next((when for when, name in came if name in names and when > began), 0)


def rest(pid: int) -> None:
    threading.Event().wait(1.0)
    before = Cost.of(pid)
    threading.Event().wait(IDLE)
    after = Cost.of(pid)
    share = (after.processor - before.processor) / IDLE
    tell("idle, processor", f"{share:.3%} of a core", owed="0.1 %", holds=share <= SHARE)
    size = after.resident
    tell("idle, memory", f"{size:.1f} MB RSS", owed=f"{MEGABYTES:g} MB", holds=size <= MEGABYTES)


def storm(net: Namespace, pid: int) -> None:
    before = Cost.of(pid)
    began = time.monotonic()
    for word in ("add", "delete"):
        net.batch([f"address {word} 10.9.{n >> 8}.{n & 255}/32 dev a0" for n in range(STORM)])
    took = time.monotonic() - began
    threading.Event().wait(1.0)
    after = Cost.of(pid)
    tell(
        f"a storm of {2 * STORM} address changes in {took:.1f} s",
        f"{after.processor - before.processor:.2f} s of processor, {after.own - before.own:+.1f} MB",
    )


def main() -> None:
    program = str(Path(sys.executable).with_name("mh-dbus"))
    with namespace() as net, private_bus() as address, tempfile.TemporaryDirectory() as state:
        options = ("--bus", address, "--state", state)
        with child(net.command(program, *options), stdout=subprocess.PIPE) as process:
            ready_line(process)
            rest(process.pid)
            lay(net)
            with connect(address) as here:
                reading(net, here.proxy(Network), address)
                events(net, here)
            storm(net, process.pid)


if __name__ == "__main__":
    main()
