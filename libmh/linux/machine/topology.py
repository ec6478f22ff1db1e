"""How the online processors are laid out, from sysfs (Documentation/admin-guide/cputopology.rst)."""

from libmh.api.host import CpuTopology
from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux import sysfs
from libmh.linux.machine import cpuinfo
from libmh.linux.machine.cpuinfo import CpuInfo

CPU = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node/online"
MAX_FREQUENCY = f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq"
# the second name is the one before Linux 5.4
CORE = ("core_cpus_list", "thread_siblings_list")
PACKAGE = ("package_cpus_list", "core_siblings_list")


def read(root: Root) -> CpuTopology:
    """`not-implemented` where neither sysfs nor /proc/cpuinfo tells of a processor."""
    threads, cores, sockets = counts(root)
    if not threads:
        raise NotImplementedHere(f"neither '{CPU}' nor '{cpuinfo.CPUINFO}' tells of a processor", source=CPU)
    frequency = sysfs.positive(root, MAX_FREQUENCY)
    return CpuTopology(
        sockets=sockets,
        cores=cores,
        threads=threads,
        threads_per_core=max(1, threads // cores),
        numa_nodes=max(1, len(sysfs.parse_cpu_list(sysfs.text(root, NODES) or ""))),
        max_frequency=frequency // 1000 if frequency else None,
    )


def counts(root: Root, told: CpuInfo | None = None) -> tuple[int, int, int]:
    """Logical processors, cores and packages; sysfs first, /proc/cpuinfo where it says nothing."""
    online = sysfs.parse_cpu_list(sysfs.text(root, f"{CPU}/online") or "")
    cores = _groups(root, online, CORE)
    if online and cores:
        return len(online), cores, max(1, _groups(root, online, PACKAGE))
    told = told or cpuinfo.read(root)
    return told.threads, told.cores or told.threads, max(1, told.packages)


def _groups(root: Root, online: list[int], names: tuple[str, str]) -> int:
    # one read per group, not per processor: its list names all the others
    seen: set[int] = set()
    groups = 0
    for cpu in online:
        if cpu in seen:
            continue
        listed = next(
            (text for name in names if (text := sysfs.text(root, f"{CPU}/cpu{cpu}/topology/{name}"))), None
        )
        if listed is None:
            return 0
        seen.update(sysfs.parse_cpu_list(listed))
        groups += 1
    return groups
