"""The aggregates in the store: what a plan needs to know of them, and carrying a plan out."""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Update, bindparam, delete, exists, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from mh_conductor.judge import Verdict
from mh_conductor.limits import MAX_NAME, ZONE_KEY, holdable, storable
from mh_conductor.plan import Change, Current, Kind, Known, Membership, Owned, Plan, named
from mh_conductor.records import as_json
from mh_conductor.store import LostRace
from mh_conductor.tables import AGGREGATES, FLEET, HISTORY, HOSTS, MEMBERS, VALUES

MAX_HISTORY = 100_000
PRUNE_EVERY = 1000
AT_ONCE = 500
MAX_WHY = 65_535

_OTHER = MEMBERS.alias("other")
_OTHERS = (
    exists().where(_OTHER.c.aggregate == AGGREGATES.c.id, _OTHER.c.host != bindparam("host")).label("others")
)
_COLUMNS = (
    *(AGGREGATES.c.id, AGGREGATES.c.name, AGGREGATES.c.owner, AGGREGATES.c.binding, AGGREGATES.c.generation),
    _OTHERS,
)
_MINE = (
    select(*_COLUMNS, MEMBERS.c.owner.label("membership"))
    .join(MEMBERS, MEMBERS.c.aggregate == AGGREGATES.c.id)
    .where(MEMBERS.c.host == bindparam("host"))
)
_NAMED = select(*_COLUMNS).where(AGGREGATES.c.name.in_(bindparam("names", expanding=True)))
_VALUES = select(VALUES.c.aggregate, VALUES.c.key, VALUES.c.value, VALUES.c.owner).where(
    VALUES.c.aggregate.in_(bindparam("ids", expanding=True))
)
_NAMES = (
    select(AGGREGATES.c.name)
    .join(MEMBERS, MEMBERS.c.aggregate == AGGREGATES.c.id)
    .where(MEMBERS.c.host == bindparam("host"))
    .order_by(AGGREGATES.c.name)
)
_BUMP = (
    update(AGGREGATES)
    .where(AGGREGATES.c.id == bindparam("which"), AGGREGATES.c.generation == bindparam("was"))
    .values(generation=bindparam("now_generation"), updated=bindparam("now"))
)
_DROP = delete(AGGREGATES).where(
    AGGREGATES.c.id == bindparam("which"), AGGREGATES.c.generation == bindparam("was")
)
_KEEP = (
    update(MEMBERS)
    .where(MEMBERS.c.aggregate == bindparam("which"), MEMBERS.c.host == bindparam("of"))
    .where(MEMBERS.c.owner.is_not(None))  # somebody may have made the member his own meanwhile
    .values(owner=bindparam("by"), evidence=bindparam("shown"))
)
_LEAVE = delete(MEMBERS).where(MEMBERS.c.aggregate == bindparam("which"), MEMBERS.c.host == bindparam("of"))
_FORGET = delete(VALUES).where(VALUES.c.aggregate == bindparam("which"), VALUES.c.key == bindparam("what"))
_STAMP_HOSTS = (
    update(HOSTS)
    .where(HOSTS.c.uuid.in_(bindparam("which", expanding=True)))
    .values(stamp=bindparam("now_stamp"))
)
_STAMP_AGGREGATES = (
    update(AGGREGATES)
    .where(AGGREGATES.c.id.in_(bindparam("which", expanding=True)))
    .values(stamp=bindparam("now_stamp"))
)


_GROW = (
    update(FLEET).values(generation=FLEET.c.generation + bindparam("steps")).returning(FLEET.c.generation)
)


@dataclass(slots=True)
class Held:
    """An aggregate's row while a transaction works on it: `was` is the generation in the store, `generation`
    the one that it will have."""

    id: int
    was: int
    generation: int


