"""What every agent process does, in real processes: options and files, readiness, signals, the watchdog."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from gauges import TestBench
from libmh.api.host import Host
from libmh.call import Bound
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Dispatcher, Everybody
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere
from libmh.providers import Providers, watch
from libmh.serve import HostAgent, heartbeats, server_for
from libmh.spec import interface_of
from processes import ready_line
from testbed.child import spawn, stop
from waiting import eventually

SERVED = [sys.executable, str(Path(__file__).with_name("served.py"))]


@contextmanager
def served(*options: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = spawn([*SERVED, *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        stop(process)
        assert process.stderr is not None
        process.stderr.close()


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=20)


def run(*options: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVED, *options], env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=30
    )


def shown(*options: str) -> str:
    done = run("--mode", "end", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_says_once_that_it_is_ready_and_ends_when_told() -> None:
    with served("--name", "me") as process:
        assert ready_line(process).startswith("me")
        assert ready_line(process) == "ready: served as me"
        process.send_signal(signal.SIGTERM)
        output, errors = rest(process)
        assert (process.returncode, output) == (0, "")
        assert "Traceback" not in errors


def test_an_interrupt_ends_it_in_an_orderly_way_too() -> None:
    with served() as process:
        ready_line(process)
        process.send_signal(signal.SIGINT)
        rest(process)
        assert process.returncode == 0


def test_a_call_in_flight_is_finished_and_a_later_one_refused() -> None:
    with served("--mode", "drain") as process:
        ready_line(process)
        ready_line(process)
        process.send_signal(signal.SIGTERM)
        output, _ = rest(process)
        assert output.splitlines() == ["late: unavailable", "in flight: 1 drained: True"]
        assert process.returncode == 0


@pytest.mark.parametrize("mode", ["hang", "stubborn"])
def test_a_second_signal_ends_it_at_once(mode: str) -> None:
    with served("--mode", mode) as process:
        ready_line(process)
        ready_line(process)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 1


def test_a_thread_that_never_comes_back_keeps_nobody_from_ending() -> None:
    with served("--mode", "thread") as process:
        ready_line(process)
        ready_line(process)
        process.send_signal(signal.SIGTERM)
        _, errors = rest(process)
        assert "threads did not come back within 0.2 s, leaving" in errors
        assert process.returncode == 1


@pytest.mark.parametrize("mode", ["hang", "stubborn"])
def test_a_body_that_does_not_end_is_left_behind(mode: str) -> None:
    with served("--mode", mode) as process:
        ready_line(process)
        ready_line(process)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
        assert time.monotonic() - started >= 1
        assert process.stderr is not None
        assert "did not end within 1 s, leaving" in process.stderr.read()


@pytest.mark.parametrize(
    ("mode", "says"), [("fail", "the bus is away"), ("refuse", "[Errno 98] Address already in use")]
)
def test_what_it_cannot_go_on_without_is_one_sentence(mode: str, says: str) -> None:
    done = run("--mode", mode)
    assert (done.returncode, done.stderr, done.stdout) == (1, f"served: {says}\n", "")


def test_the_file_stands_where_the_command_line_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "served.toml"
    file.write_text(
        'name = "file"\npeer = ["a", "b"]\nloud = true\nnumber = 7\nlog-level = "error"\n'
        '[authority]\n"*" = "operator"\n'
    )
    tables = "{'authority': {'*': 'operator'}}"
    assert shown() == "nobody [] False 1 {}"
    assert shown("--config", str(file)) == f"file ['a', 'b'] True 7 {tables}"
    given = shown("--config", str(file), "--name=me", "--peer", "c", "--number", "8")
    assert given == f"me ['c'] True 8 {tables}"


def test_a_file_may_turn_a_flag_off_and_give_one_of_several(tmp_path: Path) -> None:
    file = tmp_path / "served.toml"
    file.write_text('loud = false\npeer = "-x"\n')
    assert shown("--config", str(file)) == "nobody ['-x'] False 1 {}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 1", "there is no option 'nmae'"),
        ("config = 'other'", "there is no option 'config'"),
        ("help = true", "there is no option 'help'"),
        ("log_level = 'debug'", "there is no option 'log_level'"),
        ("[other]\na = 1", "there is no table [other] here"),
        ("loud = 'yes'", "loud: expected true or false, got 'yes'"),
        ("name = true", "name: expected a string or a number, got 'True'"),
        ("name = ['a', 'b']", "name: expected a string or a number"),
        ("peer = [{a = 1}]", "peer: expected a string or a number"),
        ("number = 'x'", "argument --number: invalid int value: 'x'"),
        ("log-level = 'loud'", "invalid choice: 'loud'"),
        ("name = ", "cannot read the configuration"),
        ("\udcff", "cannot read the configuration"),
    ],
    ids=str,
)
def test_a_bad_file_is_a_usage_error(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "served.toml"
    file.write_text(text, errors="surrogateescape")
    done = run("--config", str(file))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--config", "/nothing/there"],
        ["--config", "/"],
        ["--nothing"],
        ["--nam", "x"],
        ["--log-level", "loud"],
    ],
)
def test_a_bad_command_line_is_a_usage_error(options: list[str]) -> None:
    assert run(*options).returncode == 2


def test_help_and_version_are_answered() -> None:
    assert "--state DIR" in run("--help").stdout
    assert run("--version").stdout.startswith("served ")


class Manager:
    """A service manager: what it is told, by whom."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.socket.settimeout(10)
        self.told: list[str] = []

    def hears(self, words: str) -> bool:
        """Wait until it is told these words."""
        while not any(words in each for each in self.told):
            self.told.append(self.socket.recv(4096).decode())
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, dict[str, str]]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@matahari-test-{os.getpid()}"
    made = Manager(address)
    yield made, {"NOTIFY_SOCKET": address}
    made.socket.close()


