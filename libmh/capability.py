"""What a host can do, for the fleet: facts that last, and os-traits names, made from a `Host`'s facts.

A report says what placing work on a host depends on. Load and free memory are told apart from the facts, as
metrics, so that the generation grows when the machine changes and not with the time.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, Protocol

from libmh.agent import software_version
from libmh.api.aggregates import CapabilityReport
from libmh.api.host import Fact, FactStatus
from libmh.context import Settings
from libmh.errors import BackendFailed, Unavailable
from libmh.selection import known
from libmh.spec import Plain
from libmh.traits import ARCHITECTURES, HYPERTHREADING, ROTATING_DISK, SOLID_DISK, of_flags

log = logging.getLogger("libmh.capability")
SCHEMA = "1.1"
SETTING = "report"
KIB_PER_GIB = 1 << 20
GOOD = (FactStatus.OK, FactStatus.STALE)


class Facts(Protocol):
    """What is needed of a `Host`, local or remote."""

    def facts(self) -> dict[str, Fact]: ...


@dataclass(frozen=True, slots=True)
class Derivation:
    """A reported fact: `function` of the host's fact `origin`; None: it is not known."""

    origin: str
    function: Callable[[Any], Plain]


def _same(value: Any) -> Plain:
    plain: Plain = value
    return plain


def _item(key: str) -> Callable[[Any], Plain]:
    def take(value: Any) -> Plain:
        plain: Plain = value.get(key)
        return plain

    return take


def _flags(value: Any) -> Plain:
    return None if value == "unknown" else sorted(set(value.split()))


def _fixed(disks: Any) -> list[Any]:
    return [disk for disk in disks if not disk["removable"]]


def _virtualization_flags(value: Any) -> Plain:
    flags = set(value.split())
    return None if value == "unknown" else bool(flags & {"vmx", "svm"})


FACTS: Mapping[str, Derivation] = MappingProxyType(
    {
        "arch": Derivation("arch", _same),
        "wordsize": Derivation("wordsize", _same),
        "kernel": Derivation("kernel", _same),
        "os_id": Derivation("operating_system", _item("id")),
        "os_id_like": Derivation("operating_system", _item("id_like")),
        "os_name": Derivation("operating_system", _item("name")),
        "os_version": Derivation("operating_system", _item("version")),
        "time_zone": Derivation("time_zone", _same),
        "virtualization": Derivation("virtualization", _same),
        "virtualization_capable": Derivation("cpu_flags", _virtualization_flags),
        "hardware_vendor": Derivation("hardware", _item("vendor")),
        "hardware_model": Derivation("hardware", _item("model")),
        "hardware_version": Derivation("hardware", _item("version")),
        "hardware_chassis": Derivation("hardware", _item("chassis")),
        "firmware_version": Derivation("hardware", _item("firmware_version")),
        "cpu_model": Derivation("cpu_model", _same),
        "cpu_flags": Derivation("cpu_flags", _flags),
        "cpu_count": Derivation("cpu_count", _same),
        "cpu_cores": Derivation("cpu_cores", _same),
        "cpu_sockets": Derivation("cpu_topology", _item("sockets")),
        "cpu_threads_per_core": Derivation("cpu_topology", _item("threads_per_core")),
        "numa_nodes": Derivation("cpu_topology", _item("numa_nodes")),
        "memory": Derivation("memory", _same),
        # the kernel keeps some for itself: a machine of 16 GiB has a MemTotal of 15.6
        "memory_gib": Derivation("memory", lambda kib: round(kib / KIB_PER_GIB)),
        "swap": Derivation("swap", _same),
        "disks": Derivation("disks", lambda disks: len(_fixed(disks))),
        "disk_bytes": Derivation("disks", lambda disks: sum(disk["size"] for disk in _fixed(disks))),
        "ssd": Derivation("disks", lambda disks: any(not disk["rotational"] for disk in _fixed(disks))),
        "hdd": Derivation("disks", lambda disks: any(disk["rotational"] for disk in _fixed(disks))),
    }
)
"""By the name in the report. `memory` and `swap` are kB, `disks` counts what is not removable."""


