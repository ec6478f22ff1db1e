"""Resources on a booted machine: its units and scripts, scopes of their own, and the whole way over AMQP."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmh.linux.confinement import taken
from source_tree import ROOT
from testbed import needs
from testbed.machine import Host, booted_host

UNIT = "[Unit]\nDescription=An example\n[Service]\nExecStart=/bin/sleep 1000\n"
FAILS = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
SCRIPT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: scripted
# Short-Description: A script
### END INIT INFO
[ "$1" = status ] && exit 3
exit 0
"""
DAEMON = """#!/bin/sh
[ "$1" = start ] && { sleep 4321 >/dev/null 2>&1 </dev/null & }
[ "$1" = hang ] && sleep 4322
exit 0
"""
SHIPPED = ROOT / "packaging/systemd/mh-dbus.service"
FREE = ROOT / "packaging/etc/systemd/system/mh-dbus.service.d/resources.conf"
AUTHORITY = '[authority]\n"anonymous" = "operator"\n'

HERE = """
import json
from libmh.linux.resources import LinuxResources
from libmh.errors import Problem
here = LinuxResources()
def rc(standard, agent, action, timeout=60000):
    try:
        return here.invoke("r", standard, "", agent, action, 0, {}, timeout)[0]
    except Problem as problem:
        return problem.word
"""
UNITS = (
    HERE
    + """
print(json.dumps({
    "standards": here.list_standards(),
    "listed": "example" in here.list_agents("systemd", "") and "example" in here.list_agents("service", ""),
    "codes": [rc("systemd", "example", a) for a in
              ("monitor", "start", "monitor", "restart", "status", "reload", "stop", "monitor", "promote")],
    "service": [rc("service", "example.service", a) for a in ("start", "status", "stop")],
    "fails": rc("systemd", "fails", "start"),
    "none": [rc("systemd", n, "start") for n in ("no-such", "-example", "../example", "")],
    "lsb": [rc("lsb", "scripted", a) for a in ("start", "stop")],
    "xml": "<resource-agent" in here.describe("systemd", "", "example"),
}))
here.close()
"""
)
SCOPES = (
    HERE
    + """
print(here.invoke("d", "ocf", "test", "Daemon", "start", 0, {})[0])
print(here.invoke("d", "ocf", "test", "Daemon", "hang", 0, {}, 500)[0])
here.close()
"""
)
# what a console far away does with a resource that dies
FAR_AWAY = """
import json, os, signal, sys, threading
from libmh.api.resources import Resources
from libmh.client import connect
url, pidfile = sys.argv[1:]
given = {"binfile": "/bin/sleep", "cmdline_options": "4444", "pidfile": pidfile}
anything = ("sleeper", "ocf", "heartbeat", "anything")
told = {}
with connect(url) as there, connect(url) as listening:
    resources = there.proxy(Resources)
    told["start"] = resources.invoke(*anything, "start", 0, given)[0]
    told["monitor"] = resources.invoke(*anything, "monitor", 200, given, 10000, 0, "far")[0]
    events = listening.events("org.matahariproject.Resources", "resource_op", timeout=20)
    seen = []
    ready = threading.Event()
    def listen():
        for event in events:
            seen.append([event.fields["rc"], event.fields["userdata"]])
            ready.set()
            if seen[-1][0] == 0 and any(rc == 1 for rc, _ in seen):
                return
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    resources.fail("sleeper", 9)  # until it is heard, nobody listens yet
    while not ready.wait(0.3):
        resources.fail("sleeper", 9)
    os.kill(int(open(pidfile).read()), signal.SIGKILL)
    for _ in range(100):
        if any(rc == 1 for rc, _ in seen):
            break
        threading.Event().wait(0.1)
    told["restart"] = resources.invoke(*anything, "start", 0, given)[0]
    thread.join(10)
    told["codes"] = [rc for rc, _ in seen]
    told["userdata"] = sorted({userdata for _, userdata in seen})
    told["operations"] = [each.id for each in resources.operations()]
    resources.cancel("sleeper", "monitor", 200, 0)
    told["stop"] = resources.invoke(*anything, "stop", 0, given)[0]
    told["left"] = len(resources.operations())
print(json.dumps(told))
"""


