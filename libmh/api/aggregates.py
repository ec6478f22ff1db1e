"""The fleet side: reports that hosts send, the aggregates that come of them, and where work fits."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.api.host import Fact, FactStatus
from libmh.api.placement import Flavor, Policy, Selection
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
    metrics: Annotated[
        dict[str, float] | None,
        "load_1m (processes), cpu_utilization (0 to 1), memory_available (kB): as of now; the generation "
        "does not grow with them; since 1.1",
    ] = None


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


class HostState(StrEnum):
    """How a host of the inventory stands."""

    REGISTERED = "registered"
    """Made known by hand; it has not reported yet."""
    UP = "up"
    SILENT = "silent"
    """Its reports have stopped for longer than they may; it keeps its places for the grace time."""
    GONE = "gone"
    """The grace time is over: it has left the aggregates that rules made."""


@dataclass(frozen=True, slots=True)
class FleetHost:
    """A host in the conductor's inventory."""

    uuid: Annotated[str, "its identity; of a host that has not reported yet, one that is made up"]
    hostname: Annotated[str, "as last reported, or as registered"]
    state: Annotated[HostState, "by its reports"]
    boot_id: Annotated[str, "of the last report; empty before the first"]
    sequence: Annotated[U64, "of the last report"]
    generation: Annotated[U64, "grows at every change"]
    first_seen: Annotated[Time, "first report, by the conductor's clock; 0 before it"]
    last_seen: Annotated[Time, "last report, by the conductor's clock; 0 before the first"]
    agent_version: Annotated[str, "as last reported"]
    facts: Annotated[U32, "how many"]
    traits: Annotated[U32, "how many"]
    aggregates: Annotated[list[str], "names, sorted"]
    summary: Annotated[
        dict[str, Plain], "key facts: arch, cpu_count, memory_gib, os_name, os_version, virtualization"
    ]
    zone: Annotated[str, "its availability zone, or the default one"]
    identity: Annotated[str | None, "the identity that the broker vouched for when it reports"] = None


