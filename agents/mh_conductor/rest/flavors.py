"""`/flavors`, by their ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from libmh.errors import InvalidArguments, NotFound
from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.faults import Fault
from mh_conductor.rest.paging import page
from mh_conductor.rest.schemas import NO, YES

PATH = "/flavors"
DESCRIBED, WITH_SPECS, SWAP_NUMBER, LEAN, BY_NAME = 55, 61, 75, 102, 102
MAX_SHOWN = 255
Plain = Mapping[str, Any]
KEYS: Mapping[str, Callable[[Plain], Any]] = {
    "created_at": lambda each: each["created"],
    "description": lambda each: each.get("description") or "",
    "disabled": lambda _each: False,
    "ephemeral_gb": lambda each: each["ephemeral"],
    "flavorid": lambda each: each["id"],
    "id": lambda each: each["created"],
    "is_public": lambda each: each["public"],
    "memory_mb": lambda each: each["ram"],
    "name": lambda each: each["name"],
    "root_gb": lambda each: each["disk"],
    "rxtx_factor": lambda each: each["rxtx_factor"],
    "swap": lambda each: each["swap"],
    "updated_at": lambda each: each["updated"],
    "vcpu_weight": lambda _each: 0,
    "vcpus": lambda each: each["vcpus"],
}


def brief(flavor: Plain, exchange: Exchange) -> dict[str, Any]:
    """A flavor as clients see it in a list."""
    at = f"{PATH}/{flavor['id']}"
    links = [
        {"rel": "self", "href": exchange.base + at},
        {"rel": "bookmark", "href": exchange.base.rpartition("/")[0] + at},
    ]
    found = {"id": flavor["id"], "name": flavor["name"], "links": links}
    return found | {"description": flavor.get("description")} if exchange.version >= DESCRIBED else found


def whole(flavor: Plain, exchange: Exchange) -> dict[str, Any]:
    """Everything that Nova tells of a flavor."""
    found = brief(flavor, exchange) | {
        "ram": flavor["ram"],
        "disk": flavor["disk"],
        "swap": flavor["swap"] or (0 if exchange.version >= SWAP_NUMBER else ""),
        "OS-FLV-EXT-DATA:ephemeral": flavor["ephemeral"],
        "vcpus": flavor["vcpus"],
        "os-flavor-access:is_public": flavor["public"],
    }
    if exchange.version >= WITH_SPECS:
        found["extra_specs"] = flavor["extra_specs"]
    if exchange.version < LEAN:
        found |= {"OS-FLV-DISABLED:disabled": False, "rxtx_factor": flavor["rxtx_factor"] or ""}
    return found


async def index(exchange: Exchange) -> Any:
    return await _list(exchange, brief, PATH)


async def detail(exchange: Exchange) -> Any:
    return await _list(exchange, whole, f"{PATH}/detail")


async def _list(exchange: Exchange, told: Callable[[Plain, Exchange], dict[str, Any]], path: str) -> Any:
    wanted = _filters(exchange)
    every: list[Plain] = await exchange.fleet.ask("flavors")
    key = KEYS[exchange.last("sort_key") or "flavorid"]
    turned = exchange.last("sort_dir") == "desc"
    ordered = sorted(every, key=lambda each: (key(each), each["created"]), reverse=turned)
    some, links = page(exchange, [each for each in ordered if all(fits(each) for fits in wanted)], _id, path)
    found: dict[str, Any] = {"flavors": [told(each, exchange) for each in some]}
    return found | {"flavors_links": links} if links else found


def _id(flavor: Plain) -> str:
    return str(flavor["id"])


def _filters(exchange: Exchange) -> Sequence[Callable[[Plain], bool]]:
    """What a flavor has to be to be listed."""
    public = _public(exchange.last("is_public"))
    ram, disk = (_least(exchange, name) for name in ("minRam", "minDisk"))
    name = exchange.last("name") if exchange.version >= BY_NAME else None
    return (
        lambda each: public is None or each["public"] == public,
        lambda each: each["ram"] >= ram,
        lambda each: each["disk"] >= disk,
        lambda each: name is None or each["name"] == name,
    )


def _public(text: str | None) -> bool | None:
    """Whether those are wanted that all may see; None for all."""
    word = "true" if text is None else text.strip().lower()
    if word == "none":
        return None
    if word not in YES | NO:
        raise Fault(400, f"Invalid is_public filter [{(text or '')[:MAX_SHOWN]}]")
    return word in YES


def _least(exchange: Exchange, name: str) -> int:
    text = exchange.last(name)
    try:
        return 0 if text is None else int(text[:MAX_SHOWN])
    except ValueError:
        raise Fault(400, f"Invalid {name} filter [{(text or '')[:MAX_SHOWN]}]") from None


async def create(exchange: Exchange) -> Any:
    wanted = exchange.body["flavor"]
    made = await exchange.fleet.ask(
        "create_flavor",
        name=wanted["name"],
        vcpus=int(wanted["vcpus"]),
        ram=int(wanted["ram"]),
        disk=int(wanted["disk"]),
        id=str(wanted.get("id") or ""),
        description=wanted.get("description"),
        ephemeral=int(wanted.get("OS-FLV-EXT-DATA:ephemeral", 0)),
        swap=int(wanted.get("swap", 0)),
        public=str(wanted.get("os-flavor-access:is_public", True)).lower() in YES,
        rxtx_factor=float(wanted.get("rxtx_factor", 1.0)),
    )
    return {"flavor": whole(made, exchange)}


async def show(exchange: Exchange) -> Any:
    return {"flavor": whole(await find(exchange), exchange)}


async def update(exchange: Exchange) -> Any:
    found = await find(exchange)
    described = exchange.body["flavor"]["description"]
    changed = await exchange.fleet.ask("describe_flavor", name=found["id"], description=described)
    return {"flavor": whole(changed, exchange)}


async def delete(exchange: Exchange) -> None:
    found = await find(exchange)
    await exchange.fleet.ask("delete_flavor", name=found["id"])


async def access(exchange: Exchange) -> Any:
    """Projects are not told apart here: nobody is on the list of a flavor that is not public."""
    if (await find(exchange))["public"]:
        raise Fault(404, "Access list not available for public flavors.")
    return {"flavor_access": []}


async def find(exchange: Exchange) -> Plain:
    """The flavor whose id the path has. Raises `Fault`."""
    wanted = exchange.path["flavor"]
    missing = Fault(404, f"Flavor {wanted[:MAX_SHOWN]} could not be found.")
    try:
        found: Plain = await exchange.fleet.ask("flavor", name=wanted)
    except (NotFound, InvalidArguments):  # what no name can be is no flavor's id
        raise missing from None
    if found["id"] != wanted:  # it is another one's name
        raise missing
    return found


_LISTED = (
    Since(102, schemas.LIST_FLAVORS_102),
    Since(75, schemas.LIST_FLAVORS_75),
    Since(0, schemas.LIST_FLAVORS),
)
_CREATED = (
    Since(102, schemas.CREATE_FLAVOR_102),
    Since(55, schemas.CREATE_FLAVOR_55),
    Since(0, schemas.CREATE_FLAVOR),
)
_STRICT = (Since(102, schemas.NO_QUERY), Since(0, schemas.ANY_QUERY))
OPERATIONS = (
    Operation("GET", PATH, index, query=_LISTED),
    Operation("POST", PATH, create, body=_CREATED),
    Operation("GET", f"{PATH}/detail", detail, query=_LISTED),
    Operation("GET", PATH + "/{flavor}", show, query=_STRICT),
    Operation(
        "PUT",
        PATH + "/{flavor}",
        update,
        body=(Since(0, schemas.UPDATE_FLAVOR),),
        versions=(DESCRIBED, 10_000),
    ),
    Operation("DELETE", PATH + "/{flavor}", delete, 202),
    Operation("GET", PATH + "/{flavor}/os-flavor-access", access, query=_STRICT),
)