def shown(status: str) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def telling(unit: str) -> str:
    """A unit with its confinement, and a command that tells of it."""
    kept = [line for line in unit.splitlines() if not line.startswith(("Type=", "ExecStart=", "Group="))]
    told = "[Service]\nType=oneshot\nExecStart=/bin/cat /proc/self/status"
    return "\n".join(kept).replace("[Service]", told)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    needs.file("/usr/lib/ocf/resource.d/heartbeat/anything", "resource-agents")
    files = {
        "/etc/systemd/system/example.service": UNIT,
        "/etc/systemd/system/fails.service": FAILS,
        "/etc/init.d/scripted": SCRIPT,
        "/usr/lib/ocf/resource.d/test/Daemon": DAEMON,
        "/etc/matahari/mh-amqp.toml": AUTHORITY,
        "/etc/systemd/system/confined.service": telling(SHIPPED.read_text()),
        "/etc/systemd/system/free.service": telling(SHIPPED.read_text()),
        "/etc/systemd/system/free.service.d/resources.conf": FREE.read_text(),
    }
    with booted_host("resources", files=files) as machine:
        yield machine


def test_units_and_scripts_are_resources(host: Host) -> None:
    told = json.loads(host.python("-c", UNITS, seconds=60).stdout)
    assert told["standards"] == ["ocf", "lsb", "systemd", "service"]
    assert told["listed"]
    assert told["codes"][:5] == [3, 0, 0, 0, 0]
    assert told["codes"][5] != 0  # it cannot be reloaded
    assert told["codes"][6:] == [0, 3, 3]
    assert told["service"] == [0, 0, 0]
    assert told["fails"] == 1
    assert not {0, 1} & {code for code in told["none"] if isinstance(code, int)}
    assert told["lsb"] == [0, 0]
    assert told["xml"]


def test_what_an_action_starts_is_in_a_scope_of_its_own(host: Host) -> None:
    done = host.run("systemd-run", "--quiet", "--pipe", "--wait", sys.executable, "-c", SCOPES, seconds=60)
    assert done.stdout.split() == ["0", "198"]
    [pid] = host.run("pgrep", "-f", "sleep 4321").stdout.split()  # it outlived the agent's unit
    assert "/matahari-" in host.run("cat", f"/proc/{pid}/cgroup").stdout
    assert host.run("pgrep", "-f", "sleep 4322", check=False).stdout == ""
    host.run("kill", pid)


def test_a_resource_dies_and_recovers_over_amqp(host: Host) -> None:
    broker = (sys.executable, "-m", "mh_amqp.broker_main", "--state", "/var/lib/mh-broker")
    agent = (sys.executable, "-m", "mh_amqp.main", "--state", "/var/lib/mh-amqp")
    config = ("--config", "/etc/matahari/mh-amqp.toml")
    host.run("systemd-run", "--quiet", "--unit=broker", "-p", "Type=notify", *broker)
    host.run("systemd-run", "--quiet", "--unit=agent", "-p", "Type=notify", *agent, *config)
    uuid = host.run(str(Path(sys.executable).with_name("mhctl")), "get", "Host.uuid").stdout.strip()
    url = f"amqp://127.0.0.1:5672/{uuid}"
    done = host.python("-c", FAR_AWAY, url, "/run/sleeper.pid", seconds=90, check=False)
    assert done.returncode == 0, done.stderr + host.run("journalctl", "-n", "30", "-u", "agent").stdout
    told = json.loads(done.stdout)
    assert [told[name] for name in ("start", "monitor", "restart", "stop")] == [0, 0, 0, 0]
    codes = told["codes"]
    assert codes[0] == 9
    assert 1 in codes  # what `anything` says of a process that is gone
    assert codes[-1] == 0
    assert codes.index(1) < len(codes) - 1
    assert (told["userdata"], told["operations"], told["left"]) == (["far"], ["sleeper_monitor_200"], 0)


def test_the_drop_in_gives_back_what_the_unit_takes(host: Host) -> None:
    told = {}
    for unit in ("confined", "free"):
        host.run("systemctl", "start", unit)
        host.run("journalctl", "--sync")
        told[unit] = shown(host.run("journalctl", "-u", unit, "-o", "cat").stdout)
    assert taken(told["confined"]) == "capabilities, new privileges, system calls"
    # of capabilities the test's machine has fewer than a real one, but those that count
    assert taken(told["free"]) == ""
