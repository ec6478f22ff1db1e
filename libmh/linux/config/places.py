"""Where a file of the host really is: symbolic links followed below the root and never out of it.

What is opened is opened one directory after the other without following any link (openat(2), O_NOFOLLOW), so
that nobody who may write in one of them can lead a run elsewhere between a look and a write.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from libmh.context import Root, unreadable
from libmh.errors import BackendFailed, InvalidArguments
from libmh.linux.config.confstore import digest

MAX_PATH = 4096
MAX_LINKS = 40
MAX_FILE = 16 << 20
CHUNK = 1 << 20
SHOWN = 200
KERNEL = ("/proc", "/sys", "/dev")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Place:
    """A file by its directory, in which no link is left, and its name there."""

    directory: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.directory.rstrip('/')}/{self.name}"


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was read. `identity`: device, inode, size, time of change; None where there is none."""

    content: bytes | None = None
    identity: tuple[int, int, int, int] | None = None
    links: int = 0

    @property
    def digest(self) -> str | None:
        return None if self.content is None else digest(self.content)


def locate(root: Root, path: str, forbidden: str = "") -> Place:
    """The place that an absolute name leads to; its directory may not be there yet. `invalid-arguments` for
    what leads upwards, into /proc, /sys or /dev, or below `forbidden`."""
    check(path)
    done: list[str] = []
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        target = _link(root, "/".join(("", *done, part)))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise InvalidArguments(f"'{path[:SHOWN]}' leads through too many links", argument="path")
        if target.startswith("/"):
            done = []
        todo += [each for each in target.split("/") if each not in ("", ".")][::-1]
    real = "/" + "/".join(done)
    refuse(real, path, forbidden)
    return Place("/" + "/".join(done[:-1]), done[-1])


def check(path: str) -> None:
    """Refuse a name that is none: relative, upwards, too long, with NUL."""
    named = path.startswith("/") and not path.endswith("/") and len(path) <= MAX_PATH and "\0" not in path
    if not named or ".." in path.split("/"):
        raise InvalidArguments(
            f"'{path[:SHOWN]}' is no absolute name of a file: expected no '..'", argument="path"
        )


def refuse(real: str, path: str, forbidden: str) -> None:
    """Refuse where no configuration file is."""
    for place in (*KERNEL, forbidden):
        if place and (real == place or real.startswith(place.rstrip("/") + "/")):
            raise InvalidArguments(
                f"'{path[:SHOWN]}' is below '{place}', where nothing is written", argument="path"
            )
    if real == "/":
        raise InvalidArguments("'/' is no file", argument="path")


def _link(root: Root, path: str) -> str | None:
    try:
        return str(root.path(path).readlink())
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):  # it is none
            return None
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidArguments(f"'{path[:SHOWN]}' has too long a name", argument="path") from error
        raise unreadable(path, error) from error


@contextlib.contextmanager
def opened(root: Root, directory: str) -> Iterator[int]:
    """A directory without a link in its name. OSError where it is not there, or is a link by now."""
    handle = os.open(root.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in directory.strip("/").split("/"):
            if part:
                inner = os.open(part, DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = inner
        yield handle
    finally:
        os.close(handle)


def missing_directories(root: Root, directory: str) -> list[str]:
    """Those that would have to be made, the outermost first."""
    missing: list[str] = []
    parts = directory.strip("/").split("/") if directory.strip("/") else []
    for count in range(1, len(parts) + 1):
        name = "/" + "/".join(parts[:count])
        if missing or not os.path.lexists(root.path(name)):
            missing.append(name)
    return missing


def look(root: Root, place: Place) -> Found:
    """What is at a place now. `invalid-arguments` for what is no plain file, `backend-failed` for what is
    too large; nothing but a plain file is ever opened."""
    try:
        with opened(root, place.directory) as directory:
            return look_in(directory, place)
    except FileNotFoundError:
        return Found()
    except OSError as error:
        raise unreadable(place.path, error) from error


def look_in(directory: int, place: Place) -> Found:
    """`look` in a directory that is open. Raises OSError, too."""
    try:
        _plain(os.stat(place.name, dir_fd=directory, follow_symlinks=False), place)
        handle = os.open(place.name, REGULAR, dir_fd=directory)
    except FileNotFoundError:
        return Found()
    try:
        status = os.fstat(handle)
        _plain(status, place)
        content = _read(handle)
    finally:
        os.close(handle)
    if len(content) > MAX_FILE:
        raise BackendFailed(f"'{place.path}' is larger than {MAX_FILE >> 20} MiB", source=place.path)
    return Found(content, identity(status), status.st_nlink)


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _plain(status: os.stat_result, place: Place) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArguments(f"'{place.path}' is no plain file", argument="path")


def _read(handle: int) -> bytes:
    parts, size = [], 0
    while size <= MAX_FILE and (part := os.read(handle, CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
