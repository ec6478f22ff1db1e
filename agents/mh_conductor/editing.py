"""What people change of aggregates. The semantics and the messages are Nova's (nova.compute.api, class
AggregateAPI, and nova.exception), the class of a problem is the status that Nova answers with:
`InvalidArguments` 400, `NotFound` 404, `Conflict` 409.

Where ours differ: the name of a zone is checked on every path, an update is whole or absent, and the time
and the generation change with every change and with nothing else. What people set carries no rule's mark,
also in aggregates that rules made: no rule touches it from then on. What a rule made can be taken away by
hand, but the rule makes it again with the host's next change; an aggregate that a rule made and somebody
renamed is left by those whom the rule had put there, for a new one of the old name.

`generation` is the one that the aggregate must have, 0 for any; where it has another, that is a `Conflict`.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update
from sqlalchemy.sql import Select

from libmh.api.aggregates import Aggregate, Aggregates
from libmh.caller import asking
from libmh.errors import Conflict, InvalidArguments, NotFound
from libmh.events import Hub
from mh_conductor import catalogue, hosts, registry
from mh_conductor.hosts import Standing
from mh_conductor.limits import MAX_KEYS, MAX_WHO, MAX_WHY, ZONE_KEY, name_fault, zone_fault
from mh_conductor.metadata import check, check_metadata, described
from mh_conductor.plan import Kind
from mh_conductor.store import LostRace, Store, again, alone, in_time
from mh_conductor.tables import AGGREGATES, MEMBERS, VALUES

MAX_RIVALS = 50
NAME = "name"
RENAMED = "renamed"
UPDATING = "Cannot update aggregate"
UPDATING_METADATA = "Cannot update metadata of aggregate"
ADDING = "Cannot add host to aggregate"
_FORGET = delete(VALUES).where(VALUES.c.aggregate == bindparam("of"), VALUES.c.key == bindparam("what"))


@dataclass(frozen=True, slots=True)
class Start:
    """A transaction, and who began it when."""

    connection: Connection
    who: str
    now: int


@dataclass(frozen=True, slots=True)
class Note:
    """One step of an edit, for the history and for those who listen."""

    change: str
    why: str
    host: str = ""


@dataclass(slots=True)
class Edit:
    """An aggregate while somebody changes it: `was` is its generation in the store, `name` its new name."""

    start: Start
    id: int
    was: int
    name: str
    notes: list[Note] = field(default_factory=list)

    def note(self, change: str, what: str, host: str = "") -> None:
        self.notes.append(Note(change, f"{self.start.who} {what}"[:MAX_WHY], host))


@dataclass(frozen=True, slots=True)
class Edited:
    """What came of an edit, once it is in the store; `generation` is the one before the first note."""

    aggregate: Aggregate
    generation: int
    notes: tuple[Note, ...]


class Editing:
    """Changes of aggregates by hand: for any number of threads, here and in other processes. An aggregate is
    named by name, UUID or id; a number is an id. Beside what is said of each, everything raises what
    `Store.write` does, and `NotFound` for an unknown aggregate."""

    def __init__(
        self, store: Store, events: Hub | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._store = store
        self._events = events or Hub()
        self._clock = clock

    def create(self, name: str, zone: str | None = None) -> Aggregate:
        """Make an aggregate. Raises `Conflict` where the name is taken, `InvalidArguments` for a name."""
        check("name", name, name_fault(name))
        if zone:
            check("zone", zone, zone_fault(zone))
        return self._run(lambda start: _create(start, name, zone))

    def update(self, which: str | int, values: Mapping[str, str | None], generation: int = 0) -> Aggregate:
        """Give it another name, another zone, or both: the keys are `name` and `availability_zone`. Raises
        `Conflict` where the name is taken, `InvalidArguments` where a member is in another zone."""
        metadata = {key: value for key, value in values.items() if key != NAME}
        check_metadata(metadata)
        name = values.get(NAME)
        if name is not None:
            check("name", name, name_fault(name))

        def attempt(start: Start) -> Edited:
            edit = _begin(start, which, generation)
            _rename(edit, name or edit.name)
            _describe(edit, metadata, UPDATING)
            return _finish(edit)

        return self._run(attempt)

    def rename(self, which: str | int, name: str, generation: int = 0) -> Aggregate:
        """Give it another name. Raises `Conflict` where that is taken."""
        return self.update(which, {NAME: name}, generation)

    def set_metadata(
        self, which: str | int, metadata: Mapping[str, str | None], generation: int = 0
    ) -> Aggregate:
        """Merge metadata in, whole or not at all; None takes a key away, and one that is absent is no fault.
        Raises `InvalidArguments` for a zone where a member is in another one, and for none."""
        check_metadata(metadata)

        def attempt(start: Start) -> Edited:
            edit = _begin(start, which, generation)
            _describe(edit, metadata, UPDATING_METADATA)
            return _finish(edit)

        return self._run(attempt)

    def add_host(self, which: str | int, host: str, generation: int = 0) -> Aggregate:
        """Add a host, or make of a member that a rule added one that stays. Raises `Conflict` where it was
        added by hand already or is in another zone, `NotFound` for an unknown one."""

        def attempt(start: Start) -> Edited:
            found = _host(start, host)
            edit = _begin(start, which, generation)
            _add(edit, found)
            return _finish(edit)

        return self._run(attempt)

    def remove_host(self, which: str | int, host: str, generation: int = 0) -> Aggregate:
        """Take a host out. Raises `NotFound` where it is no member, or there is none."""

        def attempt(start: Start) -> Edited:
            found = _host(start, host)
            edit = _begin(start, which, generation)
            _remove(edit, found)
            return _finish(edit)

        try:
            return self._run(attempt)
        except NotFound as error:  # Nova says the same whatever it did not find
            raise NotFound(f"Cannot remove host {host} in aggregate {which}", why=error.message) from error

    def delete(self, which: str | int, generation: int = 0) -> bool:
        """Delete an aggregate. Raises `InvalidArguments` while it has hosts."""
        self._run(lambda start: _delete(_begin(start, which, generation)))
        return True

    def _run(self, attempt: Callable[[Start], Edited]) -> Aggregate:
        who = asking().described[:MAX_WHO]

        def once(connection: Connection) -> Edited:
            alone(connection)
            edited = attempt(Start(connection, who, self._clock()))
            in_time()
            return edited

        edited = again(self._store, once)
        for at, note in enumerate(edited.notes, 1):
            self._events.emit(
                Aggregates.aggregate_changed,
                aggregate=edited.aggregate.name,
                change=note.change,
                host=note.host,
                generation=edited.generation + at,
                why=note.why,
            )
        return edited.aggregate


def _host(start: Start, host: str) -> Standing:
    try:
        return hosts.resolve(start.connection, host)
    except NotFound as error:  # Nova has words of its own
        raise NotFound(f"Compute host {host} could not be found.", host=host) from error


def _begin(start: Start, which: str | int, generation: int) -> Edit:
    row = catalogue.locate(start.connection, which)
    if generation not in (0, row.generation):
        raise Conflict(f"aggregate '{row.name}' is of generation {row.generation}, not of {generation}")
    return Edit(start, row.id, row.generation, row.name)


def _finish(edit: Edit) -> Edited:
    start = edit.start
    if edit.notes:
        stamp = registry.advance(start.connection, len(edit.notes))
        here = (AGGREGATES.c.id == edit.id, AGGREGATES.c.generation == edit.was)
        values = {"generation": edit.was + len(edit.notes), "updated": start.now, "stamp": stamp}
        done = start.connection.execute(update(AGGREGATES).where(*here).values(name=edit.name, **values))
        if done.rowcount != 1:
            raise LostRace(f"aggregate '{edit.name}' is no longer of generation {edit.was}")
    return _edited(edit, catalogue.find(start.connection, edit.id))


def _edited(edit: Edit, aggregate: Aggregate) -> Edited:
    lines = [
        {"aggregate": edit.name, "change": note.change, "host": note.host, "why": note.why}
        for note in edit.notes
    ]
    registry.record(edit.start.connection, lines, edit.start.now, edit.start.who)
    return Edited(aggregate, edit.was, tuple(edit.notes))


def _create(start: Start, name: str, zone: str | None) -> Edited:
    _require_free(start.connection, name)
    stamp = registry.advance(start.connection, 1)
    row = {
        "uuid": str(uuid.uuid4()),
        "name": name,
        "binding": json.dumps({}),
        "generation": 1,
        "stamp": stamp,
    }
    times = {"created": start.now, "updated": start.now}
    made = start.connection.execute(insert(AGGREGATES).returning(AGGREGATES.c.id), {**row, **times})
    edit = Edit(start, made.scalar_one(), 0, name)
    if zone:
        _put(edit, {ZONE_KEY: zone})
    edit.note(Kind.CREATED, f"made '{name}'" + (f" as availability zone '{zone}'" if zone else ""))
    return _edited(edit, catalogue.find(start.connection, edit.id))


def _require_free(connection: Connection, name: str) -> None:
    taken = connection.execute(select(exists().where(AGGREGATES.c.name == name))).scalar()
    if taken:
        raise Conflict(f"Aggregate {name} already exists.", aggregate=name)


def _rename(edit: Edit, name: str) -> None:
    if name == edit.name:
        return
    _require_free(edit.start.connection, name)
    why = f"renamed '{edit.name}' to '{name}'"
    # whoever looks for the old name in the history has to find where it went
    line = {"aggregate": edit.name, "change": RENAMED, "host": "", "why": f"{edit.start.who} {why}"}
    registry.record(edit.start.connection, [line], edit.start.now, edit.start.who)
    edit.name = name
    edit.note(RENAMED, why)


def _describe(edit: Edit, metadata: Mapping[str, str | None], action: str) -> None:
    if ZONE_KEY in metadata:
        _check_zone(edit, metadata[ZONE_KEY], action)
    query = select(VALUES.c.key, VALUES.c.value, VALUES.c.owner).where(VALUES.c.aggregate == edit.id)
    held = {row.key: (row.value, row.owner) for row in edit.start.connection.execute(query)}
    changes = {
        key: value
        for key, value in metadata.items()
        if (key in held if value is None else held.get(key) != (value, None))
    }
    if not changes:
        return
    after = held.keys() - changes.keys() | {key for key, value in changes.items() if value is not None}
    if len(after) > max(MAX_KEYS, len(held)):
        raise InvalidArguments(
            f"{action} {edit.id}. Reason: expected at most {MAX_KEYS} keys of metadata, got {len(after)}."
        )
    _put(edit, changes)
    edit.note(Kind.METADATA, described(changes))


def _put(edit: Edit, changes: Mapping[str, str | None]) -> None:
    rows = [
        {"aggregate": edit.id, "key": key, "value": value, "owner": None}
        for key, value in changes.items()
        if value is not None
    ]
    edit.start.connection.execute(_FORGET, [{"of": edit.id, "what": key} for key in changes])
    if rows:
        edit.start.connection.execute(insert(VALUES), rows)


def _check_zone(edit: Edit, zone: str | None, action: str) -> None:
    if not zone:
        fault = f"Aggregate {edit.name} does not support empty named availability zone"
    elif wrong := zone_fault(zone):
        fault = f"availability zone '{zone}': {wrong}"
    else:
        members = select(MEMBERS.c.host).where(MEMBERS.c.aggregate == edit.id)
        fault = _rivals(edit, zone, members)
    if fault:
        raise InvalidArguments(f"{action} {edit.id}. Reason: {fault}.")


def _rivals(edit: Edit, zone: str, of: Select[str] | str) -> str:
    """Nova's words for the other zones of hosts, a word for each aggregate; empty where there is none."""
    query = (
        select(VALUES.c.value)
        .join(MEMBERS, MEMBERS.c.aggregate == VALUES.c.aggregate)
        .where(VALUES.c.key == ZONE_KEY, VALUES.c.value != zone, VALUES.c.aggregate != edit.id)
        .where(MEMBERS.c.host == of if isinstance(of, str) else MEMBERS.c.host.in_(of))
        .group_by(VALUES.c.aggregate, VALUES.c.value)
        .order_by(VALUES.c.aggregate)
        .limit(MAX_RIVALS)
    )
    zones = list(edit.start.connection.execute(query).scalars())
    return f"One or more hosts already in availability zone(s) {zones}" if zones else ""


