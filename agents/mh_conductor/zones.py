"""Availability zones: a zone exists when an aggregate names it and a host is in it; hosts that no aggregate
gives one are in the default zone."""

from collections.abc import Mapping

from sqlalchemy import Connection, select

from libmh.api.aggregates import HostState, Zone
from mh_conductor.limits import ZONE_KEY
from mh_conductor.store import default_zone
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS, VALUES

_PLACES = (
    select(MEMBERS.c.host, VALUES.c.value)
    .join(VALUES, VALUES.c.aggregate == MEMBERS.c.aggregate)
    .where(VALUES.c.key == ZONE_KEY)
    .order_by(VALUES.c.value.desc())
)
_NAMING = (
    select(VALUES.c.value, AGGREGATES.c.name)
    .join(AGGREGATES, AGGREGATES.c.id == VALUES.c.aggregate)
    .where(VALUES.c.key == ZONE_KEY)
)


def zones(connection: Connection) -> list[Zone]:
    """Those that exist, by name."""
    default = default_zone(connection)
    found: dict[str, dict[str, bool]] = {}
    places = by_host(connection)
    for uuid, hostname, state in connection.execute(select(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.state)):
        hosts = found.setdefault(places.get(uuid, default), {})
        hosts[hostname] = state == HostState.UP or hosts.get(hostname, False)
    naming: dict[str, list[str]] = {}
    for zone, aggregate in connection.execute(_NAMING):
        naming.setdefault(zone, []).append(aggregate)
    return [
        Zone(name, any(hosts.values()), dict(sorted(hosts.items())), sorted(naming.get(name, [])))
        for name, hosts in sorted(found.items())
    ]


def by_host(connection: Connection) -> Mapping[str, str]:
    """The zones of those hosts, by UUID, that an aggregate gives one."""
    return {each.host: each.value for each in connection.execute(_PLACES)}
