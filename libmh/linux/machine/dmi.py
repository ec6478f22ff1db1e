"""Who made the machine: SMBIOS in /sys/class/dmi/id, the device tree, or s390's /proc/sysinfo."""

import re

from libmh.api.host import Hardware
from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux import sysfs

DMI = "/sys/class/dmi/id"
TREE = "/proc/device-tree"
SYSINFO = "/proc/sysinfo"

# what makers leave in the fields that they did not fill in
PLACEHOLDER = re.compile(
    r"to be filled by o\.?e\.?m\.?|default string|not (specified|applicable|available|provided)"
    r"|unknown|none|undefined|n/?a|o\.?e\.?m\.?|chassis .*|[x0. _-]+|0?123456789"
    r"|system (manufacturer|product name|version|serial number)",
    re.IGNORECASE,
)

# SMBIOS 3.7, table 17, in the words of hostnamed
CHASSIS = (
    dict.fromkeys((0x03, 0x04, 0x06, 0x07, 0x0D, 0x23, 0x24), "desktop")
    | dict.fromkeys((0x08, 0x09, 0x0A, 0x0E), "laptop")
    | dict.fromkeys((0x11, 0x17, 0x19, 0x1C, 0x1D), "server")
    | {
        0x0B: "handset",
        0x1E: "tablet",
        0x1F: "convertible",
        0x20: "convertible",
        0x21: "embedded",
        0x22: "embedded",
    }
)


def read(root: Root, virtualization: str = "none") -> Hardware:
    """What can be read of the machine's identity; `virtualization` is systemd-detect-virt's word and decides
    the chassis. `not-implemented` where no firmware tells anything."""
    found = _smbios(root) or _device_tree(root) or _sysinfo(root)
    chassis = _chassis(root, virtualization)
    if found is None and chassis is None:
        raise NotImplementedHere(
            f"no firmware tells of this machine: neither '{DMI}' nor '{TREE}'", source=DMI
        )
    vendor, model, version, serial, firmware = found or (None, None, None, None, (None, None, None))
    return Hardware(vendor, model, version, serial, chassis, *firmware)


Firmware = tuple[str | None, str | None, str | None]
Identity = tuple[str | None, str | None, str | None, str | None, Firmware]
NO_FIRMWARE: Firmware = (None, None, None)


def _smbios(root: Root) -> Identity | None:
    if not sysfs.exists(root, DMI):
        return None
    vendor, model, version, serial, maker, release, date = (
        real(sysfs.text(root, f"{DMI}/{name}"))
        for name in (
            "sys_vendor",
            "product_name",
            "product_version",
            "product_serial",
            "bios_vendor",
            "bios_version",
            "bios_date",
        )
    )
    return vendor, model, version, serial, (maker, release, date)


def real(value: str | None) -> str | None:
    """None for what a maker leaves in a field that he did not fill in."""
    return None if value is None or PLACEHOLDER.fullmatch(value) else value


def _device_tree(root: Root) -> Identity | None:
    model = sysfs.text(root, f"{TREE}/model")
    if model is None:
        return None
    vendor = (sysfs.text(root, f"{TREE}/compatible") or "").partition(",")[0] or None
    return vendor, model, None, sysfs.text(root, f"{TREE}/serial-number"), NO_FIRMWARE


def _sysinfo(root: Root) -> Identity | None:
    values = parse_sysinfo(root.read_optional(SYSINFO) or "")
    if "Manufacturer" not in values:
        return None
    serial = values.get("Sequence Code", "").lstrip("0") or None
    return values["Manufacturer"], values.get("Type"), values.get("Model"), serial, NO_FIRMWARE


def parse_sysinfo(text: str) -> dict[str, str]:
    """Lines `Manufacturer:         IBM` of s390's /proc/sysinfo; the first of each name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            found.setdefault(key.strip(), " ".join(value.split())[: sysfs.MAX_VALUE])
    return found


def _chassis(root: Root, virtualization: str) -> str | None:
    if virtualization in CONTAINERS:
        return "container"
    if virtualization != "none":
        return "vm"
    told = sysfs.text(root, f"{TREE}/chassis-type")  # the Devicetree Specification has the same words
    return told or CHASSIS.get(sysfs.number(root, f"{DMI}/chassis_type") or 0)


CONTAINERS = frozenset(
    {
        "openvz",
        "lxc",
        "lxc-libvirt",
        "systemd-nspawn",
        "docker",
        "podman",
        "rkt",
        "wsl",
        "proot",
        "pouch",
        "container-other",
    }
)
