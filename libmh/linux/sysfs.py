"""Small files of the kernel's own filesystems: one value in each. What is missing or unreadable is None."""

import itertools
import os

from libmh.context import Root
from libmh.errors import Problem

MAX_VALUE = 4096  # a sysfs file is at most a page
MAX_CPUS = 65_536
MAX_CHILDREN = 65_536


def text(root: Root, name: str) -> str | None:
    """What a file holds, stripped of blanks and of the NUL that ends a device tree's strings."""
    try:
        return root.read(name, MAX_VALUE).replace("\0", " ").strip() or None
    except Problem:
        return None


def number(root: Root, name: str) -> int | None:
    """What a file holds as a decimal number; None where it is none."""
    found = text(root, name)
    try:
        return int(found) if found and len(found) < 32 else None
    except ValueError:  # 'unknown', '<unavailable>'
        return None


def positive(root: Root, name: str) -> int | None:
    """A number that counts only above zero: the kernel says -1 or 0 for what it does not know."""
    found = number(root, name)
    return found if found and found > 0 else None


def children(root: Root, name: str) -> list[str]:
    """Names of the directories in a directory, links to directories included, sorted."""
    try:
        with os.scandir(root.path(name)) as entries:
            found = itertools.islice(entries, MAX_CHILDREN)
            # a name that is no text could be neither told nor asked for
            return sorted(entry.name for entry in found if entry.name.isprintable() and entry.is_dir())
    except OSError:
        return []


def link(root: Root, name: str) -> str | None:
    """The last element of what a symbolic link points to."""
    try:
        return root.path(name).readlink().name or None
    except OSError:
        return None


def exists(root: Root, name: str) -> bool:
    try:
        return root.path(name).exists()
    except OSError:
        return False


def parse_cpu_list(listed: str) -> list[int]:
    """The numbers of a kernel list: `0-3,8` is 0 1 2 3 8. What is no list is empty."""
    found: list[int] = []
    for part in listed.strip().split(","):
        low, _, high = part.partition("-")
        if not (low.isdecimal() and low.isascii() and len(low) < 9):
            continue
        last = int(high) if high.isdecimal() and high.isascii() and len(high) < 9 else int(low)
        found.extend(range(int(low), min(last + 1, int(low) + MAX_CPUS - len(found))))
    return found
