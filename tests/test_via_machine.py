"""A machine as it is installed: a console far away, a broker, the agent that faces it, the one that may."""

import json
from collections.abc import Iterator

import pytest

from installed import installed_host, start
from source_tree import ROOT
from testbed import needs
from testbed.machine import Host

DROP_IN = "/etc/systemd/system/mh-dbus.service.d/resources.conf"
FILES = {
    "/etc/matahari/mh-amqp.toml": '[authority]\n"anonymous" = "operator"\n',
    "/etc/default/mh-amqp": 'OPTIONS="--config /etc/matahari/mh-amqp.toml"\n',
    DROP_IN: (ROOT / "packaging" / DROP_IN.lstrip("/")).read_text(),
    "/etc/systemd/system/mh-example.service": "[Service]\nExecStart=/bin/sleep 1000\n",
}
UNITS = ("mh-broker", "mh-conductor", "mh-dbus", "mh-amqp")
REPORTED = """
import json, sys
from libmh.api.aggregates import Aggregates
from libmh.api.host import Host
from libmh.client import connect
from libmh.capability import survey
from waiting import wait_for
with connect("amqp://127.0.0.1:5672") as fleet, connect("system:") as here:
    aggregates = fleet.proxy(Aggregates)
    wait_for(aggregates.hosts, seconds=20)
    facts = aggregates.report(sys.argv[1]).facts
    both = facts, survey(here.proxy(Host)).facts
print(json.dumps([{name: [fact.status, fact.value] for name, fact in each.items()} for each in both]))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    needs.file("/usr/lib/ocf/resource.d/heartbeat/anything", "resource-agents")
    with installed_host("via", tmp_path_factory.mktemp("wheel"), FILES) as machine:
        assert [start(machine, name) for name in UNITS] == [""] * len(UNITS)
        yield machine


def url(host: Host) -> str:
    uuid = host.run("mhctl", "--on", "system:", "get", "Host.uuid").stdout.strip()
    return f"amqp://127.0.0.1:5672/{uuid}"


def test_what_dies_is_seen_and_recovered_from_far_away(host: Host) -> None:
    done = host.python(str(ROOT / "tests/console.py"), url(host), seconds=90, check=False)
    assert done.returncode == 0, done.stderr + host.run("journalctl", "-n", "40", "-o", "cat").stdout
    told = json.loads(done.stdout)
    service, resource = told["service"], told["resource"]
    assert (service["start"], service["restart"], service["stop"]) == (0, "done", 0)
    states = [state for state, _ in service["states"]]
    assert states.index("active") < states.index("failed")
    assert "active" in states[states.index("failed") :]
    assert [resource[name] for name in ("start", "monitor", "restart", "stop")] == [0, 0, 0, 0]
    assert (1 in resource["codes"], resource["codes"][-1]) == (True, 0)
    assert told["beats"] == sorted(set(told["beats"]))


def test_what_is_reported_is_what_the_one_that_may_can_read(host: Host) -> None:
    uuid = url(host).rpartition("/")[2]
    tests = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})"
    done = host.python("-c", tests + REPORTED, uuid, seconds=60, check=False)
    assert done.returncode == 0, done.stderr
    reported, read = json.loads(done.stdout)
    assert reported == read
    assert reported["memory"][0] == "ok"


def test_the_agent_that_faces_the_network_is_nobody(host: Host) -> None:
    shown = host.run("systemctl", "show", "-P", "MainPID", "mh-amqp").stdout.strip()
    status = host.run("cat", f"/proc/{shown}/status").stdout
    fields = {
        name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())
    }
    assert fields["Uid"] == [host.run("id", "-u", "matahari").stdout.strip()] * 4
    assert {fields[name][0] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}


def test_it_goes_on_when_the_other_one_is_restarted(host: Host) -> None:
    before = host.run("systemctl", "show", "-P", "MainPID", "mh-amqp").stdout
    host.run("systemctl", "kill", "-s", "KILL", "mh-dbus")
    host.run("systemctl", "restart", "mh-dbus", seconds=60)
    name = host.run("mhctl", "--on", url(host), "get", "Host.hostname").stdout.strip()
    assert name.endswith(host.name)
    assert host.run("systemctl", "show", "-P", "MainPID", "mh-amqp").stdout == before
