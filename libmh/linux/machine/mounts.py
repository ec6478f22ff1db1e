"""/proc/self/mountinfo (proc_pid_mountinfo(5)): what is mounted, and what of it may be touched."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from libmh.context import Root

MOUNTINFO = "/proc/self/mountinfo"
MAX_MOUNTINFO = 1 << 25  # a machine full of containers has 65,000 mounts

KERNEL = frozenset(
    (
        *("autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs"),
        *("cpuset", "debugfs", "devfs", "devpts", "devtmpfs", "dmabuf", "drm", "efivarfs"),
        *("functionfs", "fusectl", "gadgetfs", "hugetlbfs", "mqueue", "nfsd", "nsfs", "none"),
        *("nullfs", "pidfs", "pipefs", "proc", "pstore", "ramfs", "resctrl", "rootfs"),
        *("rpc_pipefs", "secretmem", "securityfs", "selinuxfs", "smackfs", "sockfs", "sysfs", "tracefs"),
        *("usbfs", "xenfs"),
    )
)
NETWORK = frozenset(
    (
        *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs"),
        *("gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncp", "ncpfs", "nfs"),
        *("nfs4", "ocfs2", "orangefs", "pvfs2", "panfs", "shfs", "smb3", "smbfs"),
        *("virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs", "wslfs"),
    )
)
ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line; `device` is `major:minor`, `root` the part of the filesystem that is mounted."""

    device: str
    root: str
    point: str
    type: str
    source: str
    read_only: bool
    options: str

    @property
    def untouchable(self) -> bool:
        """Whether somebody else answers for it, over a network or in user space, who may never do so."""
        return self.type in NETWORK or self.type.startswith("fuse")

    @property
    def same(self) -> str:
        """What bind mounts of one filesystem share. The subvolumes of a btrfs are mounts of their own."""
        subvolume = re.search(r"(?:^|,)subvol=([^,]*)", self.options) if self.type == "btrfs" else None
        return f"{self.device} {subvolume[1] if subvolume else ''}"


def read(root: Root) -> list[Mount]:
    """Mounts that hold files, each filesystem once. Raises what `Root.read` raises."""
    return distinct(parse_mountinfo(root.read(MOUNTINFO, MAX_MOUNTINFO)))


def parse_mountinfo(text: str) -> Iterator[Mount]:
    """`27 1 254:0 / /mnt rw,noatime shared:1 - ext4 /dev/vda rw`; the kernel's own and lines of another form
    are left out."""
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        kind = right.partition(" ")[0]
        if not dash or kind in KERNEL:
            continue
        first, last = left.split(" "), right.split(" ")
        if len(first) < 6 or len(last) < 3:
            continue
        read_only = "ro" in first[5].split(",") or "ro" in last[2].split(",")
        yield Mount(
            first[2], unescape(first[3]), unescape(first[4]), kind, unescape(last[1]), read_only, last[2]
        )


def unescape(field: str) -> str:
    r"""The kernel writes blanks, newlines and backslashes as octal: `\040`."""
    if "\\" not in field:
        return field
    return ESCAPE.sub(lambda match: chr(int(match[1], 8) & 0xFF), field).replace("\0", "")


def distinct(found: Iterator[Mount]) -> list[Mount]:
    """The last mount at each point hides those before it; of several mounts of a filesystem the whole one,
    or else the first, stands for all. In the order in which they were mounted."""
    visible = {mount.point: mount for mount in found}
    chosen: dict[str, Mount] = {}
    for mount in visible.values():
        held = chosen.get(mount.same)
        if held is None or (held.root != "/" and mount.root == "/"):
            chosen[mount.same] = mount
    return list(chosen.values())
