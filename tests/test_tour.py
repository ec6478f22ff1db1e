"""The tour as a newcomer sees it: a process of its own, ended like one, and alone with its state."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from source_tree import ROOT
from testbed import needs
from testbed.child import spawn, stop
from testbed.machine import booted_host
from waiting import wait_for

TOUR = str(ROOT / "packaging" / "tour.py")
STOPS = ("1. This host, over D-Bus", "2. The same host, over AMQP", "3. A live heartbeat")
FLEET_STOPS = (
    *("4. Its capability report", "5. The aggregates that it joined", "6. And why"),
    *("7. The fleet at a glance", "8. Where something fits"),
)
DAEMONS = ("dbus-daemon", "mh-dbus", "mh-broker", "mh-conductor", "mh-amqp")
UP = "Ctrl-C ends it all."


@pytest.fixture(autouse=True)
def _dbus_daemon() -> None:
    needs.command("dbus-daemon", "dbus-daemon")


@contextmanager
def staying(state: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """A tour that has been taken and stays up."""
    with output.open("w") as file:
        tour = spawn(
            [sys.executable, TOUR, "--state", str(state)], stdout=file.fileno(), stderr=subprocess.STDOUT
        )
    try:
        wait_for(
            lambda: UP in output.read_text() or tour.poll() is not None, seconds=90, what="the tour's end"
        )
        assert UP in output.read_text(), output.read_text()
        yield tour
    finally:
        stop(tour)


def children(tour: subprocess.Popen[str]) -> dict[str, int]:
    """The daemons below a tour, by name."""
    listing = Path(f"/proc/{tour.pid}/task/{tour.pid}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in listing}
    return {
        name: int(pid)
        for pid, words in commands.items()
        for name in DAEMONS
        if any(w.endswith(name) for w in words)
    }


def is_gone(pid: int) -> bool:
    """Ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_tour_shows_one_host_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, TOUR, "--once", "--state", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    places = [done.stdout.find(stop) for stop in (*STOPS, *FLEET_STOPS, "The tour is complete.")]
    assert -1 not in places, done.stdout
    assert places == sorted(places)
    assert done.stdout.count("\n$ mhctl --on ") == 8


def test_the_tour_ends_its_daemons_and_guards_its_state(tmp_path: Path) -> None:
    state, output = tmp_path / "state", tmp_path / "output"
    with staying(state, output) as tour:
        daemons = children(tour)
        assert set(DAEMONS) - {"dbus-daemon"} <= set(daemons)
        command = [sys.executable, TOUR, "--once", "--state", str(state)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert "is used by another run: name another with --state DIR" in second.stderr
        tour.send_signal(signal.SIGHUP)
        wait_for(lambda: is_gone(daemons["mh-amqp"]))
        for _ in range(3):  # impatience leaves nobody behind
            tour.send_signal(signal.SIGINT)
        assert tour.wait(60) == 0
    assert [name for name, pid in daemons.items() if not is_gone(pid)] == []


def test_the_end_of_a_daemon_ends_the_tour_in_one_sentence(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with staying(tmp_path / "state", output) as tour:
        os.kill(children(tour)["mh-conductor"], signal.SIGKILL)
        assert tour.wait(60) == 1
    last = output.read_text().splitlines()[-1]
    assert last.startswith("packaging/run: mh-conductor ended with status -9")
    assert "state/log/mh-conductor.log)" in last


def test_one_tour_has_the_system_bus_and_another_goes_beside_it() -> None:
    policies = (ROOT / "packaging" / "dbus-1" / "system.d").glob("*.conf")
    files = {f"/usr/share/dbus-1/system.d/{path.name}": path.read_text() for path in policies}
    with booted_host("tour", files=files) as host:
        host.run("systemd-run", "-q", "--unit=first", sys.executable, TOUR, "--state", "/var/tmp/first")
        wait_for(
            lambda: UP in host.run("journalctl", "-o", "cat", "-u", "first").stdout,
            seconds=60,
            what="the tour",
        )
        assert "mh-dbus answers at system:\n" in host.run("journalctl", "-o", "cat", "-u", "first").stdout
        second = host.python(TOUR, "--once", "--state", "/var/tmp/second", seconds=60)
        assert "a private bus is used: the system bus says: the name" in second.stdout
        host.run("systemctl", "stop", "first", seconds=60)
        assert host.run("systemctl", "show", "-P", "Result", "first").stdout == "success\n"


def test_a_step_that_fails_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "bus" / "bus.conf").mkdir(parents=True)  # the private bus cannot be configured
    (state / "conductor.db").mkdir()  # nor can the conductor have its store
    command = [sys.executable, TOUR, "--once", "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    [sentence] = done.stderr.strip().splitlines()
    assert sentence.startswith("packaging/run: stopped at 'starting ")
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def tour() -> ModuleType:
    specification = importlib.util.spec_from_file_location("matahari_tour", TOUR)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_runs_side_by_side_have_states_of_their_own(
    tour: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tour, "CHECKOUT", tmp_path)
    with tour.held_state(None) as first, tour.held_state(None) as second, tour.held_state(None) as third:
        assert [first.name, second.name, third.name] == [".state", ".state-2", ".state-3"]
    with tour.held_state(None) as again:
        assert again.name == ".state"


def test_a_long_state_path_still_has_a_bus(tour: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / ("a long name & more " * 8)
    (state / "log").mkdir(parents=True)
    stage = tour.Stage(state)
    try:
        address = tour.start_private_bus(stage)
    finally:
        tour.end(stage)
    assert address.startswith("unix:path=/")
    assert stage.scratch is not None
    assert not stage.scratch.exists()
    assert not Path(f"/proc/{stage.children[0].process.pid}").exists()
