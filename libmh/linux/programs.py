"""Programs of the machine that are run for one call: with a time limit, and the first of what they print.

They are run as agents of resources are: in a session of their own that is killed when the time has passed,
and nobody waits for what they leave running."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future

from libmh.context import Root
from libmh.guard import SHARED
from libmh.linux import sysfs
from libmh.linux.runner import Command, Ending, Runner

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}
MAX_RUNNING = 32
MAX_OUTPUT = 1 << 16
ENDED_WITHIN = 8.0  # beyond its time: what the kernel does not let go is given up


@functools.cache
def _runner() -> Runner:
    return Runner(MAX_RUNNING)


def find(root: Root, name: str) -> str | None:
    """Where a program is below a root, as seen from it."""
    return next((place for each in DIRECTORIES if sysfs.exists(root, place := f"{each}/{name}")), None)


def run(arguments: Sequence[str], seconds: float, limit: int = MAX_OUTPUT) -> Ending:
    """Run a program and wait for its end: its exit code, 198 when the time passed, 194 when a signal ended
    it, 5 where it is missing, 4 where it may not be run."""
    ended: Future[Ending] = Future()
    _runner().start(Command(tuple(arguments), ENVIRONMENT, seconds, limit=limit), ended.set_result)
    with SHARED.aside():
        return ended.result(seconds + ENDED_WITHIN)


def run_below(root: Root, program: str, arguments: Sequence[str], seconds: float) -> Ending:
    """Run a program of another root in it, so that it finds its own files and changes no others."""
    if str(root.base) == "/":
        return run((program, *arguments), seconds)
    return run(("/usr/sbin/chroot", str(root.base), program, *arguments), seconds)