@dataclass(frozen=True, slots=True)
class View:
    """What was read for a plan, and the rows behind it."""

    current: Current
    held: dict[str, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was carried out; the aggregate had this generation after it, and this id."""

    change: Change
    generation: int
    id: int = 0


def names_of(connection: Connection, host: str) -> list[str]:
    """The aggregates that a host is a member of, sorted."""
    return list(connection.execute(_NAMES, {"host": host}).scalars())


def view(connection: Connection, host: str, named: Iterable[str], zones: Mapping[str, str]) -> View:
    """What a plan for a host needs: its memberships, and the aggregates `named`. `zones` are those that the
    rules want for some of them."""
    mine = connection.execute(_MINE, {"host": host}).all()
    names = sorted(filter(storable, set(named) - {row.name for row in mine}))
    rows = [*mine, *(connection.execute(_NAMED, {"host": host, "names": names}) if names else ())]
    values = _values(connection, [row.id for row in rows])
    known = {}
    for row in rows:
        held = values.get(row.id, {})
        zone = held.get(ZONE_KEY)
        moves = row.name in zones and (zone is None or zone.value != zones[row.name])
        rivals: frozenset[str] = _rivals(connection, row.id) if moves else frozenset()
        known[row.name] = Known(row.name, row.owner, json.loads(row.binding), held, row.others, rivals)
    memberships = {row.name: Membership(row.membership) for row in mine}
    return View(
        Current(known, memberships), {row.name: Held(row.id, row.generation, row.generation) for row in rows}
    )


def view_of(connection: Connection, host: str, verdicts: tuple[Verdict, ...]) -> View:
    """What is needed to plan from these verdicts."""
    zones = {
        verdict.aggregate: verdict.metadata()[ZONE_KEY]
        for verdict in verdicts
        if verdict.rule.zone and verdict.aggregate
    }
    return view(connection, host, named(verdicts), zones)


def everything(connection: Connection) -> View:
    """Every aggregate, for nobody's plan."""
    rows = connection.execute(select(*_COLUMNS), {"host": ""}).all()
    values = _values(connection, [row.id for row in rows])
    known = {
        row.name: Known(row.name, row.owner, json.loads(row.binding), values.get(row.id, {}), row.others)
        for row in rows
    }
    return View(Current(known), {row.name: Held(row.id, row.generation, row.generation) for row in rows})


def _values(connection: Connection, ids: list[int]) -> Mapping[int, dict[str, Owned]]:
    values: dict[int, dict[str, Owned]] = {}
    if ids:
        for aggregate, key, value, owner in connection.execute(_VALUES, {"ids": ids}):
            values.setdefault(aggregate, {})[key] = Owned(value, owner)
    return values


def _rivals(connection: Connection, aggregate: int) -> frozenset[str]:
    query = (
        select(VALUES.c.value)
        .distinct()
        .join(_OTHER, _OTHER.c.aggregate == VALUES.c.aggregate)
        .join(MEMBERS, MEMBERS.c.host == _OTHER.c.host)
        .where(MEMBERS.c.aggregate == aggregate, VALUES.c.aggregate != aggregate, VALUES.c.key == ZONE_KEY)
    )
    return frozenset(connection.execute(query).scalars())


def carry_out(connection: Connection, host: str, plan: Plan, seen: View, now: int) -> list[Done]:
    """Write a plan for a host. Raises `Conflict` where an aggregate changed since it was read."""
    done = [_step(connection, host, change, seen.held, now) for change in plan.changes]
    kept = [
        {"which": seen.held[name].id, "of": host, "by": stay.owner, "shown": as_json(stay.evidence)}
        for name, stay in plan.kept.items()
    ]
    if kept:
        connection.execute(_KEEP, kept)
    for held in seen.held.values():
        if held.was != held.generation:
            values = {"which": held.id, "was": held.was, "now_generation": held.generation, "now": now}
            _require_one(connection.execute(_BUMP, values).rowcount, held)
    record(connection, [line(change) for change in plan.changes], now)
    return done


def line(change: Change) -> dict[str, str]:
    """What the history says of a change."""
    names = {"aggregate": change.aggregate, "change": change.kind.value, "rule": change.owner}
    return {**names, "host": change.host, "why": change.why}


def record(connection: Connection, lines: list[dict[str, str]], now: int, who: str = "") -> None:
    """Add to the history; `who` is whoever did it by hand."""
    if lines:
        common = {"time": now, "who": who, "rule": ""}
        connection.execute(insert(HISTORY), [{**common, **_kept(line)} for line in lines])


def _kept(line: Mapping[str, str]) -> dict[str, str]:
    """The name and the reason may have a host's words in them, which are of any length and kind: one host
    must not keep others from what is written with it."""
    return {
        **line,
        "aggregate": holdable(line["aggregate"], MAX_NAME),
        "why": holdable(line["why"], MAX_WHY),
    }


def advance(
    connection: Connection, steps: int, *, hosts: Collection[str] = (), done: Iterable[Done] = ()
) -> int:
    """Let the generation of the whole grow, and stamp what changed with it: last in a transaction, since
    everybody else who changes anything waits from here to its end. Now and then the history is cut."""
    generation: int = connection.execute(_GROW, {"steps": steps}).scalar_one()
    _stamp(connection, _STAMP_HOSTS, list(hosts), generation)
    _stamp(connection, _STAMP_AGGREGATES, sorted({each.id for each in done}), generation)
    if generation // PRUNE_EVERY != (generation - steps) // PRUNE_EVERY:
        latest = select(HISTORY.c.id).order_by(HISTORY.c.id.desc()).offset(MAX_HISTORY).limit(1)
        connection.execute(delete(HISTORY).where(HISTORY.c.id <= latest.scalar_subquery()))
    return generation


def _stamp(connection: Connection, what: Update, which: Sequence[str | int], generation: int) -> None:
    for start in range(0, len(which), AT_ONCE):
        connection.execute(what, {"which": which[start : start + AT_ONCE], "now_stamp": generation})


def _step(connection: Connection, host: str, change: Change, held: dict[str, Held], now: int) -> Done:
    if change.kind is Kind.CREATED:
        held[change.aggregate] = _create(connection, change, now)
        return Done(change, 1, held[change.aggregate].id)
    row = held[change.aggregate]
    row.generation += 1
    if change.kind is Kind.METADATA:
        describe(connection, row.id, change)
    elif change.kind is Kind.HOST_ADDED:
        values = {"aggregate": row.id, "host": host, "owner": change.owner}
        connection.execute(insert(MEMBERS), {**values, "evidence": as_json(change.evidence)})
    elif change.kind is Kind.HOST_REMOVED:
        connection.execute(_LEAVE, {"which": row.id, "of": host})
    else:
        _require_one(connection.execute(_DROP, {"which": row.id, "was": row.was}).rowcount, row)
        del held[change.aggregate]
    return Done(change, row.generation, row.id)


def _create(connection: Connection, change: Change, now: int) -> Held:
    values = {"name": change.aggregate, "owner": change.owner, "binding": json.dumps(dict(change.binding))}
    times = {"created": now, "updated": now, "generation": 1, "uuid": str(uuid.uuid4())}
    made = connection.execute(insert(AGGREGATES).returning(AGGREGATES.c.id), {**values, **times})
    return Held(made.scalar_one(), 1, 1)


def describe(connection: Connection, aggregate: int, change: Change) -> None:
    """Write a change of metadata; keys of rules that stay are taken over with the aggregate."""
    owner = {"owner": change.owner, "binding": json.dumps(dict(change.binding))}
    connection.execute(update(AGGREGATES).where(AGGREGATES.c.id == aggregate).values(owner))
    mine: ColumnElement[bool] = VALUES.c.owner.is_not(None)
    connection.execute(
        update(VALUES).where(VALUES.c.aggregate == aggregate, mine).values(owner=change.owner)
    )
    for key, value in change.metadata.items():
        connection.execute(_FORGET, {"which": aggregate, "what": key})
        if value is not None:
            row = {"aggregate": aggregate, "key": key, "value": value, "owner": change.owner}
            connection.execute(insert(VALUES), row)


def _require_one(rows: int, held: Held) -> None:
    if rows != 1:
        raise LostRace(f"aggregate {held.id} is no longer of generation {held.was}")


def rules_digest(connection: Connection) -> str:
    """Of the rules that every host was last held against."""
    digest: str = connection.execute(select(FLEET.c.rules)).scalar_one()
    return digest


def set_rules_digest(connection: Connection, digest: str) -> None:
    connection.execute(update(FLEET).values(rules=digest))


def generation(connection: Connection) -> int:
    """Of the whole: grows with every change of any host or aggregate."""
    current: int = connection.execute(select(FLEET.c.generation)).scalar_one()
    return current
