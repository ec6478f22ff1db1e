"""The machine itself: what it is, how it does, and turning it off."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.spec import I32, U32, U64, Access, Effect, Plain, Time, event, interface, method, prop, writes


class FactStatus(StrEnum):
    """How much a fact can be trusted."""

    OK = "ok"
    STALE = "stale"
    TIMEOUT = "timeout"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing known of a host: its value, where it is from, when it was seen, whether that went well."""

    status: Annotated[FactStatus, "ok, stale (the last good value), timeout, denied, unsupported or failed"]
    source: Annotated[str, "the file, system call or service that it was read from"]
    observed: Annotated[Time, "when the value was read"]
    value: Annotated[Plain, "absent unless ok or stale"] = None
    reason: Annotated[str | None, "one sentence, when the status is not ok"] = None


@dataclass(frozen=True, slots=True)
class OperatingSystem:
    """What os-release(5) says of the installed system."""

    id: Annotated[str, "lower-case identifier: debian, fedora, rhel"]
    name: Annotated[str, "for people: Debian GNU/Linux 12 (bookworm)"]
    version: Annotated[str | None, "VERSION_ID: 12; absent on rolling releases"] = None
    id_like: Annotated[list[str] | None, "identifiers of the systems that it is derived from"] = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """Identity of the machine as its firmware tells it (/sys/class/dmi/id, or the device tree)."""

    vendor: Annotated[str | None, "sys_vendor"] = None
    model: Annotated[str | None, "product_name, or the device tree's model"] = None
    version: Annotated[str | None, "product_version"] = None
    serial: Annotated[str | None, "product_serial; readable by root alone"] = None
    chassis: Annotated[
        str | None, "desktop, laptop, server, vm, container ... from the SMBIOS chassis type"
    ] = None
    firmware_vendor: Annotated[str | None, "bios_vendor"] = None
    firmware_version: Annotated[str | None, "bios_version"] = None
    firmware_date: Annotated[str | None, "bios_date as the firmware writes it"] = None


