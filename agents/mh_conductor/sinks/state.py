"""What is wanted, and what is there: plain values, the same whoever is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mh_conductor.limits import ZONE_KEY

OWNER_KEY = "matahari:owner"
UUID_KEY = "matahari:uuid"
MARKS = (OWNER_KEY, UUID_KEY)
RESERVED = "matahari:"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An aggregate of the store; the zone is in the metadata."""

    uuid: str
    name: str
    hosts: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def zone(self) -> str | None:
        return self.metadata.get(ZONE_KEY)


@dataclass(frozen=True, slots=True)
class Desired:
    """What the store holds. `traits` has every host of the inventory, by its name; `faults` are the names
    that no trait, or no host, can be told by, each with the reason; `disputed` the traits that several names
    would share, `doubles` the names that several hosts have: those stay as they are."""

    aggregates: tuple[Wanted, ...] = ()
    traits: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()
    doubles: frozenset[str] = frozenset()
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An aggregate that is there. `mirror`: the providers that are in it at Placement; None where nobody
    mirrors it, or it is not ours."""

    id: int
    uuid: str
    name: str
    hosts: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)
    mirror: frozenset[str] | None = None

    @property
    def zone(self) -> str | None:
        return self.metadata.get(ZONE_KEY)


@dataclass(frozen=True, slots=True)
class Compute:
    """A hypervisor: aggregates name its `host`, Placement its `hypervisor`."""

    host: str
    hypervisor: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A resource provider at Placement; of its traits, those that can be ours."""

    uuid: str
    name: str
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Actual:
    """What is there. `providers` are by UUID, `traits` those that can be ours and exist."""

    aggregates: tuple[Found, ...] = ()
    computes: tuple[Compute, ...] = ()
    providers: Mapping[str, Provider] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
