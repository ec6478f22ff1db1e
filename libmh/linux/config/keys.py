"""The key store of configuration runs: a file for each key, its content the status text."""

import contextlib
import os
import re
import stat

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere

KEYS = "/var/lib/matahari/sysconfig-keys"
KEY = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,254}")
UNKNOWN = "unknown"
MAX_STATUS = 65_535
SHOWN = 100
KEPT, DIRECTORY = 0o640, 0o755


def status(root: Root, key: str) -> str:
    """What was kept under a key; `unknown` for one that is not kept or not valid. Raises `not-authorized`
    when the file may not be read, `backend-failed` when the disk refuses."""
    if not KEY.fullmatch(key):
        return UNKNOWN
    try:
        return root.read(f"{KEYS}/{key}", MAX_STATUS).replace("\0", "") or UNKNOWN
    except NotImplementedHere:  # there is no such file
        return UNKNOWN


def check(key: str) -> None:
    """`invalid-arguments` for what is no key."""
    if not KEY.fullmatch(key):
        raise InvalidArguments(
            f"key: expected letters, digits, '_', '-' and '.', not starting with '.', got '{key[:SHOWN]}'",
            argument="key",
        )


def is_kept(root: Root, key: str) -> bool:
    """Whether a key has a status, be it an empty one."""
    return os.path.lexists(root.path(f"{KEYS}/{key}"))


def keep(root: Root, key: str, text: str) -> None:
    """Write a status whole or not at all; a torn one would be an answer for ever. `backend-failed`."""
    beside = f".{key[:200]}.new"
    try:
        with contextlib.ExitStack() as stack:
            directory = _directory(root, stack)
            with contextlib.suppress(FileNotFoundError):  # by a process that was killed
                os.unlink(beside, dir_fd=directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(beside, flags, KEPT, dir_fd=directory), "wb") as file:
                file.write(_fitting(text))
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, key, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
    except OSError as error:
        raise _refused(key, error) from error


def forget(root: Root, key: str) -> None:
    """Let a key have no status again."""
    try:
        with contextlib.ExitStack() as stack:
            os.unlink(key, dir_fd=_directory(root, stack))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(key, error) from error


def _directory(root: Root, stack: contextlib.ExitStack) -> int:
    """It stands in a directory that others may write in: one that is somebody else's is not written in."""
    path = root.path(KEYS)
    path.mkdir(mode=DIRECTORY, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    if os.fstat(handle).st_uid not in (0, os.geteuid()) or stat.S_IMODE(os.fstat(handle).st_mode) & 0o002:
        raise PermissionError(13, "the directory is not the agent's own")
    return handle


def _fitting(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:MAX_STATUS].decode("utf-8", "ignore").encode()


def _refused(key: str, error: OSError) -> BackendFailed:
    return BackendFailed(f"the status of '{key}' cannot be kept in '{KEYS}': {error.strerror}")
