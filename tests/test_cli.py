"""`mhctl` against a host that is a fake in memory: what it sends, what it prints, how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from libmh.api.host import FactStatus, Filesystem, Host
from libmh.cli.main import GENERIC, groups, mhctl
from libmh.cli.render import show, table
from libmh.cli.session import Session
from libmh.cli.values import from_text
from libmh.errors import PROBLEMS, InvalidArguments, NotAuthorized, NotImplementedHere, Problem
from libmh.providers import shipped_interfaces
from libmh.remote import BlockingConnection
from libmh.spec import Anything, Kind, ListOf, MapOf, Scalar, Word
from libmh.testing import loopback


@dataclass
class FakeHost:
    """What the fake remembers and answers."""

    interval: int = 5
    done: list[str] = field(default_factory=list)
    problem: Problem | None = None


def host_of(fake: FakeHost) -> object:
    def raise_or(value: object) -> object:
        if fake.problem:
            raise fake.problem
        return value

    def remember(what: str) -> int:
        fake.done.append(what)
        return 0

    body: dict[str, Callable[..., object]] = {
        "hostname": lambda _: "fake",
        "memory": lambda _: raise_or(2048),
        "load": lambda _: {"1": 0.25, "5": 0.5, "15": 1.0},
        "boot_time": lambda _: 1_700_000_000_000_000_000,
        "update_interval": lambda _: fake.interval,
        "set_update_interval": lambda _, value: setattr(fake, "interval", value),
        "filesystems": lambda _: [Filesystem("/", "/dev/vda", "ext4", False, FactStatus.OK, 10, 5)],
        "get_uuid": lambda _, lifetime="": f"uuid-of-{lifetime}",
        "set_uuid": lambda _, lifetime, uuid: remember(f"{lifetime}={uuid}"),
        "list_power_profiles": lambda _: ["balanced", "powersave"],
        "reboot": lambda _: remember("reboot") or None,
    }
    return type("FakeHostProvider", (Host,), body)()


@pytest.fixture
def fake() -> FakeHost:
    return FakeHost()


@pytest.fixture
def connection(fake: FakeHost) -> Iterator[BlockingConnection]:
    with loopback(host_of(fake)) as open_connection:
        yield open_connection


@pytest.fixture
def run(connection: BlockingConnection, monkeypatch: pytest.MonkeyPatch) -> "Runner":
    monkeypatch.setattr(Session, "connection", lambda _self: connection)
    return Runner()


class Runner:
    """Runs `mhctl` in this process."""

    def __call__(self, *words: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(mhctl, words, input=answer)

    def json(self, *words: str) -> object:
        result = self("--json", *words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def test_every_shipped_interface_is_a_group_and_every_method_a_command() -> None:
    listed = CliRunner().invoke(mhctl, ["--help"]).stdout
    for name in (*groups(), *GENERIC):
        assert f"\n  {name} " in listed
    for interface in shipped_interfaces():
        if interface.short != "Reports":
            name = {"Aggregates": "aggregate", "Sinks": "sink"}.get(interface.short, interface.short.lower())
            shown = CliRunner().invoke(mhctl, [name, "--help"]).stdout
            for member in interface.of(Kind.METHOD):
                spellings = (member.name, member.name.replace("_", "-"))
                assert any(f"\n  {each} " in shown for each in spellings)


def test_no_help_shows_a_mark_of_its_layout() -> None:
    def walk(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None, (*path, name)
                yield from walk(found, *path, name)

    for path in walk(mhctl):
        shown = CliRunner().invoke(mhctl, [*path, "--help"])
        assert shown.exit_code == 0, path
        assert "\\" + "b " not in shown.stdout, path


def test_show_prints_values_and_says_why_one_is_missing(run: Runner, fake: FakeHost) -> None:
    fake.problem = NotImplementedHere("there is no memory here")
    lines = run("host", "show").stdout.splitlines()
    assert any(line.split() == ["hostname", "fake"] for line in lines)
    assert any("memory" in line and "- (not-implemented: there is no memory here)" in line for line in lines)


def test_show_takes_names_and_refuses_unknown_ones(run: Runner) -> None:
    assert run.json("host", "show", "memory", "load") == {
        "memory": 2048,
        "load": {"1": 0.25, "5": 0.5, "15": 1.0},
    }
    refused = run("host", "show", "memroy")
    assert refused.exit_code == 2
    assert "'Host.memroy' is not a property; there are hostname, uuid" in refused.stderr


def test_a_group_alone_shows_its_properties(run: Runner) -> None:
    assert run.json("host") == run.json("host", "show")


def test_get_set_and_call(run: Runner, fake: FakeHost) -> None:
    assert run("get", "Host.update_interval").stdout == "5\n"
    assert run("set", "Host.update_interval", "30").exit_code == 0
    assert fake.interval == 30
    assert run("get", "org.matahariproject.Host.update_interval").stdout == "30\n"
    assert run("call", "Host.get_uuid", "Custom").stdout == "uuid-of-Custom\n"
    assert run("call", "Host.set_uuid", "Custom", "-x").exit_code == 0
    assert fake.done == ["Custom=-x"]


def test_optional_arguments_by_position_or_by_name(run: Runner) -> None:
    assert run("host", "get_uuid").stdout == "uuid-of-\n"
    assert run("host", "get_uuid", "Reboot").stdout == "uuid-of-Reboot\n"
    assert run("host", "get_uuid", "--lifetime", "Reboot").stdout == "uuid-of-Reboot\n"
    assert run("host", "get_uuid", "Agent", "--lifetime", "Reboot").exit_code == 2


def test_lists_of_records_are_tables_and_json_has_every_field(run: Runner) -> None:
    assert run("get", "Host.filesystems").stdout.splitlines()[0].split()[:3] == [
        "MOUNT_POINT",
        "DEVICE",
        "TYPE",
    ]
    assert run.json("get", "Host.filesystems") == [
        {
            "mount_point": "/",
            "device": "/dev/vda",
            "type": "ext4",
            "read_only": False,
            "status": "ok",
            "size": 10,
            "free": 5,
        }
    ]
    assert run("host", "list_power_profiles").stdout == "balanced\npowersave\n"


@pytest.mark.parametrize("problem", [problem for problem in PROBLEMS if problem.word != "internal"])
def test_exit_codes_and_one_sentence(run: Runner, fake: FakeHost, problem: type[Problem]) -> None:
    fake.problem = problem("it is so")
    expected = {"invalid-arguments": 2, "not-authorized": 3, "unavailable": 4, "timeout": 5}.get(
        problem.word, 1
    )
    result = run("get", "Host.memory")
    assert result.exit_code == expected
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == f"mhctl: it is so ({problem.word})"


def test_a_failure_as_json_says_the_word(run: Runner, fake: FakeHost) -> None:
    fake.problem = NotAuthorized("no", action="org.matahariproject.Host.memory")
    result = run("--json", "get", "Host.memory")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {
        "error": "not-authorized",
        "number": 5,
        "message": "no",
        "action": "org.matahariproject.Host.memory",
    }


def test_what_disrupts_wants_a_yes(run: Runner, fake: FakeHost) -> None:
    refused = run("host", "reboot")
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr
    assert fake.done == []
    assert run("host", "reboot", "--yes").exit_code == 0
    assert fake.done == ["reboot"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("get", "Host"), "there is no interface ''"),
        (("get", "Nothing.memory"), "there is no interface 'Nothing'"),
        (("call", "Host.memory"), "'Host.memory' is not a method"),
        (("set", "Host.update_interval", "many"), "update_interval: expected a whole number, got 'many'"),
        (("set", "Host.update_interval", "-1"), "update_interval: expected u32 (0 to 4294967295), got -1"),
        (("call", "Host.get_uuid", "a", "b"), "'Host.get_uuid' takes 1 arguments, got 2"),
        (("call", "Host.set_uuid", "Custom"), "uuid: is missing"),
    ],
)
def test_bad_input_names_what_is_wrong(run: Runner, words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert result.exit_code in (1, 2)
    assert message in result.stderr


def test_api_lists_every_member() -> None:
    listed = json.loads(CliRunner().invoke(mhctl, ["--json", "api"]).stdout)
    names = {(each["interface"], member["name"]) for each in listed for member in each["members"]}
    for interface in shipped_interfaces():
        assert {(interface.name, name) for name in interface.members} <= names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str) -> None:
    script = CliRunner().invoke(mhctl, ["completion", shell])
    assert script.exit_code == 0
    assert "_MHCTL_COMPLETE" in script.stdout


def test_completion_knows_groups_commands_and_members() -> None:
    def complete(line: str, at: int) -> str:
        asked = {"_MHCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
        command = Path(sys.executable).with_name("mhctl")
        return subprocess.run(
            [command], env={**os.environ, **asked}, capture_output=True, text=True, timeout=20
        ).stdout

    assert "plain,network" in complete("mhctl net", 1)
    assert "plain,links" in complete("mhctl network li", 2)
    assert "plain,Host.free_mem" in complete("mhctl get Host.fr", 2)


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e10"])
def test_a_time_that_nobody_can_wait_is_refused(run: Runner, seconds: str) -> None:
    refused = run("--timeout", seconds, "host", "show")
    assert refused.exit_code == 2
    assert f"expected 0.001 to 604800 seconds, got {seconds}" in refused.stderr
    assert f"expected 0.1 to 604800 seconds, got {seconds}" in run("events", "--for", seconds).stderr


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="list: expected JSON"):
        from_text(ListOf(Scalar(Word.STRING)), "[" * 50_000, "list")
    assert from_text(Anything(), "[" * 50_000, "value") == "[" * 50_000


def test_what_a_peer_says_does_not_reach_the_terminal_as_commands(run: Runner) -> None:
    hostile = "a\x1b]0;owned\x07\x9b31m\x7f\r\nb"
    shown = run("call", "Host.get_uuid", hostile).stdout
    assert shown == r"uuid-of-a\x1b]0;owned\x07\x9b31m\x7f\x0d" + "\nb\n"
    as_json = run("--json", "call", "Host.get_uuid", hostile)
    assert json.loads(as_json.stdout) == f"uuid-of-{hostile}"
    assert not set(as_json.stdout) & set("\x1b\x07\x9b\x7f\r")
    assert "\x1b" not in run("get", "Host.\x1b[31m").stderr


def test_nothing_in_a_table_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;owned\x07\tb\u202e"
    table(("host", "answer"), [(hostile, "x")])
    show(MapOf(Scalar(Word.STRING)), {hostile: hostile})
    assert not set(capsys.readouterr().out) & set("\x1b\x07\t\u202e")
    show(ListOf(MapOf(Scalar(Word.STRING))), [{hostile: "x"}])
    assert not set(capsys.readouterr().out) & set("\x1b\x07\u202e")


def test_a_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "value"), [("a", "one\ntwo"), ("b", "three")])
    assert capsys.readouterr().out == "NAME  VALUE\na     one\\ntwo\nb     three\n"


def test_what_the_terminal_cannot_show_is_spelled(tmp_path: Path) -> None:
    there = {**os.environ, "PYTHONIOENCODING": "ascii", "XDG_STATE_HOME": str(tmp_path)}
    command = Path(sys.executable).with_name("mhctl")
    done = subprocess.run(
        [command, "call", "Host.gét"], env=there, capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert rb"'Host.g\xe9t' is not a method" in done.stderr
    listed = subprocess.run([command, "api", "Host"], env=there, capture_output=True, timeout=20, check=True)
    assert listed.stdout.isascii()


def test_without_a_stdout_it_ends_well() -> None:
    command = Path(sys.executable).with_name("mhctl")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" host show >&-', command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize("words", [["host", "show"], ["--json", "host", "show"]])
def test_output_that_has_no_room_is_one_sentence(words: list[str]) -> None:
    command = Path(sys.executable).with_name("mhctl")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [command, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "mhctl: cannot print: No space left on device\n"


def test_local_raises_no_events_and_says_so() -> None:
    result = CliRunner().invoke(mhctl, ["events", "--count", "1"])
    assert result.exit_code == 2
    assert "'local:' raises no events" in result.stderr


def test_json_counts_wherever_it_stands(run: Runner) -> None:
    assert json.loads(run("host", "show", "--json", "memory").stdout) == run.json("host", "show", "memory")
    assert not run("call", "Host.get_uuid", "--", "--json").stdout.startswith(("{", '"'))
