"""Writing files whole or not at all: new ones beside the old, then one commit, then the names change hands.

For each file `stage` leaves two names beside it: `.new`, what it becomes, with the owner, mode, ACL and
labels of what it is, and `.old`, a second link to what it is. `switch` renames, `revert` takes that back
from `.old`, `clean` removes what is left. Each of these may be repeated after it was cut off anywhere, which
is what recovery does: the journal says which of them is due. Nothing here decides; OSError is the caller's.
"""

import base64
import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libmh.context import Root
from libmh.errors import Conflict, Problem
from libmh.linux.config.confstore import digest
from libmh.linux.config.places import Found, Place, identity, look_in, opened
from libmh.linux.config.plans import Look

log = logging.getLogger("libmh.linux.config.applying")
GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS
FROZEN = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL
ACL = "system.posix_acl_access"
SELINUX, SELINUX_RUNS = "security.selinux", "/sys/fs/selinux/enforce"
NOT_COPIED = ("security.ima", "security.evm")  # signatures of the old content
NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENODATA, errno.EINVAL)
NEW_MODE, NEW_DIRECTORY = 0o644, 0o755
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
CHANGED = "'{}' has changed since it was planned"


@dataclass(frozen=True, slots=True)
class Target:
    """A file that a run writes: where it is, its contents by hash (None: no file), and under which name its
    `.new` and `.old` stand beside it. `look`: owner, mode and attributes for a file that is made."""

    path: str
    directory: str
    name: str
    before: str | None
    after: str | None
    token: str
    look: Look | None = None

    @property
    def place(self) -> Place:
        return Place(self.directory, self.name)

    @property
    def new(self) -> str:
        return f".{self.token}.new"

    @property
    def old(self) -> str:
        return f".{self.token}.old"

    def kept(self) -> dict[str, Any]:
        """As the journal has it."""
        return asdict(self)


def verify(root: Root, targets: Sequence[Target]) -> list[Found]:
    """Read them all. `conflict` where one is not what was planned for."""
    found = []
    for target in targets:
        now = _look(root, target)
        if now.digest != target.before:
            raise Conflict(CHANGED.format(target.path), path=target.path)
        found.append(now)
    return found


def _look(root: Root, target: Target) -> Found:
    try:
        with opened(root, target.directory) as directory:
            return look_in(directory, target.place)
    except (FileNotFoundError, NotADirectoryError):
        return Found()


def make_directories(root: Root, directories: Sequence[str]) -> None:
    """Those that are missing, the outermost first."""
    for each in directories:
        parent, _, name = each.rpartition("/")
        with opened(root, parent) as handle:
            os.mkdir(name, NEW_DIRECTORY, dir_fd=handle)
            os.fsync(handle)


def remove_directories(root: Root, directories: Sequence[str]) -> None:
    """Those that were made, if nothing is in them."""
    for each in reversed(directories):
        parent, _, name = each.rpartition("/")
        with contextlib.suppress(OSError), opened(root, parent) as handle:
            os.rmdir(name, dir_fd=handle)


def stage(root: Root, target: Target, content: bytes | None) -> None:
    """Lay `.new` and `.old` beside a file; a file that cannot be replaced is found here."""
    try:
        with opened(root, target.directory) as directory:
            if target.before is not None:
                _keep_old(directory, target)
            if content is not None:
                look = target.look if target.before is None else look_of(directory, target.name)
                write(directory, target.new, content, look)
    except OSError as error:
        mounted = error.errno == errno.EXDEV
        why = "it is mounted there and cannot be replaced" if mounted else error.strerror
        raise OSError(error.errno, why, target.path) from error


