"""What calls of `Aggregates` act on, by the names that a policy's rules are written for: whoever gives an id
or a UUID means the same thing."""

from collections.abc import Mapping

from sqlalchemy import Connection

from libmh.errors import NotFound
from mh_conductor import catalogue, flavors, hosts

FLAVORS = frozenset({"flavor", "describe_flavor", "set_extra_specs", "delete_flavor"})
NEW = frozenset({"create", "create_flavor"})


def canonical(connection: Connection, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
    """See `libmh.call.Naming`."""
    return {name: _called(connection, member, name, value) for name, value in objects.items()}


def _called(connection: Connection, member: str, name: str, value: str) -> str:
    try:
        if name == "host" and value:
            return hosts.resolve(connection, value).hostname
        if name == "name" and member in FLAVORS:
            return flavors.find(connection, value).name
        if name == "name" and value and member not in NEW:
            return str(catalogue.locate(connection, value).name)
    except NotFound:
        return value  # whatever it is called, it is not here
    return value