@dataclass(frozen=True, slots=True)
class CpuTopology:
    """How the logical processors online are laid out (/sys/devices/system/cpu, /sys/devices/system/node)."""

    sockets: Annotated[U32, "physical packages"]
    cores: Annotated[U32, "physical cores, all sockets together"]
    threads: Annotated[U32, "logical processors"]
    threads_per_core: Annotated[U32, "2 where simultaneous multithreading is on"]
    numa_nodes: Annotated[U32, "memory nodes"]
    max_frequency: Annotated[U32 | None, "MHz; absent where the kernel does not say"] = None


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole block device (/sys/block), not its partitions."""

    name: Annotated[str, "kernel name: sda, nvme0n1"]
    size: Annotated[U64, "bytes"]
    rotational: Annotated[bool, "false for an SSD"]
    removable: Annotated[bool, "the kernel's removable flag"]
    read_only: Annotated[bool, "the kernel's ro flag"]
    model: Annotated[str | None, "as the device tells it"] = None
    serial: Annotated[str | None, "as the device tells it"] = None


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted filesystem (/proc/self/mountinfo, statvfs). Network and FUSE mounts are never touched."""

    mount_point: Annotated[str, "where it is mounted"]
    device: Annotated[str, "the mount source: /dev/sda1, server:/export"]
    type: Annotated[str, "ext4, xfs, nfs4 ..."]
    read_only: Annotated[bool, "mounted read-only"]
    status: Annotated[FactStatus, "of the sizes: ok, unsupported (not touched), timeout, denied or failed"]
    size: Annotated[U64 | None, "bytes"] = None
    free: Annotated[U64 | None, "bytes that an unprivileged user can still write"] = None
    inodes: Annotated[U64 | None, "absent where the filesystem has no fixed number"] = None
    inodes_free: Annotated[U64 | None, "absent where the filesystem has no fixed number"] = None


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A user who is logged in (utmp)."""

    user: Annotated[str, "account name"]
    terminal: Annotated[str | None, "tty or pts"] = None
    host: Annotated[str | None, "where from; absent for a local session"] = None
    started: Annotated[Time | None, "when the session began"] = None


@interface("org.matahariproject.Host", version="1.0")
class Host(Protocol):
    """A host: its identity, hardware, load and power."""

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name; its Filesystem UUID where the name is still exactly `localhost`."""
        ...

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The UUID of lifetime Filesystem, or `not-available`."""
        ...

    @prop(source="/etc/custom-machine-id", max_age=1.0)
    def custom_uuid(self) -> str:
        """The UUID of lifetime Custom, or `not-available`."""
        ...

    @prop(source="uname(2)", constant=True)
    def os(self) -> str:
        """Kernel name and release: `Linux (6.1.0-18-amd64)`."""
        ...

    @prop(source="os-release(5)", max_age=60.0)
    def operating_system(self) -> OperatingSystem:
        """The installed system's name, version and identifier."""
        ...

    @prop(source="uname(2)", constant=True)
    def kernel(self) -> str:
        """Kernel release: `6.1.0-18-amd64`."""
        ...

    @prop(source="uname(2)", constant=True)
    def arch(self) -> str:
        """Machine architecture: `x86_64`."""
        ...

    @prop(source="sizeof(void *)", constant=True)
    def wordsize(self) -> U32:
        """Bits in a pointer of the agent's build."""
        ...

    @prop(source="/proc/sys/kernel/random/boot_id", constant=True)
    def boot_id(self) -> str:
        """A UUID that is new at every boot."""
        ...

    @prop(source="/proc/stat btime", constant=True)
    def boot_time(self) -> Time:
        """When the kernel started."""
        ...

    @prop(source="cgroup, /proc/1/environ, DMI, CPUID", constant=True)
    def virtualization(self) -> str:
        """What this host runs in: `none`, a hypervisor (`kvm`, `vmware` ...) or a container (`docker`, `lxc`
        ...); systemd-detect-virt's words."""
        ...

    @prop(source="/sys/class/dmi/id", max_age=60.0)
    def hardware(self) -> Hardware:
        """Vendor, model, serial number and firmware, as far as the caller's agent may read them."""
        ...

    @prop(source="/proc/meminfo MemTotal", max_age=60.0)
    def memory(self) -> U64:
        """Physical memory in kB."""
        ...

    @prop(source="/proc/meminfo SwapTotal", max_age=60.0)
    def swap(self) -> U64:
        """Swap space in kB."""
        ...

    @prop(source="/proc/cpuinfo", max_age=60.0)
    def cpu_count(self) -> U32:
        """Logical processors online."""
        ...

    @prop(source="/proc/cpuinfo", max_age=60.0)
    def cpu_cores(self) -> U32:
        """Physical cores of all sockets."""
        ...

    @prop(source="/proc/cpuinfo", constant=True)
    def cpu_model(self) -> str:
        """Model name of the first processor, or `unknown`."""
        ...

    @prop(source="/proc/cpuinfo", constant=True)
    def cpu_flags(self) -> str:
        """Feature flags of the first processor, separated by blanks, or `unknown`."""
        ...

    @prop(source="/sys/devices/system/cpu", max_age=60.0)
    def cpu_topology(self) -> CpuTopology:
        """Sockets, cores, threads and memory nodes."""
        ...

    @prop(source="the agent's settings", max_age=1.0)
    def update_interval(self) -> U32:
        """Seconds between heartbeats; 0 turns them off. It persists."""
        ...

    @writes("update_interval")
    def set_update_interval(self, value: U32) -> None:
        """Set the seconds between heartbeats."""
        ...

    @prop(source="the agent's heartbeat", inline=True)
    def last_updated(self) -> Time:
        """When the last heartbeat was raised; 0 before the first."""
        ...

    @prop(source="the agent's heartbeat", inline=True)
    def sequence(self) -> U32:
        """Number of the last heartbeat; 0 before the first."""
        ...

    @prop(source="/proc/meminfo MemFree", max_age=1.0)
    def free_mem(self) -> U64:
        """Memory that nothing uses, in kB."""
        ...

    @prop(source="/proc/meminfo MemAvailable", max_age=1.0)
    def available_mem(self) -> U64:
        """Memory that new work could get without swapping, in kB."""
        ...

    @prop(source="/proc/meminfo SwapFree", max_age=1.0)
    def free_swap(self) -> U64:
        """Swap space that nothing uses, in kB."""
        ...

    @prop(source="/proc/loadavg", max_age=1.0)
    def load(self) -> dict[str, float]:
        """Load averages over 1, 5 and 15 minutes under the keys `1`, `5`, `15`."""
        ...

    @prop(source="/proc/stat", max_age=1.0)
    def cpu_utilization(self) -> float:
        """Share of the processors' time, 0 to 1, in which they did something, since this was last read."""
        ...

    @prop(source="/proc/PID/stat", max_age=2.0)
    def process_statistics(self) -> dict[str, I32]:
        """By state: `total`, `running` (R), `sleeping` (S), `stopped` (T), `zombie` (Z), `idle` (D)."""
        ...

    @prop(source="/sys/block", max_age=10.0)
    def disks(self) -> list[Disk]:
        """Block devices; loop and RAM devices are left out."""
        ...

    @prop(source="/proc/self/mountinfo, statvfs(3)", max_age=5.0, deadline=5.0)
    def filesystems(self) -> list[Filesystem]:
        """Mounted filesystems that hold files; the kernel's own (proc, sysfs, cgroup ...) are left out."""
        ...

    @prop(source="utmp(5)", max_age=5.0)
    def users(self) -> list[LoginSession]:
        """Who is logged in."""
        ...

    @prop(source="/etc/localtime", max_age=10.0)
    def time_zone(self) -> str:
        """IANA name of the time zone: `Europe/Amsterdam`; `UTC` where none is set."""
        ...

    @method(access=Access.OPEN, deadline=15.0, returns="facts")
    def facts(self) -> dict[str, Fact]:
        """Every property of this interface as a fact: value, source, time and status, so that what could not
        be read says why instead of being absent."""
        ...

    @method(effect=Effect.DISRUPTS)
    def identify(self) -> None:
        """Make the machine noticeable to somebody who stands before it: a tone of 440 Hz for one second on
        the console's speaker. `not-implemented` where there is no console."""
        ...

    @method(effect=Effect.DISRUPTS)
    def shutdown(self) -> None:
        """Power the machine off in an orderly way; answers when it has been accepted."""
        ...

    @method(effect=Effect.DISRUPTS)
    def reboot(self) -> None:
        """Restart the machine in an orderly way; answers when it has been accepted."""
        ...

    @method(returns="uuid")
    def get_uuid(
        self, lifetime: Annotated[str, "Filesystem, Hardware, Reboot, Agent or Custom, in any case"] = ""
    ) -> str:
        """The UUID of a lifetime: Filesystem ("" too) lasts as long as the installed system, Hardware as the
        machine, Reboot until the next boot, Agent as this process, Custom until it is set again.
        `not-available` where there is none, `invalid-lifetime` for any other word."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("lifetime",), returns="rc")
    def set_uuid(
        self,
        lifetime: Annotated[str, "only Custom can be set"],
        uuid: Annotated[str, "kept as it is; an empty one clears it"],
    ) -> I32:
        """Set the Custom UUID. Answers 0, 23 for any lifetime but Custom, or GLib's GFileError number when
        the file could not be written (2 not permitted, 8 read-only, 12 no space, 24 otherwise)."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("profile",), returns="status")
    def set_power_profile(self, profile: Annotated[str, "one of list_power_profiles, or off"]) -> U32:
        """Change the power profile through tuned or power-profiles-daemon. Answers 0."""
        ...

    @method(returns="profile")
    def get_power_profile(self) -> str:
        """The power profile in force; `backend-failed` where nothing manages one."""
        ...

    @method(returns="profiles")
    def list_power_profiles(self) -> list[str]:
        """Names of the power profiles; empty where nothing manages them."""
        ...

    @event()
    def heartbeat(
        self,
        timestamp: Annotated[Time, "when it was raised"],
        sequence: Annotated[U32, "counts from 1 since the agent started"],
        hostname: Annotated[str, "as the property"],
        uuid: Annotated[str, "as the property"],
    ) -> None:
        """The host is alive: raised at start and then every `update_interval` seconds."""
        return
