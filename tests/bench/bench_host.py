"""Reading this host: in process, and by a cold `mhctl` beside a cold `facter` (apt-get install facter).

`mhctl` is measured as a wheel installs it, and as this checkout does: the hook of an editable installation
is part of every start.

.venv/bin/python tests/bench/bench_host.py [RUNS]
"""

import asyncio
import shutil
import subprocess
import sys
import sysconfig
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

Program = Callable[..., Callable[[], object]]
ROOT = Path(__file__).resolve().parents[2]
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


def cold(name: str, runs: int, mhctl: Program, python: Program) -> None:
    """Programs from their start to their end."""
    show = mhctl("host", "show", "--json")
    facter = shutil.which("facter")
    ours, start, bare, *theirs = side_by_side(
        [show, mhctl("host", "--help"), python("-c", "pass"), *([command(facter)] if facter else [])], runs
    )
    alone = f"python alone {bare * 1e3:.0f} ms"
    started = f"{start * 1e3:.0f} ms"
    tell(f"mhctl host --help, {name}", started, beside=alone, owed="150 ms", holds=start <= START_SECONDS)
    beside = "no facter here"
    ratio = 0.0
    for seconds in theirs:
        ratio = ours / seconds
        beside = f"facter {seconds * 1e3:.0f} ms, ratio {ratio:.2f}"
    what = f"mhctl host show --json, {name}"
    tell(what, f"{ours * 1e3:.0f} ms", beside=beside, owed=f"{RATIO}", holds=ratio <= RATIO)


def installed(target: Path) -> dict[str, str]:
    """A wheel's installation, as the environment that leads to it."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = (target / "dist").glob("*.whl")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True, timeout=120)
    others = sysconfig.get_path("purelib")  # on the path alone, its .pth files are not read
    return {"PYTHONPATH": f"{target}:{others}"}


def main(runs: int = 15) -> None:
    in_process(runs)
    with tempfile.TemporaryDirectory() as directory:
        state = {"STATE_DIRECTORY": directory}
        python = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]  # of CPython
        wheel = installed(Path(directory)) | state
        main_ = "from libmh.cli.main import main; main()"
        cold(
            "from a wheel",
            runs,
            lambda *words: command(python, "-c", main_, *words, env=wheel),
            lambda *words: command(python, *words, env=wheel),
        )
        program = str(Path(sys.executable).with_name("mhctl"))
        cold(
            "in this checkout",
            runs,
            lambda *words: command(program, *words, env=state),
            lambda *words: command(sys.executable, *words),
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
