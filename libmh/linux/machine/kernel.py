"""What the kernel says of itself: its names (uname(2)), this boot, the load."""

import os
import re
from dataclasses import dataclass

from libmh.context import Root
from libmh.errors import BackendFailed

HOSTNAME = "/proc/sys/kernel/hostname"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
STAT = "/proc/stat"
LOADAVG = "/proc/loadavg"
NS = 1_000_000_000
MAX_STAT = 1 << 24  # one number per interrupt line, and large machines have thousands


@dataclass(frozen=True, slots=True)
class Uname:
    """uname(2)'s fields that we use."""

    system: str
    release: str
    machine: str
    node: str


def uname(root: Root) -> Uname:
    """The kernel's names; of a captured machine from /proc/sys/kernel. Raises what `Root.read` raises."""
    if str(root.base) == "/":
        names = os.uname()
        return Uname(names.sysname, names.release, names.machine, names.nodename)
    return Uname(
        root.read("/proc/sys/kernel/ostype").strip(),
        root.read("/proc/sys/kernel/osrelease").strip(),
        root.read("/proc/sys/kernel/arch").strip(),  # since Linux 6.1
        root.read(HOSTNAME).strip(),
    )


def boot_id(root: Root) -> str:
    """The kernel's random UUID of this boot. Raises what `Root.read` raises."""
    return root.read(BOOT_ID).strip()


def boot_time(root: Root) -> int:
    """Nanoseconds since the epoch when the kernel started. Raises what `Root.read` raises."""
    return parse_boot_time(root.read(STAT, MAX_STAT))


def parse_boot_time(stat: str) -> int:
    """The line `btime SECONDS` of /proc/stat."""
    found = re.search(r"^btime ([0-9]{1,10})$", stat, re.MULTILINE)
    if found is None:
        raise BackendFailed(f"'{STAT}' has no line 'btime'", source=STAT)
    return int(found[1]) * NS


def load(root: Root) -> dict[str, float]:
    """Load averages by minutes. Raises what `Root.read` raises."""
    return parse_load(root.read(LOADAVG))


def parse_load(loadavg: str) -> dict[str, float]:
    """The first three numbers of /proc/loadavg: `0.20 0.18 0.12 1/80 11206`."""
    found = re.match(
        r"([0-9]{1,12}\.[0-9]{1,9}) ([0-9]{1,12}\.[0-9]{1,9}) ([0-9]{1,12}\.[0-9]{1,9})", loadavg
    )
    if found is None:
        raise BackendFailed(f"'{LOADAVG}' starts with no three numbers: '{loadavg[:60]}'", source=LOADAVG)
    return dict(zip(("1", "5", "15"), map(float, found.groups()), strict=True))
