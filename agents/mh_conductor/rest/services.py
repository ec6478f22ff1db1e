"""`/os-services`: each host is a compute service; none can be disabled here."""

from typing import Any

from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.hosts import BINARY, Host, is_up, service_id, updated

FORCED_DOWN = 11


def shown(host: Host, version: int) -> dict[str, Any]:
    """A host's service as clients see it."""
    found = {
        "binary": BINARY,
        "host": host["hostname"],
        "id": service_id(host, version),
        "zone": host["zone"],
        "status": "enabled",
        "state": "up" if is_up(host) else "down",
        "updated_at": updated(host),
        "disabled_reason": None,
    }
    return found | {"forced_down": False} if version >= FORCED_DOWN else found


async def index(exchange: Exchange) -> Any:
    if (exchange.last("binary") or BINARY) != BINARY:
        return {"services": []}
    wanted = exchange.last("host")
    hosts = await exchange.fleet.ask("hosts")
    return {
        "services": [
            shown(each, exchange.version) for each in hosts if not wanted or each["hostname"] == wanted
        ]
    }


OPERATIONS = (
    Operation(
        "GET",
        "/os-services",
        index,
        query=(Since(75, schemas.LIST_SERVICES_75), Since(0, schemas.LIST_SERVICES)),
    ),
)
