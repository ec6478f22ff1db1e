"""`[sink.NAME]` in the conductor's configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.errors import InvalidArguments
from mh_conductor.sinks.traits import PREFIX

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,49}")
OWNER = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
CUSTOM_PREFIX = re.compile(r"CUSTOM_(?!_)[A-Z0-9_]{0,63}[A-Z0-9]_")
MAX_SINKS = 32
MAX_TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class File:
    """A JSON file with everything."""

    name: str
    path: Path
    owner: str = "matahari"
    aggregate_traits: bool = False
    prefix: str = PREFIX

    @property
    def target(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class OpenStack:
    """Nova and Placement: of a cloud in clouds.yaml, or at two URLs that ask for no authentication. `owner`
    is the mark on what is ours, `prefix` that of our traits; with `aggregate_traits` the members of an
    aggregate have a trait of its name. `timeout` is in seconds, of each request."""

    name: str
    cloud: str = ""
    compute: str = ""
    placement: str = ""
    owner: str = "matahari"
    traits: bool = True
    aggregate_traits: bool = False
    prefix: str = PREFIX
    timeout: int = 30

    @property
    def target(self) -> str:
        return self.cloud or self.compute


SinkSettings = File | OpenStack
KEYS = {
    "file": {"path": str, "owner": str, "aggregate_traits": bool, "prefix": str},
    "openstack": {
        **dict.fromkeys(("cloud", "compute", "placement", "owner", "prefix"), str),
        **dict.fromkeys(("traits", "aggregate_traits"), bool),
        "timeout": int,
    },
}


def sinks(tables: object) -> dict[str, SinkSettings]:
    """The sinks of the table `[sink]`, by name. Raises `InvalidArguments`, which names the key."""
    if not isinstance(tables, Mapping):
        raise InvalidArguments("[sink]: expected tables [sink.NAME]")
    if len(tables) > MAX_SINKS:
        raise InvalidArguments(f"[sink]: expected at most {MAX_SINKS} sinks, got {len(tables)}")
    return {name: _sink(name, table) for name, table in sorted(tables.items())}


def _sink(name: str, table: object) -> SinkSettings:
    if not NAME.fullmatch(name):
        raise InvalidArguments(f"[sink.{name}]: expected a name of letters, digits, '_', '.' and '-'")
    if not isinstance(table, Mapping):
        raise InvalidArguments(f"[sink]: expected a table [sink.{name}], got {table!r}")
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in KEYS:
        raise InvalidArguments(f"[sink.{name}] type: expected {' or '.join(KEYS)}, got {kind!r}")
    values = {key: value for key, value in table.items() if key != "type"}
    for key, value in values.items():
        if key not in KEYS[kind]:
            raise InvalidArguments(f"[sink.{name}]: unknown key '{key}': expected {', '.join(KEYS[kind])}")
        if type(value) is not KEYS[kind][key]:
            wanted = KEYS[kind][key].__name__
            raise InvalidArguments(f"[sink.{name}] {key}: expected a value of type {wanted}, got {value!r}")
    _check_marks(name, values)
    return _file(name, values) if kind == "file" else _openstack(name, values)


def _check_marks(name: str, values: Mapping[str, Any]) -> None:
    for key, pattern, wanted in (
        ("owner", OWNER, "1 to 64 letters, digits, '_', '.' and '-'"),
        ("prefix", CUSTOM_PREFIX, "a prefix of custom traits, as CUSTOM_MH_"),
    ):
        if key in values and not pattern.fullmatch(values[key]):
            raise InvalidArguments(f"[sink.{name}] {key}: expected {wanted}, got '{values[key]}'")


def _file(name: str, values: Mapping[str, Any]) -> File:
    path = Path(values.get("path", ""))
    if not path.is_absolute():
        raise InvalidArguments(f"[sink.{name}] path: expected an absolute path, got '{path}'")
    return File(name, **{**values, "path": path})


def _openstack(name: str, values: Mapping[str, Any]) -> OpenStack:
    made = OpenStack(name, **values)
    if bool(made.cloud) == bool(made.compute and made.placement):
        raise InvalidArguments(
            f"[sink.{name}]: expected either cloud, a name in clouds.yaml, or the URLs compute and placement"
        )
    if not 1 <= made.timeout <= MAX_TIMEOUT:
        raise InvalidArguments(
            f"[sink.{name}] timeout: expected 1 to {MAX_TIMEOUT} seconds, got {made.timeout}"
        )
    return made
