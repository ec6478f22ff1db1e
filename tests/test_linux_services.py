"""Services: init scripts of a captured machine, and a real systemd."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from captured import captured, copy_of, put
from libmh.context import Context, Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Unavailable
from libmh.linux.host import LinuxHost
from libmh.linux.services import LinuxServices
from testbed.machine import Host, booted_host
from waiting import wait_for

NOT_NAMES = [
    "../../bin/true",
    "/bin/true",
    ".",
    "..",
    ".hidden",
    "-H",
    "--help",
    "a b",
    "a\0b",
    "x" * 300,
    "*",
    "ä",
]


def scripts() -> LinuxServices:
    return LinuxServices(captured("container"))


def test_init_scripts_are_listed() -> None:
    assert scripts().list_services() == ["crashed", "killed", "plain", "running", "stopped", "stuck"]


@pytest.mark.parametrize(
    ("name", "rc"),
    [
        *(("running", 0), ("running.service", 0), ("crashed", 1), ("stopped", 3), ("killed", 194)),
        *(("absent", 4), ("README", 4), ("running.dpkg-old", 4)),
    ],
)
def test_status_of_an_init_script(name: str, rc: int) -> None:
    assert scripts().status(name, 10_000) == rc


@pytest.mark.parametrize("name", NOT_NAMES)
def test_a_name_that_is_no_script_runs_nothing(name: str) -> None:
    assert scripts().status(name, 1000) == 4


def test_a_pattern_longer_than_any_name_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="pattern"):
        scripts().units("[" * 100_000)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="name"):
        scripts().status("", 1000)


def test_a_stuck_script_is_ended_with_what_it_started(tmp_path: Path) -> None:
    context = copy_of("container", tmp_path)
    seen = tmp_path / "child"
    put(context, "/etc/init.d/stuck", f"#!/bin/sh\nsleep 600 &\necho $! >{seen}\nwait\n", mode=0o755)
    started = time.monotonic()
    assert LinuxServices(context).status("stuck", 300) == 198
    assert time.monotonic() - started < 60
    child = int(seen.read_text())
    wait_for(lambda: _ended(child), what="the script's child is gone")


def _ended(pid: int) -> bool:
    try:
        return _state_of(pid) == "Z"
    except FileNotFoundError:
        return True


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_script_that_ignores_signals_and_holds_its_output(tmp_path: Path) -> None:
    context = copy_of("container", tmp_path)
    put(context, "/etc/init.d/deaf", "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 600\n", mode=0o755)
    assert LinuxServices(context).status("deaf", 200) == 198
    put(context, "/etc/init.d/leaves", "#!/bin/sh\nsleep 600 &\nexit 0\n", mode=0o755)
    started = time.monotonic()
    assert LinuxServices(context).status("leaves", 60_000) == 0
    assert time.monotonic() - started < 30


def test_a_script_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    context = copy_of("container", tmp_path)
    put(context, "/etc/init.d/broken", "#!/no/such/interpreter\n", mode=0o755)
    with pytest.raises(BackendFailed, match="cannot be run"):
        LinuxServices(context).status("broken", 1000)


def test_init_scripts_as_units() -> None:
    units = {unit.name: unit for unit in scripts().units()}
    assert units["running.service"].description == "A service that runs"
    assert units["running.service"].enablement == "enabled"
    assert units["stopped.service"].enablement == "disabled"
    assert units["plain.service"].description == "plain"
    assert {unit.active_state for unit in units.values()} == {"unknown"}
    assert [unit.name for unit in scripts().units("s*")] == ["stopped.service", "stuck.service"]
    assert scripts().units(state="active") == []


def test_neither_systemd_nor_scripts(tmp_path: Path) -> None:
    services = LinuxServices(Context(root=Root(tmp_path)))
    for call in (services.list_services, services.units, lambda: services.status("x", 0)):
        with pytest.raises(NotImplementedHere, match="neither systemd nor"):
            call()


def test_a_systemd_without_a_bus_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    with pytest.raises(Unavailable):
        LinuxServices(Context(root=Root(tmp_path))).list_services()


UNITS = {
    f"/etc/systemd/system/mh-{name}.service": text
    for name, text in {
        "runs": "[Unit]\nDescription=Runs\n[Service]\nExecStart=/bin/sleep 1000\n",
        "fails": "[Service]\nExecStart=/bin/sh -c 'exit 7'\n",
        "killed": "[Service]\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
        "idle": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=basic.target\n",
        "many@": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true %i\n",
    }.items()
}


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with booted_host("services", files=UNITS) as host:
        host.run("systemctl", "start", "mh-runs")
        host.run("systemctl", "start", "mh-fails", "mh-killed")
        wait_for(lambda: _state(host, "mh-fails") == _state(host, "mh-killed") == "failed")
        yield host


def _state(host: Host, unit: str) -> str:
    return host.run("systemctl", "show", "-P", "ActiveState", unit).stdout.strip()


@pytest.fixture
def services(machine: Host) -> LinuxServices:
    return LinuxServices(context_of(machine))


def context_of(machine: Host) -> Context:
    """The machine as seen from outside: its files, and its bus among them."""
    socket = Path(machine.bus_address().removeprefix("unix:path="))
    return Context(root=Root(socket.parents[2]))


def test_services_of_systemd_are_listed(services: LinuxServices) -> None:
    names = services.list_services()
    assert {"mh-runs", "mh-fails", "mh-idle", "dbus", "systemd-logind"} <= set(names)
    assert "mh-many@" not in names
    assert names == sorted(names)
    assert not [name for name in names if name.endswith(".service")]


@pytest.mark.parametrize(
    ("name", "rc"),
    [
        ("mh-runs", 0),
        ("mh-runs.service", 0),
        ("mh-idle", 3),
        ("mh-fails", 3),
        ("dbus.socket", 0),
        ("absent", 4),
    ],
)
def test_status_of_a_unit(services: LinuxServices, name: str, rc: int) -> None:
    assert services.status(name, 0) == rc


@pytest.mark.parametrize("name", NOT_NAMES)
def test_a_name_that_is_no_unit_is_unknown(services: LinuxServices, name: str) -> None:
    assert services.status(name, 1000) == 4


def test_units_in_full(services: LinuxServices, machine: Host) -> None:
    units = {unit.name: unit for unit in services.units("mh-*")}
    runs, fails, killed = (units[f"mh-{name}.service"] for name in ("runs", "fails", "killed"))
    assert (runs.description, runs.load_state, runs.active_state, runs.sub_state) == (
        "Runs",
        "loaded",
        "active",
        "running",
    )
    assert runs.main_pid == int(machine.run("systemctl", "show", "-P", "MainPID", "mh-runs").stdout)
    assert (runs.type, runs.restarts, runs.result, runs.exit_status) == ("simple", 0, "success", None)
    assert (runs.enablement, runs.fragment_path) == ("static", "/etc/systemd/system/mh-runs.service")
    assert runs.since is not None
    assert abs(runs.since - time.time_ns()) < 600 * 10**9
    assert (fails.active_state, fails.result, fails.exit_status, fails.main_pid) == (
        "failed",
        "exit-code",
        7,
        None,
    )
    assert (killed.result, killed.exit_status) == ("signal", 9)


def test_units_by_state_and_pattern(services: LinuxServices) -> None:
    assert {unit.name for unit in services.units(state="failed")} >= {
        "mh-fails.service",
        "mh-killed.service",
    }
    assert {unit.active_state for unit in services.units(state="failed")} == {"failed"}
    assert [unit.name for unit in services.units("mh-runs")] == ["mh-runs.service"]
    assert services.units("no-such-*") == []
    everything = services.units()
    assert [unit.name for unit in everything] == sorted(unit.name for unit in everything)
    assert {"dbus.socket", "system.slice"} <= {unit.name for unit in everything}


def test_a_thousand_units_take_no_seconds(services: LinuxServices, machine: Host) -> None:
    machine.run("systemctl", "start", *(f"mh-many@{n}" for n in range(1000)), seconds=60)
    started = time.monotonic()
    units = services.units("mh-many@*")
    assert time.monotonic() - started < 30
    assert len(units) == 1000
    assert {(unit.type, unit.exit_status) for unit in units} == {("oneshot", 0)}


def test_logind_tells_who_is_logged_in(machine: Host) -> None:
    machine.run("useradd", "--create-home", "tess")
    session = ("-p", "User=tess", "-p", "PAMName=login", "-p", "Type=simple", "-E", "XDG_SESSION_CLASS=user")
    machine.run("systemd-run", *session, "sleep", "100")
    host = LinuxHost(context_of(machine))
    (tess,) = wait_for(host.users)
    assert (tess.user, tess.host) == ("tess", None)
    assert tess.started is not None


def test_power_profiles_of_a_machine_without_any(machine: Host) -> None:
    assert LinuxHost(context_of(machine)).list_power_profiles() == []
    with pytest.raises(BackendFailed, match="neither tuned nor power-profiles-daemon"):
        LinuxHost(context_of(machine)).get_power_profile()


def test_reboot_by_logind(machine: Host) -> None:
    before, address = machine.boot_id(), machine.bus_address()
    LinuxHost(context_of(machine)).reboot()
    wait_for(lambda: _address(machine) not in ("", address), seconds=30)
    wait_for(lambda: machine.run("true", check=False).returncode == 0, seconds=30)
    assert machine.boot_id() != before


def _address(machine: Host) -> str:
    try:
        return machine.bus_address()
    except subprocess.CalledProcessError:  # between two boots
        return ""
