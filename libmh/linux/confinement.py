"""Whether this process may do what root may: a script that it runs may do no more than itself."""

import os

from libmh.context import Root
from libmh.errors import Problem

STATUS = "/proc/self/status"
NET_ADMIN, SYS_ADMIN, SETUID, CHOWN = 12, 21, 7, 0  # linux/capability.h: what agents use most


def confined(root: Root) -> str:
    """What was taken from a process of root, in words; empty when it has all that scripts need, or is not
    root's at all (proc_pid_status(5): CapBnd, NoNewPrivs, Seccomp)."""
    if os.geteuid() != 0:
        return ""
    try:
        lines = (line.partition(":") for line in root.read(STATUS).splitlines())
    except Problem:
        return ""
    return taken({name: value.strip() for name, _, value in lines})


def taken(status: dict[str, str]) -> str:
    """What the fields of /proc/PID/status say is missing."""
    try:
        bounding = int(status.get("CapBnd", "f" * 16), 16)
    except ValueError:
        bounding = 0
    words = [
        ("capabilities", any(not bounding >> bit & 1 for bit in (NET_ADMIN, SYS_ADMIN, SETUID, CHOWN))),
        ("new privileges", status.get("NoNewPrivs") == "1"),
        ("system calls", status.get("Seccomp") == "2"),
    ]
    return ", ".join(word for word, missing in words if missing)
