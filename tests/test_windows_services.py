"""Services of Windows, with the manager and psutil played by fakes."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from libmh.api.services import Action, JobResult
from libmh.errors import BackendFailed, InvalidArguments, NotAuthorized, NotFound, NotImplementedHere
from libmh.spec import interface_of
from libmh.testing import unanswered
from libmh.windows.scm import Advapi, Control, Start, State, StatusProcess
from libmh.windows.scm import Status as ServiceStatus
from libmh.windows.services import WindowsServices, unit


@dataclass(slots=True)
class FakeManager:
    """Services by name; each status asked takes one step on the way that it is sent."""

    states: dict[str, State]
    start_types: dict[str, Start] = field(default_factory=dict)
    way: list[State] = field(default_factory=list)
    refuse: Exception | None = None
    asked: list[str] = field(default_factory=list)
    starting: tuple[State, ...] = (State.START_PENDING, State.RUNNING)
    stopping: tuple[State, ...] = (State.RUNNING, State.STOP_PENDING, State.STOPPED)

    def status(self, name: str) -> ServiceStatus:
        self._known(name)
        if self.way:
            self.states[name] = self.way.pop(0)
        return ServiceStatus(self.states[name], 7 if self.states[name] is State.STOPPED else 0, 42)

    def start(self, name: str) -> None:
        self._do(name, "start")
        self.way = list(self.starting)

    def control(self, name: str, control: Control) -> None:
        self._do(name, control.name.lower())
        if control is Control.STOP and self.states[name] is not State.STOPPED:
            self.way = list(self.stopping)

    def configure(self, name: str, start: Start) -> None:
        self._do(name, "configure")
        self.start_types[name] = start

    def _do(self, name: str, what: str) -> None:
        self._known(name)
        if self.refuse is not None:
            raise self.refuse
        self.asked.append(what)

    def _known(self, name: str) -> None:
        if name not in self.states:
            raise NotFound(f"service '{name}'")


class FakeService:
    """As psutil.WindowsService."""

    def __init__(self, name: str, status: str, start_type: str, pid: int | None) -> None:
        self._told = {
            "name": name,
            "display_name": f"The {name}",
            "status": status,
            "start_type": start_type,
            "pid": pid,
            "binpath": rf"C:\{name}.exe",
            "username": None,
            "description": "",
        }

    def name(self) -> str:
        return str(self._told["name"])

    def as_dict(self) -> dict[str, Any]:
        return dict(self._told)


def listed() -> Iterator[FakeService]:
    yield FakeService("Spooler", "running", "automatic", 12)
    yield FakeService("Appinfo", "stopped", "manual", None)
    yield FakeService("Off", "stop_pending", "disabled", None)


def make(state: State = State.STOPPED, **given: Any) -> tuple[WindowsServices, FakeManager]:
    manager = FakeManager({"Spooler": state}, **given)
    return WindowsServices(manager=manager, listed=listed), manager


def test_every_member_is_answered() -> None:
    assert unanswered(WindowsServices) == []
    assert interface_of(WindowsServices).short == "Services"


def test_services_are_listed() -> None:
    services, _ = make()
    assert services.list_services() == ["Appinfo", "Off", "Spooler"]
    assert [each.name for each in services.units()] == ["Appinfo", "Off", "Spooler"]
    assert [each.name for each in services.units("Sp*")] == ["Spooler"]
    assert [each.name for each in services.units(state="inactive")] == ["Appinfo"]
    spooler = services.units("Spooler", "running")[0]
    assert (spooler.active_state, spooler.enablement, spooler.main_pid) == ("active", "enabled", 12)
    assert spooler.fragment_path == r"C:\Spooler.exe"
    with pytest.raises(InvalidArguments, match="pattern"):
        services.units("[" * 100_000)
    assert unit(FakeService("x", "new_word", "boot", None)).sub_state == "new_word"


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.RUNNING, 0), (State.STOPPED, 3), (State.STOP_PENDING, 0), (State.PAUSED, 3)],
)
def test_status(state: State, code: int) -> None:
    services, _ = make(state)
    assert services.status("Spooler", 0) == code
    assert services.status("None", 0) == 4


def test_start_and_stop_wait_for_the_end() -> None:
    services, manager = make()
    assert (services.start("Spooler"), manager.states["Spooler"].name) == (0, "RUNNING")
    assert (services.stop("Spooler"), manager.states["Spooler"].name) == (0, "STOPPED")
    assert manager.asked == ["start", "stop"]
    assert services.start("None") == 5


def test_a_start_that_fails_or_hangs_is_told() -> None:
    services, _ = make(starting=(State.START_PENDING, State.STOPPED))
    failed = services.act("Spooler", Action.START)
    assert (failed.result, failed.exit_status, failed.active_state) == (JobResult.FAILED, 7, "inactive")
    assert failed.reason == "service 'Spooler' ended with 7"
    services, _ = make(starting=(State.START_PENDING,))
    hangs = services.act("Spooler", Action.START, 50)
    assert (hangs.result, hangs.active_state) == (JobResult.TIMEOUT, "activating")
    assert services.start("Spooler", 50) == 198


def test_a_refusal_is_the_outcome() -> None:
    services, manager = make(refuse=NotAuthorized("access is denied"))
    refused = services.act("Spooler", Action.START)
    assert (refused.result, refused.reason) == (JobResult.FAILED, "access is denied")
    assert services.start("Spooler") == 1
    manager.refuse = None
    with pytest.raises(NotFound):
        services.act("None", Action.START)
    with pytest.raises(InvalidArguments):
        services.act("", Action.START)


def test_restart_and_reload() -> None:
    services, manager = make(State.RUNNING)
    assert services.restart("Spooler").result is JobResult.DONE
    assert services.reload("Spooler").result is JobResult.DONE
    assert services.act("Spooler", Action.RELOAD_OR_RESTART).result is JobResult.DONE
    assert services.act("Spooler", Action.TRY_RESTART).result is JobResult.DONE
    assert manager.asked == ["stop", "start", "reload", "reload", "stop", "start"]
    services, manager = make()
    assert services.act("Spooler", Action.TRY_RESTART).result is JobResult.SKIPPED
    assert services.reload("Spooler").result is JobResult.FAILED
    assert manager.asked == []


def test_enable_and_disable() -> None:
    services, manager = make()
    assert (services.enable("Spooler"), manager.start_types["Spooler"]) == (0, Start.AUTOMATIC)
    assert (services.disable("Spooler"), manager.start_types["Spooler"]) == (0, Start.DISABLED)
    assert services.enable("None") == 5


def test_what_windows_does_not_have() -> None:
    services, _ = make()
    calls: list[Callable[[str], object]] = [
        *(services.mask, services.unmask, services.kill, services.reset_failed),
        *(services.logs, services.describe, services.unit),
    ]
    for call in calls:
        with pytest.raises(NotImplementedHere, match="Spooler"):
            call("Spooler")


class FakeLibrary:
    """As advapi32: one service that does what it is told, and errors by number."""

    def __init__(self) -> None:
        self.error = 0
        self.open = 0
        self.calls: list[tuple[object, ...]] = []

    def OpenSCManagerW(self, machine: None, database: None, rights: int) -> int:  # noqa: N802 - Windows'
        self.open += 1
        return 1

    def OpenServiceW(self, manager: int, name: str, rights: int) -> int:  # noqa: N802
        self.error = 0 if name == "Spooler" else 1060
        self.open += not self.error
        return 0 if self.error else 2

    def CloseServiceHandle(self, handle: int) -> int:  # noqa: N802
        self.open -= 1
        return 1

    def QueryServiceStatusEx(self, service: int, level: int, found: Any, size: int, needed: Any) -> int:  # noqa: N802
        assert size == ctypes.sizeof(StatusProcess) == 36
        status = found._obj
        status.state, status.exit_code, status.pid = 4, 0, 99
        return 1

    def StartServiceW(self, service: int, count: int, arguments: None) -> int:  # noqa: N802
        return not self.error

    def ControlService(self, service: int, control: int, status: object) -> int:  # noqa: N802
        return not self.error

    def ChangeServiceConfigW(self, *arguments: object) -> int:  # noqa: N802
        self.calls.append(arguments)
        return 1


def test_the_managers_own_functions() -> None:
    library = FakeLibrary()
    manager = Advapi(library, lambda: library.error)
    assert manager.status("Spooler") == ServiceStatus(State.RUNNING, 0, 99)
    manager.start("Spooler")
    manager.control("Spooler", Control.STOP)
    manager.configure("Spooler", Start.DISABLED)
    assert library.calls == [(2, 0xFFFFFFFF, 4, 0xFFFFFFFF, *(None,) * 7)]
    for name in ("None", "", "x" * 300, "nul\0"):
        with pytest.raises(NotFound):
            manager.status(name)
    assert library.open == 0


@pytest.mark.parametrize(
    ("code", "kind"), [(5, NotAuthorized), (1053, BackendFailed), (1056, None), (1062, BackendFailed)]
)
def test_errors_of_a_start(code: int, kind: type[Exception] | None) -> None:
    library = FakeLibrary()
    manager = Advapi(library, lambda: library.error)
    library.StartServiceW = lambda *_: setattr(library, "error", code)  # type: ignore[method-assign,assignment]
    if kind is None:
        manager.start("Spooler")  # it runs already
        return
    with pytest.raises(kind, match=str(code)):
        manager.start("Spooler")
    assert library.open == 0
