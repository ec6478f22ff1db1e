"""Programs that change a host on somebody's behalf, run as if the agent had not started them.

Where systemd runs, a program is a transient service: it does not have the agent's sandbox, of which it would
inherit the forbidden addresses and the missing capabilities; and when it ends, or its time has passed,
systemd kills all that it started, even if the agent is dead by then. Elsewhere it is a child in a session of
its own, which the runner kills with all that it started when its time has passed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from libmh.caller import stoppable
from libmh.context import Root
from libmh.errors import BackendFailed, Failed, NotImplementedHere, Problem, Timeout
from libmh.guard import PATIENT
from libmh.linux import sysfs
from libmh.linux.daemons import SYSTEMD, booted, daemon
from libmh.linux.programs import DIRECTORIES, PATH
from libmh.linux.runner import Command, Ending, Runner

SYSTEMD_RUN = "/usr/bin/systemd-run"
MAX_RUNNING = 8
MAX_OUTPUT = 1 << 20
ENDED_WITHIN = 8.0  # beyond its time: what the kernel does not let go is given up
GRACE = 2  # seconds that systemd gives it beyond ours, for when nobody is left to kill it
SIGKILL = 9
PREFIX = "run-"
LONGEST = 7200.0
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}


def find(root: Root, name: str, package: str) -> str:
    """Where a program is; `not-implemented` names the package that brings it."""
    for directory in DIRECTORIES:
        if sysfs.exists(root, place := f"{directory}/{name}"):
            return str(root.path(place))
    raise NotImplementedHere(
        f"'{name}' is not installed here; apt-get install {package} brings it", package=package
    )


def run(
    root: Root,
    arguments: tuple[str, ...],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    *,
    limit: int = MAX_OUTPUT,
    properties: Sequence[str] = (),
) -> Ending:
    """Run it and wait for its end; of each stream the first `limit` bytes are kept. `properties` are of its
    unit (systemd.exec(5)), where it has one. Raises `timeout` when its time has passed, and
    `failed` when it was cancelled: it is killed then, with all that it started."""
    everything = {**ENVIRONMENT, **(environment or {})}
    unit = _unit(root)
    command = _as_service(unit, arguments, seconds, everything, properties) if unit else arguments
    ending, stopped = _run(Command(command, everything, seconds, limit=limit))
    if ending.seconds < seconds and not stopped:
        return ending
    if unit:
        with suppress(Problem):  # it has ended just now
            daemon(root, SYSTEMD).call("KillUnit", "ssi", unit, "all", SIGKILL)
    if stopped:
        raise Failed(f"'{arguments[0]}' was cancelled, and was killed", source=arguments[0])
    raise Timeout(f"'{arguments[0]}' did not end within {seconds:g} s, and was killed", source=arguments[0])


@contextmanager
def private(state: Path | None) -> Iterator[Path]:
    """A directory that nobody else may look into, below `state` or where temporary ones are; gone with the
    block. Raises `backend-failed` when the disk refuses."""
    if state is not None:
        _sweep(state)
    try:
        if state is not None:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=state))
    except OSError as error:
        raise BackendFailed(f"cannot make a directory for a run: {error.strerror}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def put(directory: Path, name: str, text: str) -> str:
    """A file of such a directory with this text: its name. Raises `backend-failed`."""
    path = directory / name
    try:
        path.write_text(text, "utf-8", "surrogateescape")
    except OSError as error:
        raise BackendFailed(f"cannot write '{path}': {error.strerror}") from error
    return str(path)


def printed(ending: Ending) -> str:
    """What it printed, its complaints last."""
    return (ending.stdout + ending.stderr).decode("utf-8", "replace")


def _sweep(state: Path) -> None:
    """Remove what runs left behind that were killed: none takes so long."""
    with suppress(OSError):  # another process is about the same
        for left in state.glob(f"{PREFIX}*"):
            if left.stat().st_mtime < time.time() - LONGEST:
                shutil.rmtree(left, ignore_errors=True)


def _run(command: Command) -> tuple[Ending, bool]:
    """How it ended, and whether that was because it was cancelled."""
    runner = Runner(MAX_RUNNING)
    ended: Future[Ending] = Future()
    run = runner.start(command, ended.set_result)
    try:
        with PATIENT.aside(), stoppable(lambda: runner.stop(run)) as stop:
            ending = ended.result(command.seconds + ENDED_WITHIN)
            return ending, stop.pulled
    finally:
        runner.close()


def _unit(root: Root) -> str:
    """The name of a new unit; empty where it is not for us to make one."""
    if os.geteuid() != 0 or not booted(root) or not os.access(SYSTEMD_RUN, os.X_OK):
        return ""
    return f"matahari-run-{os.getpid()}-{time.monotonic_ns()}.service"


def _as_service(
    unit: str,
    arguments: tuple[str, ...],
    seconds: float,
    environment: Mapping[str, str],
    properties: Sequence[str],
) -> tuple[str, ...]:
    options = (
        *("--quiet", "--pipe", "--wait", "--collect", "--service-type=exec", f"--unit={unit}"),
        "--description=what a matahari agent was asked to run",  # else its arguments, in every journal
        *(f"--property=RuntimeMaxSec={seconds + GRACE:.3f}", "--property=TimeoutStopSec=1"),
        *("--property=KillMode=control-group", "--property=WorkingDirectory=/", "--property=UMask=0022"),
        *(f"--property={each}" for each in properties),
        *(f"--setenv={name}={value}" for name, value in environment.items()),
    )
    return (SYSTEMD_RUN, *options, "--", *arguments)
