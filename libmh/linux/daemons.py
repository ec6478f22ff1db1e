"""The system daemons that providers talk to, over the machine's system bus.

The D-Bus client is imported at the first call: it costs a third of the start-up of a command that needs
none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libmh.context import Root
from libmh.errors import Problem
from libmh.linux import sysfs

if TYPE_CHECKING:
    from libmh.bus import SystemBus

SOCKET = "/run/dbus/system_bus_socket"
DEADLINE = 10.0
MAX_OBJECTS = 10_000


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

    def get(self, name: str) -> Any:
        """A property of the main object."""
        place = self.place
        (value,) = self.bus.call(
            place.name, place.path, PROPERTIES, "Get", "ss", place.interface, name, timeout=DEADLINE
        )
        return value

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
        from libmh.bus import BusCall

        calls = [
            BusCall(self.place.name, path, PROPERTIES, "GetAll", "s", (interface,))
            for path in paths[:MAX_OBJECTS]
        ]
        answers = self.bus.call_many(calls, timeout=timeout) if calls else []
        return [answer if isinstance(answer, Problem) else answer[0] for answer in answers]


def daemon(root: Root, place: Place) -> Daemon:
    """A daemon of the machine below a root: its bus is the one whose socket is there."""
    from libmh.bus import SYSTEM, system_bus

    address = SYSTEM if str(root.base) == "/" else f"unix:path={root.path(SOCKET)}"
    return Daemon(system_bus(address), place)
