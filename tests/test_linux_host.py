"""The host's properties: of captured machines as they must be, of this one as they can be."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captured import MACHINES, captured, copy_of, put
from libmh.api.host import CpuTopology, Hardware, OperatingSystem
from libmh.context import Context, Root, Settings
from libmh.errors import BackendFailed, NotImplementedHere
from libmh.events import Event
from libmh.linux.host import LinuxHost
from libmh.linux.machine.utilization import Utilization
from testbed.callers import run_python_as

KVM = {
    "hostname": "deb12",
    "uuid": "4c1f0f9b4e0d4a7fb0f1e6f2d6c7a891",
    "custom_uuid": "not-available",
    "os": "Linux (6.1.0-18-amd64)",
    "operating_system": OperatingSystem("debian", "Debian GNU/Linux 12 (bookworm)", "12"),
    "kernel": "6.1.0-18-amd64",
    "arch": "x86_64",
    "boot_id": "0b7b6f34-7a9e-4f3f-9d0a-1f6f2f7a2c11",
    "boot_time": 1763000000_000000000,
    "virtualization": "kvm",
    "hardware": Hardware(
        vendor="QEMU",
        model="Standard PC (Q35 + ICH9, 2009)",
        version="pc-q35-7.2",
        chassis="vm",
        firmware_vendor="SeaBIOS",
        firmware_version="1.16.2-debian-1.16.2-1",
        firmware_date="04/01/2014",
    ),
    "memory": 8131324,
    "swap": 999420,
    "cpu_count": 4,
    "cpu_cores": 2,
    "cpu_model": "Intel Xeon Processor (Cascadelake)",
    "cpu_topology": CpuTopology(sockets=1, cores=2, threads=4, threads_per_core=2, numa_nodes=1),
    "update_interval": 5,
    "last_updated": 0,
    "sequence": 0,
    "free_mem": 512340,
    "available_mem": 5123456,
    "free_swap": 999416,
    "load": {"1": 0.42, "5": 0.35, "15": 0.30},
    "cpu_utilization": (28 - 9) / 28,
    # a name may hold blanks and parentheses; an idle kernel thread counts in the total alone
    "process_statistics": {"total": 7, "running": 1, "sleeping": 2, "stopped": 1, "zombie": 1, "idle": 1},
    "time_zone": "Europe/Berlin",
}
LAPTOP = {
    "hostname": "9a7b5c3d1e2f40516273849506a7b8c9",  # it is still called localhost
    "custom_uuid": "asset-0042",
    "operating_system": OperatingSystem("fedora", "Fedora Linux 40 (Workstation Edition)", "40"),
    "virtualization": "none",
    "cpu_count": 8,
    "cpu_cores": 4,
    "cpu_topology": CpuTopology(1, 4, 8, 2, 1, max_frequency=4200),
    "time_zone": "Europe/Amsterdam",
}
PI = {
    "arch": "aarch64",
    "virtualization": "none",
    "hardware": Hardware("raspberrypi", "Raspberry Pi 4 Model B Rev 1.4", serial="10000000deadbeef"),
    "cpu_model": "ARM Cortex-A72",
    "cpu_flags": "fp asimd evtstrm crc32 cpuid",
    "cpu_cores": 4,
    "available_mem": 2012340 + 50000 + 1000000,  # a kernel without MemAvailable
    "time_zone": "Europe/London",  # /etc/localtime is a copy
}
CONTAINER = {
    "uuid": "not-available",
    "virtualization": "docker",
    "hardware": Hardware(vendor="QEMU", chassis="container"),
    "cpu_topology": CpuTopology(1, 2, 2, 1, 1),
    "swap": 0,
    "time_zone": "UTC",
}
MAINFRAME = {
    "operating_system": OperatingSystem("rhel", "Red Hat Enterprise Linux 9.4 (Plow)", "9.4", ["fedora"]),
    "virtualization": "zvm",
    "hardware": Hardware("IBM", "8561", "701 T01", "133E8", "vm"),
    "cpu_model": "IBM/S390 8561",
    "cpu_flags": "esan3 zarch stfle msa ldisp eimm dfp edat etf3eh highgprs te vx vxd vxe gs vxe2 vxp sort "
    "dflt sie",
    "cpu_count": 2,
    "time_zone": "America/New_York",
}
POWER = {
    "uuid": "00112233445566778899aabbccddeeff",  # D-Bus's file stands in for /etc/machine-id
    "operating_system": OperatingSystem(
        "opensuse-tumbleweed", "openSUSE Tumbleweed", id_like=["opensuse", "suse"]
    ),
    "virtualization": "powervm",
    "cpu_model": "POWER9 (architected)",
    "cpu_flags": "altivec",
    "cpu_topology": CpuTopology(1, 2, 8, 4, 2),
}
EXPECTED = {
    "debian12-kvm": KVM,
    "fedora-laptop": LAPTOP,
    "arm64-pi": PI,
    "container": CONTAINER,
    "s390x-zvm": MAINFRAME,
    "ppc64le-powervm": POWER,
}


@pytest.mark.parametrize(
    ("machine", "name", "value"),
    [(machine, name, value) for machine, values in EXPECTED.items() for name, value in values.items()],
)
def test_captured_machine(machine: str, name: str, value: Any) -> None:
    assert getattr(LinuxHost(captured(machine)), name)() == value


def test_every_captured_machine_is_expected() -> None:
    assert set(EXPECTED) == set(MACHINES)


def test_processors_are_busy_since_they_were_last_looked_at(tmp_path: Path) -> None:
    now, machine = 0.0, Context(Root(tmp_path))
    told = Utilization(machine.root, lambda: now)

    def share(stat: str, when: float) -> float:
        nonlocal now
        put(machine, "/proc/stat", stat)
        now = when
        return told.share()

    assert share("cpu  10 0 10 60 20 0 0 0 0 0\n", 0.0) == 0.2
    assert share("cpu  99 0 99 60 20 0 0 0 0 0\n", 0.5) == 0.2  # too soon
    assert share("cpu  20 0 50 110 20 0 0 0 0 0\n", 1.5) == 0.5
    assert share("cpu  20 0 50 110 20 0 0 0 0 0\n", 3.0) == 0.5  # not a tick
    assert share("cpu  0 0 5 15\n", 5.0) == 0.5  # processors that went away
    assert share("cpu  10 5 10 15\n", 7.0) == 1.0
    with pytest.raises(BackendFailed, match="no line 'cpu'"):
        share("cpu  1 2 3\n", 9.0)


def test_flags_of_avx512() -> None:
    assert {"avx512f", "avx512_vnni", "vmx"} <= set(LinuxHost(captured("debian12-kvm")).cpu_flags().split())


def test_disks_are_whole_devices_and_no_memory() -> None:
    cdrom, disk = LinuxHost(captured("debian12-kvm")).disks()
    assert (cdrom.name, cdrom.removable, cdrom.model) == ("sr0", True, "QEMU DVD-ROM")
    assert (disk.name, disk.size, disk.rotational, disk.serial) == ("vda", 107374182400, True, "disk-0001")
    nvme = LinuxHost(captured("fedora-laptop")).disks()[1]
    assert (nvme.name, nvme.rotational, nvme.model) == ("nvme0n1", False, "SAMSUNG MZVLB512HAJQ-000L7")
    assert nvme.serial == "S3TNNX0K123456"


def test_an_empty_machine_says_why_it_says_nothing(tmp_path: Path) -> None:
    facts = LinuxHost(Context(root=Root(tmp_path))).facts()
    assert {name for name, fact in facts.items() if fact.status not in ("ok", "unsupported")} == set()
    assert all(fact.reason for fact in facts.values() if fact.status == "unsupported")
    assert facts["memory"].reason == "'/proc/meminfo' does not exist here"


def test_importing_the_host_is_cheap() -> None:
    snippet = (
        "import sys, libmh.linux.host; print(sorted(set(sys.modules) & {'psutil', 'asyncio', 'subprocess'}))"
    )
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unprivileged_user_gets_all_but_what_root_alone_may_read() -> None:
    snippet = """
        from libmh.linux.host import LinuxHost
        statuses = {name: fact.status.value for name, fact in LinuxHost().facts().items()}
        print({name: status for name, status in statuses.items() if status not in ("ok", "unsupported")})
    """
    done = run_python_as(snippet)
    assert done.stdout.strip() == "{}", done.stderr


def test_heartbeat_counts_and_tells() -> None:
    context = captured("debian12-kvm")
    host, seen = LinuxHost(context), list[Event]()
    context.events.subscribe(seen.append)
    host.beat()
    host.beat()
    assert [event.fields["sequence"] for event in seen] == [1, 2] == [1, host.sequence()]
    assert seen[1].fields["timestamp"] == host.last_updated() > 1_700_000_000_000_000_000
    assert seen[1].fields["hostname"] == "deb12"
    assert seen[1].name == "org.matahariproject.Host.heartbeat"


def test_update_interval_persists(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    LinuxHost(Context(settings=Settings(path))).set_update_interval(7)
    assert LinuxHost(Context(settings=Settings(path))).update_interval() == 7


@pytest.mark.parametrize("kept", ["-1", "4294967296", '"5"', "true"])
def test_update_interval_that_is_none_counts_as_absent(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(f'{{"update_interval": {kept}}}')
    assert LinuxHost(Context(settings=Settings(path))).update_interval() == 5


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("/run/systemd/container", "systemd-nspawn\n", "systemd-nspawn"),
        ("/run/systemd/container", "my-own-runtime\n", "container-other"),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0", "lxc"),
        ("/run/.containerenv", "", "podman"),
        ("/proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n", "wsl"),
        ("/sys/hypervisor/type", "xen\n", "xen"),
        ("/sys/class/dmi/id/sys_vendor", "VMware, Inc.\n", "vmware"),
        ("/sys/class/dmi/id/product_name", "VirtualBox\n", "oracle"),
        ("/sys/class/dmi/id/product_version", "Hyper-V UEFI Release v4.1\n", "microsoft"),
        ("/proc/device-tree/hypervisor/compatible", "linux,kvm\0", "kvm"),
        ("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor sse\n", "vm-other"),
        ("/proc/cpuinfo", "vendor_id\t: User Mode Linux\n", "uml"),
    ],
)
def test_virtualization_in_the_words_of_systemd(name: str, text: str, word: str, tmp_path: Path) -> None:
    context = copy_of("fedora-laptop", tmp_path)
    put(context, name, text)
    assert LinuxHost(context).virtualization() == word


def test_the_control_domain_of_xen_is_the_machine_itself(tmp_path: Path) -> None:
    context = copy_of("fedora-laptop", tmp_path)
    put(context, "/sys/hypervisor/type", "xen\n")
    put(context, "/proc/xen/capabilities", "control_d\n")
    assert LinuxHost(context).virtualization() == "none"


def test_no_console_is_not_implemented(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedHere):
        LinuxHost(Context(root=Root(tmp_path))).identify()
    put(Context(root=Root(tmp_path)), "/dev/tty0", "a file, no console")
    with pytest.raises(NotImplementedHere, match="no console"):
        LinuxHost(Context(root=Root(tmp_path))).identify()
