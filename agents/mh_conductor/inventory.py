"""The fleet in memory, for questions about all of it: read once, then only what has changed since.

The store is the truth, and other processes write to it: every question begins with a look at its generation.
What a change touches carries the generation that it made, so that what is lacking here are the rows above
ours. Reports that tell nothing new change only `last_seen` and the metrics, which have no generation: they
are found by `last_seen`, which clocks write that differ by less than `MARGIN`.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from libmh.match import weighing
from libmh.match.fitting import ZONE, Metadata
from libmh.spec import Plain
from mh_conductor import registry
from mh_conductor.limits import DEFAULT_ZONE
from mh_conductor.store import Store
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS, VALUES

MARGIN = 10 * 10**9
MAX_SHARED = 1_000_000
MAX_SHARED_TEXT = 64 * 1024 * 1024
AT_ONCE = 500

_HOSTS = select(
    *(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.state, HOSTS.c.last_seen),
    *(HOSTS.c.report, HOSTS.c.given, HOSTS.c.metrics),
).where(HOSTS.c.stamp > bindparam("since"))
_SEEN = select(HOSTS.c.uuid, HOSTS.c.last_seen, HOSTS.c.metrics).where(
    HOSTS.c.last_seen > bindparam("after")
)
_NEWEST = select(func.max(HOSTS.c.last_seen))
_UUIDS = select(HOSTS.c.uuid)
_COUNT = select(func.count()).select_from(HOSTS)
_GROUPS = select(AGGREGATES.c.id, AGGREGATES.c.name).where(AGGREGATES.c.stamp > bindparam("since"))
_IDS = select(AGGREGATES.c.id)
_VALUES = select(VALUES.c.aggregate, VALUES.c.key, VALUES.c.value).where(
    VALUES.c.aggregate.in_(bindparam("which", expanding=True))
)
_MEMBERS = select(MEMBERS.c.host).where(MEMBERS.c.aggregate == bindparam("which"))


@dataclass(frozen=True, slots=True)
class Known:
    """A host, as it last reported. Equal facts and traits of several hosts are the same objects; `traits`
    are with those that rules gave it, `raws` what weighers see of it."""

    uuid: str
    hostname: str
    state: str
    last_seen: int
    facts: Mapping[str, Plain]
    traits: frozenset[str]
    raws: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """An aggregate: `members` are UUIDs."""

    id: int
    name: str
    metadata: Metadata
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet as of a generation; nothing changes one. Hosts are by UUID, in the order of their names;
    `zones` are those of the hosts that are in one."""

    generation: int
    hosts: Mapping[str, Known]
    groups: Mapping[int, Group]
    zones: Mapping[str, str]
    default_zone: str = DEFAULT_ZONE

    def aggregates(self) -> dict[str, list[Metadata]]:
        """By host, the metadata of the aggregates that it is in; a host that is in none is left out."""
        found: dict[str, list[Metadata]] = {}
        for group in self.groups.values():
            for uuid in group.members:
                found.setdefault(uuid, []).append(group.metadata)
        return found


