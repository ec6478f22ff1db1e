"""The units as they are installed: they hold together, they confine, they come up on a booted machine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import NAMES, UNITS, installed_host, start
from testbed import needs
from testbed.machine import Host

EXPOSURE = {"mh-broker": 1.5, "mh-conductor": 1.5, "mh-amqp": 2.0, "mh-dbus": 4.2}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the commands of this environment."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/mh-", f"{sys.prefix}/bin/mh-"))
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [needs.command("systemd-analyze", "systemd"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_daemon_has_its_unit() -> None:
    assert NAMES == ["mh-amqp", "mh-broker", "mh-conductor", "mh-dbus"]


def test_systemd_has_no_complaint(installed: Path) -> None:
    done = analyze("verify", *(str(installed / unit.name) for unit in UNITS))
    complaints = [line for line in done.stderr.splitlines() if "mh-" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", NAMES)
def test_unit_is_confined(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(installed / f"{name}.service"))
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= EXPOSURE[name]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with installed_host("units", tmp_path_factory.mktemp("wheel")) as machine:
        yield machine


@pytest.mark.parametrize("name", ["mh-broker", "mh-conductor", "mh-dbus", "mh-amqp"])
def test_unit_comes_up_and_ends(host: Host, name: str) -> None:
    assert start(host, name) == ""
    assert host.run("systemctl", "is-active", name).stdout == "active\n"
    host.run("systemctl", "stop", name, seconds=60)
    shown = host.run("systemctl", "show", "-p", "Result", "-p", "ExecMainStatus", name).stdout
    assert set(shown.split()) == {"Result=success", "ExecMainStatus=0"}


def test_one_of_several_conductors_comes_up(host: Host) -> None:
    options = "--broker amqp://127.0.0.1:5672 --store sqlite:////var/lib/matahari-conductor-2/fleet.db"
    host.run("sh", "-c", f"echo 'OPTIONS={options}' > /etc/default/mh-conductor")
    try:
        assert [start(host, name) for name in ("mh-broker", "mh-conductor@2")] == [""] * 2
        assert host.run("systemctl", "is-active", "mh-conductor@2").stdout == "active\n"
        host.run("systemctl", "stop", "mh-conductor@2", seconds=60)
    finally:
        host.run("rm", "/etc/default/mh-conductor")


def test_the_host_is_served_on_both_buses(host: Host) -> None:
    assert [start(host, name) for name in ("mh-broker", "mh-conductor", "mh-dbus", "mh-amqp")] == [""] * 4
    local = host.run("mhctl", "--on", "system:", "get", "Host.hostname").stdout.strip()
    assert local.endswith(host.name)
    uuid = host.run("mhctl", "--on", "system:", "get", "Host.uuid").stdout.strip()
    remote = host.run(
        "mhctl", "--on", f"amqp://127.0.0.1:5672/{uuid}", "get", "Host.hostname"
    ).stdout.strip()
    assert remote == local


def test_the_machine_is_reported_not_the_sandbox(host: Host) -> None:
    assert start(host, "mh-dbus") == ""
    outside = host.run("mhctl", "--on", "local:", "--json", "get", "Host.filesystems").stdout
    inside = host.run("mhctl", "--on", "system:", "--json", "get", "Host.filesystems").stdout
    paths = [re.findall(r'"(?:path|mount_point|mountpoint)": "([^"]+)"', text) for text in (outside, inside)]
    assert paths[0]
    assert paths[0] == paths[1]