def _keep_old(directory: int, target: Target) -> None:
    _refuse_frozen(directory, target)
    try:
        os.link(target.name, target.old, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        # a filesystem without second links: a copy does as well. EXDEV is a file that is mounted there
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        content = look_in(directory, target.place).content or b""
        write(directory, target.old, content, look_of(directory, target.name))


def _refuse_frozen(directory: int, target: Target) -> None:
    handle = os.open(
        target.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
    )
    try:
        flags = struct.unpack("i", fcntl.ioctl(handle, GET_FLAGS, struct.pack("l", 0))[:4])[0]
    except OSError:  # the filesystem has none
        flags = 0
    finally:
        os.close(handle)
    if flags & FROZEN:
        raise PermissionError(errno.EPERM, "it is immutable (chattr)", target.path)


def look_of(directory: int, name: str) -> Look:
    """Owner, mode and extended attributes: ACL, SELinux label, capabilities, the user's."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(handle)
        attributes = {
            name: base64.b64encode(os.getxattr(handle, name)).decode() for name in _attributes(handle)
        }
    finally:
        os.close(handle)
    return {
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "attributes": attributes,
    }


def _attributes(handle: int) -> list[str]:
    try:
        return [name for name in os.listxattr(handle) if name not in NOT_COPIED]
    except OSError as error:
        if error.errno in NO_ATTRIBUTES:
            return []
        raise


def write(directory: int, name: str, content: bytes, look: Look | None) -> None:
    """A new file, on the disk when this returns."""
    handle = os.open(name, NEW, 0o600, dir_fd=directory)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        if look is None:
            os.fchmod(handle, NEW_MODE)
        else:
            _dress(handle, look)
        os.fsync(handle)
    finally:
        os.close(handle)


def _dress(handle: int, look: Look) -> None:
    status = os.fstat(handle)
    if (status.st_uid, status.st_gid) != (look["uid"], look["gid"]):
        os.fchown(handle, look["uid"], look["gid"])
    attributes = {name: base64.b64decode(value) for name, value in look["attributes"].items()}
    if ACL not in attributes and ACL in _attributes(handle):  # of the directory's default
        os.removexattr(handle, ACL)
    os.fchmod(handle, look["mode"])
    for name, value in attributes.items():
        _label(handle, name, value)
    if attributes:
        os.fchmod(handle, look["mode"])


def _label(handle: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(handle, name, value)
    except PermissionError:
        # where no SELinux runs, its labels are for CAP_SYS_ADMIN to write, and mean nothing
        if name != SELINUX or Path(SELINUX_RUNS).exists():
            raise


def switch(root: Root, targets: Sequence[Target], found: Sequence[Found]) -> None:
    """Let what was staged take the names. `conflict` where a file has changed since it was `found`; what
    was switched before that is for `revert`."""
    for target, then in zip(targets, found, strict=True):
        with opened(root, target.directory) as directory:
            if _identity(directory, target.name) != then.identity:
                raise Conflict(CHANGED.format(target.path), path=target.path)
            if target.after is None:
                os.unlink(target.name, dir_fd=directory)
            else:
                os.rename(target.new, target.name, src_dir_fd=directory, dst_dir_fd=directory)


def _identity(directory: int, name: str) -> tuple[int, int, int, int] | None:
    try:
        return identity(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return None


def go_on(root: Root, targets: Sequence[Target]) -> list[str]:
    """After a death in `switch`: do the rest of it. Answers the files that somebody changed meanwhile, which
    are left as they are."""
    left = []
    for target in targets:
        with _if_there(root, target.directory) as directory:
            if directory is None:
                left += [target.path] if target.after is not None else []
                continue
            now = _digest_now(directory, target)
            staged = _identity(directory, target.new) is not None
            if target.after is None and now is not None and now == target.before:
                os.unlink(target.name, dir_fd=directory)
            elif staged and now == target.before:
                os.rename(target.new, target.name, src_dir_fd=directory, dst_dir_fd=directory)
            elif staged or (target.after is None and now is not None):
                left.append(target.path)
    return left


def _digest_now(directory: int, target: Target) -> str | None:
    """Of what is there; empty for what is no file that was ever planned: another kind, or too large."""
    try:
        return look_in(directory, target.place).digest
    except Problem:
        return ""


def revert(root: Root, targets: Sequence[Target]) -> None:
    """Take back what `switch` has done so far."""
    for target in targets:
        with _if_there(root, target.directory) as directory:
            if directory is None:
                continue
            if target.before is None:
                if _digest_now(directory, target) == target.after:
                    os.unlink(target.name, dir_fd=directory)
            elif target.after is None:
                if _identity(directory, target.name) is None:
                    _rename_back(directory, target)
            elif _identity(directory, target.new) is None:
                _rename_back(directory, target)


def _rename_back(directory: int, target: Target) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # done before; somebody's own since
        os.rename(target.old, target.name, src_dir_fd=directory, dst_dir_fd=directory)


def clean(root: Root, targets: Sequence[Target]) -> None:
    """Remove what stands beside the files, and let the disk have their names."""
    for target in targets:
        with _if_there(root, target.directory) as directory:
            if directory is None:
                continue
            for name in (target.new, target.old):
                if _identity(directory, name) is not None:  # else a read-only filesystem would mind
                    os.unlink(name, dir_fd=directory)


def sync(root: Root, targets: Sequence[Target]) -> None:
    """Wait until the directories are on the disk."""
    for each in {target.directory for target in targets}:
        with _if_there(root, each) as directory:
            if directory is not None:
                os.fsync(directory)


@contextlib.contextmanager
def _if_there(root: Root, directory: str) -> Iterator[int | None]:
    with contextlib.ExitStack() as stack:
        try:
            handle: int | None = stack.enter_context(opened(root, directory))
        except (FileNotFoundError, NotADirectoryError):
            handle = None
        yield handle


def restore(root: Root, target: Target, content: bytes | None) -> None:
    """Give a file the bytes back that it had, whatever it is by now; `look` is what it looked like."""
    with _if_there(root, target.directory) as directory:
        if directory is None:
            if content is not None:
                raise FileNotFoundError(errno.ENOENT, "its directory has gone", target.path)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target.new, dir_fd=directory)
        now = look_in(directory, target.place)
        if content is None:
            if now.content is not None:
                os.unlink(target.name, dir_fd=directory)
        elif now.content is None or digest(now.content) != target.before or not _looks(directory, target):
            write(directory, target.new, content, target.look)
            os.rename(target.new, target.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _looks(directory: int, target: Target) -> bool:
    return target.look is None or look_of(directory, target.name) == target.look
