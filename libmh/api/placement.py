"""What is asked of hosts, and which of them fit: flavors, policies, and what `Aggregates.select` answers."""

from dataclasses import dataclass
from typing import Annotated

from libmh.spec import U32, U64, Time


@dataclass(frozen=True, slots=True)
class Flavor:
    """What something that is placed needs."""

    id: Annotated[str, "its identity, 1 to 255 letters, digits, '.', '-', '_' and blanks"]
    name: Annotated[str, "unique, 1 to 255 characters"]
    vcpus: Annotated[U32, "at least 1"]
    ram: Annotated[U32, "MiB"]
    disk: Annotated[U32, "GiB"]
    extra_specs: Annotated[dict[str, str], "what it asks of a host, as in Nova"]
    created: Annotated[Time, "when it came to be"]
    updated: Annotated[Time, "when anything of it changed last"]
    generation: Annotated[U64, "grows at every change"]
    description: Annotated[str | None, "for people"] = None
    ephemeral: Annotated[U32, "GiB"] = 0
    swap: Annotated[U32, "MiB"] = 0
    public: Annotated[bool, "whether every project may see it"] = True
    rxtx_factor: Annotated[float, "kept for old clients of Nova's API"] = 1.0


@dataclass(frozen=True, slots=True)
class Weight:
    """What one weigher said of a candidate."""

    weigher: Annotated[str, "its name"]
    raw: Annotated[float, "the value that was weighed"]
    normalized: Annotated[float, "0 to 1 over the candidates"]
    multiplier: Annotated[float, "of the policy, or of the host's aggregates"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that fulfilled what was asked for when it last reported."""

    uuid: Annotated[str, "its identity"]
    hostname: Annotated[str, "as last reported"]
    last_seen: Annotated[Time, "last report, by the conductor's clock"]
    zone: Annotated[str, "its availability zone, or the default one"] = ""
    weight: Annotated[float, "the sum; the more, the better"] = 0.0
    weights: Annotated[list[Weight] | None, "of each weigher; of the first 1,000 hosts alone"] = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A host that does not fit."""

    uuid: Annotated[str, "its identity"]
    hostname: Annotated[str, "as last reported"]
    filter: Annotated[str, "the name of the filter that refused it"]
    requirement: Annotated[str, "which requirement failed"]
    reason: Annotated[str, "one sentence with the values that were seen"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer to where something fits."""

    hosts: Annotated[list[Candidate], "the best first"]
    considered: Annotated[U32, "how many hosts were looked at"]
    policy: Annotated[str, "that was applied"]
    generation: Annotated[U64, "of the store that the answer is true for"]
    warnings: Annotated[list[str], "about requirements that probably mean something else"]
    rejected: Annotated[
        list[Rejected] | None, "the hosts that do not fit, when asked for; as many as there is room for"
    ] = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What a policy lets a caller ask for beside the flavor."""

    name: Annotated[str, "the key"]
    doc: Annotated[str, "what it does, and of which form its value is"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of filters and weighers."""

    name: Annotated[str, "its name"]
    description: Annotated[str, "for people"]
    filters: Annotated[list[str], "in the order in which they are applied"]
    weighers: Annotated[dict[str, float], "multiplier by name"]
    hints: Annotated[list[Hint], "that it understands"]
