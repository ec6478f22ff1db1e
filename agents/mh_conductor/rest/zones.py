"""`/os-availability-zone`. A zone is available while a host of it is up."""

from collections.abc import Mapping
from typing import Any

from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.hosts import BINARY, is_up, updated

PATH = "/os-availability-zone"


def _zone(name: str, hosts: Mapping[str, Any] | None, *, available: bool) -> dict[str, Any]:
    return {"zoneName": name, "zoneState": {"available": available}, "hosts": hosts}


def _ordered(zones: list[dict[str, Any]]) -> Any:
    """Those that are available first."""
    return {"availabilityZoneInfo": sorted(zones, key=lambda each: not each["zoneState"]["available"])}


async def index(exchange: Exchange) -> Any:
    told = await exchange.fleet.ask("zones")
    return _ordered(
        [_zone(each["name"], None, available=each["available"]) for each in told if each["hosts"]]
    )


async def detail(exchange: Exchange) -> Any:
    zones: dict[str, dict[str, Any]] = {}
    for host in await exchange.fleet.ask("hosts"):
        up = is_up(host)
        service = {"available": up, "active": True, "updated_at": updated(host)}
        zones.setdefault(host["zone"], {})[host["hostname"]] = {BINARY: service}
    return _ordered(
        [
            _zone(name, hosts, available=any(each[BINARY]["available"] for each in hosts.values()))
            for name, hosts in sorted(zones.items())
        ]
    )


_STRICT = (Since(102, schemas.NO_QUERY), Since(0, schemas.ANY_QUERY))
OPERATIONS = (
    Operation("GET", PATH, index, query=_STRICT),
    Operation("GET", PATH + "/detail", detail, query=_STRICT),
)
