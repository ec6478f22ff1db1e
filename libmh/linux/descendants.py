"""Ending a script with all that it started.

A process group is left by whoever makes a session of its own, so every script carries a mark in its
environment, which what it starts inherits. Where it has a systemd scope, the scope's cgroup has them all.
"""

import contextlib
import os
import signal
from collections.abc import Collection
from pathlib import Path

MARK = "MATAHARI_RUN"
CGROUPS = Path("/sys/fs/cgroup")
MAX_ENVIRONMENT = 6 << 20  # the most that execve(2) takes
PASSES = 4  # what starts others while it is looked for is found by the next pass


def kill_group(leader: int) -> None:
    """SIGKILL to a process group that is led by a child of ours which has not been waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended, or is another's
        os.killpg(leader, signal.SIGKILL)


def kill_marked(marks: Collection[str]) -> int:
    """SIGKILL to each process whose environment has one of these marks, and how many there were."""
    wanted = [f"{MARK}={mark}".encode() for mark in marks]
    killed: set[int] = set()
    for _ in range(PASSES):
        pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - names alone
        # one that takes its time to die, with much memory to give back, is met again
        found = {pid for pid in pids if _kill_if_marked(pid, wanted)} - killed
        if not found:
            break
        killed |= found
    return len(killed)


def _kill_if_marked(pid: int, wanted: Collection[bytes]) -> bool:
    try:
        # held before it is looked at: the number may belong to another by then
        handle = os.pidfd_open(pid)
    except OSError:  # it has ended, or is a thread
        return False
    try:
        with Path(f"/proc/{pid}/environ").open("rb", buffering=0) as file:
            environment = file.read(MAX_ENVIRONMENT).split(b"\0")
        if not any(mark in environment for mark in wanted):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:  # it ended meanwhile, or is another user's
        return False
    else:
        return True
    finally:
        os.close(handle)


def kill_scope(pid: int, unit: str) -> None:
    """SIGKILL to everything in the systemd scope that a process is in, when it is in that one."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text("ascii", "replace").splitlines()
        path = next((line[3:] for line in lines if line.startswith("0::") and line.endswith(f"/{unit}")), "")
        if path:
            (CGROUPS / path.lstrip("/") / "cgroup.kill").write_text("1")
    except OSError:  # it has ended, or the kernel has no cgroup.kill: the group and the marks remain
        return
