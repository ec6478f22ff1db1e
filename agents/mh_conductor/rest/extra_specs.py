"""`/flavors/{flavor}/os-extra_specs`. Numbers are taken and kept as text."""

from collections.abc import Mapping
from typing import Any

from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.faults import Fault
from mh_conductor.rest.flavors import find

PATH = "/flavors/{flavor}/os-extra_specs"
MAX_SHOWN = 255


async def index(exchange: Exchange) -> Any:
    return {"extra_specs": (await find(exchange))["extra_specs"]}


async def create(exchange: Exchange) -> Any:
    await _merge(exchange, exchange.body["extra_specs"])
    return exchange.body


async def update(exchange: Exchange) -> Any:
    if exchange.path["key"] not in exchange.body:
        raise Fault(400, "Request body and URI mismatch")
    await _merge(exchange, exchange.body)
    return exchange.body


async def show(exchange: Exchange) -> Any:
    found = await find(exchange)
    key = exchange.path["key"]
    if key not in found["extra_specs"]:
        raise _missing(exchange)
    return {key: found["extra_specs"][key]}


async def delete(exchange: Exchange) -> None:
    found = await find(exchange)
    key = exchange.path["key"]
    if key not in found["extra_specs"]:
        raise _missing(exchange)
    await exchange.fleet.ask("set_extra_specs", name=found["id"], extra_specs={}, remove=[key])


async def _merge(exchange: Exchange, values: Mapping[str, Any]) -> None:
    found = await find(exchange)
    texts = {key: str(value) for key, value in values.items()}
    await exchange.fleet.ask("set_extra_specs", name=found["id"], extra_specs=texts)


def _missing(exchange: Exchange) -> Fault:
    flavor, key = (exchange.path[name][:MAX_SHOWN] for name in ("flavor", "key"))
    return Fault(404, f"Flavor {flavor} has no extra specs with key {key}.")


_STRICT = (Since(102, schemas.NO_QUERY), Since(0, schemas.ANY_QUERY))
OPERATIONS = (
    Operation("GET", PATH, index, query=_STRICT),
    Operation("POST", PATH, create, body=(Since(0, schemas.CREATE_SPECS),)),
    Operation("GET", PATH + "/{key}", show, query=_STRICT),
    Operation("PUT", PATH + "/{key}", update, body=(Since(0, schemas.UPDATE_SPEC),)),
    Operation("DELETE", PATH + "/{key}", delete),
)
