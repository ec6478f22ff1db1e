"""The sandboxed agent on a booted machine: it may replace files and keep whose they are, and a run that it
does not live to see confirmed is undone by systemd's own timer."""

from collections.abc import Iterator

import pytest

from installed import INSIDE, installed_host, start
from testbed import needs
from testbed.machine import Host
from waiting import wait_for

PATHS = f"PYTHONPATH={INSIDE}/lib:{INSIDE}/needed"
CHANGE = """
import sys
from libmh.api.sysconfig import Sysconfig
from libmh.client import connect

with connect("system:") as here:
    sysconfig = here.proxy(Sysconfig)
    plan = sysconfig.plan_setting("/etc/hosts", "2/canonical", sys.argv[1])
    print(sysconfig.apply(plan.id, "key", int(sys.argv[2])).result)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    with installed_host("config", tmp_path_factory.mktemp("wheel")) as machine:
        machine.run("systemctl", "set-environment", PATHS)  # a package is where every python looks
        assert start(machine, "mh-dbus") == ""
        yield machine


def change(host: Host, name: str, confirm: int = 0) -> str:
    done = host.run("env", PATHS, "python3", "-c", CHANGE, name, str(confirm), seconds=60, check=False)
    return done.stdout.strip() or done.stderr + host.run("journalctl", "-n", "20", "-u", "mh-dbus").stdout


def hosts(host: Host) -> str:
    return host.run("cat", "/etc/hosts").stdout


def test_it_replaces_a_file_and_keeps_whose_it_is(host: Host) -> None:
    host.run("chown", "daemon:mail", "/etc/hosts")
    host.run("chmod", "640", "/etc/hosts")
    assert change(host, "two") == "applied"
    assert hosts(host).splitlines()[1].split()[1] == "two"
    assert host.run("stat", "-c", "%U %G %a", "/etc/hosts").stdout == "daemon mail 640\n"
    assert host.run("stat", "-c", "%U %a", "/var/lib/matahari/sysconfig").stdout == "root 700\n"


def test_what_is_not_confirmed_is_undone_without_the_agent(host: Host) -> None:
    before = hosts(host)
    assert change(host, "three", 2) == "pending"
    host.run("systemctl", "kill", "-s", "KILL", "mh-dbus")
    host.run("systemctl", "stop", "mh-dbus", check=False)
    assert "three" in hosts(host)
    wait_for(lambda: hosts(host) == before, seconds=15)
    assert start(host, "mh-dbus") == ""