METRICS: Mapping[str, Derivation] = MappingProxyType(
    {
        "load_1m": Derivation("load", _item("1")),
        "cpu_utilization": Derivation("cpu_utilization", _same),
        "memory_available": Derivation("available_mem", _same),
    }
)
"""By the name in the report: processes, a share of 1, kB. One that is not known is left out."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A host's identity with what it can do, and how busy it is, now."""

    uuid: str
    hostname: str
    boot_id: str
    facts: Mapping[str, Fact]
    traits: tuple[str, ...]
    metrics: Mapping[str, float]

    def known(self) -> dict[str, Plain]:
        """What `libmh.selection` holds requirements against."""
        return known(
            self.uuid, self.hostname, {name: fact.value for name, fact in self.facts.items()}, self.traits
        )

    def digest(self) -> str:
        """The same as long as nothing but the time of observation differs."""
        told = {name: (fact.status, fact.value) for name, fact in self.facts.items()}
        text = json.dumps([self.uuid, self.hostname, told, self.traits], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def survey(host: Facts) -> Capabilities:
    """Ask a host, here or remote. Raises `Unavailable` where it does not know who it is."""
    told = host.facts()
    facts = {name: _derive(told, derivation) for name, derivation in FACTS.items()}
    return Capabilities(
        _identity(told, "uuid"),
        _identity(told, "hostname"),
        _identity(told, "boot_id"),
        facts,
        tuple(sorted(traits_of(facts))),
        dict(_measured(told)),
    )


def _measured(told: Mapping[str, Fact]) -> Iterator[tuple[str, float]]:
    for name, derivation in METRICS.items():
        fact = _derive(told, derivation)
        if fact.status is FactStatus.OK and isinstance(fact.value, int | float) and isfinite(fact.value):
            yield name, float(fact.value)


def _identity(known: Mapping[str, Fact], name: str) -> str:
    fact = known.get(name)
    if fact is None or not isinstance(fact.value, str) or fact.value in ("", "not-available"):
        why = fact.reason if fact else None
        raise Unavailable(f"a host without '{name}' cannot be reported: {why or 'it is not known'}")
    return fact.value


def _derive(known: Mapping[str, Fact], derivation: Derivation) -> Fact:
    fact = known.get(derivation.origin)
    if fact is None:
        return Fact(FactStatus.UNSUPPORTED, "", 0, reason=f"the host does not tell '{derivation.origin}'")
    if fact.status not in GOOD or fact.value is None:
        return Fact(fact.status, fact.source, fact.observed, reason=fact.reason)
    try:
        value = derivation.function(fact.value)
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # a peer of another version
        reason = f"'{derivation.origin}' has an unexpected shape: {error!r}"
        return Fact(FactStatus.FAILED, fact.source, fact.observed, reason=reason)
    if value is None:
        return Fact(FactStatus.UNSUPPORTED, fact.source, fact.observed, reason="the host does not tell it")
    return Fact(fact.status, fact.source, fact.observed, value, fact.reason)


def traits_of(facts: Mapping[str, Fact]) -> set[str]:
    """The os-traits names that reported facts stand for."""
    values = {name: fact.value for name, fact in facts.items()}
    arch, flags = values.get("arch"), values.get("cpu_flags")
    traits = {ARCHITECTURES[arch]} if isinstance(arch, str) and arch in ARCHITECTURES else set()
    if isinstance(arch, str) and isinstance(flags, list):
        traits |= of_flags(arch, flags)
    threads = values.get("cpu_threads_per_core")
    if isinstance(threads, int) and threads > 1:
        traits.add(HYPERTHREADING)
    traits |= {trait for name, trait in (("ssd", SOLID_DISK), ("hdd", ROTATING_DISK)) if values.get(name)}
    return traits


def seconds_since_boot() -> float:
    """Of the machine, with the time that it slept (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Reporter:
    """Makes the numbered reports of a host. The numbers live in `settings`, so that they go on counting when
    the agent is restarted; they are never below the seconds since boot, so that they grow even where
    nothing persists. Belongs to one thread at a time."""

    def __init__(
        self, host: Facts, settings: Settings, since_boot: Callable[[], float] = seconds_since_boot
    ) -> None:
        self._host = host
        self._settings = settings
        self._since_boot = since_boot
        self._last: Mapping[str, Any] = {}
        self.latest: Capabilities | None = None
        self.surveyed = 0.0

    def survey(self) -> Capabilities:
        """Ask the host. Raises `Unavailable` where it has no identity."""
        found = survey(self._host)
        self.latest, self.surveyed = found, time.monotonic()
        return found

    def changed(self) -> bool:
        """Whether a report would tell something new. Asks the host."""
        return self.survey().digest() != self._known().get("digest")

    def report(self) -> CapabilityReport:
        """Survey the host: the next report. Raises `Unavailable` where it has no identity."""
        found = self.survey()
        last, digest = self._known(), found.digest()
        if last.get("boot_id") != found.boot_id:
            last = {}
        sequence = max(_count(last, "sequence") + 1, int(self._since_boot()))
        generation = _count(last, "generation") + (last.get("digest") != digest)
        kept: dict[str, Plain] = {"boot_id": found.boot_id, "sequence": sequence, "digest": digest}
        self._keep({**kept, "generation": generation})
        return CapabilityReport(
            schema=SCHEMA,
            uuid=found.uuid,
            hostname=found.hostname,
            boot_id=found.boot_id,
            sequence=sequence,
            generation=generation,
            created=time.time_ns(),
            agent_version=software_version(),
            facts=dict(found.facts),
            traits=list(found.traits),
            metrics=dict(found.metrics),
        )

    def _known(self) -> Mapping[str, Any]:
        if not self._last:
            try:
                held = self._settings.get(SETTING, {})
            except BackendFailed as error:  # a report counted anew tells more than none
                log.warning("the last report's number is not known: %s, ignoring", error)
                held = {}
            self._last = held if isinstance(held, dict) else {}
        return self._last

    def _keep(self, values: dict[str, Plain]) -> None:
        self._last = values
        try:
            self._settings.set(SETTING, values)
        except BackendFailed as error:
            log.warning("the report's number does not persist: %s, ignoring", error)


def _count(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def build(
    host: Facts, settings: Settings, since_boot: Callable[[], float] = seconds_since_boot
) -> CapabilityReport:
    """One numbered report of a host."""
    return Reporter(host, settings, since_boot).report()
