"""The file sink: everything as JSON, written whole or not at all."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from libmh.errors import BackendFailed, Conflict
from libmh.settings import replace_file
from mh_conductor.sinks.settings import File
from mh_conductor.sinks.state import Desired, Wanted
from mh_conductor.sinks.steps import Action, Plan, Step, limited

SCHEMA = "1.0"
MAX_FILE = 256 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says: aggregates by UUID, the traits of each host that has some."""

    aggregates: Mapping[str, Wanted] = field(default_factory=dict)
    traits: Mapping[str, frozenset[str]] = field(default_factory=dict)


def content(desired: Desired) -> Content:
    """What a file should say."""
    traits = {host: traits for host, traits in desired.traits.items() if traits}
    return Content({each.uuid: each for each in desired.aggregates}, traits)


def read(settings: File) -> Content:
    """What the file says; nothing where there is none. Raises `Conflict` for a file that is not ours,
    `BackendFailed` for one that cannot be read."""
    try:
        # somebody else's pipe would be waited for until he writes into it
        with open(settings.path, "rb", opener=_opened) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Conflict(f"'{settings.path}' is no file, and is left alone: move it away")
            text = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Content()
    except OSError as error:
        raise BackendFailed(f"cannot read '{settings.path}': {error.strerror}") from error
    try:
        return _parsed(json.loads(text), settings)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise Conflict(
            f"'{settings.path}' is not a file of this sink, and is left alone: move it away ({error!r})"
        ) from error


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _parsed(tree: dict[str, Any], settings: File) -> Content:
    if (tree["schema"], tree["owner"]) != (SCHEMA, settings.owner):
        raise ValueError(f"schema {tree['schema']} of owner {tree['owner']}")
    found = [
        Wanted(each["uuid"], each["name"], frozenset(each["hosts"]), dict(each["metadata"]))
        for each in tree["aggregates"]
    ]
    traits = {host: frozenset(each) for host, each in tree["traits"].items()}
    words = [word for each in found for word in (each.uuid, each.name, *each.hosts, *each.metadata.values())]
    if not all(
        isinstance(word, str) for word in (*words, *(one for each in traits.values() for one in each))
    ):
        raise ValueError("expected names, hosts, values and traits of text")
    return Content({each.uuid: each for each in found}, traits)


def write(settings: File, desired: Desired) -> None:
    """Replace the file. Raises `BackendFailed`."""
    wanted = content(desired)
    tree = {
        "schema": SCHEMA,
        "owner": settings.owner,
        "aggregates": [
            _plain(each) for each in sorted(wanted.aggregates.values(), key=lambda each: each.name)
        ],
        "traits": {host: sorted(traits) for host, traits in sorted(wanted.traits.items())},
    }
    try:
        replace_file(settings.path, json.dumps(tree, indent=1) + "\n")
    except OSError as error:
        raise BackendFailed(f"cannot write '{settings.path}': {error.strerror}") from error


def _plain(each: Wanted) -> dict[str, object]:
    metadata = dict(sorted(each.metadata.items()))
    return {"uuid": each.uuid, "name": each.name, "hosts": sorted(each.hosts), "metadata": metadata}


def plan(desired: Desired, found: Content) -> Plan:
    """What differs. The order says nothing: a file changes all at once."""
    wanted = content(desired)
    steps = [
        *_aggregates(wanted, found),
        *_traits(wanted, found),
    ]
    conflicts = [Step(Action.NAME, name, fault) for name, fault in sorted(desired.faults.items())]
    return limited(steps, conflicts)


def _aggregates(wanted: Content, found: Content) -> Iterator[Step]:
    for uuid, here in wanted.aggregates.items():
        there = found.aggregates.get(uuid)
        if there is None:
            yield Step(
                Action.CREATE, here.name, "the file does not have it", uuid, metadata=dict(here.metadata)
            )
            there = Wanted(uuid, here.name, metadata=here.metadata)
        yield from _differences(here, there)
    for uuid, there in found.aggregates.items():
        if uuid not in wanted.aggregates:
            yield Step(Action.DELETE, there.name, f"there is no '{there.name}' here any more", uuid)


def _differences(here: Wanted, there: Wanted) -> Iterator[Step]:
    if here.name != there.name:
        yield Step(Action.RENAME, there.name, f"it is called '{here.name}' here", here.uuid, name=here.name)
    changed: dict[str, str | None] = {
        key: value for key, value in here.metadata.items() if there.metadata.get(key) != value
    }
    if changed:
        yield Step(Action.SET_METADATA, here.name, "the values here are others", here.uuid, metadata=changed)
    for host in sorted(here.hosts - there.hosts):
        yield Step(Action.ADD_HOST, here.name, f"{host} is in '{here.name}' here", here.uuid, host)
    for host in sorted(there.hosts - here.hosts):
        yield Step(Action.REMOVE_HOST, here.name, f"{host} is not in '{here.name}' here", here.uuid, host)
    if gone := sorted(there.metadata.keys() - here.metadata.keys()):
        why = f"'{here.name}' does not have {'it' if len(gone) == 1 else 'them'} here"
        yield Step(Action.UNSET_METADATA, here.name, why, here.uuid, metadata=dict.fromkeys(gone))


def _traits(wanted: Content, found: Content) -> Iterator[Step]:
    for host in sorted(wanted.traits.keys() | found.traits.keys()):
        here, there = wanted.traits.get(host, frozenset()), found.traits.get(host, frozenset())
        if here != there:
            traits = dict.fromkeys(sorted(here - there), True) | dict.fromkeys(sorted(there - here), False)
            yield Step(Action.SET_TRAITS, host, f"{host} has other traits here", traits=traits)
