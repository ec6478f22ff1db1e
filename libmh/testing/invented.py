"""Hosts that do not exist: a provider of `Host` whose facts are made up from a number, always the same for
the same number.

Machines come in few kinds, which share what they have in common, so that thousands of them fit into one
process. Nothing of this machine is read, and nothing is done to it.
"""

import random
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from libmh.api.host import CpuTopology, Disk, Fact, FactStatus, Hardware, Host, OperatingSystem
from libmh.context import Context
from libmh.errors import NotImplementedHere
from libmh.spec import Kind, Plain, interface_of
from libmh.wire import dump

KINDS = 24
GIB = 1 << 20
"""In kB."""
SOURCE = "invented"
BOOTED = 1_700_000_000 * 10**9
INTERVAL = 60
FLAGS = ("fpu sse sse2 ssse3 sse4_1 sse4_2", "avx avx2 fma bmi1 bmi2", "avx512f avx512bw avx512_vnni", "vmx")
SYSTEMS = (
    OperatingSystem("debian", "Debian GNU/Linux 12 (bookworm)", "12"),
    OperatingSystem("fedora", "Fedora Linux 40", "40"),
    OperatingSystem("rhel", "Red Hat Enterprise Linux 9.4", "9.4", ["fedora"]),
)


def uuid_of(number: int, seed: int = 0) -> str:
    """The UUID of an invented host."""
    return f"{random.Random(f'{seed}:{number}').getrandbits(128):032x}"  # noqa: S311 - repeatable


def hostname_of(number: int) -> str:
    return f"sim{number:05}"


def _kind(number: int) -> dict[str, Any]:
    """What machines of a kind have in common, by attribute of `Host`."""
    chance = random.Random(number)  # noqa: S311 - repeatable
    sockets, cores = chance.choice((1, 1, 2)), chance.choice((2, 4, 8, 16))
    memory = chance.choice((4, 8, 16, 64, 256)) * GIB
    solid = chance.random() < 0.7
    threads = chance.choice((1, 2))
    count = sockets * cores * threads
    return {
        "custom_uuid": "not-available",
        "os": "Linux (6.1.0-18-amd64)",
        "operating_system": chance.choice(SYSTEMS),
        "kernel": "6.1.0-18-amd64",
        "arch": "x86_64" if number % 8 else "aarch64",
        "wordsize": 64,
        "boot_time": BOOTED,
        "virtualization": chance.choice(("none", "kvm", "vmware")),
        "hardware": Hardware("Invented", f"Model {number}", "1", chassis="server"),
        "memory": memory,
        "swap": 2 * GIB,
        "cpu_count": count,
        "cpu_cores": sockets * cores,
        "cpu_model": f"Invented CPU {cores}",
        "cpu_flags": " ".join(FLAGS[: chance.randint(1, len(FLAGS))]),
        "cpu_topology": CpuTopology(sockets, sockets * cores, count, threads, sockets),
        "free_mem": memory // 4,
        "available_mem": memory // 2,
        "free_swap": 2 * GIB,
        "load": {"1": 0.1, "5": 0.2, "15": 0.3},
        "cpu_utilization": 0.05 * (number % 20),
        "process_statistics": {"total": 100, "running": 1, "sleeping": 99},
        "disks": [Disk("sda", chance.choice((1, 2, 4)) << 40, not solid, removable=False, read_only=False)],
        "filesystems": [],
        "users": [],
        "time_zone": chance.choice(("UTC", "Europe/Amsterdam", "America/New_York")),
    }


def _facts_of(told: Mapping[str, Any]) -> dict[str, Fact]:
    members = interface_of(Host).members
    return {
        members[name].name: Fact(FactStatus.OK, SOURCE, BOOTED, dump(members[name].type, value, name))
        for name, value in told.items()
    }


class Kinds:
    """The kinds of machines, each made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Mapping[str, Any], Mapping[str, Fact]]] = {}

    def of(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Fact]]:
        """Values and facts of a host's kind."""
        kind = number % KINDS
        if kind not in self._made:
            told = _kind(kind)
            self._made[kind] = (MappingProxyType(told), MappingProxyType(_facts_of(told)))
        return self._made[kind]


class Identity:
    """Who an invented host is."""

    __slots__ = ("boot_id", "hostname", "number", "uuid")

    def __init__(self, number: int, seed: int = 0) -> None:
        self.number = number
        self.uuid = uuid_of(number, seed)
        self.hostname = hostname_of(number)
        self.boot_id = uuid_of(number, seed + 1)


class _Invented:
    """What an invented host does, beside telling its kind's values."""

    def __init__(self, who: Identity, kinds: Kinds, context: Context) -> None:
        self.who = who
        self.told, self.known = kinds.of(who.number)
        self._context = context
        self._interval = INTERVAL
        self._sequence = 0
        self._updated = 0

    def hostname(self) -> str:
        return self.who.hostname

    def uuid(self) -> str:
        return self.who.uuid

    def boot_id(self) -> str:
        return self.who.boot_id

    def update_interval(self) -> int:
        return self._interval

    def set_update_interval(self, value: int) -> None:
        self._interval = value

    def last_updated(self) -> int:
        return self._updated

    def sequence(self) -> int:
        return self._sequence

    def beat(self) -> None:
        """Raise the next heartbeat."""
        self._sequence += 1
        self._updated = time.time_ns()
        self._context.events.emit(
            Host.heartbeat,
            timestamp=self._updated,
            sequence=self._sequence,
            hostname=self.who.hostname,
            uuid=self.who.uuid,
        )

    def facts(self) -> dict[str, Fact]:
        own = ("hostname", self.who.hostname), ("uuid", self.who.uuid), ("boot_id", self.who.boot_id)
        return {**self.known, **{name: Fact(FactStatus.OK, SOURCE, BOOTED, value) for name, value in own}}

    def get_uuid(self, lifetime: str = "") -> str:
        return self.who.uuid if lifetime.lower() in ("", "filesystem") else "not-available"

    def list_power_profiles(self) -> list[str]:
        return []


def _telling(name: str) -> Callable[[_Invented], Plain]:
    def tell(host: _Invented) -> Plain:
        value: Plain = host.told[name]
        return value

    return tell


def _refusing(name: str) -> Callable[..., Plain]:
    def refuse(_host: _Invented, *_given: object) -> Plain:
        raise NotImplementedHere(f"'{name}': this host is invented, nothing can be done to it")

    return refuse


def _body() -> dict[str, Any]:
    """Every member of `Host`, done by `_Invented`, told by the kind, or refused."""
    told = _kind(0)
    names = {
        name
        for member in interface_of(Host).members.values()
        if member.kind is not Kind.EVENT
        for name in (member.attribute, member.setter)
        if name
    }
    done = {name: value for name, value in vars(_Invented).items() if name in (*names, "beat", "__init__")}
    rest = {name: _telling(name) if name in told else _refusing(name) for name in names - done.keys()}
    return {**done, **rest, "__doc__": "A host that does not exist.", "__module__": __name__}


InventedHost: Callable[[Identity, Kinds, Context], Any] = type("InventedHost", (Host,), _body())
"""A provider of `Host`: made with who it is, the kinds of machines, and a context."""
