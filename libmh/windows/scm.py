"""Windows' service control manager, by its own functions (winsvc.h, advapi32.dll)."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import wintypes
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from libmh.errors import BackendFailed, NotAuthorized, NotFound, Problem

DWORD = ctypes.c_uint32  # on every machine, that of a test included


class State(IntEnum):
    """SERVICE_STATUS.dwCurrentState."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4
    CONTINUE_PENDING = 5
    PAUSE_PENDING = 6
    PAUSED = 7


class Start(IntEnum):
    """dwStartType of a service that is no driver."""

    AUTOMATIC = 2
    MANUAL = 3
    DISABLED = 4


class Control(IntEnum):
    """dwControl of ControlService."""

    STOP = 1
    RELOAD = 6  # SERVICE_CONTROL_PARAMCHANGE


@dataclass(frozen=True, slots=True)
class Status:
    """How a service does: its state, the exit code that it ended with, and its process while it runs."""

    state: State
    exit_code: int = 0
    pid: int = 0


class Manager(Protocol):
    """What is asked of it. Everything raised is a `Problem`: `not-found` for an unknown service."""

    def status(self, name: str) -> Status: ...

    def start(self, name: str) -> None:
        """Have it started; nothing where it runs already."""
        ...

    def control(self, name: str, control: Control) -> None:
        """Send it a control; stopping what does not run is nothing."""
        ...

    def configure(self, name: str, start: Start) -> None:
        """When it is started."""
        ...


ACCESS_DENIED, INVALID_NAME, NO_SUCH_SERVICE = 5, 123, 1060
ALREADY_RUNNING, NOT_ACTIVE = 1056, 1062
PROBLEMS: Mapping[int, type[Problem]] = {
    ACCESS_DENIED: NotAuthorized,
    INVALID_NAME: NotFound,
    NO_SUCH_SERVICE: NotFound,
}
MAX_NAME = 256
CONNECT = 0x0001
QUERY_STATUS, START, STOP, PARAMETERS, CHANGE_CONFIG = 0x0004, 0x0010, 0x0020, 0x0040, 0x0002
NO_CHANGE = 0xFFFFFFFF
STATUS_PROCESS_INFO = 0
RIGHTS: Mapping[Control, int] = {Control.STOP: STOP, Control.RELOAD: PARAMETERS}


class StatusProcess(ctypes.Structure):
    """SERVICE_STATUS_PROCESS."""

    _fields_ = (
        ("type", DWORD),
        ("state", DWORD),
        ("accepted", DWORD),
        ("exit_code", DWORD),
        ("specific_exit_code", DWORD),
        ("check_point", DWORD),
        ("wait_hint", DWORD),
        ("pid", DWORD),
        ("flags", DWORD),
    )


def failure(code: int, what: str) -> Problem:
    """The problem that an error code of Windows is."""
    kind = PROBLEMS.get(code, BackendFailed)
    return kind(f"{what}: Windows' error {code}", code=str(code))


class Advapi:
    """The manager of this machine. `library` is advapi32, `last_error` the code of the call before."""

    def __init__(self, library: Any = None, last_error: Callable[[], int] | None = None) -> None:
        self._library = library or _advapi32()
        self._last_error: Callable[[], int] = last_error or vars(ctypes)["get_last_error"]

    def status(self, name: str) -> Status:
        found, needed = StatusProcess(), DWORD()
        with self._service(name, QUERY_STATUS) as service:
            size = ctypes.sizeof(found)
            arguments = (service, STATUS_PROCESS_INFO, ctypes.byref(found), size, ctypes.byref(needed))
            self._check(self._library.QueryServiceStatusEx(*arguments), f"the state of service '{name}'")
        return Status(State(found.state), found.exit_code, found.pid)

    def start(self, name: str) -> None:
        with self._service(name, START) as service:
            done = self._library.StartServiceW(service, 0, None)
            self._check(done, f"service '{name}' cannot be started", but=ALREADY_RUNNING)

    def control(self, name: str, control: Control) -> None:
        unread = (ctypes.c_byte * ctypes.sizeof(StatusProcess))()
        with self._service(name, RIGHTS[control]) as service:
            done = self._library.ControlService(service, int(control), ctypes.byref(unread))
            allowed = NOT_ACTIVE if control is Control.STOP else 0
            self._check(done, f"service '{name}' does not take {control.name.lower()}", but=allowed)

    def configure(self, name: str, start: Start) -> None:
        unchanged = (None,) * 7
        with self._service(name, CHANGE_CONFIG) as service:
            done = self._library.ChangeServiceConfigW(service, NO_CHANGE, int(start), NO_CHANGE, *unchanged)
            self._check(done, f"service '{name}' cannot be configured")

    @contextmanager
    def _service(self, name: str, rights: int) -> Iterator[Any]:
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise NotFound(f"there is no service '{name[:MAX_NAME]}'", name=name[:MAX_NAME])
        manager = self._check(self._library.OpenSCManagerW(None, None, CONNECT), "the service manager")
        try:
            service = self._check(self._library.OpenServiceW(manager, name, rights), f"service '{name}'")
            try:
                yield service
            finally:
                self._library.CloseServiceHandle(service)
        finally:
            self._library.CloseServiceHandle(manager)

    def _check(self, answer: Any, what: str, but: int = 0) -> Any:
        if not answer and (code := self._last_error()) != but:
            raise failure(code, what)
        return answer


def _advapi32() -> Any:
    # handles are as wide as pointers, which ctypes has to be told
    library = vars(ctypes)["WinDLL"]("advapi32", use_last_error=True)
    library.OpenSCManagerW.restype = library.OpenServiceW.restype = wintypes.HANDLE
    library.OpenServiceW.argtypes = (wintypes.HANDLE, wintypes.LPCWSTR, DWORD)
    library.QueryServiceStatusEx.argtypes = (
        *(wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, DWORD),
        ctypes.c_void_p,
    )
    library.StartServiceW.argtypes = (wintypes.HANDLE, DWORD, ctypes.c_void_p)
    library.ControlService.argtypes = (wintypes.HANDLE, DWORD, ctypes.c_void_p)
    texts = (wintypes.LPCWSTR, wintypes.LPCWSTR, ctypes.c_void_p)
    library.ChangeServiceConfigW.argtypes = (
        *(wintypes.HANDLE, DWORD, DWORD, DWORD),
        *(*texts, *(wintypes.LPCWSTR,) * 4),
    )
    library.CloseServiceHandle.argtypes = (wintypes.HANDLE,)
    return library
