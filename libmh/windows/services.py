"""The `Services` of a Windows machine: psutil reads them, the service control manager acts on them."""

import fnmatch
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from libmh.api.services import Action, JobResult, LogLine, Outcome, Services, Unit, UnitDetail, Whom
from libmh.context import Context
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere, Problem
from libmh.windows.scm import Advapi, Control, Manager, Start, State, Status

MAX_SECONDS = 3600.0
STEP = 0.1
IDENTITY = r"SOFTWARE\Microsoft\Cryptography"
NOT_AVAILABLE = "not-available"
MAX_SERVICES = 10_000
MAX_PATTERN = 512

# codes of LSB, and the ancestor's where LSB leaves them to applications
DONE, FAILED, NOT_INSTALLED = 0, 1, 5
RUNNING, NOT_RUNNING, UNKNOWN = 0, 3, 4
TIMED_OUT = 198
STATUS_CODES: Mapping[State, int] = dict.fromkeys(State, RUNNING) | {
    State.STOPPED: NOT_RUNNING,
    State.PAUSED: NOT_RUNNING,
    State.START_PENDING: NOT_RUNNING,
}
"""A service that is about to stop still runs, one that is about to start does not yet."""
WORDS: Mapping[str, tuple[str, str]] = {
    "running": ("active", "running"),
    "stopped": ("inactive", "dead"),
    "paused": ("inactive", "paused"),
    "start_pending": ("activating", "start"),
    "continue_pending": ("activating", "continue"),
    "stop_pending": ("deactivating", "stop"),
    "pause_pending": ("deactivating", "pause"),
}
"""psutil's word for a state -> systemd's active and sub state."""
ENABLEMENT: Mapping[str, str] = {"automatic": "enabled", "manual": "disabled", "disabled": "masked"}


