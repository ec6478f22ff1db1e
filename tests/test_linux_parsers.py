"""Parsers of what the machine says: arbitrary text is a `Problem` or a value that can be carried, never
anything else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmh.api.host import Host, OperatingSystem
from libmh.call import convert
from libmh.errors import Problem
from libmh.linux import sysfs
from libmh.linux.config import keys
from libmh.linux.init import journal, lsb, unitnames
from libmh.linux.machine import (
    cpuinfo,
    dmi,
    identity,
    kernel,
    memory,
    mounts,
    osrelease,
    processes,
    timezone,
    utilization,
    virtualization,
)
from libmh.linux.net import links
from libmh.spec import member_of

SEEDS = (
    "MemTotal:       8131324 kB\n",
    "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu sse\n",
    "27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n",
    "30 1 0:26 /root / rw - btrfs /dev/x rw,subvol=/root\n",
    'ID=debian\nPRETTY_NAME="Debian"\nVERSION_ID="12\n',
    "btime 1763000000\n",
    "0.42 0.35 0.30 2/321 4242\n",
    "0-3,8",
    "Manufacturer:         IBM\n",
    "../usr/share/zoneinfo/Etc/UTC",
)
# pieces of the real formats put together at random reach further than noise
TEXT = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(SEEDS),
        st.sampled_from((":", "=", "\\040", " - ", "\n", "\0", '"', "9" * 30, "-1", "\\777")),
    ),
    max_size=12,
).map("".join)

PARSERS: tuple[Callable[[str], Any], ...] = (
    cpuinfo.parse_cpuinfo,
    dmi.parse_sysinfo,
    dmi.real,
    kernel.parse_boot_time,
    kernel.parse_load,
    utilization.parse_ticks,
    memory.parse_meminfo,
    lambda text: mounts.distinct(mounts.parse_mountinfo(text)),
    mounts.unescape,
    osrelease.parse_os_release,
    sysfs.parse_cpu_list,
    timezone.from_link,
    timezone.from_debian,
    virtualization.parse_environment,
    lambda text: processes.parse_state(text.encode()),
)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=TEXT)
def test_a_parser_raises_problems_only(parse: Callable[[str], Any], text: str) -> None:
    try:
        parse(text)
    except Problem as problem:
        assert problem.message  # noqa: PT017 - either is right


@given(text=TEXT)
def test_what_is_parsed_can_be_carried(text: str) -> None:
    told = cpuinfo.parse_cpuinfo(text)
    convert(member_of(Host.cpu_model), told.model)
    convert(member_of(Host.cpu_flags), told.flags)
    convert(member_of(Host.cpu_count), told.threads)
    try:
        convert(member_of(Host.boot_time), kernel.parse_boot_time(text))
        convert(member_of(Host.load), kernel.parse_load(text))
        convert(member_of(Host.operating_system), osrelease.parse_os_release(text))
    except Problem as problem:
        assert "expected" not in problem.message  # noqa: PT017 - a refusal by the wire says that word


@pytest.mark.parametrize(
    ("listed", "numbers"),
    [
        ("0", [0]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("", []),
        ("none", []),
        ("3-1", []),
        ("0-99999999", list(range(sysfs.MAX_CPUS))),
    ],
)
def test_cpu_list(listed: str, numbers: list[int]) -> None:
    assert sysfs.parse_cpu_list(listed) == numbers


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("ID=arch\nPRETTY_NAME='Arch Linux'\n", OperatingSystem("arch", "Arch Linux")),
        ("NAME=Thing\n# VERSION_ID=9\n", OperatingSystem("linux", "Thing")),
        ("ID=x\nVERSION_ID=\nID_LIKE=\n", OperatingSystem("x", "x")),
        ('ID="a b"\nPRETTY_NAME="open \\"quoted\\""\n', OperatingSystem("a b", 'open "quoted"')),
        ('ID=x\nPRETTY_NAME="not closed\n', OperatingSystem("x", '"not closed')),
    ],
)
def test_os_release(text: str, system: OperatingSystem) -> None:
    assert osrelease.parse_os_release(text) == system


@pytest.mark.parametrize(
    ("text", "model", "flags", "threads"),
    [
        (
            "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\nFeatures\t: half thumb neon\n",
            "ARMv7 Processor rev 4 (v7l)",
            "half thumb neon",
            1,
        ),
        ("processor\t: 0\nCPU implementer\t: 0x61\nCPU part\t: 0x022\n", "Apple part 0x022", "unknown", 1),
        (
            "processor\t: 0\nhart\t: 1\nisa\t: rv64imafdc\nuarch\t: sifive,u74-mc\n",
            "sifive,u74-mc",
            "unknown",
            1,
        ),
        (
            "system type\t: MIPS Malta\nprocessor\t: 0\ncpu model\t: MIPS 24Kc V0.0\n",
            "MIPS 24Kc V0.0",
            "unknown",
            1,
        ),
        (
            "processor\t: 0\nModel Name\t: Loongson-3A5000\nFeatures\t: cpucfg lam\n",
            "Loongson-3A5000",
            "cpucfg lam",
            1,
        ),
        ("", "unknown", "unknown", 0),
    ],
)
def test_cpuinfo_of_other_architectures(text: str, model: str, flags: str, threads: int) -> None:
    told = cpuinfo.parse_cpuinfo(text)
    assert (told.model, told.flags, told.threads) == (model, flags, threads)


def test_two_packages_with_the_same_core_numbers_are_four_cores() -> None:
    pairs = [(package, core) for package in (0, 1) for core in (0, 1)] * 2
    text = "".join(
        f"processor : {i}\nphysical id : {p}\ncore id : {c}\n\n" for i, (p, c) in enumerate(pairs)
    )
    told = cpuinfo.parse_cpuinfo(text)
    assert (told.threads, told.cores, told.packages) == (8, 4, 2)


@pytest.mark.parametrize(
    "value", ["To Be Filled By O.E.M.", "Default string", "None", "0000000", "123456789"]
)
def test_what_makers_leave_unfilled_is_nothing(value: str) -> None:
    assert dmi.real(value) is None


@pytest.mark.parametrize(
    ("target", "zone"),
    [
        ("/usr/share/zoneinfo/posix/America/Argentina/Ushuaia", "America/Argentina/Ushuaia"),
        ("/usr/share/zoneinfo/Etc/GMT+5", "Etc/GMT+5"),
        ("/somewhere/else", None),
        ("/usr/share/zoneinfo/../../../etc/passwd", None),
    ],
)
def test_time_zone(target: str, zone: str | None) -> None:
    assert timezone.from_link(target) == zone


def test_the_names_in_the_tables_are_what_they_should_be() -> None:
    assert not mounts.KERNEL & mounts.NETWORK
    assert {"nfs", "nfs4", "cifs", "ceph", "9p"} <= mounts.NETWORK
    assert {"proc", "sysfs", "cgroup2", "autofs"} <= mounts.KERNEL
    assert set(identity.LIFETIMES) == {"", "filesystem", "hardware", "reboot", "agent", "custom"}
    assert "docker" in dmi.CONTAINERS
    assert "kvm" not in dmi.CONTAINERS
    assert links.COUNTERS[0] == "rx_bytes"


@pytest.mark.parametrize("key", ["", ".hidden", "a/b", "..", "a\0b", "x" * 256, "ä", "a b", "a\n"])
def test_keys_that_are_none(key: str) -> None:
    assert keys.KEY.fullmatch(key) is None


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "", "x" * 256, "a\0", "a\n"])
def test_unit_names_that_are_none(name: str) -> None:
    assert unitnames.UNIT_NAME.fullmatch(name) is None


def test_the_roots_are_units_and_no_options() -> None:
    assert [unitnames.is_name(name) for name in ("-.mount", "-.slice", "-.service", "-H")] == [
        *(True, True, False, False)
    ]


def test_a_line_of_the_journal_with_any_priority_is_told() -> None:
    entry = {"__REALTIME_TIMESTAMP": "1", "MESSAGE": "m"}
    lines = [
        json.dumps({**entry, "PRIORITY": each}) for each in ("3", "x", "", "99", "9" * 5000, ["3", "4"])
    ]
    assert [each.priority for each in journal.parse("\n".join(lines))] == [3, None, None, None, None, None]


@settings(max_examples=50)
@given(name=st.text(max_size=20))
def test_left_overs_of_packages_are_no_scripts(name: str) -> None:
    assert lsb.LEFT_OVER.fullmatch(name.replace("\n", "") + ".dpkg-old")
