"""What this system runs in, in the words of systemd-detect-virt(1), found as it does, without running it.

A container hides the machine below it, so containers are looked for first.
"""

import re

from libmh.context import Root
from libmh.errors import Problem
from libmh.linux import sysfs
from libmh.linux.machine.cpuinfo import CPUINFO
from libmh.linux.machine.dmi import CONTAINERS, DMI, SYSINFO, TREE, parse_sysinfo

NONE = "none"
HYPERVISOR = f"{TREE}/hypervisor/compatible"
CLOCKS = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
FIRST_CPU = 1 << 16

VENDORS = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Apple Virtualization", "apple"),
    ("Google Compute Engine", "google"),
)
CLOCK_WORDS = (("kvm-clock", "kvm"), ("hyperv", "microsoft"), ("xen", "xen"))
TREE_WORDS = (("linux,kvm", "kvm"), ("xen", "xen"), ("vmware", "vmware"))


def detect(root: Root) -> str:
    """`none`, or the innermost container or hypervisor."""
    return container(root) or machine(root) or NONE


def container(root: Root) -> str | None:
    """The container manager that made this system; None outside of containers."""
    if sysfs.exists(root, "/proc/vz") and not sysfs.exists(root, "/proc/bc"):
        return "openvz"
    release = sysfs.text(root, "/proc/sys/kernel/osrelease") or ""
    if "Microsoft" in release or "WSL" in release:
        return "wsl"
    told = sysfs.text(root, "/run/systemd/container") or _of_init(root)
    if told and told != "oci":  # a runtime's word that tells nothing; files may tell more
        return told if told in CONTAINERS else "container-other"
    if sysfs.exists(root, "/run/.containerenv"):
        return "podman"
    if sysfs.exists(root, "/.dockerenv"):
        return "docker"
    return "container-other" if told else None


def _of_init(root: Root) -> str | None:
    """`container=` in the environment of PID 1, which only root may read."""
    try:
        return parse_environment(root.read("/proc/1/environ")).get("container") or None
    except Problem:
        return None


def parse_environment(text: str) -> dict[str, str]:
    """/proc/PID/environ: assignments that end with NUL."""
    pairs = (entry.partition("=") for entry in text.split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def machine(root: Root) -> str | None:
    """The hypervisor below this system; None on bare metal."""
    return (
        _xen(root)
        or _from_clock(root)
        or _from_dmi(root)
        or _from_tree(root)
        or _from_sysinfo(root)
        or _from_cpu(root)
    )


def _xen(root: Root) -> str | None:
    if sysfs.text(root, "/sys/hypervisor/type") != "xen":
        return None
    # the control domain runs on the machine itself, says systemd too
    return None if "control_d" in (sysfs.text(root, "/proc/xen/capabilities") or "") else "xen"


def _from_dmi(root: Root) -> str | None:
    for name in ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version"):
        value = sysfs.text(root, f"{DMI}/{name}") or ""
        for start, word in VENDORS:
            if value.startswith(start):
                return _accelerated(root) if word == "qemu" else word
    return None


def _accelerated(root: Root) -> str:
    """QEMU says QEMU with KVM too; Arm has no clock that tells, and a CPU of its own model with KVM."""
    return "kvm" if "TCG" not in _first_cpu(root) and "hypervisor" in _first_cpu(root).split() else "qemu"


def _from_clock(root: Root) -> str | None:
    # CPUID cannot be asked from here, but the kernel did, and offers the hypervisor's own clock
    clocks = sysfs.text(root, CLOCKS) or ""
    found = next((word for mark, word in CLOCK_WORDS if mark in clocks), None)
    if found == "kvm":  # those that are built on KVM and say their own name
        told = _named(root)
        return told if told in ("amazon", "google", "oracle", "parallels") else "kvm"
    return found


def _named(root: Root) -> str | None:
    values = [
        sysfs.text(root, f"{DMI}/{name}") or "" for name in ("product_name", "sys_vendor", "bios_vendor")
    ]
    return next((word for value in values for start, word in VENDORS if value.startswith(start)), None)


def _from_tree(root: Root) -> str | None:
    told = sysfs.text(root, HYPERVISOR)
    if told is None:
        if sysfs.exists(root, f"{TREE}/ibm,partition-name") and sysfs.exists(root, f"{TREE}/hmc-managed?"):
            return "powervm"
        return "qemu" if sysfs.exists(root, f"{TREE}/fw-cfg") else None
    return next((word for mark, word in TREE_WORDS if mark in told), "vm-other")


def _from_sysinfo(root: Root) -> str | None:
    program = parse_sysinfo(root.read_optional(SYSINFO) or "").get("VM00 Control Program")
    if program is None:
        return None
    return "zvm" if program.startswith("z/VM") else "kvm"


def _from_cpu(root: Root) -> str | None:
    told = _first_cpu(root)
    if re.search(r"^vendor_id\s*:\s*User Mode Linux", told, re.MULTILINE):
        return "uml"
    return "vm-other" if re.search(r"^flags\s*:.*\bhypervisor\b", told, re.MULTILINE) else None


def _first_cpu(root: Root) -> str:
    try:
        return root.read(CPUINFO, FIRST_CPU)
    except Problem:
        return ""
