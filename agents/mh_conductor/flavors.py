"""Flavors and their extra specs, with the limits and the messages of Nova (nova.compute.flavors, the schemas
of its API, nova.exception). What `select` answers depends on them: their changes are changes of the whole.
"""

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update

from libmh.api.placement import Flavor
from libmh.caller import asking
from libmh.errors import Conflict, InvalidArguments, NotFound
from mh_conductor import registry
from mh_conductor.limits import MAX_INT, MAX_KEYS, MAX_WHO, MAX_WHY, is_printable, name_fault, storable
from mh_conductor.metadata import check, check_metadata, described
from mh_conductor.store import LostRace, Store, again, in_time
from mh_conductor.tables import FLAVORS, SPECS

MAX_DESCRIPTION = 65535
MAX_FACTOR = 3.40282e38
ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
LEAST: Mapping[str, int] = {"vcpus": 1, "ram": 1, "disk": 0, "ephemeral": 0, "swap": 0}
_FORGET = delete(SPECS).where(SPECS.c.flavor == bindparam("of"), SPECS.c.key == bindparam("what"))


def listing(connection: Connection) -> list[Flavor]:
    """All flavors, by name."""
    specs: dict[str, dict[str, str]] = {}
    for flavor, key, value in connection.execute(select(SPECS).order_by(SPECS.c.key)):
        specs.setdefault(flavor, {})[key] = value
    rows = connection.execute(select(FLAVORS)).all()
    return [_flavor(row, specs.get(row.id, {})) for row in sorted(rows, key=lambda row: str(row.name))]


def find(connection: Connection, which: str) -> Flavor:
    """By id or name, in this order. Raises `NotFound`."""
    return _whole(connection, _locate(connection, which))


def _locate(connection: Connection, which: str) -> Row[Any]:
    for condition in (FLAVORS.c.id == which, FLAVORS.c.name == which):
        row = connection.execute(select(FLAVORS).where(condition)).one_or_none() if storable(which) else None
        if row is not None:
            return row
    raise NotFound(f"Flavor {which} could not be found.", flavor=which)


def _whole(connection: Connection, row: Row[Any]) -> Flavor:
    query = select(SPECS.c.key, SPECS.c.value).where(SPECS.c.flavor == row.id).order_by(SPECS.c.key)
    return _flavor(row, {each.key: each.value for each in connection.execute(query)})


def _flavor(row: Row[Any], specs: dict[str, str]) -> Flavor:
    return Flavor(**{**row._asdict(), "rxtx_factor": float(row.rxtx_factor)}, extra_specs=specs)


@dataclass(frozen=True, slots=True)
class Start:
    """A transaction, and who began it when."""

    connection: Connection
    who: str
    now: int

    def note(self, change: str, what: str) -> None:
        """Write down what was done, last of all."""
        registry.advance(self.connection, 1)
        line = {"aggregate": "", "change": change, "host": "", "why": f"{self.who} {what}"[:MAX_WHY]}
        registry.record(self.connection, [line], self.now, self.who)


