"""Whole block devices, from /sys/block (Documentation/ABI/stable/sysfs-block)."""

import logging

from libmh.api.host import Disk
from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux import sysfs

BLOCK = "/sys/block"
SECTOR = 512  # sysfs counts in these whatever the device's own sector is
IN_MEMORY = ("loop", "ram", "zram")
MAX_DISKS = 1000
log = logging.getLogger("libmh.linux")


def read(root: Root) -> list[Disk]:
    """By name. `not-implemented` where there is no /sys/block."""
    if not sysfs.exists(root, BLOCK):
        raise NotImplementedHere(f"'{BLOCK}' does not exist here", source=BLOCK)
    names = [name for name in sysfs.children(root, BLOCK) if not name.startswith(IN_MEMORY)]
    if len(names) > MAX_DISKS:
        log.warning("there are %d block devices, listing %d", len(names), MAX_DISKS)
    return [_disk(root, name) for name in names[:MAX_DISKS]]


def _disk(root: Root, name: str) -> Disk:
    place = f"{BLOCK}/{name}"
    return Disk(
        name=name.replace("!", "/"),  # sysfs's spelling: cciss!c0d0
        size=(sysfs.positive(root, f"{place}/size") or 0) * SECTOR,
        rotational=sysfs.number(root, f"{place}/queue/rotational") == 1,
        removable=sysfs.number(root, f"{place}/removable") == 1,
        read_only=sysfs.number(root, f"{place}/ro") == 1,
        model=sysfs.text(root, f"{place}/device/model") or sysfs.text(root, f"{place}/device/name"),
        serial=sysfs.text(root, f"{place}/device/serial") or sysfs.text(root, f"{place}/serial"),
    )
