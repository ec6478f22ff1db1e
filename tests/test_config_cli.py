"""`mhctl config` against a host whose configuration is a fake in memory: one file of lines."""

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from libmh.api.sysconfig import Drift, FileChange, Plan, Run, RunResult, Setting, Sysconfig
from libmh.cli.config import AppliedRun, PendingRun, PlanId
from libmh.cli.main import mhctl
from libmh.cli.session import Session
from libmh.errors import Conflict, NotFound
from libmh.remote import BlockingConnection
from libmh.testing import loopback

URL = "unix:path=/nowhere"
SSHD = "/etc/ssh/sshd_config"
NOW = 1_700_000_000 * 10**9
SSH = ("config", "set", SSHD, "PermitRootLogin")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class FakeConfig(Sysconfig):
    """The scheme is a word: what is planned is the text itself, for the one file that there is."""

    def __init__(self) -> None:
        self.content = "Port 22\nPermitRootLogin yes\n"
        self.texts: dict[str, tuple[str, str]] = {}
        self.kept: dict[str, Plan] = {}
        self.runs: list[Run] = []
        self.before: dict[str, str] = {}
        self.asked: list[object] = []
        self.exact = True
        self.number = 0

    def plan(self, scheme: str, text: str = "", uri: str = "") -> Plan:
        self.asked.append((scheme, text, uri))
        return self._planned(scheme, text or "Port 1\n")

    def plans(self) -> list[str]:
        return list(self.kept)

    def planned(self, plan: str) -> Plan:
        if plan not in self.kept:
            raise NotFound(f"there is no plan '{plan}'")
        return self.kept[plan]

    def plan_setting(self, file: str, key: str, value: str | None = None) -> Plan:
        self.asked.append((file, key, value))
        lines = [line for line in self.content.splitlines() if line.split()[0] != key]
        lines += [f"{key} {value}"] if value is not None else []
        same = value is not None and f"{key} {value}" in self.content.splitlines()
        return self._planned("augeas", self.content if same else "".join(f"{line}\n" for line in lines))

    def undo(self, run: str) -> Plan:
        if self.content != self._run(run).digest:
            raise Conflict(f"'{SSHD}' has changed since the run '{run}'")
        return self._planned("undo", self.before[run])

    def _run(self, name: str) -> Run:
        for each in self.runs:
            if each.id == name:
                return each
        raise NotFound(f"there is no run '{name}'")

    def _planned(self, scheme: str, after: str) -> Plan:
        self.number += 1
        name = f"p{self.number}"
        self.texts[name] = (self.content, after)
        lines = difflib.unified_diff(
            self.content.splitlines(keepends=True), after.splitlines(keepends=True), SSHD, SSHD
        )
        change = FileChange(SSHD, "".join(lines), digest(self.content), digest(after))
        files = [change] if after != self.content else []
        output = "" if self.exact else "Notice: \x1b[2Jnoop\n"
        self.kept[name] = Plan(
            name, scheme, NOW, NOW + 86_400 * 10**9, "test me", digest(after), self.exact, files, output
        )
        return self.kept[name]

    def apply(self, plan: str, key: str = "", confirm: int = 0) -> Run:
        self.asked.append((plan, key, confirm))
        if plan not in self.texts:
            raise NotFound(f"there is no plan '{plan}'")
        before, after = self.texts.pop(plan)
        del self.kept[plan]
        if before != self.content:
            raise Conflict(f"'{SSHD}' has changed since it was planned")
        name = f"r{len(self.runs) + 1}"
        self.before[name] = before
        result, reason, output = RunResult.PENDING if confirm else RunResult.APPLIED, None, ""
        if "fail" in after:
            result, reason, output, after = (
                RunResult.FAILED,
                "it does not parse",
                "line 1: \x1b[31mno\n",
                before,
            )
        self.content = after
        run = Run(
            *(name, plan, "augeas", key, "test me", NOW, 0.25, result, "OK", [SSHD], output, after),
            confirm_by=NOW if confirm else None,
            reason=reason,
        )
        self.runs.insert(0, run)
        return run

    def confirm(self, run: str) -> Run:
        kept = replace(self._run(run), result=RunResult.APPLIED, confirm_by=None)
        self.runs = [kept if each.id == run else each for each in self.runs]
        return kept

    def history(self, key: str = "", limit: int = 100) -> list[Run]:
        return [each for each in self.runs if key in ("", each.key)][:limit]

    def drift(self) -> list[Drift]:
        last = next(iter(self.runs), None)
        if last is None or last.digest == self.content:
            return []
        return [
            Drift(SSHD, last.id, last.key, NOW, "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+\x1b]0;y\n", missing=False)
        ]

    def settings(self, file: str, key: str = "") -> list[Setting]:
        pairs = [line.split(" ", 1) for line in self.content.splitlines()]
        return [Setting(f"/files{file}/{name}", value) for name, value in pairs if key in ("", name)]

    def query(self, query: str, flags: int, scheme: str) -> str:
        self.asked.append((query, flags, scheme))
        return "22" if query.endswith("/Port") else "unknown"

    def run_string(self, text: str, flags: int, scheme: str, key: str) -> str:
        self.asked.append((text, flags, scheme, key))
        return "OK" if "fail" not in text else "FAILED\nit does \x07not parse"

    def run_uri(self, uri: str, flags: int, scheme: str, key: str) -> str:
        self.asked.append((uri, flags, scheme, key))
        return "OK"


