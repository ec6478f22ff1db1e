"""Reading aggregates for people and peers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from libmh.api.aggregates import Aggregate
from libmh.errors import NotFound
from mh_conductor.limits import ZONE_KEY, storable
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS, VALUES

MAX_ID_DIGITS = 18


def listing(connection: Connection) -> list[Aggregate]:
    """All aggregates, by name."""
    rows = connection.execute(select(AGGREGATES).order_by(AGGREGATES.c.name)).all()
    return _aggregates(connection, rows, None)


def find(connection: Connection, which: str | int) -> Aggregate:
    """By UUID, its identity, by name or by id, in this order; a number is an id. Raises `NotFound`."""
    row = locate(connection, which)
    return _aggregates(connection, [row], row.id)[0]


def locate(connection: Connection, which: str | int) -> Row[Any]:
    """The row of an aggregate, as `find`."""
    for condition in _meant(which):
        row = connection.execute(select(AGGREGATES).where(condition)).one_or_none()
        if row is not None:
            return row
    raise NotFound(f"Aggregate {which} could not be found.", aggregate=str(which))


def _meant(which: str | int) -> Iterator[ColumnElement[bool]]:
    if isinstance(which, str):
        if storable(which):
            yield from (AGGREGATES.c.uuid == which, AGGREGATES.c.name == which)
        if not (which.isascii() and which.isdigit() and len(which) <= MAX_ID_DIGITS):
            return
    if 0 < int(which) < 10**MAX_ID_DIGITS:
        yield AGGREGATES.c.id == int(which)


def zone(connection: Connection, aggregate: int) -> str | None:
    """The availability zone that an aggregate names."""
    query = select(VALUES.c.value).where(VALUES.c.aggregate == aggregate, VALUES.c.key == ZONE_KEY)
    return connection.execute(query).scalar_one_or_none()


def binding(connection: Connection, name: str) -> dict[str, str]:
    """The facts in an aggregate's name."""
    text = connection.execute(select(AGGREGATES.c.binding).where(AGGREGATES.c.name == name)).scalar_one()
    facts: dict[str, str] = json.loads(text)
    return facts


def membership(connection: Connection, host: str, name: str) -> tuple[str | None, str] | None:
    """(the rule that added the host or None, its evidence as text); None for a host that is no member."""
    query = (
        select(MEMBERS.c.owner, MEMBERS.c.evidence)
        .join(AGGREGATES, AGGREGATES.c.id == MEMBERS.c.aggregate)
        .where(MEMBERS.c.host == host, AGGREGATES.c.name == name)
    )
    row = connection.execute(query).one_or_none()
    return (row.owner, row.evidence) if row else None


def _aggregates(connection: Connection, rows: Sequence[Row[Any]], only: int | None) -> list[Aggregate]:
    members, metadata = _members(connection, only), _metadata(connection, only)
    return [_aggregate(row, members.get(row.id, []), metadata.get(row.id, {})) for row in rows]


def _aggregate(row: Row[Any], members: list[str], metadata: dict[str, str]) -> Aggregate:
    return Aggregate(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        hosts=members,
        metadata=metadata,
        created=row.created,
        updated=row.updated,
        generation=row.generation,
        availability_zone=metadata.get(ZONE_KEY),
        owner=row.owner,
    )


def _members(connection: Connection, only: int | None) -> Mapping[int, list[str]]:
    query = (
        select(MEMBERS.c.aggregate, HOSTS.c.hostname)
        .join(HOSTS, HOSTS.c.uuid == MEMBERS.c.host)
        .order_by(HOSTS.c.hostname)
    )
    if only is not None:
        query = query.where(MEMBERS.c.aggregate == only)
    members: dict[int, list[str]] = {}
    for aggregate, hostname in connection.execute(query):
        members.setdefault(aggregate, []).append(hostname)
    return members


def _metadata(connection: Connection, only: int | None) -> Mapping[int, dict[str, str]]:
    query = select(VALUES.c.aggregate, VALUES.c.key, VALUES.c.value).order_by(VALUES.c.key)
    if only is not None:
        query = query.where(VALUES.c.aggregate == only)
    metadata: dict[int, dict[str, str]] = {}
    for aggregate, key, value in connection.execute(query):
        metadata.setdefault(aggregate, {})[key] = value
    return metadata
