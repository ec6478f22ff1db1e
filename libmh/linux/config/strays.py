"""Programs that a dead agent has left running in the middle of a change: ended before anything is restored,
or they would go on changing what was."""

import os
import threading
import time

from libmh.context import Root
from libmh.errors import Problem, Timeout
from libmh.linux.daemons import SYSTEMD, booted, daemon
from libmh.linux.descendants import kill_marked

SIGKILL = 9
GONE_WITHIN = 10.0
STEP = 0.05
MARKS = 64
"""How many programs one run of an agent is looked for under: its runner counts them from 1."""


def end(root: Root, pid: int) -> None:
    """SIGKILL to what the agent with this number has run, as `ownunit` names it; nothing where that agent is
    this process. Raises `timeout` while it does not go."""
    if pid in (0, os.getpid()):
        return
    kill_marked([f"{pid}-{number}" for number in range(1, MARKS)])
    if not booted(root):
        return
    deadline, pause = time.monotonic() + GONE_WITHIN, threading.Event()
    while units := _units(root, pid):
        if time.monotonic() > deadline:
            raise Timeout(f"'{units[0]}' of a dead agent does not end", source=units[0])
        for unit in units:
            _kill(root, unit)
        pause.wait(STEP)


def _units(root: Root, pid: int) -> list[str]:
    patterns = [f"matahari-run-{pid}-*.service"]
    found = daemon(root, SYSTEMD).value(list, "ListUnitsByPatterns", "asas", [], patterns)
    return [unit[0] for unit in found if unit[3] in ("active", "activating", "deactivating", "reloading")]


def _kill(root: Root, unit: str) -> None:
    try:
        daemon(root, SYSTEMD).call("KillUnit", "ssi", unit, "all", SIGKILL)
    except Problem:  # it has ended just now; else it is met again
        return
