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
    if (subject.user == "dora" && action.lookup("name") && action.lookup("name") != "mh-runs.service"
        && action.lookup("name") != "mh-many@.service" && action.lookup("name") != "mh-many@1.service"
        && action.lookup("signal") != "KILL")
        return polkit.Result.YES;
    if (subject.user != "otto") return;
    if (action.id == "org.matahariproject.Services.restart" && action.lookup("name") == "mh-runs.service")
        return polkit.Result.YES;
    if (action.id == "org.matahariproject.Services.act" && action.lookup("name") == "mh-runs.service"
        && action.lookup("verb") == "start" && action.lookup("member") == "act") return polkit.Result.YES;
});"""

ALIASES = {"mh-alias": "mh-runs", "mh-lots@": "mh-many@"}


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
        for user in ("otto", "olga", "dora"):
            host.run("useradd", user)
        for alias, unit in ALIASES.items():
            host.run("ln", "-s", f"{unit}.service", f"/etc/systemd/system/{alias}.service")
        host.run("systemctl", "daemon-reload")
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


SPELLINGS = ("mh-runs", "mh-runs.service", "mh-alias", "mh-alias.service")


def test_a_rule_holds_for_a_unit_however_it_is_spelled(machine: Host) -> None:
    for spelling in SPELLINGS:
        assert '"done"' in call(machine, "otto", "restart", "su", spelling, "10000").stdout
        assert "not authorized" in call(machine, "dora", "restart", "su", spelling, "10000").stderr
    assert '"done"' in call(machine, "dora", "restart", "su", "mh-reloads", "10000").stdout


@pytest.mark.parametrize("name", ["mh-many@1", "mh-lots@1", "mh-lots@1.service", "mh-many@", "mh-lots@"])
def test_and_for_instances_of_templates(machine: Host, name: str) -> None:
    assert "not authorized" in call(machine, "dora", "start", "su", name, "10000").stderr
    assert "not authorized" in call(machine, "dora", "enable", "s", name).stderr


def test_what_is_no_unit_is_decided_by_the_name_given(machine: Host) -> None:
    assert "no unit" in call(machine, "dora", "restart", "su", "mh-absent", "10000").stderr
    assert "not authorized" in call(machine, "otto", "restart", "su", "mh-absent", "10000").stderr
    assert call(machine, "dora", "start", "su", "../mh-runs", "10000").stdout == "u 5\n"
    assert call(machine, "dora", "start", "su", "mh-lots@2", "10000").stdout == "u 0\n"


def test_a_signal_is_one_signal(machine: Host) -> None:
    call(machine, "root", "start", "su", "mh-reloads", "10000")
    for word in ("KILL", "sigkill", "9", "09"):
        assert "not authorized" in call(machine, "dora", "kill", "sss", "mh-reloads", word, "all").stderr
    assert '"done"' in call(machine, "dora", "kill", "sss", "mh-reloads", "18", "all").stdout
