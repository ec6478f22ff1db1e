"""`mhctl services` against services that are a fake in memory, and against a booted machine's agent."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from libmh.api.services import Action, JobResult, LogLine, Outcome, Services, Unit, Whom
from libmh.cli.main import mhctl
from libmh.cli.services import UnitName
from libmh.cli.session import Session
from libmh.cli.values import moment_of
from libmh.context import Context
from libmh.errors import InvalidArguments, NotFound
from libmh.remote import BlockingConnection
from libmh.testing import loopback
from service_units import machine_with_units
from testbed.machine import Host

FAILED = Outcome(
    *("mh.service", "restart", JobResult.FAILED, 0.25, "loaded", "failed", "failed"),
    reason="could not restart 'mh.service': its process exited with status 7",
    exit_status=7,
    log=[LogLine(10**18, "no \x1b[31mluck", 3, "sh", 12)],
)
DONE = Outcome("mh.service", "start", JobResult.DONE, 0.25, "loaded", "active", "running")


class FakeServices(Services):
    """Knows one unit, and fails to restart it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.asked: list[object] = []

    def list_services(self) -> list[str]:
        return ["mh", "mhx", "other"]

    def units(self, pattern: str = "", state: str = "") -> list[Unit]:
        self.asked.append((pattern, state))
        return [Unit("mh.service", "A unit", "loaded", "active", "running")]

    def act(self, name: str, verb: Action, timeout: int = 90_000) -> Outcome:
        self.asked.append((name, verb, timeout))
        if name != "mh":
            raise NotFound(f"there is no unit '{name}' here")
        return DONE if verb is Action.START else FAILED

    def enable(self, name: str) -> int:
        return 0 if name == "mh" else 5

    def mask(self, name: str) -> Outcome:
        self.asked.append("mask")
        return FAILED

    def kill(self, name: str, signal: str = "TERM", whom: Whom = Whom.ALL) -> Outcome:
        self.asked.append((signal, whom))
        return DONE

    def logs(self, name: str, lines: int = 100, since: int = 0) -> list[LogLine]:
        self.asked.append((name, lines, since))
        return list(FAILED.log or ())


@pytest.fixture
def fake() -> FakeServices:
    # what a fake need not know, the dispatcher says it does not
    type.__setattr__(FakeServices, "__abstractmethods__", frozenset())
    made: FakeServices = cast("Any", FakeServices)(Context())
    return made


@pytest.fixture
def connection(fake: FakeServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingConnection]:
    with loopback(fake, context=fake.context) as opened:
        monkeypatch.setattr(Session, "connection", lambda _self: opened)
        monkeypatch.setattr(Session, "close", lambda _self: None)
        yield opened


def run(*words: str) -> Result:
    return CliRunner().invoke(mhctl, ["--on", "unix:path=/nowhere", *words])


def test_list(connection: BlockingConnection, fake: FakeServices) -> None:
    assert "mh.service" in run("services", "list").stdout
    run("services", "list", "ssh*", "--state", "failed")
    run("services", "list", "--all")
    assert fake.asked == [("*.service", ""), ("ssh*", "failed"), ("", "")]
    assert json.loads(run("--json", "services", "list").stdout)[0]["name"] == "mh.service"


def test_a_failure_is_told_in_full(connection: BlockingConnection) -> None:
    result = run("services", "restart", "mh", "--yes")
    assert result.exit_code == 1
    head, line = result.stdout.splitlines()
    assert head.startswith("mh.service: restart failed in 0.25 s, now failed (failed): could not restart")
    assert "sh[12]: no \\x1b[31mluck" in line
    assert json.loads(run("--json", "services", "restart", "mh", "--yes").stdout)["exit_status"] == 7


def test_every_action_that_is_not_done_ends_with_1(
    connection: BlockingConnection, fake: FakeServices
) -> None:
    assert run("services", "mask", "mh").exit_code == 1
    assert run("services", "kill", "mh", "HUP", "--whom", "main", "--yes").exit_code == 0
    assert run("services", "act", "mh", "try-restart", "--yes").exit_code == 1
    assert run("services", "kill", "mh").exit_code != 0
    assert fake.asked == ["mask", ("HUP", "main"), ("mh", "try-restart", 90_000)]


def test_what_disrupts_is_confirmed(connection: BlockingConnection, fake: FakeServices) -> None:
    assert run("services", "stop", "mh").exit_code != 0
    assert fake.asked == []
    assert run("services", "start", "mh").exit_code == 0
    assert run("--timeout", "10", "services", "start", "mh").exit_code == 0
    assert fake.asked == [("mh", "start", 90_000), ("mh", "start", 9000)]


