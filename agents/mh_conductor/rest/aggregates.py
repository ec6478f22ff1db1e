"""`/os-aggregates`: an aggregate's id is its number here; calls of `Aggregates` name it by its UUID."""

from collections.abc import Mapping
from typing import Any

from libmh.errors import NotFound, Problem
from mh_conductor.limits import ZONE_KEY
from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.faults import Fault, fault_of
from mh_conductor.rest.times import written
from mh_conductor.rest.validation import check_body

PATH = "/os-aggregates"
WITH_UUID = 41
MAX_DIGITS = 18
MAX_SHOWN = 200
META = "Cannot update metadata of aggregate"
Plain = Mapping[str, Any]


def shown(aggregate: Plain, version: int) -> dict[str, Any]:
    """An aggregate as clients see it."""
    changed = aggregate["generation"] > 1
    found = {
        "id": aggregate["id"],
        "name": aggregate["name"],
        "hosts": aggregate["hosts"],
        "metadata": aggregate["metadata"],
        "availability_zone": aggregate["metadata"].get(ZONE_KEY),
        "created_at": written(aggregate["created"]),
        "updated_at": written(aggregate["updated"]) if changed else None,
        "deleted": False,
        "deleted_at": None,
    }
    return found | {"uuid": aggregate["uuid"]} if version >= WITH_UUID else found


async def index(exchange: Exchange) -> Any:
    every = await exchange.fleet.ask("list")
    by_id = sorted(every, key=lambda each: int(each["id"]))
    return {"aggregates": [shown(each, exchange.version) for each in by_id]}


async def create(exchange: Exchange) -> Any:
    wanted = exchange.body["aggregate"]
    made = await exchange.fleet.ask("create", name=wanted["name"], zone=wanted.get(ZONE_KEY) or "")
    found = shown(made, exchange.version)
    return {"aggregate": {name: value for name, value in found.items() if name not in ("hosts", "metadata")}}


async def show(exchange: Exchange) -> Any:
    return _answer(exchange, await _find(exchange))


async def update(exchange: Exchange) -> Any:
    wanted = exchange.body["aggregate"]
    found = await _find(exchange)
    name = wanted.get("name", "").strip()
    if ZONE_KEY in wanted and not wanted[ZONE_KEY]:
        # a zone that is there cannot be taken away; Nova says so of one that is not there, too
        reason = f"Aggregate {name or found['name']} does not support empty named availability zone"
        raise Fault(400, f"Cannot update aggregate {found['id']}. Reason: {reason}.")
    changed = await _change(exchange, found, "update", new_name=name, zone=wanted.get(ZONE_KEY, ""))
    return _answer(exchange, changed)


async def delete(exchange: Exchange) -> None:
    await _change(exchange, await _find(exchange), "delete")


async def act(exchange: Exchange) -> Any:
    """One of the actions, by the only key of the body."""
    body = exchange.body
    if not isinstance(body, dict) or len(body) != 1:
        raise Fault(400, "Malformed request body")
    action = next(iter(body))
    if action not in schemas.ACTIONS:
        raise Fault(400, f"There is no such action: {action[:MAX_SHOWN]}")
    check_body(schemas.ACTIONS[action], body)
    return _answer(exchange, await ACTIONS[action](exchange, body[action]))


async def _add_host(exchange: Exchange, wanted: Plain) -> Plain:
    return await _change(exchange, await _find(exchange), "add_host", host=wanted["host"])


async def _remove_host(exchange: Exchange, wanted: Plain) -> Plain:
    host = wanted["host"]
    try:
        return await _change(exchange, await _find(exchange), "remove_host", host=host)
    except (NotFound, Fault) as error:
        if isinstance(error, Fault) and error.status != 404:
            raise
        raise Fault(404, f"Cannot remove host {host} in aggregate {exchange.path['id']}") from error


async def _set_metadata(exchange: Exchange, wanted: Plain) -> Plain:
    values = wanted["metadata"]
    found = await _find(exchange)
    if ZONE_KEY in values and not values[ZONE_KEY]:
        reason = f"Aggregate {found['name']} does not support empty named availability zone"
        raise Fault(400, f"{META} {found['id']}. Reason: {reason}.")
    kept = {key: value for key, value in values.items() if value is not None}
    gone = [key for key, value in values.items() if value is None]
    return await _change(exchange, found, "set_metadata", metadata=kept, remove=gone)


ACTIONS = {"add_host": _add_host, "remove_host": _remove_host, "set_metadata": _set_metadata}


def _answer(exchange: Exchange, aggregate: Plain) -> Any:
    return {"aggregate": shown(aggregate, exchange.version)}


async def _find(exchange: Exchange) -> Plain:
    """The aggregate whose number the path has. Raises `Fault`."""
    text = exchange.path["id"]
    number = _number(text)
    try:
        found: Plain = await exchange.fleet.ask("show", name=str(number))
        if found["id"] == number:
            return found
    except NotFound:
        raise _missing(text) from None
    # another one has this for its name
    for each in await exchange.fleet.ask("list"):
        if each["id"] == number:
            other: Plain = each
            return other
    raise _missing(text)


def _number(text: str) -> int:
    stripped = text.strip()
    if not (stripped.removeprefix("-").isascii() and stripped.removeprefix("-").isdigit()):
        raise Fault(400, "Invalid input received: id must be an integer")
    if stripped.startswith("-") or len(stripped) > MAX_DIGITS:
        raise _missing(text)
    return int(stripped)


def _missing(text: str) -> Fault:
    return Fault(404, f"Aggregate {text[:MAX_SHOWN]} could not be found.")


async def _change(exchange: Exchange, found: Plain, member: str, **arguments: Any) -> Plain:
    """Call a member for an aggregate; what it says of the UUID is said of the number."""
    try:
        answer: Plain = await exchange.fleet.ask(member, name=found["uuid"], **arguments)
    except Problem as problem:
        fault = fault_of(problem)
        raise Fault(fault.status, fault.message.replace(found["uuid"], str(found["id"]))) from problem
    return answer


_STRICT = (Since(102, schemas.NO_QUERY), Since(0, schemas.ANY_QUERY))
OPERATIONS = (
    Operation("GET", PATH, index, query=_STRICT),
    Operation("POST", PATH, create, body=(Since(0, schemas.CREATE_AGGREGATE),)),
    Operation("GET", PATH + "/{id}", show, query=_STRICT),
    Operation("PUT", PATH + "/{id}", update, body=(Since(0, schemas.UPDATE_AGGREGATE),)),
    Operation("DELETE", PATH + "/{id}", delete),
    Operation("POST", PATH + "/{id}/action", act),
)