@pytest.fixture
def fake() -> FakeConfig:
    # what a fake need not know, the dispatcher says it does not
    type.__setattr__(FakeConfig, "__abstractmethods__", frozenset())
    made: FakeConfig = cast("Any", FakeConfig)()
    return made


@pytest.fixture(autouse=True)
def connection(fake: FakeConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingConnection]:
    with loopback(fake) as opened:
        monkeypatch.setattr(Session, "connection", lambda _self: opened)
        monkeypatch.setattr(Session, "close", lambda _self: None)
        yield opened


def run(*words: str, piped: str | None = None, color: bool = False) -> Result:
    return CliRunner().invoke(mhctl, ["--on", URL, *words], input=piped, color=color)


def test_a_setting_is_shown_and_applied(fake: FakeConfig) -> None:
    result = run(*SSH, "no", "--yes")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "-PermitRootLogin yes" in lines
    assert "+PermitRootLogin no" in lines
    assert lines[-1] == f"applied: {SSHD}; 'mhctl --on {URL} config undo r1' shows the way back"
    assert fake.content == "Port 22\nPermitRootLogin no\n"
    assert run(*SSH, "no", "--yes").stdout == "nothing to change\n"
    assert len(fake.runs) == 1


def test_a_terminal_has_colours() -> None:
    shown = run(*SSH, "no", "--yes", color=True).stdout
    assert "\x1b[31m-PermitRootLogin yes\x1b[0m\n" in shown
    assert "\x1b[32m+PermitRootLogin no\x1b[0m\n" in shown
    assert "\x1b[36m@@ -1,2 +1,2 @@\x1b[0m\n" in shown


def test_who_cannot_be_asked_has_to_say_yes(fake: FakeConfig) -> None:
    result = run(*SSH, "no")
    assert result.exit_code == 2
    assert "+PermitRootLogin no" in result.stdout
    assert f"this changes '{SSHD}' of {URL}: say --yes where nobody can be asked" in result.stderr
    assert fake.runs == []


def test_a_setting_is_removed_or_given(fake: FakeConfig) -> None:
    assert run(*SSH, "--remove", "-y").exit_code == 0
    assert fake.content == "Port 22\n"
    assert run(*SSH, "-y").exit_code == 2
    assert run(*SSH, "no", "--remove", "-y").exit_code == 2
    assert run(*SSH, "--rmove", "-y").exit_code == 2
    assert run("config", "set", "-y", SSHD, "Port", "--", "-1").exit_code == 0
    assert fake.content == "Port -1\n"


