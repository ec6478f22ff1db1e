"""What a test needs from its machine. What is missing skips the test and says what would bring it.

`conftest.py` fails the run on a skip whose reason does not start with `needs `, and, under CI=true, on every
skip that an installation could have avoided.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALLABLE = "apt-get install "


def root(why: str) -> None:
    """Skip unless the tests run as root; `why` says what the privilege is for."""
    if os.geteuid() != 0:
        missing(f"root to {why}")


def command(name: str, package: str) -> str:
    """The path of a system command, or skip, naming the Debian package that has it."""
    found = shutil.which(name, path=SYSTEM_PATH)
    return found or missing(f"{name} ({INSTALLABLE}{package})")


def file(path: str, package: str = "") -> Path:
    """A file or device of the machine, or skip; without a package it is something only a kernel can give."""
    wanted = Path(path)
    if not wanted.exists():
        missing(f"{path} ({INSTALLABLE}{package})" if package else path)
    return wanted


def fault(reason: str, *, unattended: bool) -> str:
    """What is wrong with skipping for this reason: "" when nothing is."""
    if not reason.startswith("needs "):
        return "a reason starts with `needs ` and names what is missing"
    if unattended and INSTALLABLE in reason:
        return "it can be installed, so an unattended run must have it"
    return ""


def missing(what: str) -> NoReturn:
    """Skip for want of something that no installation brings, or in words of one's own."""
    pytest.skip(f"needs {what}", allow_module_level=True)
