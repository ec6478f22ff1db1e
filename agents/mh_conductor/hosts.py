"""The inventory: the last report of every host, and which boots of it are over."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.sql.elements import BindParameter

from libmh.api.aggregates import FleetHost, HostState
from libmh.errors import InvalidArguments, NotFound
from mh_conductor.limits import ZONE_KEY, storable
from mh_conductor.store import LostRace, default_zone
from mh_conductor.tables import AGGREGATES, BOOTS, HOSTS, MEMBERS, VALUES

MAX_BOOTS = 16
MAX_NAMED = 5
AT_ONCE = 500

_FIND = select(
    *(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.boot_id, HOSTS.c.sequence, HOSTS.c.generation),
    *(HOSTS.c.digest, HOSTS.c.state, HOSTS.c.identity),
).where(HOSTS.c.uuid == bindparam("host"))
# whoever wrote in between has changed one of the two
_UNCHANGED = and_(
    HOSTS.c.uuid == bindparam("host"),
    HOSTS.c.generation == bindparam("was_generation"),
    HOSTS.c.sequence == bindparam("was_sequence"),
)
_TOUCH = (
    update(HOSTS)
    .where(_UNCHANGED)
    .values(
        sequence=bindparam("new_sequence"),
        last_seen=bindparam("now"),
        report=bindparam("text"),
        metrics=bindparam("measured"),
    )
)
REPLACE = update(HOSTS).where(_UNCHANGED)
_TOLD = (
    *("hostname", "boot_id", "sequence", "agent_version", "facts", "traits", "digest", "report"),
    *("metrics", "summary", "identity"),
)
_NEW: Mapping[str, BindParameter[Any]] = {
    **{name: bindparam(f"new_{name}") for name in _TOLD},
    "last_seen": bindparam("now"),
    "generation": bindparam("now_generation"),
}
_UP: Mapping[str, BindParameter[Any]] = {"state": bindparam("up"), "state_since": bindparam("now")}
# made once: building a statement takes longer than running it
_REPLACE = REPLACE.values(_NEW)
_RETURN = REPLACE.values({**_NEW, **_UP})
_BEGIN = REPLACE.values({**_NEW, **_UP, "first_seen": bindparam("now")})
_INSERT = insert(HOSTS).values({**_NEW, **_UP, "uuid": bindparam("host"), "first_seen": bindparam("now")})
_OVER = select(exists().where(BOOTS.c.host == bindparam("host"), BOOTS.c.boot_id == bindparam("boot")))


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about the next report of a host."""

    uuid: str
    hostname: str
    boot_id: str
    sequence: int
    generation: int
    digest: str
    state: str = HostState.UP
    identity: str | None = None

    @property
    def reported(self) -> bool:
        """Whether it ever did."""
        return self.state != HostState.REGISTERED


@dataclass(frozen=True, slots=True)
class Arrival:
    """A report as it is kept: `digest` is the same while it tells nothing new, `report` is its JSON,
    `metrics` and `summary` that of its metrics and key facts; `identity` is the host's from now on."""

    uuid: str
    hostname: str
    boot_id: str
    sequence: int
    agent_version: str
    facts: int
    traits: int
    digest: str
    report: str
    metrics: str = "{}"
    summary: str = "{}"
    identity: str | None = None


def standing(connection: Connection, uuid: str) -> Standing | None:
    """None for a host that never reported."""
    row = connection.execute(_FIND, {"host": uuid}).one_or_none()
    return Standing(*row) if row else None


def is_over(connection: Connection, uuid: str, boot_id: str) -> bool:
    """Whether a boot of a host came before the one that it last reported from."""
    return bool(connection.execute(_OVER, {"host": uuid, "boot": boot_id}).scalar())


def touch(connection: Connection, was: Standing, arrival: Arrival, now: int) -> None:
    """Keep a report that tells nothing new. Raises `LostRace`."""
    values = {"new_sequence": arrival.sequence, "now": now, "text": arrival.report, **expected(was)}
    values["measured"] = arrival.metrics
    require_one(connection.execute(_TOUCH, values).rowcount, was)


def put(connection: Connection, was: Standing | None, arrival: Arrival, now: int) -> int:
    """Keep a report that tells something new; answers the host's generation. Raises `LostRace`."""
    values: dict[str, str | int | None] = {f"new_{name}": getattr(arrival, name) for name in _TOLD}
    values |= {"now": now, "now_generation": was.generation + 1 if was else 1}
    if was is None or was.uuid != arrival.uuid:
        connection.execute(_INSERT, {"host": arrival.uuid, "up": HostState.UP.value, **values})
    elif was.state == HostState.UP:
        require_one(connection.execute(_REPLACE, {**values, **expected(was)}).rowcount, was)
    else:
        back = _RETURN if was.reported else _BEGIN
        values["up"] = HostState.UP.value
        require_one(connection.execute(back, {**values, **expected(was)}).rowcount, was)
    if was is not None and was.reported and was.boot_id != arrival.boot_id:
        _retire(connection, was, now)
    return was.generation + 1 if was else 1


def expected(was: Standing) -> dict[str, str | int]:
    return {"host": was.uuid, "was_generation": was.generation, "was_sequence": was.sequence}


def require_one(rows: int, was: Standing) -> None:
    if rows != 1:
        raise LostRace(f"host '{was.uuid}' is no longer of generation {was.generation}")


