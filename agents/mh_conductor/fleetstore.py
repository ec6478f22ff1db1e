"""The whole fleet, out of the store and back into it: what `fleet` plans on, and its plans in batches."""

import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from libmh.api.aggregates import HostState
from libmh.api.host import Fact, FactStatus
from mh_conductor import damping, registry
from mh_conductor.compiled import Compiled
from mh_conductor.damping import Note
from mh_conductor.fleet import Fleet, HostPlan, Place, Resident
from mh_conductor.judge import Subject
from mh_conductor.plan import Change, Kind, Known, Owned
from mh_conductor.records import as_json
from mh_conductor.registry import Done
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS, VALUES
from mh_conductor.template import as_text

BATCH = 500
REPORTED = (HostState.UP.value, HostState.SILENT.value, HostState.GONE.value)

_HOSTS = select(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.state, HOSTS.c.report).where(
    HOSTS.c.state.in_(REPORTED)
)
_GIVEN = select(HOSTS.c.uuid, HOSTS.c.given).where(HOSTS.c.given != "[]")
_LATER = _HOSTS.where(HOSTS.c.stamp > bindparam("stamp"))
_SOME = select(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.report).where(
    HOSTS.c.uuid.in_(bindparam("uuids", expanding=True))
)
_KEEP = (
    update(MEMBERS)
    .where(MEMBERS.c.aggregate == bindparam("which"), MEMBERS.c.host == bindparam("of"))
    .values(owner=bindparam("by"), evidence=bindparam("shown"))
)
_LEAVE = delete(MEMBERS).where(MEMBERS.c.aggregate == bindparam("which"), MEMBERS.c.host == bindparam("of"))
_GIVE = update(HOSTS).where(HOSTS.c.uuid == bindparam("of")).values(given=bindparam("given_now"))
_GROW = (
    update(AGGREGATES)
    .where(AGGREGATES.c.id == bindparam("which"))
    .values(generation=AGGREGATES.c.generation + bindparam("steps"), updated=bindparam("now"))
)


def read(connection: Connection, fleet: Fleet) -> None:
    """Judge every host that has reported."""
    for row in connection.execute(_HOSTS):
        _meet(fleet, row)


def refresh(connection: Connection, fleet: Fleet, stamp: int, now: int) -> None:
    """Judge anew who changed after the generation `stamp` of the whole, and learn where everybody is."""
    there = set(connection.execute(select(HOSTS.c.uuid).where(HOSTS.c.state.in_(REPORTED))).scalars())
    for gone in fleet.residents.keys() - there:
        del fleet.residents[gone]
    for row in connection.execute(_LATER, {"stamp": stamp}):
        _meet(fleet, row)
    given = connection.execute(_GIVEN)
    traits = {row.uuid: tuple(json.loads(row.given)) for row in given}
    _hold(fleet, damping.every_note(connection), now)
    names = _places(connection, fleet)
    for resident in fleet.residents.values():
        resident.places = {}
        resident.given = traits.get(resident.uuid, ())
    for host, aggregate, owner in connection.execute(
        select(MEMBERS.c.host, MEMBERS.c.aggregate, MEMBERS.c.owner)
    ):
        name = names[aggregate]
        fleet.places[name].count += 1
        if host in fleet.residents:
            fleet.residents[host].places[name] = owner


def _meet(fleet: Fleet, row: Any) -> None:
    told = json.loads(row.report)
    compiled, facts = fleet.compiled, told["facts"]
    answers = compiled.answers_of(facts, frozenset(told["traits"]))
    silent = row.state != HostState.UP
    fleet.residents[row.uuid] = Resident(
        row.uuid,
        row.hostname,
        row.state,
        # nothing is known now of a host that is silent: it stays where it is, and joins nothing
        yes=0 if silent else answers.yes,
        unsure=answers.unsure | answers.yes if silent else answers.unsure,
        held=answers.yes if silent else 0,
        texts=tuple(_text(facts, name) for name in compiled.named),
    )


def _text(facts: Mapping[str, Any], name: str) -> str | None:
    fact = facts.get(name)
    return as_text(fact.get("value")) if fact else None


def _hold(fleet: Fleet, notes: Mapping[str, Mapping[str, Note]], now: int) -> None:
    """What flaps stays where it is, whatever the rules are."""
    index, regime = fleet.compiled.index, fleet.compiled.rules.regime
    for host, by_rule in notes.items():
        resident = fleet.residents.get(host)
        for rule, note in by_rule.items():
            if resident and rule in index and note.held_until(regime, now) is not None:
                bit = 1 << index[rule]
                resident.yes &= ~bit
                resident.unsure |= bit
                resident.held |= bit


def _places(connection: Connection, fleet: Fleet) -> dict[int, str]:
    values: dict[int, dict[str, Owned]] = {}
    for row in connection.execute(select(VALUES)):
        values.setdefault(row.aggregate, {})[row.key] = Owned(row.value, row.owner)
    fleet.places.clear()
    names = {}
    for row in connection.execute(select(AGGREGATES)):
        known = Known(row.name, row.owner, json.loads(row.binding), values.get(row.id, {}))
        fleet.places[row.name] = Place(known, 0, row.id, row.generation)
        names[row.id] = row.name
    return names


