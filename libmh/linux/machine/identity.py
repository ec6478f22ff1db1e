"""The UUIDs of a host by lifetime, and its name."""

import errno
import uuid
from collections.abc import Callable, Mapping
from functools import cache

from libmh.context import Root, replace_file
from libmh.errors import Problem
from libmh.linux import sysfs
from libmh.linux.machine import kernel

MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")
CUSTOM = "/etc/custom-machine-id"
HARDWARE = ("/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid", "/sys/hypervisor/uuid")
NOT_AVAILABLE = "not-available"
INVALID = "invalid-lifetime"
MAX_UUID = 65_535  # a string of the wire

# GLib's GFileError by errno: what the ancestor's set_uuid answered
SUCCESS, NOT_CUSTOM, OTHER = 0, 23, 24
FILE_ERRORS: Mapping[int, int] = {
    errno.EISDIR: 1,
    errno.EACCES: 2,
    errno.ENAMETOOLONG: 3,
    errno.ENOENT: 4,
    errno.ENOTDIR: 5,
    errno.EROFS: 8,
    errno.ENOSPC: 12,
    errno.ENOMEM: 13,
    errno.EMFILE: 14,
    errno.ENFILE: 15,
    errno.EINVAL: 17,
    errno.ELOOP: 11,
    errno.EIO: 21,
    errno.EPERM: 22,
}


def get(root: Root, lifetime: str) -> str:
    """The UUID of a lifetime in any case; `not-available`, or `invalid-lifetime` for a word that is none."""
    read = LIFETIMES.get(lifetime.lower())
    return INVALID if read is None else read(root) or NOT_AVAILABLE


def filesystem(root: Root) -> str | None:
    """machine-id(5); systemd writes `uninitialized` into it during the first boot."""
    for name in MACHINE_ID:
        found = first_line(root, name)
        if found and found != "uninitialized":
            return found
    return None


def hardware(root: Root) -> str | None:
    """The firmware's or hypervisor's; SMBIOS's is readable by root alone."""
    return next((found for name in HARDWARE if (found := sysfs.text(root, name))), None)


def reboot(root: Root) -> str | None:
    """The kernel's boot_id: new at every boot, the same for all processes, and no file to write."""
    return sysfs.text(root, kernel.BOOT_ID)


@cache
def of_process() -> str:
    """Random, the same as long as this process lives."""
    return str(uuid.uuid4())


def custom(root: Root) -> str | None:
    return first_line(root, CUSTOM)


def first_line(root: Root, name: str) -> str | None:
    """None where the file is missing, unreadable or empty."""
    try:
        text = root.read(name, 4 * MAX_UUID)  # UTF-8
    except Problem:
        return None
    return text.partition("\n")[0].strip().replace("\0", "")[:MAX_UUID] or None


LIFETIMES: Mapping[str, Callable[[Root], str | None]] = {
    "": filesystem,
    "filesystem": filesystem,
    "hardware": hardware,
    "reboot": reboot,
    "agent": lambda _: of_process(),
    "custom": custom,
}


def set_custom(root: Root, lifetime: str, value: str) -> int:
    """Write the Custom UUID as it is, whole or not at all. 0, 23 for another lifetime, else a GFileError
    number."""
    if lifetime.lower() != "custom":
        return NOT_CUSTOM
    try:
        replace_file(root.path(CUSTOM), value)
    except OSError as error:
        return FILE_ERRORS.get(error.errno or 0, OTHER)
    return SUCCESS


def hostname(root: Root) -> str:
    """The node name; a host that is still called `localhost` goes by its Filesystem UUID. Raises what
    `uname` raises."""
    name = kernel.uname(root).node
    return filesystem(root) or name if name == "localhost" else name