def test_the_service_manager_is_told(manager: tuple[Manager, dict[str, str]]) -> None:
    listening, environment = manager
    with served("--name", "me", env=environment) as process:
        assert listening.hears("READY=1\nSTATUS=as me")
        process.send_signal(signal.SIGTERM)
        assert listening.hears("STOPPING=1")
        assert sum("READY=1" in each for each in listening.told) == 1
        rest(process)
        assert process.returncode == 0


def test_the_watchdog_is_fed(manager: tuple[Manager, dict[str, str]]) -> None:
    listening, environment = manager
    with served(env=environment | {"WATCHDOG_USEC": "100000"}):
        for _ in range(3):
            listening.told.clear()
            assert listening.hears("WATCHDOG=1")


def test_a_stopped_process_does_not_feed_the_watchdog(manager: tuple[Manager, dict[str, str]]) -> None:
    listening, environment = manager
    with served(env=environment | {"WATCHDOG_USEC": "50000"}) as process:
        assert listening.hears("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)
        listening.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            listening.hears("a bark")
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "environment",
    [
        {"NOTIFY_SOCKET": "/nothing/there"},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
    ],
    ids=str,
)
def test_a_manager_that_is_not_there_disturbs_nobody(environment: dict[str, str]) -> None:
    with served(env=environment) as process:
        ready_line(process)
        assert ready_line(process) == "ready: served as nobody"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_heartbeats_come_at_once_and_then_in_their_interval(tmp_path: Path) -> None:
    with served("--mode", "heart", "--state", str(tmp_path)) as process:
        assert ready_line(process) == "ready: served beating"
        started = time.monotonic()
        for number in (1, 2, 3):
            assert ready_line(process) == f"org.matahariproject.Host.heartbeat {number}"
        assert time.monotonic() - started >= 1.5
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert (tmp_path / "settings.json").exists()


def test_heartbeats_go_on_while_their_interval_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Heart:
        beats = 0

        def beat(self) -> None:
            self.beats += 1

        def update_interval(self) -> int:
            raise BackendFailed("the settings are not JSON")

    async def beat_three_times() -> None:
        heart, stop, context, providers = Heart(), asyncio.Event(), Context(), Providers()
        declared = interface_of(Host)
        providers.bound[declared.name] = Bound(declared, heart)
        connections = Connections(context.events)
        agent = HostAgent(context, providers, connections, Dispatcher(providers.bound, context, Everybody()))
        beating = asyncio.create_task(heartbeats(agent, stop))
        await eventually(lambda: heart.beats >= 3)
        stop.set()
        await beating

    monkeypatch.setattr("libmh.serve.FALLBACK_SECONDS", 0.1)
    asyncio.run(beat_three_times())


def test_a_provider_that_cannot_watch_is_served_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Blind(TestBench):
        def watch(self) -> None:
            raise ValueError("it is dark")

    providers = Providers()
    providers.add(Blind())
    watch(providers)
    assert "org.example.Gauges does not watch: it is dark" in caplog.text


def test_only_what_exists_can_be_asked_for(tmp_path: Path) -> None:
    for name in ("mh-dbus", "mh-amqp"):
        program = str(Path(sys.executable).with_name(name))
        options = [program, "--only", "Nothing", "--state", str(tmp_path)]
        done = subprocess.run(options, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert done.stderr.endswith("--only: there is no interface 'Nothing' here\n")


def test_a_reader_that_has_gone_does_not_end_it(manager: tuple[Manager, dict[str, str]]) -> None:
    listening, environment = manager
    reading, writing = os.pipe()
    process = spawn([*SERVED, "--mode", "silent"], env=environment, stdout=writing)
    os.close(writing)
    os.close(reading)
    assert listening.hears("READY=1")
    assert stop(process) == 0


def test_the_server_half_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(server_for("amqp://127.0.0.1:5672"))
    with pytest.raises(InvalidArguments, match="is not the URL of a broker"):
        server_for("http://127.0.0.1")
    monkeypatch.setattr("libmh.serve.SERVERS", {"amqp": "libmh.nothing_of_that_name"})
    with pytest.raises(NotImplementedHere, match="pip install"):
        server_for("amqp://127.0.0.1")