def test_control_characters_are_spelled() -> None:
    shown = run(*SSH, "\x1b[2Jno\u202e\r", "--yes").stdout
    assert "+PermitRootLogin \\x1b[2Jno\\u202e\\x0d\n" in shown
    assert "\x1b" not in shown


def test_a_plan_is_kept_for_apply(fake: FakeConfig, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Port 2222\n")
    planned = run("config", "plan", "augeas", str(text))
    assert planned.exit_code == 0
    assert f"'mhctl --on {URL} config apply p1' applies it" in planned.stdout.replace("\n", " ")
    assert fake.runs == []
    asked = run("config", "apply", "p1")
    assert (asked.exit_code, "+Port 2222" in asked.stdout) == (2, True)
    assert run("config", "apply", "p1", "--key", "ports", "--confirm", "60", "--yes").exit_code == 0
    assert fake.asked == [("augeas", "Port 2222\n", ""), ("p1", "ports", 60)]
    again = run("config", "apply", "p1", "--yes")
    assert (again.exit_code, "there is no plan 'p1'" in again.stderr) == (1, True)


def test_a_text_comes_from_a_pipe_or_a_uri(fake: FakeConfig, tmp_path: Path) -> None:
    assert run("config", "plan", "augeas", "-", piped="Port 3\n").exit_code == 0
    assert run("config", "apply", "puppet", "https://example.org/x.pp", "--yes").exit_code == 0
    assert fake.asked[:2] == [("augeas", "Port 3\n", ""), ("puppet", "", "https://example.org/x.pp")]
    missing = run("config", "plan", "augeas", str(tmp_path / "missing"))
    assert (missing.exit_code, "No such file" in missing.stderr) == (2, True)
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "is not UTF-8 text" in run("config", "plan", "augeas", str(tmp_path / "bytes")).stderr


def test_a_file_that_has_changed_is_planned_again(fake: FakeConfig) -> None:
    run("config", "plan", "augeas", "-", piped="Port 3\n")
    fake.content = "Port 4\n"
    result = run("config", "apply", "p1", "--yes")
    assert result.exit_code == 1
    assert f"'{SSHD}' has changed since it was planned (conflict)" in result.stderr
    assert "hint: plan it again, and look" in result.stderr


def test_a_run_that_fails_says_why() -> None:
    result = run("config", "apply", "augeas", "-", "--yes", piped="fail\n")
    assert result.exit_code == 1
    assert result.stdout.endswith("failed: it does not parse\n  line 1: \\x1b[31mno\n")


def test_what_a_program_would_do_is_not_taken_for_all_of_it(fake: FakeConfig) -> None:
    fake.exact = False
    result = run("config", "apply", "puppet", "-", piped=fake.content)
    assert result.exit_code == 2
    assert "what puppet says it would do" in result.stdout
    assert "  Notice: \\x1b[2Jnoop\n" in result.stdout
    assert "this changes what cannot be told before" in result.stderr


def test_a_pending_run_is_confirmed(fake: FakeConfig) -> None:
    pending = run(*SSH, "no", "--confirm", "30", "-y")
    assert pending.exit_code == 0
    assert f"unless 'mhctl --on {URL} config confirm r1' comes before" in pending.stdout
    assert run("config", "confirm", "r1").stdout.startswith(f"applied: {SSHD}")
    assert fake.runs[0].result is RunResult.APPLIED


def test_undo_shows_the_way_back(fake: FakeConfig) -> None:
    run(*SSH, "no", "--yes")
    result = run("config", "undo", "r1", "--yes")
    assert result.exit_code == 0, result.output
    assert "+PermitRootLogin yes" in result.stdout
    assert fake.content == "Port 22\nPermitRootLogin yes\n"
    assert "hint: `mhctl config drift`" in run("config", "undo", "r1", "--yes").stderr
    assert run("config", "undo", "r9", "--yes").exit_code == 1


def test_json_has_the_plan_and_the_run() -> None:
    result = run("--json", *SSH, "no", "--yes")
    shown = json.loads(result.stdout)
    assert (shown["plan"]["id"], shown["run"]["result"]) == ("p1", "applied")
    assert "+PermitRootLogin no" in result.stderr
    assert json.loads(run("--json", *SSH, "no", "--yes").stdout)["run"] is None
    assert json.loads(run("--json", "config", "history").stdout)[0]["id"] == "r1"
    assert (
        json.loads(run("--json", "config", "plan", "augeas", "-", piped="a\n").stdout)["scheme"] == "augeas"
    )


def test_history_and_drift(fake: FakeConfig) -> None:
    assert (run("config", "drift").exit_code, run("config", "drift").stdout) == (0, "")
    run(*SSH, "no", "--key", "root", "--yes")
    head, row = run("config", "history", "--key", "root", "-n", "5").stdout.splitlines()
    assert head.split()[:3] == ["ID", "TIME", "KEY"]
    assert row.startswith("r1")
    assert SSHD in row
    fake.content = "other\n"
    drifted = run("config", "drift")
    assert drifted.exit_code == 1
    assert "+\\x1b]0;y\n  since run r1 of " in drifted.stdout
    assert json.loads(run("--json", "config", "drift").stdout)[0]["run"] == "r1"


def test_values_are_read(fake: FakeConfig) -> None:
    assert run("config", "get", SSHD, "Port").stdout == "22\n"
    assert f"/files{SSHD}/PermitRootLogin  yes" in run("config", "get", SSHD).stdout
    assert run("config", "get", SSHD, "Absent").exit_code == 1
    assert run("config", "query", f"/files{SSHD}/Port").stdout == "22\n"
    absent = run("config", "query", f"/files{SSHD}/Absent")
    assert (absent.exit_code, absent.stdout) == (1, "unknown\n")
    assert fake.asked[0] == (f"/files{SSHD}/Port", 0, "augeas")


def test_run_answers_the_status_of_the_key(fake: FakeConfig) -> None:
    assert run("config", "run", "augeas", "-", "--key", "k", piped="x").exit_code == 2
    assert run("config", "run", "augeas", "-", "--key", "k", "--again", "-y", piped="x").stdout == "OK\n"
    failed = run("config", "run", "augeas", "-", "--key", "k", "-y", piped="fail")
    assert (failed.exit_code, failed.stdout) == (1, "FAILED\nit does \\x07not parse\n")
    assert run("config", "run", "puppet", "file:///x", "--key", "k", "-y").exit_code == 0
    assert fake.asked == [
        ("x", 1, "augeas", "k"),
        ("fail", 0, "augeas", "k"),
        ("file:///x", 0, "puppet", "k"),
    ]


def test_runs_are_completed_from_the_host_asked() -> None:
    run(*SSH, "no", "--yes")
    run(*SSH, "yes", "--confirm", "9", "--yes")
    run("config", "plan", "augeas", "-", piped="Port 5\n")
    with mhctl.make_context("mhctl", ["--on", URL, "config"], resilient_parsing=True) as context:
        parameter = context.command.params[0]
        applied = AppliedRun().shell_complete(context, parameter, "r")
        pending = PendingRun().shell_complete(context, parameter, "")
        plans = PlanId().shell_complete(context, parameter, "p")
    assert [each.value for each in applied] == ["r1"]
    assert [each.value for each in pending] == ["r2"]
    assert [each.value for each in plans] == ["p3"]


def test_the_name_of_the_interface_is_a_group_too() -> None:
    assert run("sysconfig", "is_configured", "--help").exit_code == 0
    assert "sysconfig" not in run("--help").stdout.split()
    assert run("config", "plan-setting", "--help").exit_code == 0
