"""The agents at rest: memory and processor over two minutes with heartbeats on; memory after 100,000 calls.

.venv/bin/python tests/bench/bench_idle.py [SECONDS [CALLS]]
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from libmh.api.host import Host
from libmh.call import Request, Verb
from libmh.client import Connection, connect
from libmh.spec import interface_of

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import Cost, tell
from processes import Agent, agent
from testbed.bus import private_bus

MEGABYTES = 45.0
SHARE = 0.001
GROWTH = 2.0
WARM = 20_000
HOST = interface_of(Host).name


@contextmanager
def dbus(state: str) -> Iterator[tuple[Agent, Callable[[], Connection]]]:
    with private_bus() as address, agent("mh-dbus", "--bus", address, "--state", state) as started:
        yield started, lambda: connect(address)


@contextmanager
def amqp(state: str) -> Iterator[tuple[Agent, Callable[[], Connection]]]:
    with (
        agent("mh-broker", "--listen", "127.0.0.1:0", "--state", state) as broker,
        agent("mh-amqp", "--broker", broker.url, "--state", state) as started,
    ):
        uuid = started.ready.split(" host ")[1].split()[0]
        yield started, lambda: connect(f"{broker.url}/{uuid}")


def rest(name: str, pid: int, seconds: float) -> None:
    """Let it be, after it has settled."""
    threading.Event().wait(min(10.0, seconds))
    before = Cost.of(pid)
    threading.Event().wait(seconds)
    after = Cost.of(pid)
    share = (after.processor - before.processor) / seconds
    tell(
        f"{name} idle, memory",
        f"{after.resident:.1f} MB RSS",
        beside=f"{after.own:.1f} MB its own",
        owed="45 MB",
        holds=after.resident <= MEGABYTES,
    )
    tell(
        f"{name} idle, processor",
        f"{share:.3%} of a core over {seconds:.0f} s",
        owed="0.1 %",
        holds=share <= SHARE,
    )


def work(connection: Connection, calls: int) -> None:
    for number in range(calls):
        verb = Verb.GET_ALL if number % 4 else Verb.GET
        connection.request(Request(HOST, "" if number % 4 else "hostname", verb))


def wear(name: str, pid: int, connection: Connection, calls: int) -> None:
    """Memory before and after many calls; the first of them fill what is held: answers, for one."""
    work(connection, WARM)
    before = Cost.of(pid)
    work(connection, calls)
    after = Cost.of(pid)
    grown = after.own - before.own
    tell(
        f"{name} after {calls} calls",
        f"{grown:+.2f} MB",
        beside=f"{after.resident:.1f} MB RSS",
        owed="flat",
        holds=grown <= GROWTH,
    )


def main(seconds: float = 120.0, calls: float = 100_000) -> None:
    for name, serving in (("mh-dbus", dbus), ("mh-amqp", amqp)):
        with tempfile.TemporaryDirectory() as state, serving(state) as (started, reach):
            rest(name, started.process.pid, seconds)
            with reach() as connection:
                wear(name, started.process.pid, connection, int(calls))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:3]))
