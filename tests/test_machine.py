"""The booted machine of the test bed: real systemd, real reboots, real power failures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.machine import DISKS, Host, booted_host, layer

UNIT = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with booted_host("smoke", files={"/etc/systemd/system/example.service": UNIT}) as machine:
        yield machine


def test_systemd_is_up(host: Host) -> None:
    state = host.run("systemctl", "is-system-running", check=False).stdout.strip()
    failed = host.run("systemctl", "--failed", "--plain", "--no-legend").stdout
    assert state == "running", failed
    assert host.run("hostname").stdout.strip() == host.name


def test_units_run_inside(host: Host) -> None:
    host.run("systemctl", "start", "example.service")
    assert host.run("systemctl", "is-active", "example.service").stdout == "active\n"


def test_the_project_is_seen_inside(host: Host) -> None:
    assert host.python("-c", "import libmh; print(libmh.__file__)").stdout.endswith("/libmh/__init__.py\n")


def test_its_bus_is_reached_from_outside(host: Host) -> None:
    socket = host.bus_address().removeprefix("unix:path=")
    assert Path(socket).is_socket()


def test_the_clock_is_out_of_reach(host: Host) -> None:
    assert host.run("date", "-s", "@0", check=False).returncode != 0


def test_a_reboot_keeps_the_disk_and_changes_the_boot_id(host: Host) -> None:
    before = host.boot_id()
    host.run("touch", "/var/lib/kept")
    host.reboot()
    assert host.boot_id() != before
    assert host.run("ls", "/var/lib/kept").stdout == "/var/lib/kept\n"


def test_a_crash_is_survived_by_the_disk(host: Host) -> None:
    host.run("touch", "/var/lib/written")
    host.crash()
    assert host.run("true", check=False).returncode != 0
    host.boot()
    assert host.run("ls", "/var/lib/written").stdout == "/var/lib/written\n"


def test_a_machine_boots_from_a_layer_and_leaves_nothing() -> None:
    with layer("smoke", "echo made >/opt/by-a-layer") as disk:
        assert not Path("/opt/by-a-layer").exists()
        with booted_host("layered", layers=[disk]) as machine:
            assert machine.run("cat", "/opt/by-a-layer").stdout == "made\n"
    assert not disk.exists()
    assert not (DISKS / machine.name).exists()
