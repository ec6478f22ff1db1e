"""Rules of a real polkitd on a booted machine: one operator may restart one unit, another nothing."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from service_units import machine_with_units
from source_tree import ROOT
from testbed.machine import Host

PLACE = ("org.matahariproject.Services", "/org/matahariproject/Services", "org.matahariproject.Services")
AGENT = "[Service]\nType=notify\nExecStart={} -m mh_dbus.main --state /var/lib/mh\n"
RULE = """polkit.addRule(function(action, subject) {
    if (subject.user != "otto") return;
    if (action.id == "org.matahariproject.Services.restart" && action.lookup("name") == "mh-runs")
        return polkit.Result.YES;
    if (action.id == "org.matahariproject.Services.act" && action.lookup("name") == "mh-runs"
        && action.lookup("verb") == "start" && action.lookup("member") == "act") return polkit.Result.YES;
});"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    files = {
        "/etc/systemd/system/agent.service": AGENT.format(sys.executable),
        "/etc/polkit-1/rules.d/10-operator.rules": RULE,
    }
    for pattern in ("dbus-1/system.d/*.conf", "polkit-1/actions/*.policy"):
        for path in (ROOT / "packaging").glob(pattern):
            files[f"/usr/share/{path.relative_to(ROOT / 'packaging')}"] = path.read_text("utf-8")
    with machine_with_units("polkit", files) as host:
        for user in ("otto", "olga"):
            host.run("useradd", user)
        host.run("systemctl", "reload", "dbus")
        host.run("systemctl", "start", "polkit", "agent", seconds=60)
        yield host


def call(machine: Host, user: str, member: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["busctl", "--allow-interactive-authorization=no", "call", *PLACE, member, *arguments]
    return machine.run("runuser", "-u", user, "--", *command, check=False)


RESTART = ("restart", "su", "mh-runs", "10000")


def test_root_may_do_everything(machine: Host) -> None:
    assert '"done"' in call(machine, "root", *RESTART).stdout
    assert call(machine, "root", "stop", "su", "mh-runs", "10000").stdout == "u 0\n"


def test_an_operator_may_do_what_the_rule_says(machine: Host) -> None:
    assert '"done"' in call(machine, "otto", *RESTART).stdout
    assert '"done"' in call(machine, "otto", "act", "ssu", "mh-runs", "start", "10000").stdout


@pytest.mark.parametrize(
    "asked",
    [
        ("restart", "su", "mh-reloads", "10000"),
        ("act", "ssu", "mh-runs", "stop", "10000"),
        ("act", "ssu", "mh-reloads", "start", "10000"),
        ("stop", "su", "mh-runs", "10000"),
        ("mask", "s", "mh-runs"),
        ("kill", "sss", "mh-runs", "KILL", "all"),
        ("logs", "sut", "mh-runs", "10", "0"),
        ("enable", "s", "mh-runs"),
    ],
)
def test_and_nothing_else(machine: Host, asked: tuple[str, ...]) -> None:
    assert "not authorized" in call(machine, "otto", *asked).stderr


def test_another_user_may_nothing(machine: Host) -> None:
    assert "not authorized" in call(machine, "olga", *RESTART).stderr
    assert "not authorized" in call(machine, "olga", "units", "ss", "", "").stderr
