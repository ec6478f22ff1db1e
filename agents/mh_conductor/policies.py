"""Policies: named sets of filters and weighers, several in force at once. From the configuration::

    [policy.packed]
    description = "fills hosts up before it begins with the next"
    filters = ["state", "zone", "project", "aggregates", "capabilities", "traits", "size"]
    weighers = { ram = -1.0 }

A key that is left out is that of `default`, which can itself be written so.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from libmh.api.placement import Policy
from libmh.errors import InvalidArguments, NotFound
from libmh.match.extra_specs import nearest
from libmh.match.weighing import MOST, WEIGHERS
from mh_conductor.filters import FILTERS
from mh_conductor.limits import name_fault

DEFAULT, INVENTORY = "default", "inventory"
MAX_POLICIES = 100
MAX_DESCRIPTION = 1000
KEYS = ("description", "filters", "weighers")
USUAL = ("state", "zone", "project", "aggregates", "capabilities", "traits", "size", "image", "names")


def _policy(name: str, description: str, filters: tuple[str, ...], weighers: Mapping[str, float]) -> Policy:
    hints = [hint for each in filters for hint in FILTERS[each].hints]
    return Policy(name, description, list(filters), dict(weighers), hints)


SHIPPED: Mapping[str, Policy] = MappingProxyType(
    {
        each.name: each
        for each in (
            _policy(
                DEFAULT,
                "as Nova's scheduler: spread over the hosts that fit",
                USUAL,
                dict.fromkeys(WEIGHERS, 1.0),
            ),
            _policy("packed", "fills hosts up before the next", USUAL, dict.fromkeys(WEIGHERS, -1.0)),
            _policy(INVENTORY, "every host that is known, by name", ("names",), {}),
        )
    }
)


def policies(config: Mapping[str, Any]) -> Mapping[str, Policy]:
    """The policies in force: those that are shipped, and those of a configuration's table `policy`. Raises
    `InvalidArguments` with what is wrong where."""
    tables = config.get("policy", {})
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise InvalidArguments("policy: expected tables [policy.NAME]")
    if len(tables) > MAX_POLICIES:
        raise InvalidArguments(f"policy: expected at most {MAX_POLICIES} policies, got {len(tables)}")
    found = dict(SHIPPED)
    for name in sorted(tables, key=lambda name: (name != DEFAULT, name)):
        found[name] = _read(name, tables[name], found[DEFAULT])
    return found


def _read(name: str, table: Mapping[str, Any], default: Policy) -> Policy:
    where = f"policy.{name[:60]}"
    if (fault := name_fault(name)) is not None:
        raise InvalidArguments(f"{where}: {fault}")
    for key in sorted(table.keys() - set(KEYS)):
        raise InvalidArguments(f"{where}: unknown key '{key}': expected {', '.join(KEYS)}")
    text = table.get("description", default.description if name == default.name else "")
    if not isinstance(text, str) or len(text) > MAX_DESCRIPTION:
        raise InvalidArguments(f"{where}.description: expected at most {MAX_DESCRIPTION} characters")
    filters, weighers = _filters(where, table.get("filters")), _weighers(where, table.get("weighers"))
    chosen = tuple(default.filters) if filters is None else filters
    return _policy(name, text, chosen, default.weighers if weighers is None else weighers)


def _filters(where: str, names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or len(set(map(str, names))) != len(names):
        raise InvalidArguments(f"{where}.filters: expected a list of names, each once")
    for name in names:
        if not isinstance(name, str) or name not in FILTERS:
            raise InvalidArguments(
                f"{where}.filters: there is no filter '{name}'{nearest(str(name), FILTERS)}: "
                f"expected {', '.join(FILTERS)}"
            )
    return tuple(names)


def _weighers(where: str, table: object) -> Mapping[str, float] | None:
    if table is None:
        return None
    if not isinstance(table, dict):
        raise InvalidArguments(f"{where}.weighers: expected multipliers by name, such as {{ ram = 1.0 }}")
    for name, value in table.items():
        if name not in WEIGHERS:
            raise InvalidArguments(
                f"{where}.weighers: there is no weigher '{name}'{nearest(name, WEIGHERS)}: "
                f"expected {', '.join(WEIGHERS)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST:
            raise InvalidArguments(f"{where}.weighers.{name}: expected a number, got '{value}'")
    return {name: float(value) for name, value in table.items()}


def named(known: Mapping[str, Policy], name: str) -> Policy:
    """The policy of a name, `default` of none. Raises `NotFound`."""
    found = known.get(name or DEFAULT)
    if found is None:
        listed = ", ".join(sorted(known))
        raise NotFound(f"there is no policy '{name[:60]}'{nearest(name, known)}: expected one of {listed}")
    return replace(found)
