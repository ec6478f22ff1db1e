"""The units of one systemd as they are now: what was listed once, and what systemd has told since."""

import fnmatch
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from libmh.api.services import Unit
from libmh.context import Root
from libmh.linux import sysfs
from libmh.linux.init import systemd

MAX_UNITS = 10_000
MANY = 200  # what these use is told anew at every question, for more of them it may be some seconds old
MAX_AGE = 5.0
CGROUPS = "/sys/fs/cgroup"
ROW = ("Id", "Description", "LoadState", "ActiveState", "SubState")
KEPT = frozenset(
    {
        *ROW[1:],
        *("FragmentPath", "ControlGroup", "InactiveEnterTimestamp", *systemd.SINCE.values()),
        *(*systemd.SERVICE, *systemd.RUNNING, *systemd.ENDED),
    }
)


@dataclass(slots=True)
class _Entry:
    told: dict[str, Any]
    unit: Unit | None = None  # made when it is asked for, after each change
    used: tuple[int | None, int | None] = (None, None)
    used_at: float = 0.0

    @property
    def states(self) -> tuple[str, str]:
        return str(self.told.get("ActiveState", "")), str(self.told.get("SubState", ""))


class UnitTable:
    """By object path. Changed by the thread that hears systemd, read by any."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._files: Mapping[str, str] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def listed(self, rows: Sequence[Sequence[Any]], files: Mapping[str, str]) -> list[str]:
        """Take what ListUnits and ListUnitFiles say: units that are not in it are dropped. Answers the paths
        of those whose states have changed."""
        now = {row[6]: dict(zip(ROW, row[:5], strict=True)) for row in rows[:MAX_UNITS]}
        with self._lock:
            self._files = files
            self._entries = {path: self._entries.get(path) or _Entry({}) for path in now}
            return [path for path, told in now.items() if self._apply(path, told)]

    def apply(self, path: str, told: Mapping[str, Any]) -> bool:
        """Take some properties of a unit; whether its states have changed. One that is not listed is left
        out."""
        with self._lock:
            return path in self._entries and self._apply(path, told)

    def _apply(self, path: str, told: Mapping[str, Any]) -> bool:
        entry = self._entries[path]
        before = entry.states
        entry.told.update(told)
        entry.unit = None
        return entry.states != before

    def add(self, path: str, told: Mapping[str, Any]) -> bool:
        """Take a unit that is new; whether it is, and there was room."""
        with self._lock:
            if path in self._entries or len(self._entries) >= MAX_UNITS:
                return False
            self._entries[path] = _Entry(dict(told))
            return True

    def remove(self, path: str) -> None:
        with self._lock:
            self._entries.pop(path, None)

    def told(self, path: str) -> Mapping[str, Any]:
        """What is known of a unit; nothing of one that is not listed."""
        entry = self._entries.get(path)
        return entry.told if entry else {}

    def undetailed(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Units of which only the row of ListUnits is known."""
        with self._lock:
            return [(p, each.told) for p, each in self._entries.items() if "FragmentPath" not in each.told]

    def select(self, pattern: str, state: str) -> list[Unit]:
        """Units by name."""
        matches = _matcher(pattern)
        with self._lock:
            found = [
                entry
                for entry in self._entries.values()
                if (not state or state in (entry.told.get("LoadState"), *entry.states))
                and matches(entry.told)
            ]
            units = [(self._unit(entry), entry) for entry in found]
        units.sort(key=lambda pair: pair[0].name)
        now = time.monotonic()
        oldest = now - MAX_AGE if len(units) > MANY else now
        return [self._with_use(unit, entry, oldest, now) for unit, entry in units]

    def _unit(self, entry: _Entry) -> Unit:
        if entry.unit is None:
            row = [entry.told.get(name, "") for name in ROW]
            entry.unit = systemd.unit(row, entry.told, systemd.file_state(row[0], self._files))
        return entry.unit

    def _with_use(self, unit: Unit, entry: _Entry, oldest: float, now: float) -> Unit:
        group = entry.told.get("ControlGroup")
        if not group or unit.active_state in systemd.IDLE:
            return unit
        if entry.used_at <= oldest:
            place = f"{CGROUPS}{group}"
            entry.used = (
                sysfs.positive(self._root, f"{place}/memory.current"),
                sysfs.positive(self._root, f"{place}/pids.current"),
            )
            entry.used_at = now
        memory, tasks = entry.used
        return unit if memory is tasks is None else replace(unit, memory=memory, tasks=tasks)


def _matcher(pattern: str) -> Any:
    if not pattern:
        return lambda _told: True
    by_name = re.compile(fnmatch.translate(pattern)).match

    def matches(told: Mapping[str, Any]) -> bool:
        name = str(told.get("Id", ""))
        return bool(by_name(name) or by_name(name.removesuffix(".service")))

    return matches


def wanted(paths: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, str, str]]:
    """The details to ask for: those that ListUnits does not tell."""
    asked = []
    for path, told in paths:
        row = [*(told.get(name, "") for name in ROW), "", path]
        names = [each for each in systemd.wanted(row) if each[2] not in systemd.ACCOUNTED]
        kind = str(row[0]).rpartition(".")[2].capitalize()
        if kind in systemd.WITH_CGROUP:
            names.append((path, f"org.freedesktop.systemd1.{kind}", "ControlGroup"))
        asked += names
    return asked
