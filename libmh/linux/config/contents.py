"""What a file of configuration has in it, and which file it is when its name is a link."""

import errno
import os
import stat

from libmh.context import Root, unreadable
from libmh.errors import BackendFailed, Problem

MAX_SIZE = 16 << 20
MAX_LINKS = 40
ABSENT = (errno.ENOENT, errno.ENOTDIR)
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def resolve(root: Root, path: str) -> str:
    """The file that an absolute name leads to, as seen from the root: no link of it leads out of there. It
    need not exist. Raises `backend-failed` for links that lead round in circles."""
    done: list[str] = []
    left = path.split("/")[::-1]
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            try:
                target = str(root.path("/".join([*done, part])).readlink())
            except OSError:  # it is no link
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise BackendFailed(f"the links of '{path}' lead round in circles", source=path)
            done = [] if target.startswith("/") else done
            left += target.split("/")[::-1]
    return "/" + "/".join(done)


def read(root: Root, path: str) -> bytes | None:
    """What is in a regular file of at most 16 MiB, whose name is resolved; None where there is none. Raises
    `not-authorized` and `backend-failed`."""
    try:
        file = os.open(root.path(path), FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise unreadable(path, error) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE:
            raise BackendFailed(f"'{path}' is no regular file of at most {MAX_SIZE >> 20} MiB", source=path)
        return _all(file)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(file)


def glimpse(root: Root, path: str) -> bytes | None:
    """As `read`; None, too, for what is no file that can be read."""
    try:
        return read(root, path)
    except Problem:  # whoever looks after it can do more than we
        return None


def is_file(root: Root, path: str) -> bool:
    """Whether there is a regular file; what cannot be looked at is none."""
    try:
        return stat.S_ISREG(root.path(path).stat().st_mode)
    except (OSError, ValueError):  # the latter: no file system takes such a name
        return False


def is_directory(root: Root, path: str) -> bool:
    """Whether there is a directory; what cannot be looked at is none."""
    try:
        return stat.S_ISDIR(root.path(path).stat().st_mode)
    except (OSError, ValueError):  # the latter: no file system takes such a name
        return False


def _all(file: int) -> bytes:
    content = bytearray()
    while len(content) <= MAX_SIZE and (part := os.read(file, 1 << 20)):
        content += part
    return bytes(content)
