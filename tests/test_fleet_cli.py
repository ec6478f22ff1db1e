"""`mhctl` at many hosts: real processes, of which some fail, refuse, or are not there."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fleet_host import uuid_of
from libmh.api.agent import Agent as AgentInterface
from libmh.cli.main import mhctl as command_line
from libmh.cli.wide import exit_code_of, hoisted, wide_of
from libmh.client import fleet
from libmh.errors import InvalidArguments, NotFound
from libmh.keys import generate, load, trust
from libmh.outcomes import Account, Host, Known, Result, State
from processes import agent, command, mhctl, ready_line
from testbed.child import spawn, stop
from waiting import wait_for

HERE = Path(__file__).parent
LEVEL = ("agent", "set-log-level", "libmh.audit", "info")


@dataclass
class Fleet:
    """A broker, a conductor and hosts, each a process."""

    url: str
    state: Path
    hosts: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, how: str = "well") -> "subprocess.Popen[str]":
        """A host, as it is configured."""
        options = ("--broker", self.url, "--config", f"{self.state}/{name}.toml", "--report-interval", "60")
        self.hosts[name] = spawn(
            [sys.executable, str(HERE / "fleet_host.py"), name, str(self.state / name), how, *options],
            stdout=subprocess.PIPE,
        )
        return self.hosts[name]

    def stop(self) -> None:
        for host in self.hosts.values():
            stop(host)

    def ran(self, name: str) -> int:
        """How often a host has run what changes something."""
        path = self.state / name / "ran"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def ask(self, *words: str, seconds: float = 60) -> tuple[int, Any]:
        """What mhctl printed as JSON, and its exit code."""
        done = mhctl("--on", self.url, "--json", *words, seconds=seconds)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@contextmanager
def running(state: Path, hosts: dict[str, tuple[str, str]], *, conductor: bool = True) -> Iterator[Fleet]:
    """`hosts`: the role of anonymous, and how it runs, by name."""
    with ExitStack() as stack:
        broker = stack.enter_context(
            agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(state / "b"))
        )
        made = Fleet(broker.url, state)
        if conductor:
            stack.enter_context(agent("mh-conductor", "--broker", broker.url, "--state", str(state / "c")))
        for name, (role, how) in hosts.items():
            (state / f"{name}.toml").write_text(f'[authority]\nanonymous = "{role}"\n')
            made.start(name, how)
        stack.callback(made.stop)
        for name, host in made.hosts.items():
            assert uuid_of(name) in ready_line(host)
        if conductor:
            wait_for(lambda: len(made.ask("aggregate", "hosts")[1]) == len(hosts), 30)
        yield made


def states(told: Any) -> dict[str, str]:
    return {each["hostname"]: each["state"] for each in told["hosts"]}


def test_every_host_is_told_by_its_end(tmp_path: Path) -> None:
    hosts = {
        "alpha": ("operator", "well"),
        "beta": ("operator", "failing"),
        "gamma": ("read-only", "well"),
        "delta": ("operator", "well"),
    }
    with running(tmp_path, hosts) as fleet_:
        code, told = fleet_.ask("--all-hosts", "agent", "ping", "hello")
        assert (code, told["answered"], told["known_by"]) == (0, 4, "conductor")
        assert {each["answer"] for each in told["hosts"]} == {"hello"}

        os.kill(fleet_.hosts["delta"].pid, signal.SIGSTOP)
        code, told = fleet_.ask("--all-hosts", *LEVEL)
        os.kill(fleet_.hosts["delta"].pid, signal.SIGCONT)
        assert states(told) == {
            "alpha": "answered",
            "beta": "failed",
            "gamma": "denied",
            "delta": "offline",
        }
        assert code == 1
        assert [told[key] for key in ("expected", "answered", "failed", "denied", "offline")] == [
            4,
            1,
            1,
            1,
            1,
        ]
        beta = next(each for each in told["hosts"] if each["hostname"] == "beta")
        assert (beta["error"], beta["message"]) == ("failed", "the disk is broken")
        assert beta["uuid"] == uuid_of("beta")
        assert [fleet_.ran(name) for name in ("alpha", "beta", "gamma")] == [1, 1, 0]

        # events of those of which something is so
        said = mhctl(
            *("--on", fleet_.url, "--json", "--where", "hostname=alpha", "--timeout", "60"),
            *("events", "Host.heartbeat", "--count", "2"),
        )
        assert said.returncode == 0, said.stderr
        assert {json.loads(line)["host"] for line in said.stdout.splitlines()} == {uuid_of("alpha")}
        said = mhctl("--on", fleet_.url, "--where", "hostname=alpha", "events", "--since", "1h")
        assert "cannot go with --where" in said.stderr

        # who fulfils what is asked, as host and conductor know it
        code, told = fleet_.ask(
            "agent", "ping", "--where", "hostname=<or> alpha <or> gamma", "--where", "memory=>= 1"
        )
        assert (code, sorted(states(told))) == (0, ["alpha", "gamma"])
        code, told = fleet_.ask("--where", "hostname=gamma", *LEVEL)
        assert (code, states(told)) == (3, {"gamma": "denied"})
        said = mhctl("--on", fleet_.url, "--where", "memory=== 1", "agent", "ping")
        assert said.returncode == 1
        assert "no host that is known fulfils what is asked for (not-found)" in said.stderr
        said = mhctl("--on", fleet_.url, "--where", "hostname=alpha", "get", "Agent.name")
        assert said.returncode == 0
        assert said.stdout.splitlines()[0].split() == ["HOST", "STATE", "AFTER", "ANSWER"]
        assert said.stdout.splitlines()[1].split()[:2] == ["alpha", "answered"]
        assert said.stdout.splitlines()[1].endswith("mh-amqp")
        assert said.stderr.strip() == "1 of 1 answered"


def test_batches_canaries_and_the_rate_that_stops(tmp_path: Path) -> None:
    hosts = {f"h{number}": ("operator", "failing" if number == 1 else "well") for number in range(4)}
    with running(tmp_path, hosts) as fleet_:
        code, told = fleet_.ask("--all-hosts", *LEVEL, "--batch", "1", "--stop-on-fail", "20%")
        assert states(told) == {"h0": "answered", "h1": "failed", "h2": "not-asked", "h3": "not-asked"}
        assert code == 1
        assert told["stopped"] == "1 of the first 2 hosts did not do it, at most 20% may fail"
        assert [fleet_.ran(name) for name in hosts] == [1, 1, 0, 0]
        code, told = fleet_.ask(
            "--where", "hostname=<or> h0 <or> h2 <or> h3", *LEVEL, "--canary=1", "--batch=50%"
        )
        assert (code, told["answered"]) == (0, 3)

        # the same from Python
        with fleet(fleet_.url) as many:
            account = many.call(AgentInterface.set_log_level, "libmh.audit", "info", canary=2, deadline=10)
            assert account.summary() == "1 of 4 answered, 1 failed, 2 not asked"
            assert account.known is Known.CONDUCTOR
            running_ = many.stream(AgentInterface.ping, "x", where=["hostname=<in> h"])
            assert {result.value() for result in running_} == {"x"}
            assert len(running_.account.results) == 4
            with pytest.raises(NotFound):
                many.call(AgentInterface.ping, where="hostname=nobody")
            with pytest.raises(InvalidArguments, match="batch"):
                many.call(AgentInterface.ping, batch="lots")


def test_without_a_conductor_and_interrupted(tmp_path: Path) -> None:
    hosts = {"a": ("operator", "well"), "b": ("operator", "slow"), "c": ("operator", "well")}
    with running(tmp_path, hosts, conductor=False) as fleet_:
        code, told = fleet_.ask("--all-hosts", "agent", "ping")
        assert (code, told["known_by"], told["answered"]) == (0, "roll-call", 3)
        asking = subprocess.Popen(
            [command("mhctl"), "--on", fleet_.url, "--json", "--all-hosts", "--batch", "1", *LEVEL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: fleet_.ran("b") == 1, 60)
        asking.send_signal(signal.SIGINT)
        out, _ = asking.communicate(timeout=60)
        assert asking.returncode == 130
        told = json.loads(out)
        assert states(told) == {"a": "answered", "b": "unknown", "c": "not-asked"}
        assert told["interrupted"] is True
        assert fleet_.ran("c") == 0


def test_hosts_that_are_off_do_it_later_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    hosts = {"alpha": ("operator", "well"), "beta": ("read-only", "well"), "gamma": ("operator", "failing")}
    with running(tmp_path, hosts) as fleet_:

        def jobs(*words: str) -> dict[str, str]:
            return {each["hostname"]: each["state"] for each in fleet_.ask("jobs", *words)[1]}

        for name in hosts:
            stop(fleet_.hosts[name])
        code, told = fleet_.ask("--all-hosts", *LEVEL, "--queue-for", "1h")
        assert (code, [each["state"] for each in told]) == (0, ["waiting"] * 3)
        assert jobs() == {"alpha": "waiting", "beta": "waiting", "gamma": "waiting"}
        for name, (_, how) in hosts.items():
            ready_line(fleet_.start(name, how))
        wait_for(lambda: fleet_.ran("alpha") and fleet_.ran("gamma"), 20)
        assert jobs() == {"alpha": "done", "beta": "not-run", "gamma": "failed"}
        assert jobs() == {"beta": "not-run"}  # what has ended was told
        shown = mhctl("--on", fleet_.url, "jobs", "--all")
        assert [line.split()[1:4] for line in shown.stdout.splitlines()[1:]] == [
            ["alpha", "Agent.set_log_level", "done"],
            ["beta", "Agent.set_log_level", "not-run"],
            ["gamma", "Agent.set_log_level", "failed"],
        ]
        assert "the disk is broken" in shown.stdout

        # one host, for a moment
        stop(fleet_.hosts["alpha"])
        one = f"{fleet_.url}/{uuid_of('alpha')}"
        done = mhctl("--on", one, "--json", "--queue-for", "1s", *LEVEL)
        assert (done.returncode, json.loads(done.stdout)[0]["host"]) == (0, uuid_of("alpha"))
        wait_for(lambda: "expired" in mhctl("jobs", "--json").stdout, 20)
        ready_line(fleet_.start("alpha"))
        known = json.loads(mhctl("--on", one, "--json", "agent", "jobs").stdout)
        assert [(job["outcome"], job["by"]) for job in known] == [("done", "amqp anonymous")]
        assert fleet_.ran("alpha") == 1
        assert (tmp_path / "home" / "matahari" / "jobs.json").stat().st_mode & 0o777 == 0o600


def test_many_hosts_take_signed_requests_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate("ops", tmp_path / "ops.key")
    trust(load(tmp_path / "ops.key").public, tmp_path / "keys")
    (tmp_path / "console.toml").write_text(f'[signing]\nkey = "{tmp_path}/ops.key"\n')
    signing = f'[signing]\nkeys = "{tmp_path}/keys"\nrequired = true\n[authority]\n"key:ops" = "operator"\n'
    with running(tmp_path, {"a": ("none", "well"), "b": ("none", "well")}, conductor=False) as fleet_:
        for name in ("a", "b"):
            (tmp_path / f"{name}.toml").write_text(signing)
            stop(fleet_.hosts[name])
            ready_line(fleet_.start(name))
        code, told = fleet_.ask("--all-hosts", *LEVEL)
        assert (code, told["denied"]) == (3, 2)
        assert "only signed requests" in told["hosts"][0]["message"]
        monkeypatch.setenv("MATAHARI_CONSOLE", str(tmp_path / "console.toml"))
        code, told = fleet_.ask("--where", "hostname=<or> a <or> b", *LEVEL)
        assert (code, told["answered"]) == (0, 2)
        code, told = fleet_.ask("--all-hosts", *LEVEL, "--batch", "1")
        assert (code, told["answered"]) == (0, 2)
        assert [fleet_.ran(name) for name in ("a", "b")] == [2, 2]


# the command line alone


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch", "2", "host", "show"), "need --where or --all-hosts"),
        (("--where", "a=1", "--all-hosts", "host", "show"), "exclude each other"),
        (("--where", "a", "host", "show"), "expected FACT=REQUIREMENT"),
        (("--all-hosts", "--batch", "x", "host", "show"), "batch: expected a number of hosts"),
        (("--all-hosts", "host", "show"), "leads to one host"),
        (("--on", "amqp://x", "--all-hosts", "services", "watch"), "asks one host"),
        (("--on", "amqp://x", "--all-hosts", "--batch", "2", "events"), "events are only heard"),
        (("--all-hosts", "config", "history"), "this command asks one host"),
        (("--all-hosts", "host", "reboot"), "'reboot' disrupts every host at local:"),
        (("--queue-for", "2h", "host", "reboot", "--yes"), "needs a host's UUID behind the URL"),
        (("--on", "amqp://x/y", "--queue-for", "2x", "host", "reboot"), "expected 90s, 30m, 2h"),
        (("--on", "amqp://x/y", "--queue-for", "8d", "host", "reboot"), "at most 7d"),
        (("--on", "amqp://x/y", "--queue-for", "2h", "host", "show"), "nobody would see what is read"),
        (("--on", "amqp://x/y", "--queue-for", "2h", "host", "reboot"), "disrupts amqp://x/y:"),
        (("--all-hosts", "--batch", "2", "--queue-for", "2h", "host", "reboot"), "takes no --batch"),
    ],
)
def test_what_is_refused_before_anybody_is_asked(words: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(command_line, words)
    assert done.exit_code == 2
    assert says in done.stderr


def test_options_count_wherever_they_stand() -> None:
    words = ["services", "--where", "a=b", "restart", "x", "--batch=10%", "--canary", "2", "--all-hosts"]
    front = ["--where", "a=b", "--batch=10%", "--canary", "2", "--all-hosts"]
    assert hoisted(words) == [*front, "services", "restart", "x"]
    assert hoisted(["get", "--where"]) == ["--where", "get"]


def test_one_host_is_meant_without_them() -> None:
    assert wide_of("local:", (), None, 0, None, every=False) is None
    with pytest.raises(click.UsageError):
        wide_of("local:", (), None, 1, None, every=False)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ((State.ANSWERED,), 0),
        ((State.ANSWERED, State.OFFLINE), 4),
        ((State.TIMED_OUT, State.OFFLINE), 5),
        ((State.DENIED, State.TIMED_OUT), 3),
        ((State.FAILED, State.DENIED), 1),
        ((State.ANSWERED, State.NOT_ASKED), 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst(ends: tuple[State, ...], code: int) -> None:
    account = Account()
    account.expect([Host(str(number)) for number in range(len(ends))])
    for number, end in enumerate(ends):
        account.add(Result(str(number), "", end))
    assert exit_code_of(account) == code
    account.interrupted = True
    assert exit_code_of(account) == 130
