"""Services of Windows, with the manager and psutil played by fakes."""

import ctypes
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from libmh.api.services import Action, JobResult
from libmh.call import Bound, Request, Verb, prepare, run
from libmh.errors import BackendFailed, InvalidArguments, NotAuthorized, NotFound, NotImplementedHere
from libmh.spec import Kind, Plain, interface_of
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


ANSWERS: dict[str, tuple[list[Plain], Callable[[Any], bool]]] = {
    "list": ([], lambda told: told == ["Appinfo", "Off", "Spooler"]),
    "enable": (["Spooler"], lambda code: code == 0),
    "disable": (["Spooler"], lambda code: code == 0),
    "start": (["Spooler"], lambda code: code == 0),
    "stop": (["Spooler"], lambda code: code == 0),
    "status": (["Spooler", 0], lambda code: code == 3),
    "units": (["Sp*"], lambda told: [each["name"] for each in told] == ["Spooler"]),
    "act": (["Spooler", "start"], lambda told: told["result"] == "done"),
    "restart": (["Spooler"], lambda told: (told["result"], told["verb"]) == ("done", "restart")),
    "reload": (["Spooler"], lambda told: (told["result"], told["verb"]) == ("failed", "reload")),
}
ABSENT = ("mask", "unmask", "kill", "reset_failed", "logs", "describe", "unit")


def ask(name: str, arguments: list[Plain], verb: Verb = Verb.CALL) -> Plain:
    """As a transport asks: parsed, run, and converted to what is declared."""
    services, _ = make()
    declared = interface_of(WindowsServices)
    return run(prepare(Bound(declared, services), Request(declared.name, name, verb, arguments)))


@pytest.mark.parametrize("name", sorted(each.name for each in interface_of(WindowsServices).of(Kind.METHOD)))
def test_every_method_answers_what_it_declares_or_that_it_is_not_here(name: str) -> None:
    if name in ABSENT:
        with pytest.raises(NotImplementedHere, match="'Spooler': Windows has no"):
            ask(name, ["Spooler"])
        return
    arguments, right = ANSWERS[name]
    assert right(ask(name, arguments))


class FakeRegistry(SimpleNamespace):
    """As winreg: one key with one value, where there is one."""

    HKEY_LOCAL_MACHINE = 0x80000002
    value = "9b2c6a58-0000-4000-8000-1c2d3e4f5a6b"

    def OpenKey(self, hive: int, path: str) -> Any:  # noqa: N802 - Windows'
        assert (hive, path) == (self.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography")
        return nullcontext(7)

    def QueryValueEx(self, key: int, name: str) -> tuple[str, int]:  # noqa: N802
        assert (key, name) == (7, "MachineGuid")
        if not self.value:
            raise FileNotFoundError(2, "there is no such value")
        return self.value, 1


def test_what_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry()
    monkeypatch.setitem(sys.modules, "winreg", registry)
    monkeypatch.setattr(socket, "gethostname", lambda: "WIN-1")
    assert [ask(name, [], Verb.GET) for name in ("uuid", "hostname")] == [FakeRegistry.value, "WIN-1"]
    registry.value = ""
    assert ask("uuid", [], Verb.GET) == "not-available"


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
