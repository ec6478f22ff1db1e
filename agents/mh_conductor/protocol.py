"""Which programs may work on one store side by side: the version, `major.minor`, of what they write there.

A program of the same major version works beside the others, whoever is newer: a minor version only adds
tables and columns that the older ones leave alone. One of an older major version is refused. One of a newer
major version takes the store over when no process of the older is alive any more.
"""

import re

from sqlalchemy import ColumnElement, Connection, inspect, select, update

from libmh.errors import BackendFailed
from mh_conductor import clock
from mh_conductor.tables import FLEET, WORKERS

PROTOCOL = "1.0"
ALIVE_SECONDS = 30
SECOND = 10**9
VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")


def admit(connection: Connection, ours: str = PROTOCOL) -> None:
    """Raises `BackendFailed` where a program of protocol `ours` may not work on the store now."""
    theirs = of(connection)
    if theirs is None or major(theirs) == major(ours):
        return
    if major(ours) < major(theirs):
        raise BackendFailed(
            f"the store is of protocol {theirs}, and this program speaks {ours}: it needs a newer version"
        )
    alive = _alive(connection)
    if alive:
        raise BackendFailed(
            f"the store is of protocol {theirs}, and this program speaks {ours}: "
            f"{len(alive)} processes work there by {theirs}, stop them first ({', '.join(alive[:3])})"
        )


class Displaced(BackendFailed):
    """Programs have taken the store over beside which this one cannot work."""


def stay(connection: Connection, ours: str = PROTOCOL) -> None:
    """Raises `Displaced` where a running program of protocol `ours` may not go on."""
    theirs = current(connection)
    if major(theirs) != major(ours):
        raise Displaced(f"the store has become one of protocol {theirs}, and this program speaks {ours}")


def mark(connection: Connection, ours: str = PROTOCOL) -> None:
    """Write down that a program of protocol `ours` works here from now on; the highest stays."""
    theirs = of(connection)
    if theirs is None or _number(ours) > _number(theirs):
        connection.execute(update(FLEET).values(protocol=ours))


def of(connection: Connection) -> str | None:
    """A store's protocol; None for one that is not made yet, or was before there were protocols."""
    found = inspect(connection)
    if not found.has_table(FLEET.name):
        return None
    if FLEET.c.protocol.name not in {each["name"] for each in found.get_columns(FLEET.name)}:
        return None
    return current(connection)


def current(connection: Connection) -> str:
    """The protocol of a store that has one."""
    said: str = connection.execute(select(FLEET.c.protocol)).scalar_one()
    return said


def major(version: str) -> int:
    return _number(version)[0]


def _number(version: str) -> tuple[int, int]:
    found = VERSION.fullmatch(version)
    if found is None:
        raise BackendFailed(f"the store's protocol '{version[:20]}' is not of the form major.minor")
    return int(found[1]), int(found[2])


def living(connection: Connection) -> ColumnElement[bool]:
    """Of `WORKERS`: those that told lately that they live. What was told in the future was so before the
    store's clock was set back."""
    now, lately = clock.now(connection), ALIVE_SECONDS * SECOND
    return WORKERS.c.last_seen.between(now - lately, now + lately)


def _alive(connection: Connection) -> list[str]:
    query = select(WORKERS.c.id).where(living(connection)).order_by(WORKERS.c.id)
    return list(connection.execute(query).scalars())
