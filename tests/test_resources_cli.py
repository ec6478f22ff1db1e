"""`mhctl resources` as it is typed."""

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from libmh.cli.main import mhctl
from libmh.cli.resources import parameters
from libmh.errors import InvalidArguments
from processes import agent
from testbed import needs
from testbed.bus import private_bus


def run(*words: str) -> Result:
    return CliRunner().invoke(mhctl, list(words))


@pytest.fixture(autouse=True)
def dummy() -> None:
    needs.root("run resource agents")
    needs.file("/usr/lib/ocf/resource.d/heartbeat/Dummy", "resource-agents")


def test_what_there_is() -> None:
    assert "ocf\n" in run("resources", "standards").stdout
    assert "heartbeat\n" in run("resources", "providers").stdout
    assert "Dummy\n" in run("resources", "list").stdout
    assert "Stateless" not in run("resources", "list", "ocf", "heartbeat").stdout
    described = run("resources", "describe", "Dummy").stdout
    assert "Example stateless resource agent" in described
    assert "monitor" in described
    assert "<resource-agent" in run("resources", "describe", "Dummy", "--xml").stdout


def test_an_action_ends_with_the_code_that_was_expected_or_not(tmp_path: Path) -> None:
    asked = ("-a", "Dummy", "-o", f"state={tmp_path / 'state'}")
    done = run("resources", "invoke", "d", "monitor", *asked)
    assert (done.exit_code, done.stdout.startswith("rc 7 (not running)")) == (1, True)
    assert run("resources", "invoke", "d", "monitor", *asked, "--expected-rc", "7").exit_code == 0
    assert run("resources", "invoke", "d", "start", *asked).exit_code == 2  # it wants --yes
    assert not (tmp_path / "state").exists()
    assert run("resources", "invoke", "d", "start", *asked, "--yes").exit_code == 0
    told = json.loads(run("--json", "resources", "invoke", "d", "monitor", *asked).stdout)
    assert (told["rc"], told["truncated"]) == (0, False)


def test_the_agents_reason_is_shown() -> None:
    done = run("resources", "invoke", "d", "validate-all", "-a", "Dummy", "-o", "state=/nonexistent/state")
    assert done.exit_code == 1
    assert "rc 2 (wrong arguments) in " in done.stdout
    assert 'State file "/nonexistent/state" is not writable' in done.stdout.splitlines()[0]


def test_what_recurs_needs_an_agent_that_stays(tmp_path: Path) -> None:
    assert run("resources", "invoke", "d", "monitor", "-a", "Dummy", "-i", "1000").exit_code == 2
    with (
        private_bus() as address,
        agent("mh-dbus", "--bus", address, "--state", str(tmp_path), "--only", "Resources"),
    ):
        there = ("--on", address)
        asked = ("d", "monitor", "-a", "Dummy", "-i", "60000", "-o", f"state={tmp_path / 's'}")
        assert run(*there, "resources", "invoke", *asked).exit_code == 1
        listed = json.loads(run(*there, "--json", "resources", "ops").stdout)
        assert [(each["id"], each["last_rc"]) for each in listed] == [("d_monitor_60000", 7)]
        assert "d_monitor_60000" in run(*there, "resources", "ops").stdout
        assert run(*there, "resources", "cancel", "d", "monitor", "60000").exit_code == 0
        gone = run(*there, "resources", "cancel", "d", "monitor", "60000")
        assert (gone.exit_code, "d_monitor_60000" in gone.stderr) == (1, True)


def completed(*words: str) -> list[str]:
    """What a shell offers for the last word."""
    *before, last = words
    found = ShellComplete(mhctl, {}, "mhctl", "_MHCTL_COMPLETE").get_completions(before, last)
    return [each.value for each in found]


def test_agents_are_completed_by_what_was_typed() -> None:
    assert completed("resources", "describe", "-s", "oc") == ["ocf"]
    assert completed("resources", "describe", "-p", "heart") == ["heartbeat"]
    assert completed("resources", "invoke", "d", "monitor", "-s", "lsb", "-p", "") == []
    for before in (
        ("describe",),
        ("invoke", "d", "start", "-a"),
        ("describe", "-s", "ocf", "-p", "heartbeat"),
    ):
        assert "Dummy" in completed("resources", *before, "Du")
    assert completed("resources", "describe", "-p", "nobody", "Du") == []
    assert completed("resources", "list", "oc") == ["ocf"]
    assert completed("resources", "list", "ocf", "heart") == ["heartbeat"]
    assert completed("resources", "providers", "oc") == ["ocf"]
    assert completed("resources", "describe", "-s", "lsb", "Du") == []


def test_resources_are_completed_from_what_recurs(tmp_path: Path) -> None:
    with (
        private_bus() as address,
        agent("mh-dbus", "--bus", address, "--state", str(tmp_path), "--only", "Resources"),
    ):
        for action in ("monitor", "status"):
            asked = ("drill", action, "-a", "Dummy", "-i", "60000", "-o", f"state={tmp_path / 's'}")
            run("--on", address, "resources", "invoke", *asked)
        assert completed("--on", address, "resources", "cancel", "dri") == ["drill"]
        assert completed("--on", address, "resources", "cancel", "x") == []


def test_parameters_stay_the_text_that_was_typed() -> None:
    given = ("a=1e3", "b=", "c=x=y", 'd="quoted"')
    assert parameters(given) == {"a": "1e3", "b": "", "c": "x=y", "d": '"quoted"'}
    with pytest.raises(InvalidArguments, match="KEY=VALUE"):
        parameters(["novalue"])
