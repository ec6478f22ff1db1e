"""Processes by state, from /proc/PID/stat (proc_pid_stat(5))."""

import os

from libmh.context import Root, unreadable
from libmh.linux.sysfs import MAX_CHILDREN

# the ancestor's words: its `idle` is a process in uninterruptible sleep
STATES = {"R": "running", "S": "sleeping", "T": "stopped", "Z": "zombie", "D": "idle"}
ENOUGH = 512  # of a line: the name has at most 64 bytes


def statistics(root: Root) -> dict[str, int]:
    """Counts under `total` and the words of STATES; other states count in `total` alone. `not-implemented`
    without /proc."""
    counts = dict.fromkeys(("total", *STATES.values()), 0)
    proc = str(root.path("/proc"))
    try:
        names = [name for name in os.listdir(proc) if name.isdecimal()]  # noqa: PTH208 - read every few seconds
    except OSError as error:
        raise unreadable("/proc", error) from error
    for name in names[:MAX_CHILDREN]:
        state = _state(f"{proc}/{name}/stat")
        if state:
            counts["total"] += 1
            word = STATES.get(state)
            if word:
                counts[word] += 1
    return counts


def _state(path: str) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it ended meanwhile, or is hidden
        return ""
    try:
        return parse_state(os.read(handle, ENOUGH))
    except ProcessLookupError:  # it ended between open and read
        return ""
    finally:
        os.close(handle)


def parse_state(stat: bytes) -> str:
    """The state letter: `7 (a (b) c) S 1 ...`: the name may hold anything, so it ends at the last
    parenthesis."""
    fields = stat[stat.rfind(b")") + 1 :].split(None, 1)
    return fields[0].decode("ascii", "replace") if fields and b")" in stat else ""
