"""Resources through a real `mh-dbus`: the ancestor's signature, its death in the middle, rules of polkit."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmh.api.resources import Resources
from libmh.bus import variant
from libmh.client import connect
from libmh.errors import Conflict, NotAuthorized, NotFound
from libmh.spec import Plain
from libmh.systembus import SystemBus
from processes import agent
from source_tree import ROOT
from testbed import needs
from testbed.bus import private_bus
from testbed.callers import NOBODY, run_python_as
from testbed.polkit import polkit_bus
from waiting import wait_for

PLACE = (
    "org.matahariproject.Services",
    "/org/matahariproject/Services",
    "org.matahariproject.Resources",
)
RULE = """polkit.addRule(function(action, subject) {
    if (action.id == "org.matahariproject.Resources.invoke" && action.lookup("agent") == "Dummy"
        && action.lookup("provider") == "heartbeat" && action.lookup("action") == "monitor"
        && action.lookup("name") == "allowed" && action.lookup("member") == "invoke")
        return polkit.Result.YES;
});"""
AS_NOBODY = """
import sys
from libmh.client import connect
from libmh.api.resources import Resources
from libmh.errors import Problem
with connect(sys.argv[1]) as there:
    for name, action in (("allowed", "monitor"), ("other", "monitor"), ("allowed", "start")):
        try:
            print(there.proxy(Resources).invoke(name, "ocf", "heartbeat", "Dummy", action, 0, {})[0])
        except Problem as problem:
            print(problem.word)
"""


@pytest.fixture
def address() -> Iterator[str]:
    needs.root("run resource agents")
    needs.file("/usr/lib/ocf/resource.d/pacemaker/Dummy", "pacemaker-resource-agents")
    with private_bus() as bus:
        yield bus


def options(address: str, state: Path) -> list[str]:
    return ["--bus", address, "--state", str(state), "--only", "Resources"]


def test_the_ancestors_call(address: str, tmp_path: Path) -> None:
    given = {"state": variant("s", str(tmp_path / "s")), "fake": variant("u", 7), "more": variant("b", True)}
    caller = SystemBus(address)
    with agent("mh-dbus", *options(address, tmp_path)):
        asked = ("sssssua{sv}uus", "d", "ocf", "heartbeat", "Dummy")
        answers = [
            caller.call(*PLACE, "invoke", *asked, action, 0, given, 60_000, 0, "mine")
            for action in ("start", "monitor", "stop", "monitor")
        ]
        assert [answer[0] for answer in answers] == [0, 0, 0, 7]
        assert [answer[1] for answer in answers] == [1, 2, 3, 4]
        assert {answer[2] for answer in answers} == {"mine"}
        assert "heartbeat" in caller.call(*PLACE, "list_providers", "s", "ocf")[0]
        assert "Dummy" in caller.call(*PLACE, "list", "ss", "", "")[0]
        assert "<resource-agent" in caller.call(*PLACE, "describe", "sss", "ocf", "heartbeat", "Dummy")[0]
        with pytest.raises(NotFound):
            caller.call(*PLACE, "cancel", "ssuu", "d", "monitor", 1000, 0)
    caller.close()


def test_operations_outlive_the_agent_and_its_death_in_the_middle(address: str, tmp_path: Path) -> None:
    given: dict[str, Plain] = {"startdelay": 0, "stopdelay": 0, "mondelay": 1}
    delay = (f"delay-{os.getpid()}", "ocf", "heartbeat", "Delay")
    with agent("mh-dbus", *options(address, tmp_path)) as first, connect(address) as there:
        proxy = there.proxy(Resources)
        assert proxy.invoke(*delay, "start", 0, given)[0] == 0
        assert proxy.invoke(*delay, "monitor", 100, given, 60_000, 0, "mine")[0] == 0
        wait_for(lambda: proxy.operations()[0].running)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(5)
    with agent("mh-dbus", *options(address, tmp_path)), connect(address) as there:
        proxy = there.proxy(Resources)
        [operation] = proxy.operations()
        assert (operation.id, operation.last_rc, operation.userdata) == (
            f"{delay[0]}_monitor_100",
            0,
            "mine",
        )
        assert operation.interrupted
        events = there.events("org.matahariproject.Resources", "resource_op", timeout=20)
        assert proxy.invoke(*delay, "stop", 0, given)[0] == 0
        event = next(iter(events))
        assert (event.fields["rc"], event.fields["expected-rc"], event.fields["userdata"]) == (7, 0, "mine")
        proxy.cancel(delay[0], "monitor", 100, 0)
        assert proxy.operations() == []


def test_agents_side_by_side_say_who_owns_what_recurs(address: str, tmp_path: Path) -> None:
    listening = ("--listen", "127.0.0.1:0", "--state", str(tmp_path), "--only", "Resources")
    config = tmp_path / "amqp.toml"
    config.write_text('[authority]\n"anonymous" = "operator"\n')
    with (
        agent("mh-dbus", *options(address, tmp_path)) as owner,
        agent("mh-amqp", *listening, "--config", str(config)) as beside,
        connect(address) as local,
        connect(beside.url) as remote,
    ):
        here, there = local.proxy(Resources), remote.proxy(Resources)
        given: dict[str, Plain] = {"state": str(tmp_path / "s")}
        here.invoke("d", "ocf", "heartbeat", "Dummy", "monitor", 60_000, given)
        assert [each.id for each in there.operations()] == ["d_monitor_60000"]
        with pytest.raises(Conflict, match=f"process {owner.process.pid}"):
            there.cancel("d", "monitor", 60_000, 0)
        assert there.invoke("x", "ocf", "heartbeat", "Dummy", "monitor", 0, given)[0] == 7


def test_a_rule_allows_one_action_of_one_agent(tmp_path: Path) -> None:
    needs.file("/usr/lib/ocf/resource.d/heartbeat/Dummy", "resource-agents")
    actions = ROOT / "packaging/polkit-1/actions"
    rules = {"10-dummy": RULE}
    with polkit_bus(actions, rules) as polkit, agent("mh-dbus", *options(polkit.address, tmp_path)):
        done = run_python_as(AS_NOBODY, polkit.address, uid=NOBODY)
    assert done.stdout.split() == ["7", NotAuthorized.word, NotAuthorized.word], done.stderr