@dataclass(frozen=True, slots=True)
class Zone:
    """An availability zone: an aggregate names it, and a host is in it."""

    name: Annotated[str, "its name"]
    available: Annotated[bool, "whether a host of it is up"]
    hosts: Annotated[dict[str, bool], "by host name: whether it is up"]
    aggregates: Annotated[list[str], "that name it, sorted; none for the default zone"]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change, or a refused one."""

    time: Annotated[Time, "by the conductor's clock"]
    who: Annotated[str, "the caller's identity, or the rule"]
    aggregate: Annotated[str, "its name; empty for a change of something else"]
    change: Annotated[str, "created, deleted, renamed, host-added, host-removed, metadata, refused ..."]
    host: Annotated[str, "the host's name, where one came or went"]
    why: Annotated[str, "one sentence"]


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

    @method(access=Access.OPEN, deadline=30.0, returns="hosts")
    def hosts(
        self,
        after: Annotated[str, "the UUID of the last host of the page before; empty: from the first"] = "",
        limit: Annotated[U32, "at most so many; 0: all"] = 0,
    ) -> list[FleetHost]:
        """The inventory, by host name and UUID; in pages, for a fleet of any size."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="aggregate")
    def create(
        self,
        name: Annotated[str, "1 to 255 printable characters, no blank at either end"],
        zone: Annotated[str, "its availability zone; empty: none"] = "",
    ) -> Aggregate:
        """Make an aggregate. `conflict` where the name is taken."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="aggregate")
    def rename(
        self,
        name: Annotated[str, "its name, id or UUID"],
        new_name: Annotated[str, "1 to 255 printable characters, no blank at either end"],
        generation: Annotated[U64, "the one that it must have; 0: any"] = 0,
    ) -> Aggregate:
        """Give an aggregate another name. `conflict` where the name is taken or the generation another."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="aggregate")
    def update(
        self,
        name: Annotated[str, "its name, id or UUID"],
        new_name: Annotated[str, "its new name; empty: as it is"] = "",
        zone: Annotated[str, "its new availability zone; empty: as it is"] = "",
        generation: Annotated[U64, "the one that it must have; 0: any"] = 0,
    ) -> Aggregate:
        """Give an aggregate another name, another zone, or both, whole or not at all."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="aggregate")
    def set_metadata(
        self,
        name: Annotated[str, "its name, id or UUID"],
        metadata: Annotated[dict[str, str], "to set; keys that are not named stay"],
        remove: Annotated[list[str] | None, "keys to take away; one that is absent is no fault"] = None,
        generation: Annotated[U64, "the one that it must have; 0: any"] = 0,
    ) -> Aggregate:
        """Merge metadata in, whole or not at all. `availability_zone` is the zone: it cannot be taken away,
        and no member may be in another one (`invalid-arguments`)."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name", "host"), returns="aggregate")
    def add_host(
        self,
        name: Annotated[str, "its name, id or UUID"],
        host: Annotated[str, "host name or UUID"],
        generation: Annotated[U64, "the one that the aggregate must have; 0: any"] = 0,
    ) -> Aggregate:
        """Add a host by hand; no rule takes it out again. `conflict` where it is a member by hand already or
        is in another zone, `not-found` for an unknown host."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name", "host"), returns="aggregate")
    def remove_host(
        self,
        name: Annotated[str, "its name, id or UUID"],
        host: Annotated[str, "host name or UUID"],
        generation: Annotated[U64, "the one that the aggregate must have; 0: any"] = 0,
    ) -> Aggregate:
        """Take a host out. A member that a rule put there comes back with the host's next change."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="deleted")
    def delete(
        self,
        name: Annotated[str, "its name, id or UUID"],
        generation: Annotated[U64, "the one that it must have; 0: any"] = 0,
    ) -> bool:
        """Delete an aggregate without hosts; `invalid-arguments` while it has some."""
        ...

    @method(access=Access.OPEN, returns="zones")
    def zones(self) -> list[Zone]:
        """The availability zones, by name, the default one with them."""
        ...

    @method(access=Access.OPEN, returns="flavors")
    def flavors(self) -> list[Flavor]:
        """All flavors, by name."""
        ...

    @method(access=Access.OPEN, objects=("name",), returns="flavor")
    def flavor(self, name: Annotated[str, "its name or id"]) -> Flavor:
        """One flavor."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="flavor")
    def create_flavor(
        self,
        name: Annotated[str, "1 to 255 printable characters"],
        vcpus: Annotated[U32, "at least 1"] = 1,
        ram: Annotated[U32, "MiB"] = 256,
        disk: Annotated[U32, "GiB"] = 0,
        extra_specs: Annotated[dict[str, str] | None, "what it asks of a host"] = None,
        id: Annotated[str, "its id; empty: a new UUID"] = "",  # noqa: A002 - the field's name
        description: Annotated[str | None, "for people"] = None,
        ephemeral: Annotated[U32, "GiB"] = 0,
        swap: Annotated[U32, "MiB"] = 0,
        public: Annotated[bool, "whether every project may see it"] = True,  # noqa: FBT002
        rxtx_factor: Annotated[float, "more than 0; kept for old clients"] = 1.0,
    ) -> Flavor:
        """Make a flavor. `conflict` where its name or id is taken."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="flavor")
    def describe_flavor(
        self,
        name: Annotated[str, "its name or id"],
        description: Annotated[str | None, "for people; absent: none"] = None,
        generation: Annotated[U64, "the one that the flavor must have; 0: any"] = 0,
    ) -> Flavor:
        """Give a flavor another description."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="flavor")
    def set_extra_specs(
        self,
        name: Annotated[str, "its name or id"],
        extra_specs: Annotated[dict[str, str], "to set; keys that are not named stay"],
        remove: Annotated[list[str] | None, "keys to take away"] = None,
        generation: Annotated[U64, "the one that the flavor must have; 0: any"] = 0,
    ) -> Flavor:
        """Merge extra specs in, whole or not at all."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="deleted")
    def delete_flavor(self, name: Annotated[str, "its name or id"]) -> bool:
        """Delete a flavor."""
        ...

    @method(access=Access.OPEN, deadline=30.0, returns="selection")
    def select(
        self,
        where: Annotated[list[str], "FACT=REQUIREMENT; every one has to hold, and without any all hosts do"],
        flavor: Annotated[str, "name or id: its extra specs have to hold as well"] = "",
        zone: Annotated[str, "the availability zone; empty: any"] = "",
        project: Annotated[str, "the project that asks; empty: none"] = "",
        policy: Annotated[str, "the policy's name; empty: 'default'"] = "",
        hints: Annotated[dict[str, str] | None, "as the policy understands them"] = None,
        limit: Annotated[U32, "at most so many hosts; 0: all"] = 0,
        rejected: Annotated[bool, "whether the hosts that do not fit are told too"] = False,  # noqa: FBT002
    ) -> Selection:
        """Where something fits: the hosts whose last report fulfils every requirement, the best first.
        Requirements as in the rules, over the facts of the report, `uuid`, `hostname` and `traits`."""
        ...

    @method(access=Access.OPEN, returns="policies")
    def policies(self) -> list[Policy]:
        """What `select` can go by, by name."""
        ...

    @method(access=Access.OPEN, objects=("name",), returns="history")
    def history(
        self,
        name: Annotated[str, "an aggregate's name; empty: of everything"] = "",
        host: Annotated[str, "a host's name; empty: of every one"] = "",
        limit: Annotated[U32, "at most so many, 1 to 10,000"] = 100,
    ) -> list[HistoryEntry]:
        """What changed, the latest first."""
        ...

    @method(access=Access.OPEN, objects=("host",), returns="report")
    def report(self, host: Annotated[str, "host name or UUID"]) -> CapabilityReport:
        """The last report of a host."""
        ...

    @event()
    def aggregate_changed(
        self,
        aggregate: Annotated[str, "its name"],
        change: Annotated[str, "created, deleted, renamed, host-added, host-removed, metadata"],
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

    @event()
    def host_silent(
        self,
        uuid: Annotated[str, "the host's"],
        hostname: Annotated[str, "the host's"],
        state: Annotated[str, "silent, gone, or up again"],
        last_seen: Annotated[Time, "last report, by the conductor's clock"],
    ) -> None:
        """A host fell silent, has been so for longer than the grace time, or came back."""
        return
