"""Following the units of one systemd: a table that is kept current by what systemd says, and who wants to
know of changes.

A unit that changes faster than five times a second is told of five times a second, its last state always.
Where systemd or the bus goes, the table is not `current` until it is listed again; what changed meanwhile
is told then.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libmh.api.services import Unit
from libmh.bus import background
from libmh.context import Root
from libmh.errors import Problem
from libmh.linux.daemons import SYSTEMD
from libmh.linux.init.line import UNIT, WATCHED, Asked, Line, changes
from libmh.linux.init.unitnames import unit_name, unit_path
from libmh.linux.init.unittable import KEPT, ROW, UnitTable, wanted

log = logging.getLogger("libmh.linux.init.unitwatch")
TOLD_KINDS = (".service", ".socket", ".target", ".timer", ".path", ".mount")
PAUSE = 0.2  # between two changes of a unit that are told
COALESCED = 0.05
GONE = ("inactive", "dead")
NOT_FOUND, LOADED = "not-found", "loaded"
DETAIL = "FragmentPath"  # what is asked for after the states
BATCH = 512
MAX_NEW = 500  # above, everything is listed anew
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
LIST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """A unit whose states have changed. `told` are its properties."""

    unit: str
    old: tuple[str, str]
    new: tuple[str, str]
    told: Mapping[str, Any]


@dataclass(slots=True)
class _Last:
    unit: str
    states: tuple[str, str]
    at: float
    timer: asyncio.TimerHandle | None = None


class UnitWatch:
    """`changed` is called in the bus's loop and must not wait; so is `heard`, for other signals of
    systemd's manager."""

    def __init__(
        self,
        address: str,
        root: Root,
        changed: Callable[[Change], None],
        heard: Callable[[str, Sequence[Any]], None],
    ) -> None:
        self.table = UnitTable(root)
        self.line = Line(address, self._heard, WATCHED)
        self.current = False
        self._changed = changed
        self._others = heard
        self._last: dict[str, _Last] = {}
        self._new: set[str] = set()
        self._came = False  # everything has been listed once
        self._stale = False
        self._reloading = False
        self._stirred = asyncio.Event()
        self._since: list[dict[str, dict[str, Any]]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, from any thread."""
        background().call_soon_threadsafe(self._start)

    def close(self) -> None:
        """End, from any thread."""
        background().call_soon_threadsafe(self._stop)

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def _stop(self) -> None:
        self.current = False
        if self._task is not None:
            self._task.cancel()
            self._task = asyncio.ensure_future(self.line.close())

    def select(self, pattern: str, state: str) -> list[Unit] | None:
        """Units by name; None while they have to be asked for."""
        return self.table.select(pattern, state) if self.current else None

    async def read(self, asked: Sequence[Asked]) -> list[Any]:
        """Properties of a unit that was just acted on, taken into the table, too: what was told to one
        caller is not to be contradicted to the next."""
        answers = await self._ask(asked)
        told = {name: answer for (_, _, name), answer in zip(asked, answers, strict=True)}
        row = {name: told.get(name) for name in ROW}
        if not self.current or not all(isinstance(value, str) for value in row.values()):
            return answers
        path = unit_path(str(row["Id"]))
        if row["LoadState"] != NOT_FOUND and self.table.add(path, row):
            self._notice(path)
            self._stirred.set()  # for its details
        return answers

    async def _run(self) -> None:
        pause = FIRST_WAIT
        while True:
            try:
                bus = await self.line.bus()
                await self._fill()
                self.current, self._came, pause = True, True, FIRST_WAIT
                await self._follow(bus.closed)
            except Problem as problem:
                log.info("units are not followed: %s; asking again in %g s", problem, pause)
            finally:
                self.current = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)

    async def _follow(self, closed: "asyncio.Future[str]") -> None:
        stirred: asyncio.Future[bool] = asyncio.ensure_future(self._stirred.wait())
        try:
            while not closed.done():
                both: set[asyncio.Future[Any]] = {stirred, closed}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    return
                await asyncio.sleep(COALESCED)
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                if self._stale or len(self._new) > MAX_NEW:
                    await self._fill()
                else:
                    await self._add()
        finally:
            stirred.cancel()

    async def _fill(self) -> None:
        """List everything; details of what is new to the table."""
        self._stale = False
        self._new.clear()
        since: dict[str, dict[str, Any]] = {}
        self._since.append(since)
        try:
            (rows,) = await self.line.call("ListUnits", seconds=LIST_SECONDS)
            (files,) = await self.line.call("ListUnitFiles", seconds=LIST_SECONDS)
        finally:
            self._since.remove(since)
        states = {path.rpartition("/")[2]: state for path, state in files}
        for path in self.table.listed(rows, states):
            self._notice(path)
        for path, told in since.items():
            self._apply(path, told)
        for path in self._last.keys() - {row[6] for row in rows}:
            self._gone(path)
        await self._ask(wanted(self.table.undetailed()))

    async def _add(self) -> None:
        """Take up units that are new."""
        paths = [path for path in self._new if DETAIL not in self.table.told(path)]
        self._new.clear()
        asked = [(path, UNIT, name) for path in paths for name in ROW]
        answers, since = await self._get(asked)
        for at, path in enumerate(paths):
            values = answers[at * len(ROW) : (at + 1) * len(ROW)]
            if any(isinstance(value, Problem) for value in values):
                continue  # it has gone already
            told = dict(zip(ROW, values, strict=True)) | since.get(path, {})
            if path in self.table:
                self._apply(path, told)
            elif self.table.add(path, told):
                self._notice(path)
        await self._ask(wanted(self.table.undetailed()))

    async def _ask(self, asked: Sequence[Asked]) -> list[Any]:
        """Ask for properties and take the answers, unless something newer was told meanwhile."""
        found: list[Any] = []
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            answers, since = await self._get(part)
            for (path, _, name), value in zip(part, answers, strict=True):
                if not isinstance(value, Problem) and name not in since.get(path, {}):
                    self._apply(path, {name: value})
            found += answers
        return found

    async def _get(self, asked: Sequence[Asked]) -> tuple[list[Any], dict[str, dict[str, Any]]]:
        """Answers, and what was told by path while they came in: it is newer."""
        since: dict[str, dict[str, Any]] = {}
        self._since.append(since)
        try:
            return await self.line.get(asked), since
        finally:
            self._since.remove(since)

    def _record(self, path: str, told: Mapping[str, Any]) -> None:
        for since in self._since:
            since.setdefault(path, {}).update(told)

    def _apply(self, path: str, told: Mapping[str, Any]) -> None:
        self._record(path, told)
        if self.table.apply(path, told):
            self._notice(path)

    def _heard(self, member: str, path: str, body: Sequence[Any]) -> None:
        if member == "PropertiesChanged":
            told = changes(body, KEPT)
            if path in self.table:
                self._apply(path, told)
            elif "ActiveState" in told and not self._reloading:
                # a unit that was loaded just now, for a job: its news does not wait for the rest
                self._record(path, told)
                name = unit_name(path)
                if self.table.add(path, {"Id": name, "Description": name, "LoadState": LOADED, **told}):
                    self._notice(path)
                self._take_up(path)
        elif path == SYSTEMD.path:
            self._manager_said(member, body)

    def _manager_said(self, member: str, body: Sequence[Any]) -> None:
        match member, list(body):
            case "UnitNew", [str(), str(path)] if not self._reloading:
                self._take_up(path)
            case "UnitRemoved", [str(), str(path)] if not self._reloading:
                self.table.remove(path)
                self._new.discard(path)
                self._gone(path)
            case "Reloading", [bool(active)]:
                self._reloading = active
                self._list_again()
            case "UnitFilesChanged", []:
                self._list_again()
            case _:
                self._others(member, body)

    def _take_up(self, path: str) -> None:
        if len(self._new) <= MAX_NEW:
            self._new.add(path)
        self._stirred.set()

    def _list_again(self) -> None:
        if not self._reloading:
            self._stale = True
            self._stirred.set()

    def _notice(self, path: str) -> None:
        """The states of a unit have changed: tell, now or when its pause is over."""
        told = self.table.told(path)
        if not str(told.get("Id", "")).endswith(TOLD_KINDS):
            return
        last = self._last.get(path)
        if last is None:  # it is new to us; what was there before we came is no news
            old = GONE if self._came else _states(told)
            last = self._last[path] = _Last(str(told["Id"]), old, 0.0)
        self._tell_in_time(path, last)

    def _tell_in_time(self, path: str, last: _Last) -> None:
        if last.timer is not None:
            return
        loop = asyncio.get_running_loop()
        left = last.at + PAUSE - loop.time()
        if left > 0:
            last.timer = loop.call_later(left, self._tell, path)
        else:
            self._tell(path)

    def _tell(self, path: str) -> None:
        last = self._last[path]
        last.timer = None
        told = self.table.told(path)
        new = _states(told) if told else GONE
        now = asyncio.get_running_loop().time()
        if new != last.states:
            old, last.states, last.at = last.states, new, now
            self._changed(Change(last.unit, old, new, told))
        if told:
            return
        if now < last.at + PAUSE:  # one that comes back at once keeps its pause
            self._tell_in_time(path, last)
        else:
            del self._last[path]

    def _gone(self, path: str) -> None:
        """A unit was unloaded: its last state is told, too."""
        last = self._last.get(path)
        if last is not None:
            self._tell_in_time(path, last)


def _states(told: Mapping[str, Any]) -> tuple[str, str]:
    return str(told.get("ActiveState", "")), str(told.get("SubState", ""))