@dataclass(slots=True)
class Inventory:
    """Snapshots of a store's fleet; for any number of threads."""

    store: Store
    _last: Snapshot | None = None
    _newest: int = 0
    _shared: dict[Any, Any] = field(default_factory=dict)
    _text: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Snapshot:
        """The fleet as it is in the store now. Raises as `Store.read`."""
        with self._lock, self.store.read() as connection:
            generation = registry.generation(connection)
            last = self._last
            if last is None or generation < last.generation:  # the store was put back: nothing is known
                last, self._newest = Snapshot(-1, {}, {}, {}), 0
            if last.generation != generation:
                last = self._changed(connection, last, generation)
            self._last = self._measured(connection, last)
            return self._last

    def _changed(self, connection: Connection, last: Snapshot, generation: int) -> Snapshot:
        hosts, groups = self._hosts(connection, last), _groups(connection, last)
        return Snapshot(generation, hosts, groups, _zones(groups), self.store.default_zone)

    def _hosts(self, connection: Connection, last: Snapshot) -> Mapping[str, Known]:
        rows = connection.execute(_HOSTS, {"since": last.generation})
        told = {row.uuid: self._known(row) for row in rows}
        hosts = {**last.hosts, **told}
        if len(hosts) != connection.execute(_COUNT).scalar_one():  # some are there no more
            there = set(connection.execute(_UUIDS).scalars())
            hosts = {uuid: host for uuid, host in hosts.items() if uuid in there}
        if any(_moves(last.hosts.get(host.uuid), host) for host in told.values()):
            return dict(sorted(hosts.items(), key=lambda item: (item[1].hostname, item[0])))
        return hosts

    def _known(self, row: Any) -> Known:
        # what hosts no longer report would stay for ever
        if len(self._shared) > MAX_SHARED or self._text > MAX_SHARED_TEXT:
            self._shared.clear()
            self._text = 0
        told = json.loads(row.report) if row.report else {}
        facts = {
            self._one(name): self._one(fact["value"])
            for name, fact in told.get("facts", {}).items()
            if fact.get("value") is not None
        }
        traits = frozenset(told.get("traits", ())) | frozenset(json.loads(row.given))
        traits = self._shared.setdefault(traits, traits)
        raws = weighing.raws_of(json.loads(row.metrics), facts)
        return Known(row.uuid, row.hostname, row.state, row.last_seen, facts, traits, raws)

    def _one(self, value: Any) -> Any:
        """The one object that stands for all that are equal to it."""
        try:
            found = self._shared.setdefault(_key(value), value)
        except TypeError:  # a map, or a list that holds more than scalars
            return value
        if found is value and isinstance(value, str | list):
            self._text += len(str(value))
        return found

    def _measured(self, connection: Connection, last: Snapshot) -> Snapshot:
        newest = connection.execute(_NEWEST).scalar() or 0
        if newest == self._newest:
            return last
        fresh: dict[str, Known] = {}
        # the clock was put back: what came since may be anywhere
        after = self._newest - MARGIN if newest > self._newest else 0
        for uuid, seen, metrics in connection.execute(_SEEN, {"after": after}):
            host = last.hosts.get(uuid)
            if host is not None and host.last_seen != seen:
                raws = weighing.raws_of(json.loads(metrics), host.facts)
                fresh[uuid] = replace(host, last_seen=seen, raws=raws)
        self._newest = newest
        return replace(last, hosts={**last.hosts, **fresh}) if fresh else last


def _moves(was: Known | None, host: Known) -> bool:
    return was is None or was.hostname != host.hostname


def _key(value: Any) -> Any:
    # by type as well: 1, 1.0 and true are equal, and are not the same text
    if isinstance(value, str):
        return value
    return (list, tuple(map(_typed, value))) if isinstance(value, list) else _typed(value)


def _typed(value: Any) -> tuple[type, Any]:
    return type(value), value


def _groups(connection: Connection, last: Snapshot) -> Mapping[int, Group]:
    changed = {row.id: row.name for row in connection.execute(_GROUPS, {"since": last.generation})}
    metadata = _metadata(connection, list(changed))
    groups = dict(last.groups)
    for which, name in changed.items():
        members = frozenset(connection.execute(_MEMBERS, {"which": which}).scalars())
        groups[which] = Group(which, name, metadata.get(which, {}), members)
    there = set(connection.execute(_IDS).scalars())
    return {which: group for which, group in groups.items() if which in there}


def _metadata(connection: Connection, which: list[int]) -> Mapping[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for start in range(0, len(which), AT_ONCE):
        for aggregate, key, value in connection.execute(_VALUES, {"which": which[start : start + AT_ONCE]}):
            found.setdefault(aggregate, {})[key] = value
    return found


def _zones(groups: Mapping[int, Group]) -> Mapping[str, str]:
    zoned: Iterable[Group] = (group for group in groups.values() if group.metadata.get(ZONE))
    return {uuid: group.metadata[ZONE] for group in zoned for uuid in group.members}