class WindowsServices(Services):
    """`manager` acts; `listed` gives psutil's services."""

    def __init__(
        self,
        context: Context | None = None,
        manager: Manager | None = None,
        listed: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        del context  # Windows has neither a root nor settings of its services
        self._manager: Manager = manager or Advapi()
        self._listed = listed or _psutil_services

    def uuid(self) -> str:
        return machine_guid()

    def hostname(self) -> str:
        return socket.gethostname()

    def list_services(self) -> list[str]:
        return sorted(each.name() for each, _ in zip(self._listed(), range(MAX_SERVICES), strict=False))

    def enable(self, name: str) -> int:
        return self._configured(name, Start.AUTOMATIC)

    def disable(self, name: str) -> int:
        return self._configured(name, Start.DISABLED)

    def start(self, name: str, timeout: int = 60_000) -> int:
        return self._coded(name, Action.START, timeout)

    def stop(self, name: str, timeout: int = 60_000) -> int:
        return self._coded(name, Action.STOP, timeout)

    def status(self, name: str, timeout: int) -> int:
        del timeout  # the manager answers from memory
        try:
            return STATUS_CODES[self._manager.status(_checked(name)).state]
        except NotFound:
            return UNKNOWN

    def describe(self, name: str) -> str:
        raise _not_here("meta-data of services", name)

    def units(self, pattern: str = "", state: str = "") -> list[Unit]:
        if len(pattern) > MAX_PATTERN:  # to match it would take long, and no service's name is that long
            raise InvalidArguments(
                f"pattern: expected at most {MAX_PATTERN} characters, got {len(pattern)}", argument="pattern"
            )
        found = (unit(each) for each, _ in zip(self._listed(), range(MAX_SERVICES), strict=False))
        wanted = [
            each
            for each in found
            if (not pattern or fnmatch.fnmatch(each.name, pattern))
            and state in ("", each.load_state, each.active_state, each.sub_state)
        ]
        return sorted(wanted, key=lambda each: each.name.lower())

    def unit(self, name: str) -> UnitDetail:
        raise _not_here("more to tell than `units` does", name)

    def act(self, name: str, verb: Action, timeout: int = 90_000) -> Outcome:
        began = time.monotonic()
        status, result, reason = self._acted(_checked(name), verb, began + _seconds(timeout))
        active, sub = WORDS[status.state.name.lower()]
        return Outcome(
            unit=name,
            verb=verb,
            result=result,
            seconds=time.monotonic() - began,
            load_state="loaded",
            active_state=active,
            sub_state=sub,
            reason=reason,
            exit_status=status.exit_code if status.state is State.STOPPED else None,
        )

    def restart(self, name: str, timeout: int = 90_000) -> Outcome:
        return self.act(name, Action.RESTART, timeout)

    def reload(self, name: str, timeout: int = 90_000) -> Outcome:
        return self.act(name, Action.RELOAD, timeout)

    def mask(self, name: str) -> Outcome:
        raise _not_here("masking: disable it, which Windows takes for not to be started at all", name)

    def unmask(self, name: str) -> Outcome:
        raise _not_here("masking: enable it", name)

    def kill(self, name: str, signal: str = "TERM", whom: Whom = Whom.ALL) -> Outcome:
        del signal, whom
        raise _not_here("signals", name)

    def reset_failed(self, name: str) -> Outcome:
        raise _not_here("a record of failure", name)

    def logs(self, name: str, lines: int = 100, since: int = 0) -> list[LogLine]:
        del lines, since
        raise _not_here("a log for each service", name)

    def _configured(self, name: str, start: Start) -> int:
        try:
            self._manager.configure(_checked(name), start)
        except NotFound:
            return NOT_INSTALLED
        return DONE

    def _coded(self, name: str, verb: Action, timeout: int) -> int:
        codes = {JobResult.DONE: DONE, JobResult.TIMEOUT: TIMED_OUT}
        try:
            return codes.get(self.act(name, verb, timeout).result, FAILED)
        except NotFound:
            return NOT_INSTALLED

    def _acted(self, name: str, verb: Action, end: float) -> tuple[Status, JobResult, str | None]:
        before = self._manager.status(name)
        if verb is Action.TRY_RESTART and before.state is not State.RUNNING:
            return before, JobResult.SKIPPED, None
        try:
            if verb in (Action.RELOAD, Action.RELOAD_OR_RESTART) and before.state is State.RUNNING:
                self._manager.control(name, Control.RELOAD)
                return self._manager.status(name), JobResult.DONE, None
            if verb is Action.RELOAD:
                return before, JobResult.FAILED, f"service '{name}' does not run, so nothing reads it again"
            return self._moved(name, verb, end)
        except NotFound:
            raise
        except Problem as problem:
            return self._manager.status(name), JobResult.FAILED, problem.message

    def _moved(self, name: str, verb: Action, end: float) -> tuple[Status, JobResult, str | None]:
        if verb is not Action.START:
            self._manager.control(name, Control.STOP)
            status = self._reached(name, State.STOPPED, end)
            if verb is Action.STOP or status.state is not State.STOPPED:
                return _judged(name, status, State.STOPPED)
        self._manager.start(name)
        return _judged(name, self._reached(name, State.RUNNING, end), State.RUNNING)

    def _reached(self, name: str, wanted: State, end: float) -> Status:
        """The state that it comes to, or is still on its way from when the time is up."""
        pause = threading.Event()
        pending = (State.START_PENDING, State.STOP_PENDING, State.CONTINUE_PENDING)
        while (status := self._manager.status(name)).state is not wanted and time.monotonic() < end:
            if status.state not in pending and not (
                wanted is State.STOPPED and status.state is State.RUNNING
            ):
                break
            pause.wait(STEP)
        return status


def _judged(name: str, status: Status, wanted: State) -> tuple[Status, JobResult, str | None]:
    if status.state is wanted:
        return status, JobResult.DONE, None
    if status.state is State.STOPPED:
        return status, JobResult.FAILED, f"service '{name}' ended with {status.exit_code}"
    words = status.state.name.lower().replace("_", " ")
    return status, JobResult.TIMEOUT, f"service '{name}' is still {words}"


def unit(service: Any) -> Unit:
    """A service of psutil (`psutil.WindowsService`) as a record; what it may not tell is left out."""
    told: Mapping[str, Any] = service.as_dict()
    status = str(told.get("status") or "stopped")
    active, sub = WORDS.get(status, ("inactive", status))
    return Unit(
        name=str(told["name"]),
        description=str(told.get("display_name") or told["name"]),
        load_state="loaded",
        active_state=active,
        sub_state=sub,
        enablement=ENABLEMENT.get(str(told.get("start_type"))),
        main_pid=told.get("pid") or None,
        fragment_path=told.get("binpath") or None,
    )


def machine_guid() -> str:
    """The UUID that Windows was installed with: MachineGuid in the registry."""
    registry: Any = import_module("winreg")
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, IDENTITY) as key:
            value, _ = registry.QueryValueEx(key, "MachineGuid")
    except OSError:  # it is missing, or may not be read
        return NOT_AVAILABLE
    return str(value)


def _psutil_services() -> Iterable[Any]:
    import psutil

    services: Iterable[Any] = vars(psutil)["win_service_iter"]()
    return services


def _checked(name: str) -> str:
    if not name:
        raise InvalidArguments("name: expected a service's name, got ''", argument="name")
    return name


def _seconds(timeout: int) -> float:
    return min(timeout / 1000, MAX_SECONDS) if timeout else MAX_SECONDS


def _not_here(what: str, name: str) -> NotImplementedHere:
    return NotImplementedHere(f"service '{name}': Windows has no {what}", name=name)
