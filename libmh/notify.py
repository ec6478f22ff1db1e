"""sd_notify(3): telling a service manager how this process does. By hand: it is one datagram, and the
libraries that do it link libsystemd or bring more code than this."""

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1`, `STATUS=...`, `STOPPING=1` or `WATCHDOG=1`; False when no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(0)
            channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError:
        return False  # the manager is restarting, or its queue is full: it is told again next time
    return True


def watchdog_seconds() -> float | None:
    """How often the service manager wants a sign of life, or None."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
