"""What may be sent, as JSON schemas: those of nova.api.openstack.compute.schemas (Nova 34), keywords in the
same order, since the first that fails is the one that is told.

Nova's `name` formats are ours under the same or a shorter name; where Nova has a regular expression of all
printable characters, here is the format `printable`.
"""

from collections.abc import Mapping
from typing import Any

from mh_conductor.limits import MAX_INT

Json = dict[str, Any]
KEY = "^[a-zA-Z0-9-_:. ]{1,255}$"


def only(required: tuple[str, ...] = (), **properties: Json) -> Json:
    """An object with these properties and no others."""
    found: Json = {"type": "object", "properties": properties}
    if required:
        found["required"] = list(required)
    return {**found, "additionalProperties": False}


def texts(kind: Json) -> Json:
    """The values of a parameter, which may be there several times."""
    return {"type": "array", "items": kind}


def open_query(**properties: Json) -> Json:
    """Parameters that are not known do no harm."""
    return {"type": "object", "properties": properties, "additionalProperties": True}


def strict_query(**properties: Json) -> Json:
    return {**open_query(**properties), "additionalProperties": False}


def _once(kind: Json) -> Json:
    return {**texts(kind), "maxItems": 1}


def _whole(least: int) -> Json:
    return {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": least, "maximum": MAX_INT}


def _values(*types: str) -> Json:
    kind: Any = types[0] if len(types) == 1 else list(types)
    return {
        "type": "object",
        "patternProperties": {KEY: {"type": kind, "maxLength": 255}},
        "additionalProperties": False,
    }


TEXT: Json = {"type": "string"}
NAME: Json = {"type": "string", "format": "name", "minLength": 1, "maxLength": 255}
LOOSE_NAME: Json = {**NAME, "format": "loose-name"}
ZONE: Json = {"oneOf": [{**NAME, "format": "az_name"}, {"type": "null"}]}
HOST: Json = {"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255}
BOOLEAN: Json = {
    "type": ["boolean", "string"],
    "enum": [
        *(True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"),
        *(False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"),
    ],
}
YES = frozenset({"1", "t", "true", "on", "y", "yes"})
NO = frozenset({"0", "f", "false", "off", "n", "no"})
COUNT: Json = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0, "minLength": 1}

ANY_QUERY, NO_QUERY = open_query(), strict_query()

CREATE_AGGREGATE = only(("aggregate",), aggregate=only(("name",), name=NAME, availability_zone=ZONE))
UPDATE_AGGREGATE = only(
    ("aggregate",),
    aggregate={
        **only(name=LOOSE_NAME, availability_zone=ZONE),
        "anyOf": [{"required": ["name"]}, {"required": ["availability_zone"]}],
    },
)
ACTIONS: Mapping[str, Json] = {
    "add_host": only(("add_host",), add_host=only(("host",), host=HOST)),
    "remove_host": only(("remove_host",), remove_host=only(("host",), host=HOST)),
    "set_metadata": only(
        ("set_metadata",), set_metadata=only(("metadata",), metadata=_values("string", "null"))
    ),
}

DESCRIPTION: Json = {"type": ["string", "null"], "minLength": 0, "maxLength": 65535, "format": "printable"}
_FLAVOR: Json = {
    "name": NAME,
    "id": {
        "type": ["string", "number", "null"],
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^(?! )[a-zA-Z0-9. _-]+(?<! )$",
    },
    "ram": _whole(1),
    "vcpus": _whole(1),
    "disk": _whole(0),
    "OS-FLV-EXT-DATA:ephemeral": _whole(0),
    "swap": _whole(0),
    "rxtx_factor": {
        "type": ["number", "string"],
        "pattern": r"^[0-9]+(\.[0-9]+)?$",
        "exclusiveMinimum": 0,
        "maximum": 3.40282e38,
    },
    "os-flavor-access:is_public": BOOLEAN,
}
_DESCRIBED: Json = {**_FLAVOR, "description": DESCRIPTION}
_LEAN: Json = {name: kind for name, kind in _DESCRIBED.items() if name != "rxtx_factor"}


def _flavor(properties: Json) -> Json:
    return only(("flavor",), flavor=only(("name", "ram", "vcpus", "disk"), **properties))


CREATE_FLAVOR, CREATE_FLAVOR_55, CREATE_FLAVOR_102 = map(_flavor, (_FLAVOR, _DESCRIBED, _LEAN))
UPDATE_FLAVOR = only(("flavor",), flavor=only(("description",), description=DESCRIPTION))
SORT_KEYS = (
    *("created_at", "description", "disabled", "ephemeral_gb", "flavorid", "id", "is_public", "memory_mb"),
    *("name", "root_gb", "rxtx_factor", "swap", "updated_at", "vcpu_weight", "vcpus"),
)
_PAGE: Json = {"limit": texts(COUNT), "marker": texts(TEXT)}
_FILTERS: Json = {
    **_PAGE,
    "is_public": texts(TEXT),
    "minRam": texts(TEXT),
    "minDisk": texts(TEXT),
    "sort_key": texts({"type": "string", "enum": list(SORT_KEYS)}),
    "sort_dir": texts({"type": "string", "enum": ["asc", "desc"]}),
}
LIST_FLAVORS, LIST_FLAVORS_75 = open_query(**_FILTERS), strict_query(**_FILTERS)
LIST_FLAVORS_102 = strict_query(
    **_FILTERS
    | {
        "name": texts(TEXT),
        "sort_key": texts({"type": "string", "enum": [each for each in SORT_KEYS if each != "rxtx_factor"]}),
    }
)
CREATE_SPECS = only(("extra_specs",), extra_specs=_values("string", "number"))
UPDATE_SPEC: Json = {**_values("string", "number"), "minProperties": 1, "maxProperties": 1}

LIST_SERVICES = open_query(host=texts(TEXT), binary=texts(TEXT))
LIST_SERVICES_75 = strict_query(host=texts(TEXT), binary=texts(TEXT))
LIST_HYPERVISORS_33 = open_query(**_PAGE)
SHOW_HYPERVISOR_53 = strict_query(with_servers=_once(BOOLEAN))
LIST_HYPERVISORS_53 = strict_query(
    limit=_once(COUNT),
    marker=_once(TEXT),
    hypervisor_hostname_pattern=_once(HOST),
    with_servers=_once(BOOLEAN),
)
