"""The console's speaker: a tone that says which machine this is (ioctl_console(2), KDMKTONE)."""

import errno
import fcntl
import os

from libmh.context import Root, unreadable
from libmh.errors import BackendFailed, NotAuthorized, NotImplementedHere, Problem
from libmh.linux import sysfs

CONSOLES = ("/dev/tty0", "/dev/console")
KDMKTONE = 0x4B30
CLOCK = 1_193_180  # Hz of the timer that the period is counted in
TONE = 440
MILLISECONDS = 1000


def beep(root: Root) -> None:
    """One second of 440 Hz; returns while it still sounds. `not-implemented` where there is no console."""
    refused: Problem = NotImplementedHere("this host has no console", source=CONSOLES[0])
    for name in CONSOLES:
        if sysfs.exists(root, name):
            try:
                _tone(root, name)
                return
            except Problem as problem:  # the other one may still be a real console
                refused = problem
    raise refused


def _tone(root: Root, name: str) -> None:
    try:
        # neither wait for a carrier nor become the terminal that signals us
        handle = os.open(root.path(name), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(name, error) from error
    try:
        fcntl.ioctl(handle, KDMKTONE, MILLISECONDS << 16 | CLOCK // TONE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENODEV, errno.EIO):  # a serial line, a pipe
            raise NotImplementedHere(f"'{name}' is no console with a speaker", source=name) from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise NotAuthorized(f"'{name}' may not be used by this process", source=name) from error
        raise BackendFailed(f"'{name}' gives no tone: {error.strerror}", source=name) from error
    finally:
        os.close(handle)
