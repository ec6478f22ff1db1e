"""Reading this host: in process, and by a cold `mhctl` beside a cold `facter` (apt-get install facter).

.venv/bin/python tests/bench/bench_host.py [RUNS]
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from libmh.call import Bound, Request, Verb
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.linux.host import LinuxHost
from libmh.spec import interface_of
from libmh.testing import conforming

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import command, median, side_by_side, tell

SNAPSHOT_SECONDS = 0.010
START_SECONDS = 0.150
RATIO = 0.35


def in_process(runs: int) -> None:
    """Every property of a provider, read again; and through a dispatcher that may answer from memory."""
    host = LinuxHost(Context())
    seconds = median(lambda: conforming(host), runs * 10)
    holds = seconds <= SNAPSHOT_SECONDS
    tell("warm Host snapshot", f"{seconds * 1e3:.2f} ms", owed="10 ms", holds=holds)
    interface = interface_of(LinuxHost)
    dispatcher = Dispatcher({interface.name: Bound(interface, host)}, Context())
    request = Request(interface.name, verb=Verb.GET_ALL)
    with asyncio.Runner() as runner:
        seconds = median(lambda: runner.run(dispatcher.call(request)), runs * 10)
    tell("GET_ALL through dispatch", f"{seconds * 1e3:.2f} ms")


def cold(runs: int, mhctl: Callable[..., Callable[[], object]]) -> None:
    """Programs from their start to their end."""
    facter = shutil.which("facter")
    show = mhctl("--json", "host", "show")
    if facter is None:
        tell("mhctl --json host show, cold", f"{median(show, runs) * 1e3:.0f} ms", beside="no facter here")
    else:
        ours, theirs = side_by_side([show, command(facter)], runs)
        ratio = ours / theirs
        tell(
            "mhctl --json host show, cold",
            f"{ours * 1e3:.0f} ms",
            beside=f"facter {theirs * 1e3:.0f} ms, ratio {ratio:.2f}",
            owed=f"{RATIO}",
            holds=ratio <= RATIO,
        )
    bare, version, show_help = side_by_side(
        [command(sys.executable, "-c", "pass"), mhctl("--version"), mhctl("--help")], runs
    )
    python = f"python alone {bare * 1e3:.0f} ms"
    tell("mhctl --version", f"{version * 1e3:.0f} ms", beside=python)
    tell(
        "mhctl --help",
        f"{show_help * 1e3:.0f} ms",
        beside=python,
        owed="150 ms",
        holds=show_help <= START_SECONDS,
    )


def main(runs: int = 15) -> None:
    in_process(runs)
    program = str(Path(sys.executable).with_name("mhctl"))
    with tempfile.TemporaryDirectory() as state:
        cold(runs, lambda *words: command(program, *words, env={"STATE_DIRECTORY": state}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
