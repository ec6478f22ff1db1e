"""UUIDs by lifetime, as the ancestor's clients expect them."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from captured import captured, copy_of, put
from libmh.context import Context, Root
from libmh.events import Event
from libmh.linux.host import LinuxHost
from libmh.linux.machine import identity
from testbed.callers import run_python_as


@pytest.mark.parametrize(
    ("lifetime", "uuid"),
    [
        ("", "4c1f0f9b4e0d4a7fb0f1e6f2d6c7a891"),
        ("Filesystem", "4c1f0f9b4e0d4a7fb0f1e6f2d6c7a891"),
        ("FILESYSTEM", "4c1f0f9b4e0d4a7fb0f1e6f2d6c7a891"),
        ("hardware", "c0ffee00-1234-4abc-8def-0123456789ab"),
        ("Reboot", "0b7b6f34-7a9e-4f3f-9d0a-1f6f2f7a2c11"),
        ("Custom", "not-available"),
        ("Forever", "invalid-lifetime"),
        ("filesystem ", "invalid-lifetime"),
        ("../etc/passwd", "invalid-lifetime"),
    ],
)
def test_uuid_of_a_lifetime(lifetime: str, uuid: str) -> None:
    assert LinuxHost(captured("debian12-kvm")).get_uuid(lifetime) == uuid


def test_hardware_of_a_partition_is_in_the_device_tree() -> None:
    host = LinuxHost(captured("ppc64le-powervm"))
    assert host.get_uuid("Hardware") == "8c5e9a30-1b2c-4d5e-8f90-a1b2c3d4e5f6"


@pytest.mark.parametrize("lifetime", ["Filesystem", "Hardware", "Reboot", "Custom"])
def test_an_empty_machine_has_none(lifetime: str, tmp_path: Path) -> None:
    assert LinuxHost(Context(root=Root(tmp_path))).get_uuid(lifetime) == "not-available"


def test_agent_is_the_same_in_a_process_and_another_in_the_next() -> None:
    snippet = "from libmh import Host; print(Host().get_uuid('agent'), Host().get_uuid('Agent'))"
    outputs = [
        subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=30).stdout
        for _ in range(2)
    ]
    (first, again), (second, _) = (output.split() for output in outputs)
    assert first == again != second


@pytest.mark.parametrize("told", ["", "\n", "uninitialized\n"])
def test_a_machine_id_that_is_none_is_looked_for_elsewhere(told: str, tmp_path: Path) -> None:
    context = copy_of("container", tmp_path)
    put(context, "/etc/machine-id", told)
    put(context, "/var/lib/dbus/machine-id", "feedfeedfeedfeedfeedfeedfeedfeed\n")
    assert LinuxHost(context).uuid() == "feedfeedfeedfeedfeedfeedfeedfeed"


def test_custom_is_kept_as_it_is_and_told(tmp_path: Path) -> None:
    context, seen = copy_of("debian12-kvm", tmp_path), list[Event]()
    context.events.subscribe(seen.append)
    host = LinuxHost(context)
    assert host.set_uuid("CUSTOM", "rack 7, höhe 3") == 0
    assert host.custom_uuid() == host.get_uuid("custom") == "rack 7, höhe 3"
    assert (tmp_path / "etc/custom-machine-id").read_bytes() == "rack 7, höhe 3".encode()
    assert [(event.member, event.fields) for event in seen] == [("", {"custom_uuid": "rack 7, höhe 3"})]
    assert host.set_uuid("Custom", "") == 0
    assert host.custom_uuid() == "not-available"
    assert [path.name for path in (tmp_path / "etc").glob(".custom*")] == []


@pytest.mark.parametrize("lifetime", ["Filesystem", "Hardware", "Reboot", "Agent", "", "nonsense"])
def test_only_custom_can_be_set(lifetime: str, tmp_path: Path) -> None:
    context, seen = copy_of("debian12-kvm", tmp_path), list[Event]()
    context.events.subscribe(seen.append)
    assert LinuxHost(context).set_uuid(lifetime, "x") == 23
    assert seen == []


def test_set_uuid_without_the_directory_says_what_glib_says(tmp_path: Path) -> None:
    assert LinuxHost(Context(root=Root(tmp_path))).set_uuid("Custom", "x") == 4


def test_set_uuid_without_the_right_says_what_glib_says() -> None:
    done = run_python_as("from libmh import Host; print(Host().set_uuid('Custom', 'x'))")
    assert done.stdout.strip() == "2", done.stderr


def test_numbers_of_glib() -> None:
    wanted = {errno.EACCES: 2, errno.EROFS: 8, errno.ENOSPC: 12, errno.EPERM: 22}
    assert wanted.items() <= identity.FILE_ERRORS.items()
    assert 0 not in identity.FILE_ERRORS.values()


def test_a_huge_custom_uuid_can_still_be_carried(tmp_path: Path) -> None:
    context = copy_of("debian12-kvm", tmp_path)
    put(context, "/etc/custom-machine-id", "ü" * 100_000)
    assert len(LinuxHost(context).custom_uuid()) == 65_535