def _retire(connection: Connection, was: Standing, now: int) -> None:
    connection.execute(insert(BOOTS), {"host": was.uuid, "boot_id": was.boot_id, "ended": now})
    latest = select(BOOTS.c.boot_id).where(BOOTS.c.host == was.uuid)
    kept = latest.order_by(BOOTS.c.ended.desc(), BOOTS.c.boot_id).limit(MAX_BOOTS)
    connection.execute(delete(BOOTS).where(BOOTS.c.host == was.uuid, BOOTS.c.boot_id.not_in(kept)))


def by_state(connection: Connection) -> dict[str, int]:
    """How many hosts are in which state."""
    counted = connection.execute(select(HOSTS.c.state, func.count().label("number")).group_by(HOSTS.c.state))
    return {each.state: each.number for each in counted}


def resolve(connection: Connection, host: str) -> Standing:
    """The host of a UUID or a name. Raises `NotFound`; `InvalidArguments` where several have the name."""
    if not storable(host):
        raise NotFound(f"no host '{host}' has reported", host=host)
    found = standing(connection, host)
    if found:
        return found
    query = select(HOSTS.c.uuid).where(HOSTS.c.hostname == host).order_by(HOSTS.c.uuid).limit(MAX_NAMED + 1)
    uuids = connection.execute(query).scalars().all()
    if not uuids:
        raise NotFound(f"no host '{host}' has reported", host=host)
    if len(uuids) > 1:
        listed = ", ".join(uuids[:MAX_NAMED]) + (", ..." if len(uuids) > MAX_NAMED else "")
        raise InvalidArguments(
            f"host: '{host}' is the name of several hosts, say which: {listed}", argument="host"
        )
    (uuid,) = uuids
    again = standing(connection, uuid)
    if again is None:
        raise NotFound(f"no host '{host}' has reported", host=host)
    return again


def report_text(connection: Connection, uuid: str) -> str:
    """The JSON of a host's last report."""
    text: str = connection.execute(select(HOSTS.c.report).where(HOSTS.c.uuid == uuid)).scalar_one()
    return text


def uuids(connection: Connection) -> Sequence[str]:
    """Every host."""
    return connection.execute(select(HOSTS.c.uuid).order_by(HOSTS.c.uuid)).scalars().all()


def listing(connection: Connection, after: str = "", limit: int = 0) -> list[FleetHost]:
    """The inventory, by host name and UUID: at most `limit` of them, or all, from behind the host that has
    the UUID `after`. Raises `NotFound` where there is none such."""
    query = select(*_SHOWN).order_by(HOSTS.c.hostname, HOSTS.c.uuid)
    if after:
        last = standing(connection, after)
        if last is None:
            raise NotFound(f"there is no host '{after}' any more to go on from, begin again", host=after)
        query = query.where(tuple_(HOSTS.c.hostname, HOSTS.c.uuid) > tuple_(last.hostname, last.uuid))
    rows = connection.execute(query.limit(limit) if limit else query).all()
    return _fleet_hosts(connection, rows, whole=not (after or limit))


def show(connection: Connection, uuid: str) -> FleetHost:
    """One host of the inventory."""
    rows = connection.execute(select(*_SHOWN).where(HOSTS.c.uuid == uuid)).all()
    if not rows:
        raise NotFound(f"no host '{uuid}' has reported", host=uuid)
    return _fleet_hosts(connection, rows, whole=False)[0]


_SHOWN = (
    *(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.boot_id, HOSTS.c.sequence, HOSTS.c.generation),
    *(HOSTS.c.first_seen, HOSTS.c.last_seen, HOSTS.c.agent_version, HOSTS.c.facts, HOSTS.c.traits),
    *(HOSTS.c.state, HOSTS.c.identity, HOSTS.c.summary),
)
_PLACES = (
    select(MEMBERS.c.host, AGGREGATES.c.name, VALUES.c.value)
    .join(AGGREGATES, AGGREGATES.c.id == MEMBERS.c.aggregate)
    .outerjoin(VALUES, (VALUES.c.aggregate == AGGREGATES.c.id) & (VALUES.c.key == ZONE_KEY))
    .order_by(AGGREGATES.c.name)
)


def _fleet_hosts(connection: Connection, rows: Sequence[Any], *, whole: bool) -> list[FleetHost]:
    places: dict[str, list[str]] = {}
    zones: dict[str, str] = {}
    for start in range(0, len(rows), len(rows) if whole else AT_ONCE) if rows else ():
        some = [row.uuid for row in rows[start : start + AT_ONCE]]
        query = _PLACES if whole else _PLACES.where(MEMBERS.c.host.in_(some))
        for host, name, zone in connection.execute(query):
            places.setdefault(host, []).append(name)
            if zone is not None:
                zones[host] = zone
    default = default_zone(connection)
    return [_fleet_host(row, places.get(row.uuid, []), zones.get(row.uuid, default)) for row in rows]


def _fleet_host(row: Row[Any], aggregates: list[str], zone: str) -> FleetHost:
    told = row._asdict()
    told |= {"state": HostState(row.state), "summary": json.loads(row.summary), "zone": zone}
    return FleetHost(**told, aggregates=aggregates)


def count(connection: Connection) -> int:
    """How many hosts there are."""
    return connection.execute(select(func.count()).select_from(HOSTS)).scalar_one()