def _add(edit: Edit, host: Standing) -> None:
    held = catalogue.zone(edit.start.connection, edit.id)
    if held and (fault := _rivals(edit, held, host.uuid)):
        raise Conflict(f"{ADDING} {edit.id}. Reason: {fault}.")
    here = (MEMBERS.c.aggregate == edit.id, MEMBERS.c.host == host.uuid)
    was = edit.start.connection.execute(select(MEMBERS.c.owner).where(*here)).one_or_none()
    if was is None:
        row = {"aggregate": edit.id, "host": host.uuid, "owner": None, "evidence": "[]"}
        edit.start.connection.execute(insert(MEMBERS), row)
        edit.note(Kind.HOST_ADDED, f"added {host.hostname} to '{edit.name}'", host.hostname)
    elif was.owner is None:
        raise Conflict(f"Aggregate {edit.id} already has host {host.hostname}.", host=host.hostname)
    else:
        edit.start.connection.execute(update(MEMBERS).where(*here).values(owner=None, evidence="[]"))
        what = f"keeps {host.hostname} in '{edit.name}', where rule '{was.owner}' had put it"
        edit.note(Kind.HOST_ADDED, what, host.hostname)


def _remove(edit: Edit, host: Standing) -> None:
    here = (MEMBERS.c.aggregate == edit.id, MEMBERS.c.host == host.uuid)
    if edit.start.connection.execute(delete(MEMBERS).where(*here)).rowcount != 1:
        raise NotFound(f"Aggregate {edit.id} has no host {host.hostname}.")
    edit.note(Kind.HOST_REMOVED, f"removed {host.hostname} from '{edit.name}'", host.hostname)


def _delete(edit: Edit) -> Edited:
    connection = edit.start.connection
    if connection.execute(select(exists().where(MEMBERS.c.aggregate == edit.id))).scalar():
        raise InvalidArguments(
            f"Cannot remove host from aggregate {edit.id}. Reason: Host aggregate is not empty."
        )
    was = catalogue.find(connection, edit.id)
    edit.note(Kind.DELETED, f"deleted '{edit.name}'")
    registry.advance(connection, 1)
    here = (AGGREGATES.c.id == edit.id, AGGREGATES.c.generation == edit.was)
    if connection.execute(delete(AGGREGATES).where(*here)).rowcount != 1:
        raise LostRace(f"aggregate '{edit.name}' is no longer of generation {edit.was}")
    return _edited(edit, was)
