"""The system daemons that providers talk to, over the machine's system bus.

The D-Bus client is imported at the first call: it costs a third of the start-up of a command that needs
none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from libmh.context import Root
from libmh.errors import BackendFailed, Problem
from libmh.linux import sysfs

if TYPE_CHECKING:
    from libmh.systembus import SystemBus

T = TypeVar("T")
SHOWN = 100
SOCKET = "/run/dbus/system_bus_socket"
DEADLINE = 10.0
MAX_BATCH = 1000  # a bus connection queues a few thousand calls, for all who use it


@dataclass(frozen=True, slots=True)
class Place:
    """A daemon's name on the bus and its main object."""

    name: str
    path: str
    interface: str


SYSTEMD = Place("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
LOGIND = Place("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
TUNED = Place("com.redhat.tuned", "/Tuned", "com.redhat.tuned.control")
POWER_PROFILES = (
    Place(
        "org.freedesktop.UPower.PowerProfiles",
        "/org/freedesktop/UPower/PowerProfiles",
        "org.freedesktop.UPower.PowerProfiles",
    ),
    Place(
        "net.hadess.PowerProfiles", "/net/hadess/PowerProfiles", "net.hadess.PowerProfiles"
    ),  # before 0.20
)
PROPERTIES = "org.freedesktop.DBus.Properties"

Question = tuple[str, str, str, tuple[str, ...]]  # object path, member, signature, arguments


def booted(root: Root) -> bool:
    """Whether systemd runs this machine: sd_booted(3)."""
    return sysfs.exists(root, "/run/systemd/system")


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of them, and the bus that it is on. Every failure is a `Problem`; `unavailable` when it is not
    there."""

    bus: "SystemBus"
    place: Place

    def call(
        self, member: str, signature: str = "", *arguments: Any, timeout: float = DEADLINE
    ) -> list[Any]:
        """Call a method of the main object."""
        place = self.place
        return self.bus.call(
            place.name, place.path, place.interface, member, signature, *arguments, timeout=timeout
        )

    def value(
        self, expected: type[T], member: str, signature: str = "", *arguments: Any, timeout: float = DEADLINE
    ) -> T:
        """Call a method of the main object that answers one value; `backend-failed` when it answers another
        kind."""
        return self._only(expected, member, self.call(member, signature, *arguments, timeout=timeout))

    def get(self, expected: type[T], name: str) -> T:
        """A property of the main object; `backend-failed` when it is of another kind."""
        place = self.place
        answer = self.bus.call(
            place.name, place.path, PROPERTIES, "Get", "ss", place.interface, name, timeout=DEADLINE
        )
        return self._only(expected, name, answer)

    def _only(self, expected: type[T], member: str, answer: list[Any]) -> T:
        if len(answer) == 1 and isinstance(answer[0], expected):
            return answer[0]
        raise BackendFailed(
            f"'{self.place.name}' answered what is not expected of {member}: {str(answer)[:SHOWN]}",
            source=self.place.name,
        )

    def set(self, name: str, value: Any) -> None:
        """Set a property of the main object; `value` is a variant."""
        place = self.place
        self.bus.call(
            place.name, place.path, PROPERTIES, "Set", "ssv", place.interface, name, value, timeout=DEADLINE
        )

    def properties(
        self, paths: Sequence[str], interface: str, timeout: float = DEADLINE
    ) -> list[dict[str, Any] | Problem]:
        """All properties of an interface of each object, asked side by side."""
        answers = self.ask([(path, "GetAll", "s", (interface,)) for path in paths], timeout)
        return [answer if isinstance(answer, Problem) else answer[0] for answer in answers]

    def ask(self, questions: Sequence[Question], timeout: float = DEADLINE) -> list[list[Any] | Problem]:
        """Call org.freedesktop.DBus.Properties of many objects side by side, for at most `timeout` seconds
        in all: what was not answered by then is the `Problem` that says so."""
        from libmh.bus import BusCall

        end = time.monotonic() + timeout
        answers: list[list[Any] | Problem] = []
        for start in range(0, len(questions), MAX_BATCH):
            calls = [
                BusCall(self.place.name, path, PROPERTIES, member, signature, arguments)
                for path, member, signature, arguments in questions[start : start + MAX_BATCH]
            ]
            answers += self.bus.call_many(calls, timeout=max(0.0, end - time.monotonic()))
        return answers


def daemon(root: Root, place: Place) -> Daemon:
    """A daemon of the machine below a root: its bus is the one whose socket is there."""
    from libmh.bus import SYSTEM
    from libmh.systembus import system_bus

    address = SYSTEM if str(root.base) == "/" else f"unix:path={root.path(SOCKET)}"
    return Daemon(system_bus(address), place)
