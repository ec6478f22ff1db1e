"""500 operations that recur every second: what they cost beyond the scripts themselves.

Run by `python tests/bench/bench_resources.py [OPERATIONS [SECONDS]]`. The agent is `#!/bin/sh` and `exit 0`.
Printed: runs a second, processor time of this process and of the scripts as a share of one core (aim for
this process: 10 % or less), processor time of one run, the same for a bare posix_spawn(3) and waitpid(2) of
that script, memory before and after; and milliseconds from the end of a script whose code has changed to
the event, at a subscriber on D-Bus.
"""

import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents import Machine, machine, put
from dbus_serving import serving
from libmh.api.resources import Resources
from libmh.client import connect
from libmh.context import Context, Root, Settings
from libmh.events import Event
from libmh.linux.resources import LinuxResources
from libmh.spec import interface_of
from testbed.bus import private_bus

INTERVAL = 1000
BARE = 500
CHANGES = 15
QUIET = 0.3  # events of one operation are at least 200 ms apart
SWITCHED = "read code <{place}/code; date +%s%N >{place}/at; exit $code"


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time in seconds so far: this process, and its children that have ended."""

    own: float
    children: float
    wall: float

    @classmethod
    def now(cls) -> "Spent":
        times = os.times()
        return cls(time.process_time(), times.children_user + times.children_system, time.monotonic())


def runs(here: Machine) -> int:
    """The number of the last run."""
    return max(each.sequence for each in here.resources.operations())


def resident() -> int:
    """Memory of this process in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def bare(script: Path) -> float:
    """Microseconds of our own for starting the script and waiting for it, and nothing else."""
    began = time.process_time()
    for _ in range(BARE):
        os.waitpid(os.posix_spawn(script, [str(script), "monitor"], {}, setsid=True), 0)
    return (time.process_time() - began) / BARE * 1e6


def measure(here: Machine, count: int, seconds: float) -> None:
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda n: here.recur("Agent", INTERVAL, name=f"r{n}"), range(count)))
    memory, first, before = resident(), runs(here), Spent.now()
    threading.Event().wait(seconds)
    after, last = Spent.now(), runs(here)
    wall, done = after.wall - before.wall, last - first
    own, scripts = after.own - before.own, after.children - before.children
    print(f"{done / wall:.0f} runs a second of {count} operations at {INTERVAL} ms")
    print(f"this process {own / wall:.1%} of a core, the scripts {scripts / wall:.1%}")
    print(f"one run {own / done * 1e6:.0f} us, memory {memory} -> {resident()} KiB")


def switched(place: Path) -> type[LinuxResources]:
    """Resources of that root, to be served."""

    class Switched(LinuxResources):
        def __init__(self, context: Context) -> None:
            super().__init__(Context(Root(place), Settings(), context.events))

    return Switched


def latency(place: Path) -> None:
    """Change what an agent answers, again and again, while it is run every 50 ms."""
    put(place, "Switched", SWITCHED.format(place=place))
    code, late = place / "code", []
    code.write_text("7\n")
    with private_bus() as address, serving(address, switched(place)), connect(address) as there:
        there.proxy(Resources).invoke("r", "ocf", "test", "Switched", "monitor", 50, {})
        events = there.events(interface_of(Resources).name, "resource_op", 10)
        next(events)
        for _ in range(CHANGES):
            _until(events, code, 0)
            threading.Event().wait(QUIET)
            came = _until(events, code, 7)
            late.append((came - int((place / "at").read_text())) / 1e6)
        there.proxy(Resources).cancel("r", "monitor", 50, 0)
    print(
        f"a changed code is told in {statistics.median(late):.1f} ms at the median, at most {max(late):.1f}"
    )


def _until(events: Iterator[Event], code: Path, rc: int) -> int:
    """When its event came, nanoseconds since the epoch."""
    code.write_text(f"{rc}\n")
    while next(events).fields["rc"] != rc:
        pass
    return time.time_ns()


def main(count: int = 500, seconds: float = 20.0) -> None:
    with tempfile.TemporaryDirectory() as name, machine(Path(name), Path(name) / "state") as here:
        script = put(Path(name), "Agent", "exit 0")
        measure(here, count, seconds)
        print(f"bare posix_spawn and waitpid {bare(script):.0f} us")
    with tempfile.TemporaryDirectory() as name:
        latency(Path(name))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
