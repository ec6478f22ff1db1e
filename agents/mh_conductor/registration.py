"""Hosts ahead of their first report, and hosts that are forgotten.

A host that is registered by its name alone has a UUID that is made up of that name; the first report from a
host of the name takes over its places. One that is registered with its UUID waits for that very host.
"""

import json
import uuid as uuids

from sqlalchemy import Connection, delete, insert, select, update

from libmh.api.aggregates import FleetHost, HostState
from libmh.capability import SCHEMA
from libmh.errors import Conflict
from mh_conductor import hosts, registry
from mh_conductor.hosts import Standing
from mh_conductor.plan import Change, Kind, Plan
from mh_conductor.registry import Done
from mh_conductor.report_check import check_host
from mh_conductor.store import alone
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS

NAMES = uuids.UUID("0d9a4f7e-2c0b-5e37-9d3c-6f1a60f2b8d1")
"""Of the UUIDs that are made up of host names (RFC 9562, version 5)."""


def made_up(hostname: str) -> str:
    """The UUID of a host that is registered by its name alone, until it reports."""
    return str(uuids.uuid5(NAMES, hostname.lower()))


def awaited(connection: Connection, hostname: str) -> Standing | None:
    """The host that was registered by this name alone and has not reported yet; its row stays as it is until
    the transaction ends."""
    uuid = made_up(hostname)
    locked = select(HOSTS.c.uuid).where(HOSTS.c.uuid == uuid).with_for_update()
    if connection.execute(locked).scalar() is None:
        return None
    found = hosts.standing(connection, uuid)
    return None if found is None or found.reported else found


def succeed(connection: Connection, old: str, new: str) -> None:
    """Give a host's places to another one, and drop it."""
    connection.execute(update(MEMBERS).where(MEMBERS.c.host == old).values(host=new))
    connection.execute(delete(HOSTS).where(HOSTS.c.uuid == old))


def stamp_places(connection: Connection, uuid: str, stamp: int) -> None:
    """Tell who keeps a copy of a host's aggregates to read them again."""
    places = select(MEMBERS.c.aggregate).where(MEMBERS.c.host == uuid)
    connection.execute(update(AGGREGATES).where(AGGREGATES.c.id.in_(places)).values(stamp=stamp))


def register(
    connection: Connection, hostname: str, uuid: str, identity: str | None, now: int, who: str
) -> FleetHost:
    """Make a host known; of one that is known by this name and UUID, only say who may report for it. Raises
    `Conflict` where another host has the name or the UUID."""
    check_host(hostname, uuid, identity or "")
    alone(connection)  # another may register the name with another UUID
    key = uuid or made_up(hostname)
    was = _known(connection, hostname, uuid)
    if was is None:
        _insert(connection, hostname, key, identity, now)
    elif identity is None or was.identity == identity:
        raise Conflict(f"host '{hostname}' is known already")
    else:
        key = was.uuid
        values = {"identity": identity, "generation": was.generation + 1}
        done = connection.execute(hosts.REPLACE.values(values), hosts.expected(was))
        hosts.require_one(done.rowcount, was)
    said = "was registered" if was is None else "may be reported for by another identity"
    line = {"aggregate": "", "change": "registered", "host": hostname, "why": f"{hostname} {said}"}
    registry.record(connection, [line], now, who)
    registry.advance(connection, 1, hosts=(key,))
    return hosts.show(connection, key)


def _known(connection: Connection, hostname: str, uuid: str) -> Standing | None:
    by_uuid = hosts.standing(connection, uuid) if uuid else None
    if by_uuid is not None and by_uuid.hostname != hostname:
        raise Conflict(f"the UUID '{uuid}' is that of host '{by_uuid.hostname}'")
    if by_uuid is not None:
        return by_uuid
    named = select(HOSTS.c.uuid).where(HOSTS.c.hostname == hostname).order_by(HOSTS.c.uuid).limit(1)
    other = connection.execute(named).scalar()
    if other is not None and uuid:
        raise Conflict(f"host '{hostname}' is known already, with the UUID '{other}'")
    return hosts.standing(connection, other) if other is not None else None


def _insert(connection: Connection, hostname: str, uuid: str, identity: str | None, now: int) -> None:
    # as a report that tells nothing: who reads reports need not know of hosts that have not sent any
    nothing = {
        "schema": SCHEMA,
        "uuid": uuid,
        "hostname": hostname,
        "boot_id": "",
        "sequence": 0,
        "generation": 0,
        "created": 0,
        "agent_version": "",
        "facts": {},
        "traits": [],
    }
    row = {
        "uuid": uuid,
        "hostname": hostname,
        "boot_id": "",
        "sequence": 0,
        "generation": 1,
        "first_seen": 0,
        "last_seen": 0,
        "agent_version": "",
        "facts": 0,
        "traits": 0,
        "digest": "",
        "report": json.dumps(nothing),
        "state": HostState.REGISTERED.value,
        "state_since": now,
    }
    connection.execute(insert(HOSTS), {**row, "identity": identity})


def forget(connection: Connection, host: str, now: int, who: str) -> tuple[Standing, list[Done]]:
    """Take a host out of the inventory and of every aggregate. Raises `NotFound`."""
    alone(connection)
    was = hosts.resolve(connection, host)
    seen = registry.view(connection, was.uuid, (), {})
    why = f"{was.hostname} was forgotten by {who}"
    leaving = [
        Change(Kind.HOST_REMOVED, name, membership.owner or "", why, was.hostname)
        for name, membership in sorted(seen.current.memberships.items())
    ]
    done = registry.carry_out(connection, was.uuid, Plan(tuple(leaving)), seen, now)
    connection.execute(delete(HOSTS).where(HOSTS.c.uuid == was.uuid))
    line = {"aggregate": "", "change": "forgotten", "host": was.hostname, "why": why}
    registry.record(connection, [line], now, who)
    registry.advance(connection, 1 + len(done), done=done)
    return was, done