def subjects(connection: Connection, uuids: Sequence[str], compiled: Compiled) -> Iterator[Subject]:
    """What hosts told of the facts that rules look at, in the given order."""
    needed = compiled.facts()
    for start in range(0, len(uuids), BATCH):
        some = uuids[start : start + BATCH]
        rows = {row.uuid: row for row in connection.execute(_SOME, {"uuids": some})}
        for each in some:
            yield subject_of_text(each, rows[each].hostname, rows[each].report, needed)


def subject_of_text(uuid_: str, hostname: str, report: str, needed: Collection[str]) -> Subject:
    """What a host told of some facts. The text went through the checks of the intake."""
    told = json.loads(report)
    facts = {
        name: Fact(
            FactStatus(fact["status"]),
            fact["source"],
            fact["observed"],
            fact.get("value"),
            fact.get("reason"),
        )
        for name, fact in told["facts"].items()
        if name in needed
    }
    return Subject(uuid_, hostname, facts, frozenset(told["traits"]))


class Writer:
    """Carries plans out, rows of many hosts at a time. Belongs to one transaction; `finish` it."""

    def __init__(self, connection: Connection, fleet: Fleet, now: int) -> None:
        self.hosts: set[str] = set()
        """Those that came or went anywhere."""
        self.done: list[Done] = []
        self.steps = 0
        self._connection = connection
        self._fleet = fleet
        self._now = now
        self._ids = {name: place.id for name, place in fleet.places.items()}
        self._generations = {name: place.generation for name, place in fleet.places.items()}
        self._grown: dict[int, int] = {}
        self._joining: list[dict[str, Any]] = []
        self._leaving: list[dict[str, Any]] = []
        self._keeping: list[dict[str, Any]] = []
        self._giving: list[dict[str, Any]] = []
        self._lines: list[dict[str, str]] = []

    def write(self, planned: HostPlan) -> None:
        """Carry one plan out, soon."""
        host = planned.resident
        for change in planned.plan.changes:
            self._step(host.uuid, change)
        for name, stay in planned.plan.kept.items():
            self._keeping.append(
                {"which": self._ids[name], "of": host.uuid, "by": stay.owner}
                | {"shown": as_json(stay.evidence)}
            )
        for refusal in planned.plan.refusals:
            self._lines.append(
                {"aggregate": refusal.aggregate, "change": "refused", "rule": refusal.rule}
                | {"host": host.hostname, "why": refusal.reason}
            )
        if planned.given is not None:
            self._giving.append({"of": host.uuid, "given_now": json.dumps(planned.given)})
            self._lines.extend(planned.lines)
        if planned.moves:
            self.hosts.add(host.uuid)
        if len(self._joining) + len(self._leaving) + len(self._keeping) + len(self._lines) > 10 * BATCH:
            self._flush()

    def delete(self, change: Change) -> None:
        """Delete an aggregate that nobody wants any more."""
        self._step("", change)

    def finish(self) -> None:
        """Write the rest, and let the generations of aggregates grow."""
        self._flush()
        grown = [{"which": each, "steps": steps, "now": self._now} for each, steps in self._grown.items()]
        if grown:
            self._connection.execute(_GROW, grown)

    def _step(self, host: str, change: Change) -> None:
        name, kind = change.aggregate, change.kind
        self.steps += 1
        if kind is Kind.CREATED:
            self._create(change)
        which = self._ids[name]
        self._generations[name] += kind is not Kind.CREATED
        self._grown[which] = self._grown.get(which, 0) + (kind is not Kind.CREATED)
        if kind is Kind.METADATA:
            registry.describe(self._connection, which, change)
        elif kind is Kind.HOST_ADDED:
            row = {"aggregate": which, "host": host, "owner": change.owner}
            self._joining.append({**row, "evidence": as_json(change.evidence)})
        elif kind is Kind.HOST_REMOVED:
            self._leaving.append({"which": which, "of": host})
        elif kind is Kind.DELETED:
            self._flush()
            self._connection.execute(delete(AGGREGATES).where(AGGREGATES.c.id == which))
            del self._grown[which], self._ids[name]
        self.done.append(Done(change, self._generations[name], which))
        self._lines.append(registry.line(change))

    def _create(self, change: Change) -> None:
        row = {"name": change.aggregate, "owner": change.owner, "binding": json.dumps(dict(change.binding))}
        times = {"created": self._now, "updated": self._now, "generation": 1, "uuid": str(uuid.uuid4())}
        made = self._connection.execute(insert(AGGREGATES).returning(AGGREGATES.c.id), {**row, **times})
        self._ids[change.aggregate] = made.scalar_one()
        self._generations[change.aggregate] = 1

    def _flush(self) -> None:
        for what, rows in (
            (_LEAVE, self._leaving),
            (_KEEP, self._keeping),
            (insert(MEMBERS), self._joining),
            (_GIVE, self._giving),
        ):
            if rows:
                self._connection.execute(what, rows)
                rows.clear()
        registry.record(self._connection, self._lines, self._now)
        self._lines.clear()
