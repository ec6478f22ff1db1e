"""The fleet side: reports that hosts send, and the aggregates that come of them."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.api.host import Fact, FactStatus
from libmh.spec import U32, U64, Access, Effect, Plain, Time, event, interface, method, prop


@dataclass(frozen=True, slots=True)
class CapabilityReport:
    """What a host can do, as it tells the conductor. (uuid, boot_id, sequence) decides between two."""

    schema: Annotated[str, "version of this record, major.minor"]
    uuid: Annotated[str, "the host's UUID of lifetime Filesystem"]
    hostname: Annotated[str, "the host's name"]
    boot_id: Annotated[str, "new at every boot"]
    sequence: Annotated[U64, "grows with every report of one boot, restarts of the agent included"]
    generation: Annotated[U64, "grows when facts or traits differ from the previous report of this boot"]
    created: Annotated[Time, "when it was made, by the host's clock"]
    agent_version: Annotated[str, "of the agent's software"]
    facts: Annotated[dict[str, Fact], "by name: cpu_flags, memory, os_id ..."]
    traits: Annotated[list[str], "os-traits names, and CUSTOM_MH_* ones"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The conductor's answer to a report."""

    generation: Annotated[U64, "of the host in the inventory"]
    changed: Annotated[bool, "false when the report was a duplicate, older, or told nothing new"]
    aggregates: Annotated[list[str], "names of the aggregates that the host is a member of now"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A set of hosts with metadata."""

    id: Annotated[U64, "small and stable"]
    uuid: Annotated[str, "its identity"]
    name: Annotated[str, "unique, 1 to 255 characters"]
    hosts: Annotated[list[str], "host names of the members, sorted"]
    metadata: Annotated[dict[str, str], "keys and values of at most 255 characters"]
    created: Annotated[Time, "when it came to be"]
    updated: Annotated[Time, "when anything of it changed last"]
    generation: Annotated[U64, "grows at every change"]
    availability_zone: Annotated[str | None, "the metadata key of that name"] = None
    owner: Annotated[str | None, "the rule that made it; absent when made by hand"] = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One requirement of a rule, against what was seen of a host."""

    rule: Annotated[str, "the rule's name"]
    fact: Annotated[str, "the fact's name, or trait:NAME"]
    requirement: Annotated[str, "what the rule asks of it"]
    matched: Annotated[bool, "whether it holds"]
    reason: Annotated[str, "one sentence for people"]
    seen: Annotated[Plain, "the value; absent where the host did not tell one"] = None
    status: Annotated[FactStatus | None, "of the fact"] = None
    source: Annotated[str | None, "where the host read it"] = None
    observed: Annotated[Time | None, "when the host read it"] = None


@dataclass(frozen=True, slots=True)
class FleetHost:
    """A host in the conductor's inventory."""

    uuid: Annotated[str, "its identity"]
    hostname: Annotated[str, "as last reported"]
    boot_id: Annotated[str, "of the last report"]
    sequence: Annotated[U64, "of the last report"]
    generation: Annotated[U64, "grows at every change"]
    first_seen: Annotated[Time, "first report, by the conductor's clock"]
    last_seen: Annotated[Time, "last report, by the conductor's clock"]
    agent_version: Annotated[str, "as last reported"]
    facts: Annotated[U32, "how many"]
    traits: Annotated[U32, "how many"]
    aggregates: Annotated[list[str], "names, sorted"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that fulfilled what was asked for when it last reported."""

    uuid: Annotated[str, "its identity"]
    hostname: Annotated[str, "as last reported"]
    last_seen: Annotated[Time, "last report, by the conductor's clock"]


@interface("org.matahariproject.Reports", version="1.0")
class Reports(Protocol):
    """Where hosts tell the conductor what they can do."""

    @method(access=Access.OPEN, effect=Effect.CHANGES, idempotent=True, deadline=30.0, returns="accepted")
    def report(self, report: Annotated[CapabilityReport, "of the host that sends it"]) -> Accepted:
        """Take a report in. A duplicate, an older or a replayed one changes nothing and is answered all the
        same; a `schema` of another major or a newer minor version is refused with both versions named."""
        ...


@interface("org.matahariproject.Aggregates", version="1.0")
class Aggregates(Protocol):
    """Host aggregates, and the inventory that they are made from."""

    @prop(source="the store", max_age=0.0)
    def generation(self) -> U64:
        """Grows at every change of any host or aggregate."""
        ...

    @method(access=Access.OPEN, returns="aggregates", name="list")
    def list_aggregates(self) -> list[Aggregate]:
        """All aggregates, by name."""
        ...

    @method(access=Access.OPEN, objects=("name",), returns="aggregate")
    def show(self, name: Annotated[str, "its name, id or UUID"]) -> Aggregate:
        """One aggregate; `not-found` where there is none."""
        ...

    @method(access=Access.OPEN, objects=("host", "name"), returns="evidence")
    def why(
        self,
        host: Annotated[str, "host name or UUID"],
        name: Annotated[
            str, "an aggregate's name, id or UUID; empty: all that the host is a member of"
        ] = "",
    ) -> list[Evidence]:
        """Why a host is, or is not, a member: every requirement with the value that was seen. `not-found`
        for an unknown host or aggregate."""
        ...

    @method(access=Access.OPEN, returns="hosts")
    def hosts(self) -> list[FleetHost]:
        """The inventory, by host name."""
        ...

    @method(access=Access.OPEN, deadline=30.0, returns="hosts")
    def select(
        self,
        where: Annotated[list[str], "FACT=REQUIREMENT; every one has to hold, and without any all hosts do"],
    ) -> list[Candidate]:
        """The hosts whose last report fulfils every requirement, by host name: a number, `<in> avx2` ... as
        in the rules, over the facts of the report, `uuid`, `hostname` and `traits`."""
        ...

    @method(access=Access.OPEN, objects=("host",), returns="report")
    def report(self, host: Annotated[str, "host name or UUID"]) -> CapabilityReport:
        """The last report of a host."""
        ...

    @event()
    def aggregate_changed(
        self,
        aggregate: Annotated[str, "its name"],
        change: Annotated[str, "created, deleted, host-added, host-removed, metadata"],
        host: Annotated[str, "the host, where one came or went; else empty"],
        generation: Annotated[U64, "of the aggregate"],
        why: Annotated[str, "one sentence"],
    ) -> None:
        """An aggregate changed."""
        return

    @event()
    def host_changed(
        self,
        uuid: Annotated[str, "the host's"],
        hostname: Annotated[str, "the host's"],
        generation: Annotated[U64, "of the host"],
    ) -> None:
        """The inventory of a host changed."""
        return
