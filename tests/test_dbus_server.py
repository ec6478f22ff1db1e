"""The D-Bus agent as foreign clients see it: busctl, gdbus and raw messages, on a real bus."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dbus_golden import REGENERATE
from dbus_serving import raw, serving
from libmh.bus import library, variant
from libmh.errors import (
    PROBLEMS,
    Conflict,
    Failed,
    Internal,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    Problem,
    Unavailable,
)
from libmh.linux.sysconfig import LinuxSysconfig
from libmh.systembus import SystemBus
from probe import ProbeHost
from source_tree import ROOT
from testbed import needs
from testbed.bus import bus_daemon, private_bus
from testbed.child import child
from waiting import wait_for

NAME, PATH, PROBE = "org.example.Probe", "/org/example/Probe", "org.example.Probe"
PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
MANAGER = "org.freedesktop.DBus.ObjectManager"


@pytest.fixture
def probe(either: str) -> Iterator[SystemBus]:
    """A caller of the probe, served with each library."""
    with private_bus() as address, serving(address, ProbeHost), raw(address) as caller:
        yield caller


def call(
    caller: SystemBus, member: str, signature: str = "", *arguments: Any, interface: str = PROBE
) -> list[Any]:
    return caller.call(NAME, PATH, interface, member, signature, *arguments, timeout=10)


SCALARS = [
    True,
    255,
    65535,
    2**32 - 1,
    2**64 - 1,
    -(2**15),
    -(2**31),
    -(2**63),
    -0.5,
    "ü",
    b"\x00\xff",
    2**63 - 1,
]


def test_methods_answer_with_their_types(probe: SystemBus) -> None:
    assert call(probe, "scalars", "byqutnixdsayt", *SCALARS) == SCALARS
    outer = {
        "inner": variant("a{sv}", {"name": variant("s", "n"), "colour": variant("s", "red")}),
        "more": variant("aa{sv}", []),
        "by_name": variant("a{sx}", {"a": -1}),
        "of a later version": variant("(is)", [1, "x"]),
    }
    answer = call(
        probe, "shapes", "asa{si}a{sv}saqv", ["a"], {"k": -1}, outer, "green", [], variant("ai", [1])
    )
    inner = {"name": "n", "colour": "red"}
    assert answer == [["a"], {"k": -1}, {"inner": inner, "more": [], "by_name": {"a": -1}}, "green", [], [1]]


WRONG = [
    ("scalars", "byqutnixdsay", SCALARS[:-1], "time: is missing"),
    ("scalars", "byqutnixdsayts", [*SCALARS, "x"], "takes 12 arguments, got 13"),
    ("scalars", "yyqutnixdsayt", [1, *SCALARS[1:]], "flag: expected the D-Bus type 'b', got 'y'"),
    ("scalars", "byqutnixdsayt", [*SCALARS[:-1], 2**63], "time: expected time"),
    ("scalars", "byqutnixdsayt", [*SCALARS[:8], float("nan"), *SCALARS[9:]], "double: expected a finite"),
    (
        "scalars",
        "byqutnixdsayt",
        [*SCALARS[:9], "x" * 70_000, *SCALARS[10:]],
        "text: expected a string of at most",
    ),
    ("guarded", "", [], "unit: is missing"),
    ("guarded", "ssu", ["a", "b", 3], "value: expected the D-Bus type 's', got 'u'"),
    ("wait", "s", ["x"], "seconds: is missing"),
    ("release", "s", ["x"], "takes 0 arguments, got 1"),
]


@pytest.mark.parametrize(("member", "signature", "arguments", "words"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_named(
    probe: SystemBus, member: str, signature: str, arguments: list[Any], words: str
) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(words)):
        call(probe, member, signature, *arguments)
    assert call(probe, "blob", "u", 0) == [[]]


def test_a_wrong_record_is_named_to_the_field(probe: SystemBus) -> None:
    def refused(outer: dict[str, Any]) -> str:
        with pytest.raises(InvalidArguments) as caught:
            call(probe, "shapes", "asa{si}a{sv}saqv", [], {}, outer, "red", [], variant("s", ""))
        return caught.value.message

    assert refused({}) == "outer.inner: is missing"
    assert refused({"inner": variant("u", 1)}).startswith("outer.inner: expected a map")


def test_each_problem_reaches_the_caller_as_itself(probe: SystemBus) -> None:
    for problem in PROBLEMS:
        with pytest.raises(problem, match="as asked"):
            call(probe, "fail", "s", problem.word)
    with pytest.raises(Internal, match=r"internal error [0-9a-f]{12}"):
        call(probe, "fail", "s", "a bug")


UNKNOWN = [
    (PATH, PROBE, "nothing", "UnknownMethod"),
    (PATH, "org.example.Nothing", "wait", "UnknownInterface"),
    ("/org/example/Nothing", PROBE, "wait", "UnknownObject"),
    ("/org/example", PROBE, "wait", "UnknownInterface"),
    (PATH, PROBE, "announced", "UnknownMethod"),
    (PATH, PROBE, "gauge", "UnknownMethod"),
    (PATH, PROBE, "__init__", "UnknownMethod"),
    (PATH, MANAGER, "GetManagedObjects", "UnknownInterface"),
    (PATH, PROPERTIES, "Nothing", "UnknownMethod"),
]


@pytest.mark.parametrize(("path", "interface", "member", "word"), UNKNOWN)
def test_unknown_is_said_in_the_words_of_dbus(
    probe: SystemBus, path: str, interface: str, member: str, word: str
) -> None:
    with pytest.raises(NotFound) as caught:
        probe.call(NAME, path, interface, member)
    assert caught.value.details["dbus_error"] == f"org.freedesktop.DBus.Error.{word}"


def test_properties(probe: SystemBus) -> None:
    def properties(member: str, signature: str, *arguments: Any) -> list[Any]:
        return call(probe, member, signature, *arguments, interface=PROPERTIES)

    assert properties("Get", "ss", PROBE, "number") == [1]
    assert properties("Set", "ssv", PROBE, "number", variant("u", 7)) == []
    assert properties("Get", "ss", PROBE, "number") == [7]
    assert properties("Get", "ss", "", "number") == [7]  # the specification allows it
    (everything,) = properties("GetAll", "s", PROBE)
    assert set(everything) == {"gauge", "outer", "number"}  # `maybe` is absent
    assert properties("GetAll", "s", "")[0].keys() == everything.keys()
    assert properties("GetAll", "s", PEER) == [{}]
    with pytest.raises(NotFound, match="maybe"):
        properties("Get", "ss", PROBE, "maybe")
    properties("Set", "ssv", PROBE, "maybe", variant("s", "x"))
    assert properties("Get", "ss", PROBE, "maybe") == ["x"]
    gauges = [properties("Get", "ss", PROBE, "gauge")[0] for _ in range(3)]
    assert gauges == sorted(set(gauges))  # read each time


def test_properties_refuse(probe: SystemBus) -> None:
    def refused(kind: type[Problem], member: str, signature: str, *arguments: Any) -> str:
        with pytest.raises(kind) as caught:
            call(probe, member, signature, *arguments, interface=PROPERTIES)
        return caught.value.details.get("dbus_error", "").rpartition(".")[2] or caught.value.message

    assert refused(NotFound, "Get", "ss", PROBE, "nothing") == "UnknownProperty"
    assert refused(NotFound, "Get", "ss", PROBE, "wait") == "UnknownProperty"
    assert refused(NotFound, "Get", "ss", "org.example.Nothing", "number") == "UnknownInterface"
    assert refused(NotFound, "Get", "ss", PEER, "number") == "UnknownProperty"
    assert refused(NotFound, "GetAll", "s", "org.example.Nothing") == "UnknownInterface"
    assert refused(InvalidArguments, "Get", "s", PROBE) == "InvalidArgs"
    assert refused(InvalidArguments, "GetAll", "ss", PROBE, "x") == "InvalidArgs"
    assert refused(InvalidArguments, "Set", "sss", PROBE, "number", "x") == "InvalidArgs"
    assert refused(InvalidArguments, "Set", "ssv", PROBE, "gauge", variant("t", 1)) == "PropertyReadOnly"
    wrong = refused(InvalidArguments, "Set", "ssv", PROBE, "number", variant("s", "x"))
    assert wrong == "number: expected the D-Bus type 'u', got 's'"


def test_standard_interfaces(probe: SystemBus) -> None:
    assert call(probe, "Ping", interface=PEER) == []
    assert probe.call(NAME, "/no/object", PEER, "Ping") == []
    (machine,) = call(probe, "GetMachineId", interface=PEER)
    assert machine == Path("/etc/machine-id").read_text().strip()
    for path in ("/", "/org", "/org/example", PATH, "/org/matahariproject"):
        (xml,) = probe.call(NAME, path, INTROSPECTABLE, "Introspect")
        ET.fromstring(xml)
    (objects,) = probe.call(NAME, "/", MANAGER, "GetManagedObjects")
    assert set(objects) == {PATH}
    assert objects[PATH][PROBE].keys() == {"gauge", "outer", "number"}
    assert probe.call(NAME, "/org/matahariproject", MANAGER, "GetManagedObjects") == [{}]


def test_an_answer_that_no_message_can_hold_is_refused(probe: SystemBus) -> None:
    assert len(call(probe, "blob", "u", 10_000)[0]) == 10_000
    with pytest.raises(Failed, match="too large for D-Bus"):
        call(probe, "blob", "u", 20_000)
    assert call(probe, "blob", "u", 1) == [["x" * 1024]]


def test_a_slow_call_blocks_nobody_and_a_caller_has_its_share(probe: SystemBus) -> None:
    waiting = [("wait", "sd", str(n), 8.0) for n in range(10)]
    with ThreadPoolExecutor(10) as pool:
        slow = [pool.submit(call, probe, *each) for each in waiting]
        assert call(probe, "blob", "u", 0) == [[]]
        assert call(probe, "Get", "ss", PROBE, "gauge", interface=PROPERTIES)
        call(probe, "release")
        assert [each.result(10) for each in slow] == [[True]] * 10


def test_too_many_calls_of_one_caller_are_refused(either: str) -> None:
    async def many(address: str) -> list[Any]:
        # our own clients keep within the limit by themselves
        careless = library().open(address)
        await careless.connect()
        calls = [
            library().message(
                destination=NAME,
                path=PATH,
                interface=PROBE,
                member="wait",
                signature="sd",
                body=[str(n), 0.3],
            )
            for n in range(90)
        ]
        answers = await asyncio.gather(*map(careless.call, calls))
        careless.disconnect()
        return list(answers)

    with private_bus() as address, serving(address, ProbeHost), raw(address) as caller:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(asyncio.run, many(address))
            assert call(caller, "blob", "u", 0) == [[]]  # others are served meanwhile
            answers = waiting.result(20)
        refused = [each.body[0] for each in answers if each.error_name]
        assert len(refused) == 26
        assert "64 of your calls are outstanding" in refused[0]
        assert call(caller, "blob", "u", 0) == [[]]


def test_signals_of_events_and_properties(either: str) -> None:
    gdbus = needs.command("gdbus", "libglib2.0-bin")
    with (
        private_bus() as address,
        serving(address, ProbeHost),
        raw(address) as caller,
        listening([gdbus, "monitor", "--address", address, "--dest", NAME]) as seen,
    ):
        wait_for(lambda: "is owned by" in seen.read_text())
        outer = {
            "inner": variant("a{sv}", {"name": variant("s", "n"), "colour": variant("s", "red")}),
            "more": variant("aa{sv}", []),
            "by_name": variant("a{sx}", {"a": -1}),
        }
        call(caller, "announce", "a{sv}as", outer, [])
        call(caller, "Set", "ssv", PROBE, "number", variant("u", 9), interface=PROPERTIES)
        (announced,) = wait_for(lambda: re.findall(r"Probe\.announced \((.*)\)", seen.read_text()))
        (changed,) = wait_for(lambda: re.findall(r"PropertiesChanged \((.*)\)", seen.read_text()))
    assert announced.endswith("@as [], uint32 1")
    assert "'by_name': <{'a': int64 -1}>" in announced
    assert changed == "'org.example.Probe', {'number': <uint32 9>}, @as []"


@contextmanager
def listening(command: list[str]) -> Iterator[Path]:
    """The file that a listener writes what it hears to."""
    with tempfile.NamedTemporaryFile() as file, child(command, stdout=file.fileno()):
        yield Path(file.name)


# the command itself, with the shipped interfaces


@contextmanager
def agent(address: str, state: Path, *options: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "mh_dbus.main", "--bus", address, "--state", str(state), *options]
    with child(command, env=env, stdout=subprocess.PIPE) as process:
        yield process


def ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


SHIPPED = ["Host", "Network", "Services", "Sysconfig", "Agent"]


@pytest.mark.parametrize("library", ["dbus-fast", "dbus-next"])
def test_the_command_serves_the_declared_surface(library: str, tmp_path: Path) -> None:
    with bus_daemon() as daemon, agent(daemon.address, tmp_path, MATAHARI_DBUS_LIBRARY=library) as process:
        names = " ".join(f"org.matahariproject.{short}" for short in SHIPPED)
        assert ready(process) == f"ready: mh-dbus on {daemon.address} as {names}"
        with raw(daemon.address) as caller:
            for short in SHIPPED:
                name, path = f"org.matahariproject.{short}", f"/org/matahariproject/{short}"
                (xml,) = caller.call(name, path, INTROSPECTABLE, "Introspect")
                kept = ROOT / f"tests/golden/dbus/org.matahariproject.{short}.xml"
                assert xml == kept.read_text("utf-8"), REGENERATE
                (values,) = caller.call(name, path, PROPERTIES, "GetAll", "s", name)
                assert values
        for client in (busctl(daemon.address), gdbus(daemon.address)):
            done = subprocess.run(client, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 0, done.stderr
            assert "set_power_profile" in done.stdout
            assert "heartbeat" in done.stdout
        process.terminate()
        assert process.wait(10) == 0


def busctl(address: str) -> list[str]:
    command = [needs.command("busctl", "systemd"), f"--address={address}", "introspect"]
    return [*command, "org.matahariproject.Host", "/org/matahariproject/Host"]


def gdbus(address: str) -> list[str]:
    command = [needs.command("gdbus", "libglib2.0-bin"), "introspect", "--address", address]
    return [*command, "--dest", "org.matahariproject.Host", "--object-path", "/org/matahariproject/Host"]


def test_only_splits_the_agent(tmp_path: Path) -> None:
    with private_bus() as address, agent(address, tmp_path / "a", "--only", "Host,Network") as first:
        assert ready(first).endswith("as org.matahariproject.Host org.matahariproject.Network")
        with agent(address, tmp_path / "b", "--only", "Services") as second, raw(address) as caller:
            assert ready(second).endswith("as org.matahariproject.Services")
            place = (
                "org.matahariproject.Services",
                "/org/matahariproject/Agent",
                "org.matahariproject.Agent",
            )
            assert caller.call(*place, "ping", "s", "x") == ["x"]


def test_a_second_agent_says_so_and_ends(tmp_path: Path) -> None:
    with private_bus() as address, agent(address, tmp_path) as first:
        assert ready(first)
        with agent(address, tmp_path) as second:
            assert second.wait(10) == 1
            assert ready(second) == ""
    assert issubclass(Conflict, Problem)


def test_the_bus_goes_away_and_comes_back(tmp_path: Path) -> None:
    place = ("org.matahariproject.Agent", "/org/matahariproject/Agent", "org.matahariproject.Agent")
    with bus_daemon() as daemon, agent(daemon.address, tmp_path) as process, raw(daemon.address) as caller:
        assert ready(process)
        for _ in range(2):
            daemon.stop()
            daemon.start()

            def answers() -> bool:
                try:
                    return caller.call(*place, "ping", "s", "x", timeout=1) == ["x"]
                except Unavailable:
                    return False

            wait_for(answers, seconds=10)
        (status,) = caller.call(*place[:2], PROPERTIES, "Get", "ss", place[2], "connections")
        assert status[0]["state"] == "connected"
        assert status[0]["last_error"]
        assert status[0]["url"] == daemon.address
        assert process.poll() is None


def test_it_waits_for_a_bus_that_is_not_there_yet(tmp_path: Path) -> None:
    with bus_daemon() as daemon:
        daemon.stop()
        with agent(daemon.address, tmp_path) as process:
            assert process.poll() is None
            daemon.start()
            assert ready(process).startswith("ready: mh-dbus")


def test_told_to_end_it_ends_in_time_and_gives_its_names_back(tmp_path: Path) -> None:
    with private_bus() as address, agent(address, tmp_path) as process, raw(address) as caller:
        assert ready(process)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
        with pytest.raises(Unavailable):
            caller.call("org.matahariproject.Host", "/", PEER, "Ping")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bus", "nonsense"], "is not a D-Bus address"),
        (["--bus", "unix:path=/nonexistent", "--only", "Nonsense"], "there is no interface 'Nonsense'"),
    ],
)
def test_what_waiting_does_not_mend_ends_it(tmp_path: Path, options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "mh_dbus.main", "--state", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_name_of_a_plug_in_may_be_refused(either: str) -> None:
    policies = sorted((ROOT / "packaging/dbus-1/system.d").glob("*.conf"))
    with private_bus(policies) as address:
        with serving(address, LinuxSysconfig, ProbeHost), raw(address) as caller:
            (values,) = caller.call(
                "org.matahariproject.Sysconfig", PATH, PROPERTIES, "GetAll", "s", PROBE
            )  # root may send anything there; the object answers though its own name is not ours
            assert values["number"] == 1
        with pytest.raises(NotAuthorized), serving(address, ProbeHost):
            pass


def test_nothing_to_serve_ends_it(tmp_path: Path) -> None:
    """A provider that cannot be imported, asked for alone."""
    (tmp_path / "broken.py").write_text(
        "import runpy, sys\n"
        "sys.modules['libmh.linux.network'] = None\n"
        "sys.argv = ['mh-dbus', *sys.argv[1:]]\n"
        "runpy.run_module('mh_dbus.main', run_name='__main__')\n"
    )
    options = ["--bus", "unix:path=/nonexistent", "--only", "Network", "--state", str(tmp_path / "state")]
    command = [sys.executable, str(tmp_path / "broken.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "there is nothing to serve: no provider of what was asked for could be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_may_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('only = ["Host", "Network"]\n')
    configured = ("--config", str(tmp_path / "config.toml"))
    with private_bus() as address, agent(address, tmp_path, *configured) as process:
        assert ready(process).endswith("as org.matahariproject.Host org.matahariproject.Network")


def test_a_call_under_way_is_answered_before_the_end(either: str) -> None:
    with private_bus() as address, raw(address) as caller, ThreadPoolExecutor(1) as pool:
        with serving(address, ProbeHost) as served:
            under_way = pool.submit(call, caller, "wait", "sd", "x", 0.5)
            wait_for(lambda: served.dispatcher.counts().outstanding)
        assert under_way.result(5) == [False]
        with pytest.raises(Unavailable):
            call(caller, "release")
