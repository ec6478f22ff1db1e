"""Somebody else's provider: a declaration and an answer to it in a distribution of their own are enough for
every transport, the command line and the policy files. Nothing of ours knows of it."""

import importlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import plugin
import source_tree
from libmh.client import Connection, connect
from libmh.context import Context
from libmh.errors import InvalidArguments, NotAuthorized, NotFound
from libmh.events import Event
from libmh.providers import find_interface, load
from libmh.testing import conforming, loopback, unanswered
from processes import agent, command, mhctl
from testbed.bus import private_bus
from waiting import wait_for

if TYPE_CHECKING:
    from mh_sensors.api import Sensors

NAME = "com.example.Sensors"
BUS_ACTION = f'<action id="{NAME}.calibrate">'


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin.install(plugin.SOURCE, tmp_path_factory.mktemp("plugins"))


@pytest.fixture
def found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> "type[Sensors]":
    """The plug-in is installed for this process."""
    monkeypatch.syspath_prepend(installed)
    importlib.invalidate_caches()
    from mh_sensors.api import Sensors

    return Sensors


def test_it_is_found_by_its_entry_point(found: "type[Sensors]") -> None:
    providers = load(Context(), ["Sensors"])
    assert list(providers.bound) == [NAME]
    assert NAME in load(Context()).bound
    assert find_interface("sensors") is providers.bound[NAME].interface


def test_it_conforms(found: "type[Sensors]") -> None:
    provider = load(Context(), ["Sensors"]).bound[NAME].provider
    assert unanswered(type(provider)) == []
    assert conforming(provider)["alarm"] == 80


def exercise(sensors: "Sensors") -> None:
    """What it does, however it is reached by a caller who may do everything."""
    assert [reading.sensor for reading in sensors.readings()] == ["cpu", "disk"]
    assert sensors.read("disk").limits.high is None
    sensors.set_alarm(50)
    assert sensors.alarm() == 50
    assert sensors.calibrate("cpu").temperature == 45.5
    assert sensors.calibrate(sensor="cpu", offset=10.0).temperature == 55.5
    with pytest.raises(NotFound, match="there is no sensor 'lungs'"):
        sensors.read("lungs")
    with pytest.raises(InvalidArguments, match="sensor: expected string"):
        sensors.read(5)  # type: ignore[arg-type]


def test_it_is_reached_in_memory(found: "type[Sensors]") -> None:
    with loopback(load(Context(), ["Sensors"]).bound[NAME].provider) as connection:
        exercise(connection.proxy(found))


@contextmanager
def on_dbus(installed: Path, state: Path) -> Iterator[str]:
    with private_bus() as address:
        options = ["--bus", address, "--only", "Sensors", "--state", str(state)]
        with agent("mh-dbus", *options, env=plugin.environment(installed)) as started:
            assert NAME in started.ready
            yield address


@contextmanager
def on_amqp(installed: Path, state: Path) -> Iterator[str]:
    config = state / "mh-amqp.toml"
    config.write_text('[authority]\n"*" = "operator"\n')
    options = ["--listen", "127.0.0.1:0", "--state", str(state), "--config", str(config)]
    with agent("mh-amqp", *options, env=plugin.environment(installed)) as started:
        yield started.url


Serving = Callable[[Path, Path], AbstractContextManager[str]]


@pytest.mark.parametrize("serving", [on_dbus, on_amqp])
def test_it_is_served(found: "type[Sensors]", installed: Path, tmp_path: Path, serving: Serving) -> None:
    with serving(installed, tmp_path) as url, connect(url) as connection:
        sensors = connection.proxy(found)
        exercise(sensors)
        event = first_event(connection, lambda: sensors.calibrate("cpu", 10.0))
        assert (event.name, event.fields["sensor"]) == (f"{NAME}.too_hot", "cpu")
        done = mhctl("--on", url, "--json", "sensors", "read", "cpu", env=plugin.environment(installed))
        assert json.loads(done.stdout)["temperature"] == 55.5


def first_event(connection: Connection, cause: Callable[[], object]) -> Event:
    """The first `too_hot` that comes, caused until one does: nobody says when a subscription has begun."""
    seen: list[Event] = []
    events = connection.events(NAME, "too_hot", timeout=20)
    waiting = threading.Thread(target=lambda: seen.append(next(events)))
    waiting.start()

    def has_come() -> bool:
        cause()
        return bool(seen)

    wait_for(has_come, 20)
    waiting.join(5)
    return seen[0]


def test_a_caller_without_a_role_reads_and_no_more(
    found: "type[Sensors]", installed: Path, tmp_path: Path
) -> None:
    options = ["--listen", "127.0.0.1:0", "--state", str(tmp_path)]
    environment = plugin.environment(installed)
    with agent("mh-amqp", *options, env=environment) as started, connect(started.url) as connection:
        assert connection.proxy(found).alarm() == 80
        with pytest.raises(NotAuthorized, match=rf"{NAME}\.calibrate"):
            connection.proxy(found).calibrate("cpu", 1.0)


def printed(option: str, installed: Path | None) -> str:
    done = subprocess.run(
        [command("mh-dbus"), option],
        env=dict(plugin.environment(installed)) if installed else {},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_in_the_files_that_are_printed(installed: Path) -> None:
    assert BUS_ACTION in printed("--print-polkit", installed)
    assert f'<interface name="{NAME}">' in printed("--print-introspection", installed)
    assert NAME in printed("--print-bus-policy", installed)
    assert NAME not in printed("--print-polkit", None)


def test_it_is_on_the_command_line(installed: Path) -> None:
    environment = plugin.environment(installed)
    assert "sensors" in mhctl("--help", env=environment).stdout
    assert "Correct a sensor." in mhctl("sensors", "--help", env=environment).stdout
    done = mhctl("--json", "call", f"{NAME}.calibrate", "cpu", "2.5", env=environment)
    assert json.loads(done.stdout)["temperature"] == 48.0
    assert mhctl("sensors", "--help").returncode == 2


def test_nothing_of_ours_knows_of_it() -> None:
    assert [source.path for source in source_tree.product() if "mh_sensors" in source.text] == []
