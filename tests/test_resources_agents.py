"""Debian's own resource agents do what they do under a cluster manager."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmh.linux.resources import LinuxResources
from libmh.spec import Plain
from testbed import needs
from waiting import wait_for

IN_A_NETWORK = """
    ip link set lo up
    ip link add v0 type veth peer name v1
    ip addr add 10.77.9.1/24 dev v0
    ip link set v0 up
    ip link set v1 up
    exec "$0" -c "$1"
"""
ADDRESS = """
    import json, subprocess
    from libmh.linux.resources import LinuxResources

    here = LinuxResources()
    given = {"ip": "10.77.9.7", "cidr_netmask": 24, "nic": "v0"}
    def shown():
        return "10.77.9.7/24" in subprocess.check_output(["ip", "-br", "addr"], text=True)
    told = []
    for action in ("monitor", "start", "monitor", "stop", "monitor"):
        rc = here.run("address", action, given, "IPaddr2").rc
        told.append([action, rc, shown()])
    wrong = here.run("address", "start", {"ip": "no address"}, "IPaddr2")
    here.close()
    print(json.dumps({"told": told, "wrong": wrong.rc, "reason": wrong.reason}))
"""


@pytest.fixture
def here() -> Iterator[LinuxResources]:
    needs.root("run resource agents")
    needs.file("/usr/lib/ocf/resource.d/heartbeat/Dummy", "resource-agents")
    needs.file("/usr/lib/ocf/resource.d/pacemaker/Stateful", "pacemaker-resource-agents")
    resources = LinuxResources()
    yield resources
    resources.close()


def codes(
    here: LinuxResources, provider: str, agent: str, given: dict[str, Plain], *actions: str
) -> list[int]:
    name = f"test-{os.getpid()}"
    return [here.invoke(name, "ocf", provider, agent, action, 0, given)[0] for action in actions]


def test_dummy(here: LinuxResources, tmp_path: Path) -> None:
    given: dict[str, Plain] = {"state": str(tmp_path / "state")}
    asked = ("monitor", "start", "monitor", "validate-all", "stop", "monitor", "no-such-action")
    assert codes(here, "heartbeat", "Dummy", given, *asked) == [7, 0, 0, 0, 0, 7, 3]


def test_a_reason_is_given_back(here: LinuxResources) -> None:
    done = here.run("d", "validate-all", {"state": "/nonexistent/state"}, "Dummy")
    assert done.rc == 2
    assert done.reason == 'State file "/nonexistent/state" is not writable'


def test_stateful(here: LinuxResources, tmp_path: Path) -> None:
    given: dict[str, Plain] = {"state": str(tmp_path / "state")}
    asked = ("monitor", "start", "monitor", "promote", "monitor", "demote", "monitor", "stop")
    assert codes(here, "pacemaker", "Stateful", given, *asked) == [7, 0, 0, 0, 8, 0, 0, 0]


def test_anything_starts_a_daemon_that_stays(here: LinuxResources, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    given: dict[str, Plain] = {
        "binfile": "/bin/sleep",
        "cmdline_options": f"333.{os.getpid()}",
        "pidfile": str(pidfile),
    }
    assert codes(here, "heartbeat", "anything", given, "monitor", "start", "monitor") == [7, 0, 0]
    pid = int(wait_for(lambda: pidfile.read_text().strip()))
    assert b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert codes(here, "heartbeat", "anything", given, "stop", "monitor") == [0, 7]


def test_ipaddr2_on_a_link_of_its_own(here: LinuxResources) -> None:
    unshare = needs.command("unshare", "util-linux")
    needs.command("ip", "iproute2")
    inside = ["sh", "-ec", IN_A_NETWORK, sys.executable, textwrap.dedent(ADDRESS)]
    done = subprocess.run(
        [unshare, "--net", *inside], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["told"] == [
        ["monitor", 7, False],
        ["start", 0, True],
        ["monitor", 0, True],
        ["stop", 0, False],
        ["monitor", 7, False],
    ]
    assert told["wrong"] not in (0, 198)
    assert told["reason"]