def test_problems_keep_their_codes(connection: BlockingConnection) -> None:
    result = run("services", "start", "absent")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no unit 'absent' here (not-found)" in result.stderr
    assert run("services", "enable", "mh").stdout == "mh: enabled\n"
    absent = run("services", "enable", "absent")
    assert (absent.exit_code, absent.stdout) == (1, "absent: cannot enable: it is not installed\n")


def test_logs(connection: BlockingConnection, fake: FakeServices) -> None:
    assert "sh[12]: no" in run("services", "logs", "mh", "-n", "5").stdout
    assert fake.asked == [("mh", 5, 0)]
    assert moment_of("1970-01-02T00:00:00+00:00") == 86_400 * 10**9
    assert abs(moment_of("0s") - moment_of("10m") - 600 * 10**9) < 10**9
    for wrong in ("yesterday", "10", "99999999d", "10m;x"):
        with pytest.raises(InvalidArguments, match="--since"):
            moment_of(wrong)


def test_names_are_completed_from_the_host_asked(connection: BlockingConnection) -> None:
    with mhctl.make_context(
        "mhctl", ["--on", "unix:path=/nowhere", "services"], resilient_parsing=True
    ) as context:
        found = UnitName().shell_complete(context, context.command.params[0], "mh")
    assert [each.value for each in found] == ["mh", "mhx"]


def test_completion_is_silent_where_nobody_answers() -> None:
    with mhctl.make_context(
        "mhctl", ["--on", "unix:path=/nowhere", "services"], resilient_parsing=True
    ) as context:
        assert UnitName().shell_complete(context, context.command.params[0], "mh") == []


MHCTL = "import sys; from libmh.cli.main import main; sys.argv[0] = 'mhctl'; main()"
AGENT = "[Service]\nType=notify\nExecStart={} -m mh_dbus.main --state /var/lib/mh\n"


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    agent = {"/etc/systemd/system/agent.service": AGENT.format(sys.executable)}
    agent["/etc/dbus-1/system.d/mh.conf"] = (
        '<busconfig><policy user="root"><allow own_prefix="org.matahariproject"/></policy>'
        '<policy context="default"><allow send_destination="*"/></policy></busconfig>'
    )
    with machine_with_units("cli", agent) as host:
        host.run("systemctl", "reload", "dbus")
        host.run("systemctl", "start", "agent")
        yield host


def test_an_agent_restarts_watches_and_logs(machine: Host) -> None:
    def mh(*words: str) -> "subprocess.CompletedProcess[str]":
        return machine.python("-c", MHCTL, "--on", "system:", *words, check=False)

    started = mh("services", "start", "mh-runs")
    assert started.returncode == 0, started.stderr
    assert "now active (running)" in started.stdout
    failed = mh("services", "restart", "mh-fails", "--yes")
    assert failed.returncode == 1
    assert "its process exited with status 7" in failed.stdout
    assert "no such luck" in failed.stdout
    assert "no such luck" in mh("services", "logs", "mh-fails").stdout
    assert json.loads(mh("--json", "services", "show", "mh-runs").stdout)["unit"]["active_state"] == "active"
    assert "mh-runs.service" in mh("services", "list", "mh-*").stdout


def test_watch_tells_what_the_agent_hears(machine: Host) -> None:
    later = ["systemd-run", "--quiet", "--on-active=2", "--timer-property=AccuracySec=50ms"]
    machine.run(*later, "systemctl", "start", "mh-reloads")
    words = ["--on", "system:", "--timeout", "15", "services", "watch", "mh-reloads", "--count", "1"]
    watched = machine.python("-c", MHCTL, *words, check=False)
    assert watched.returncode == 0, watched.stderr
    assert "mh-reloads.service  inactive -> active (running)" in watched.stdout


def test_a_terminal_shows_how_it_goes(machine: Host) -> None:
    words = [
        sys.executable,
        "-c",
        MHCTL,
        "--on",
        "system:",
        "--timeout",
        "3",
        "services",
        "start",
        "mh-slow",
    ]
    shown = machine.run(
        "script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null", check=False
    )
    assert shown.returncode == 1
    assert "start mh-slow: 1." in shown.stdout
    assert "(activating)" in shown.stdout or "(running)" in shown.stdout
    assert "the time to start 'mh-slow.service' has passed: it is activating (start)" in shown.stdout
    machine.run("systemctl", "stop", "mh-slow")
