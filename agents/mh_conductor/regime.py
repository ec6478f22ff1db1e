"""The `[settings]` of a file of rules: when a host is silent, what flaps, and how much is too much at once.

Times are seconds, or texts like `"90s"`, `"15min"`, `"2h"`, `"1d"`::

    [settings]
    silent_after = "5min"   # without a report; agents send one a minute unless they are told otherwise
    grace = "1h"            # so long a silent host keeps what rules gave it; a rule may say otherwise
    flaps = 4               # more changes of one rule's answer about one host within an hour are flapping
    settle = "10min"        # so long has what flapped to be steady before anything comes of it
    large_change = 0.2      # a change of more than this share of all hosts waits for somebody's word ...
    large_hosts = 10        # ... unless it is of fewer hosts than this
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

NANOSECONDS = 10**9
UNITS = MappingProxyType({"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400})
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|m|min|h|d)")
MAX_SECONDS = 366 * 86400.0
MAX_FLAPS = 100
FLAP_WINDOW = 3600.0
"""Seconds over which changes are counted."""


@dataclass(frozen=True, slots=True)
class Regime:
    """Seconds, a count, a share of 1, a count."""

    silent_after: float = 300.0
    grace: float = 3600.0
    settle: float = 600.0
    flaps: int = 4
    large_change: float = 0.2
    large_hosts: int = 10

    def large(self, affected: int, hosts: int) -> bool:
        """Whether so many of all hosts are too many to change at once."""
        return affected >= self.large_hosts and affected > self.large_change * hosts


DEFAULT_REGIME = Regime()


def seconds(value: object) -> float | None:
    """Of a duration; None for what is none, or longer than a year."""
    if isinstance(value, str):
        found = DURATION.fullmatch(value)
        value = float(found[1]) * UNITS[found[2]] if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_SECONDS else None


def duration(wanted: float) -> str:
    """A number of seconds for people: in the largest unit of which it is a whole number."""
    for unit in ("d", "h", "min"):
        if wanted and wanted % UNITS[unit] == 0:
            return f"{wanted / UNITS[unit]:g} {unit}"
    return f"{wanted:g} s"


def _count(least: int, most: int) -> Callable[[object], int | None]:
    def read(value: object) -> int | None:
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return value if good and isinstance(value, int) else None

    return read


def _share(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if good and isinstance(value, int | float) else None


DURATION_EXPECTED = "seconds, or a text like '90s', '15min', '2h', '1d'; at most 366 days"
READERS: Mapping[str, tuple[Callable[[object], float | int | None], str]] = MappingProxyType(
    {
        "silent_after": (seconds, DURATION_EXPECTED),
        "grace": (seconds, DURATION_EXPECTED),
        "settle": (seconds, DURATION_EXPECTED),
        "flaps": (_count(1, MAX_FLAPS), f"a number, 1 to {MAX_FLAPS}"),
        "large_change": (_share, "a share, 0 to 1"),
        "large_hosts": (_count(1, 2**31 - 1), "a number of hosts, at least 1"),
    }
)


def read_regime(table: Mapping[str, Any], fault: Callable[[str, str], None]) -> Regime:
    """The settings of a table; `fault` is told (what is wrong, the key) for everything that is."""
    values: dict[str, Any] = {}
    for key in sorted(table):
        if key not in READERS:
            fault(f"unknown setting '{key}': expected {', '.join(READERS)}", key)
            continue
        reader, expected = READERS[key]
        values[key] = reader(table[key])
        if values[key] is None:
            fault(f"settings.{key}: expected {expected}, got {table[key]!r}", key)
    return Regime(**values)
