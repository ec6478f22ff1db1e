"""The `Host` of a Linux machine."""

import sys
import threading
import time

from libmh.api.host import (
    CpuTopology,
    Disk,
    Fact,
    Filesystem,
    Hardware,
    Host,
    LoginSession,
    OperatingSystem,
)
from libmh.context import Context
from libmh.facts import Facts
from libmh.linux.machine import (
    console,
    cpuinfo,
    disks,
    dmi,
    filesystems,
    identity,
    kernel,
    logins,
    memory,
    osrelease,
    power,
    processes,
    timezone,
    topology,
    virtualization,
)
from libmh.linux.machine.utilization import Utilization

UPDATE_INTERVAL = "update_interval"
DEFAULT_INTERVAL = 5
MAX_U32 = 2**32 - 1


class LinuxHost(Host):
    """Reads this machine, or the captured one below `context.root`, anew at every call; nothing is kept but
    the heartbeat and the last good facts, and how busy the processors had been."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._root = self._context.root
        self._facts = Facts(self)
        self._utilization = Utilization(self._root)
        self._beating = threading.Lock()
        self._last_updated = 0
        self._sequence = 0

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def custom_uuid(self) -> str:
        return identity.get(self._root, "custom")

    def os(self) -> str:
        names = kernel.uname(self._root)
        return f"{names.system} ({names.release})"

    def operating_system(self) -> OperatingSystem:
        return osrelease.read(self._root)

    def kernel(self) -> str:
        return kernel.uname(self._root).release

    def arch(self) -> str:
        return kernel.uname(self._root).machine

    def wordsize(self) -> int:
        return sys.maxsize.bit_length() + 1

    def boot_id(self) -> str:
        return kernel.boot_id(self._root)

    def boot_time(self) -> int:
        return kernel.boot_time(self._root)

    def virtualization(self) -> str:
        return virtualization.detect(self._root)

    def hardware(self) -> Hardware:
        return dmi.read(self._root, virtualization.detect(self._root))

    def memory(self) -> int:
        return memory.amount(memory.read(self._root), "MemTotal")

    def swap(self) -> int:
        return memory.amount(memory.read(self._root), "SwapTotal")

    def cpu_count(self) -> int:
        return topology.counts(self._root)[0]

    def cpu_cores(self) -> int:
        return topology.counts(self._root)[1]

    def cpu_model(self) -> str:
        return cpuinfo.read(self._root).model

    def cpu_flags(self) -> str:
        return cpuinfo.read(self._root).flags

    def cpu_topology(self) -> CpuTopology:
        return topology.read(self._root)

    def update_interval(self) -> int:
        return self._context.settings.number(UPDATE_INTERVAL, DEFAULT_INTERVAL)

    def set_update_interval(self, value: int) -> None:
        self._context.settings.set(UPDATE_INTERVAL, value)

    def last_updated(self) -> int:
        return self._last_updated

    def sequence(self) -> int:
        return self._sequence

    def beat(self) -> None:
        """Raise the next heartbeat; the agent's ticker calls this."""
        with self._beating:
            self._sequence = self._sequence % MAX_U32 + 1
            self._last_updated = time.time_ns()
            self._context.events.emit(
                Host.heartbeat,
                timestamp=self._last_updated,
                sequence=self._sequence,
                hostname=self.hostname(),
                uuid=self.uuid(),
            )

    def free_mem(self) -> int:
        return memory.amount(memory.read(self._root), "MemFree")

    def available_mem(self) -> int:
        return memory.available(memory.read(self._root))

    def free_swap(self) -> int:
        return memory.amount(memory.read(self._root), "SwapFree")

    def load(self) -> dict[str, float]:
        return kernel.load(self._root)

    def cpu_utilization(self) -> float:
        return self._utilization.share()

    def process_statistics(self) -> dict[str, int]:
        return processes.statistics(self._root)

    def disks(self) -> list[Disk]:
        return disks.read(self._root)

    def filesystems(self) -> list[Filesystem]:
        return filesystems.read(self._root)

    def users(self) -> list[LoginSession]:
        return logins.read(self._root)

    def time_zone(self) -> str:
        return timezone.name(self._root)

    def facts(self) -> dict[str, Fact]:
        return self._facts.collect()

    def identify(self) -> None:
        console.beep(self._root)

    def shutdown(self) -> None:
        power.power_off(self._root)

    def reboot(self) -> None:
        power.reboot(self._root)

    def get_uuid(self, lifetime: str = "") -> str:
        return identity.get(self._root, lifetime)

    def set_uuid(self, lifetime: str, uuid: str) -> int:
        rc = identity.set_custom(self._root, lifetime, uuid)
        if rc == identity.SUCCESS:
            self._context.events.changed(Host, custom_uuid=self.custom_uuid())
        return rc

    def set_power_profile(self, profile: str) -> int:
        power.set_profile(self._root, profile)
        return 0

    def get_power_profile(self) -> str:
        return power.active_profile(self._root)

    def list_power_profiles(self) -> list[str]:
        return power.profiles(self._root)