class Flavors:
    """Changes of flavors. Beside what is said of each, everything raises what `Store.write` does, and
    `NotFound` for an unknown flavor; `generation` is the one that it must have, 0 for any."""

    def __init__(self, store: Store, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._clock = clock

    def create(self, flavor: Flavor) -> Flavor:
        """Make one; an empty id is a new UUID, its times and its generation are the store's. Raises
        `Conflict` where name or id is taken, `InvalidArguments` for what no flavor can have."""
        check_flavor(flavor)
        made = flavor.id or str(uuid.uuid4())
        return self._run(lambda start: _create(start, flavor, made))

    def describe(self, which: str, description: str | None, generation: int = 0) -> Flavor:
        """Give it another description."""
        _check_description(description)

        def change(start: Start) -> Flavor:
            row = _begin(start, which, generation)
            if row.description != description:
                _bump(start, row, description=description)
                start.note("flavor-described", f"described flavor '{row.name}'")
            return find(start.connection, row.id)

        return self._run(change)

    def set_extra_specs(
        self, which: str, specs: Mapping[str, str], remove: Sequence[str] = (), generation: int = 0
    ) -> Flavor:
        """Merge extra specs in, whole or not at all. `NotFound` for a key to remove that is absent."""
        check_metadata(specs, "extra_specs")

        def change(start: Start) -> Flavor:
            row = _begin(start, which, generation)
            _merge(start, row, specs, remove)
            return find(start.connection, row.id)

        return self._run(change)

    def delete(self, which: str) -> bool:
        """Delete one."""
        self._run(_delete_of(which))
        return True

    def _run(self, change: Callable[[Start], Flavor]) -> Flavor:
        who = asking().described[:MAX_WHO]

        def attempt(connection: Connection) -> Flavor:
            changed = change(Start(connection, who, self._clock()))
            in_time()
            return changed

        return again(self._store, attempt)


def check_flavor(flavor: Flavor) -> None:
    """Raises `InvalidArguments` for what Nova would not take."""
    check("name", flavor.name, name_fault(flavor.name))
    fits = not flavor.id or ID.fullmatch(flavor.id)
    expected = "expected 1 to 255 letters, digits, '.', '-', '_' and inner blanks"
    check("id", flavor.id, None if fits else expected)
    for name, least in LEAST.items():
        value = getattr(flavor, name)
        fault = None if least <= value <= MAX_INT else f"expected {least} to {MAX_INT}"
        check(name, str(value), fault)
    factor = flavor.rxtx_factor
    fault = None if 0 < factor <= MAX_FACTOR else f"expected more than 0 and at most {MAX_FACTOR:g}"
    check("rxtx_factor", str(factor), fault)
    _check_description(flavor.description)
    check_metadata(flavor.extra_specs, "extra_specs")
    _check_count(len(flavor.extra_specs), MAX_KEYS)


def _check_count(keys: int, most: int) -> None:
    if keys > most:
        raise InvalidArguments(f"extra_specs: expected at most {MAX_KEYS} keys, got {keys}")


def _check_description(description: str | None) -> None:
    text = description or ""
    if len(text) > MAX_DESCRIPTION:
        check("description", text, f"expected at most {MAX_DESCRIPTION} characters, got {len(text)}")
    check("description", text, None if all(map(is_printable, text)) else "expected printable characters")


def _create(start: Start, flavor: Flavor, made: str) -> Flavor:
    connection = start.connection
    if connection.execute(select(exists().where(FLAVORS.c.id == made))).scalar():
        raise Conflict(f"Flavor with ID {made} already exists.", id=made)
    if connection.execute(select(exists().where(FLAVORS.c.name == flavor.name))).scalar():
        raise Conflict(f"Flavor with name {flavor.name} already exists.", name=flavor.name)
    row = {name: value for name, value in asdict(flavor).items() if name != "extra_specs"}
    row |= {"id": made, "rxtx_factor": repr(flavor.rxtx_factor)}
    row |= {"created": start.now, "updated": start.now, "generation": 1}
    connection.execute(insert(FLAVORS), row)
    _put(connection, made, flavor.extra_specs)
    start.note("flavor-created", f"made flavor '{flavor.name}'")
    return find(connection, made)


def _begin(start: Start, which: str, generation: int) -> Row[Any]:
    row = _locate(start.connection, which)
    if generation not in (0, row.generation):
        raise Conflict(f"flavor '{row.name}' is of generation {row.generation}, not of {generation}")
    return row


def _bump(start: Start, row: Row[Any], **values: str | None) -> None:
    here = (FLAVORS.c.id == row.id, FLAVORS.c.generation == row.generation)
    changed = {"generation": row.generation + 1, "updated": start.now, **values}
    if start.connection.execute(update(FLAVORS).where(*here).values(changed)).rowcount != 1:
        raise LostRace(f"flavor '{row.name}' is no longer of generation {row.generation}")


def _merge(start: Start, row: Row[Any], specs: Mapping[str, str], remove: Sequence[str]) -> None:
    held = _whole(start.connection, row).extra_specs
    for key in remove:
        if key not in held:
            raise NotFound(f"Flavor {row.id} has no extra specs with key {key}.", key=key)
    changes: dict[str, str | None] = {**dict.fromkeys(remove), **specs}
    changes = {key: value for key, value in changes.items() if value != held.get(key)}
    if not changes:
        return
    after = len(held.keys() - changes.keys()) + sum(value is not None for value in changes.values())
    _check_count(after, max(MAX_KEYS, len(held)))
    _bump(start, row)
    start.connection.execute(_FORGET, [{"of": row.id, "what": key} for key in changes])
    _put(start.connection, row.id, {key: value for key, value in changes.items() if value is not None})
    start.note("flavor-specs", f"{described(changes)} in flavor '{row.name}'")


def _put(connection: Connection, flavor: str, specs: Mapping[str, str]) -> None:
    if specs:
        rows = [{"flavor": flavor, "key": key, "value": value} for key, value in specs.items()]
        connection.execute(insert(SPECS), rows)


def _delete_of(which: str) -> Callable[[Start], Flavor]:
    def change(start: Start) -> Flavor:
        was = find(start.connection, which)
        if start.connection.execute(delete(FLAVORS).where(FLAVORS.c.id == was.id)).rowcount != 1:
            raise LostRace(f"flavor '{was.name}' is gone")
        start.note("flavor-deleted", f"deleted flavor '{was.name}'")
        return was

    return change
