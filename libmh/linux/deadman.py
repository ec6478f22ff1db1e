"""A program that runs at a time unless it is disarmed before, whatever becomes of the agent meanwhile.

Where systemd runs it is a transient timer with a service of its own (systemd.timer(5)), else a process in a
session of its own that sleeps. Both count time that no change of the clock touches; neither outlives a
restart of the host.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments
from libmh.linux.daemons import SYSTEMD, Daemon, booted, daemon
from libmh.linux.descendants import MARK, kill_marked
from libmh.linux.init.actions import NO_SUCH_UNIT

NAME = re.compile(r"[0-9A-Za-z_.-]{1,100}")
MICROSECOND = 1e-6
ACCURACY = 0.1
SHELL = "/bin/sh"
SLEEPER = '(sleep "$0" && exec "$@") &'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arm(root: Root, name: str, seconds: float, arguments: Sequence[str]) -> None:
    """Run a program in so many seconds. `name` is for `disarm`: letters, digits, `_`, `.` and `-`. Raises
    `backend-failed`, `unavailable` or `timeout`, and nothing is armed then."""
    unit = _unit(name)
    if booted(root):
        _by_systemd(daemon(root, SYSTEMD), unit, seconds, arguments)
    else:
        _by_a_process(unit, seconds, arguments)


def disarm(root: Root, name: str) -> None:
    """Run it no more; one that runs already goes on, one that is not there is no error."""
    unit = _unit(name)
    if not booted(root):
        kill_marked([unit])
        return
    try:
        daemon(root, SYSTEMD).call("StopUnit", "ss", f"{unit}.timer", "replace")
    except BackendFailed as problem:
        if not str(problem.details.get("dbus_error", "")).endswith(NO_SUCH_UNIT):  # else it has elapsed
            raise


def _unit(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InvalidArguments(f"'{name[:100]}' is no name for what is armed", argument="name")
    return f"matahari-{name}"


def _by_systemd(systemd: Daemon, unit: str, seconds: float, arguments: Sequence[str]) -> None:
    from libmh.bus import variant

    timer = [
        ["Description", variant("s", f"{unit}: runs unless it is disarmed")],
        ["TimersMonotonic", variant("a(st)", [["OnActiveSec", round(seconds / MICROSECOND)]])],
        ["AccuracyUSec", variant("t", round(ACCURACY / MICROSECOND))],
        ["RemainAfterElapse", variant("b", False)],  # noqa: FBT003 - a value of the bus
    ]
    service = [
        ["Description", variant("s", f"{unit}: nobody disarmed it")],
        ["Type", variant("s", "oneshot")],
        ["ExecStart", variant("a(sasb)", [[arguments[0], list(arguments), False]])],
        ["CollectMode", variant("s", "inactive-or-failed")],
    ]
    systemd.call(
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        f"{unit}.timer",
        "fail",
        timer,
        [[f"{unit}.service", service]],
    )


def _by_a_process(unit: str, seconds: float, arguments: Sequence[str]) -> None:
    """The shell ends at once, and what it leaves behind is no child of ours."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            SHELL,
            (SHELL, "-c", SLEEPER, f"{seconds:.3f}", *arguments),
            {"PATH": PATH, MARK: unit},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, standard) for standard in (0, 1, 2)],
            setsid=True,
            setsigmask=(),
        )
    except OSError as error:
        raise BackendFailed(f"cannot run '{Path(SHELL)}': {error.strerror}", source=SHELL) from error
    finally:
        os.close(null)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise BackendFailed(f"'{SHELL}' ended with {code}", source=SHELL)
