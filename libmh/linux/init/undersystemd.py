"""Services under systemd: `libmh.linux.init.manager.Manager` over its D-Bus API."""

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from libmh.api.services import Action, JobResult, LogLine, Outcome, Unit, UnitDetail, Whom
from libmh.context import Root
from libmh.errors import InvalidArguments, NotFound, Problem
from libmh.linux.daemons import PROPERTIES, SYSTEMD, Daemon
from libmh.linux.init import (
    actions,
    description,
    jobs,
    journal,
    lsb,
    scripts,
    systemd,
    unitdetail,
    unitfiles,
)
from libmh.linux.init.actions import Actions
from libmh.linux.init.jobs import Jobs
from libmh.linux.init.jobwatch import JobWatch, Progress
from libmh.linux.init.line import UNIT, Asked, Line, wait
from libmh.linux.init.unitnames import full, is_name
from libmh.linux.init.unitwatch import Change, UnitWatch

QUICK = 20.0
FILES = 85.0
NOT_INSTALLED = 5
GENERATED = "generated"


class UnderSystemd:
    """One systemd. Its line is opened at the first action."""

    def __init__(self, root: Root, systemd_daemon: Daemon, address: str) -> None:
        self._root = root
        self._address = address
        self._watch: UnitWatch | None = None
        self._progress: JobWatch | None = None
        self._daemon = systemd_daemon
        self._jobs = Jobs()
        self._line = Line(address, self._heard)
        self._actions = Actions(self._line, self._jobs, self._get)

    def _heard(self, member: str, path: str, body: Sequence[Any]) -> None:
        if member == "JobRemoved" and path == SYSTEMD.path and len(body) == 4:
            self._jobs.removed(body)

    async def _get(self, asked: Sequence[Asked]) -> list[Any]:
        watch = self._watch
        return await (watch.read(asked) if watch is not None and watch.current else self._line.get(asked))

    def names(self) -> list[str]:
        return systemd.names(self._daemon)

    def own_name(self, name: str) -> str:
        return wait(jobs.own_name(self._line, full(name)), QUICK) if is_name(name) else name

    def status(self, name: str, seconds: float) -> int:
        return systemd.status(self._daemon, name, seconds)

    def units(self, pattern: str, state: str) -> list[Unit]:
        known = self._watch.select(pattern, state) if self._watch else None
        return systemd.units(self._daemon, pattern, state) if known is None else known

    def watch(self, changed: Callable[[Change], None], progress: Callable[[Progress], None]) -> None:
        """Follow the units and the jobs from now on; both are called in the bus's loop."""
        if self._watch is None:
            self._watch = UnitWatch(self._address, self._root, changed, self._job_heard)
            self._progress = JobWatch(self._watch.line, progress)
            self._watch.start()

    def close(self) -> None:
        """Follow no longer."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _job_heard(self, member: str, body: Sequence[Any]) -> None:
        if self._progress is not None:
            self._progress.heard(member, body)

    def describe(self, name: str) -> str:
        return wait(self._describe(full(name)), QUICK)

    async def _describe(self, name: str) -> str:
        own, told = await self._everything(name)
        return description.xml(description.of_unit(own, told))

    def unit(self, name: str) -> UnitDetail:
        _, told = wait(self._everything(full(name)), QUICK)
        return unitdetail.detail(told)

    async def _everything(self, name: str) -> tuple[str, dict[str, Any]]:
        path, own = await jobs.resolve(self._line, name)
        told: dict[str, Any] = {}
        bus = await self._line.bus()
        kind = f"org.freedesktop.systemd1.{own.rpartition('.')[2].capitalize()}"
        for interface in (UNIT, kind):
            try:
                (answer,) = await bus.call(SYSTEMD.name, path, PROPERTIES, "GetAll", "s", [interface])
            except Problem:
                if interface == UNIT:
                    raise
                continue  # this version of systemd knows no more of such a unit
            told.update(answer)
        return own, told

    def enable(self, name: str) -> int:
        return self._file(name, "enable")

    def disable(self, name: str) -> int:
        return self._file(name, "disable")

    def _file(self, name: str, verb: str) -> int:
        if not is_name(name):
            return NOT_INSTALLED
        unit = full(name)
        script = unit.removesuffix(".service")
        state = wait(unitfiles.state(self._line, unit), QUICK)
        if state == GENERATED and script in lsb.names(self._root):  # its unit is made from its links
            return (
                scripts.enable(self._root, script)
                if verb == "enable"
                else scripts.disable(self._root, script)
            )
        change = unitfiles.enable if verb == "enable" else unitfiles.disable
        return wait(change(self._line, unit), FILES)

    def start_or_stop(self, name: str, verb: Action, seconds: float) -> int:
        try:
            return actions.rc(wait(self._actions.act(full(name), verb, seconds), seconds + QUICK))
        except (NotFound, InvalidArguments):
            return NOT_INSTALLED

    def act(self, name: str, verb: Action, seconds: float) -> Outcome:
        return self._with_log(self._actions.act(full(name), verb, seconds), seconds + QUICK)

    def mask(self, name: str) -> Outcome:
        return wait(self._actions.mask(full(name)), FILES)

    def unmask(self, name: str) -> Outcome:
        return wait(self._actions.unmask(full(name)), FILES)

    def kill(self, name: str, signal: str, whom: Whom) -> Outcome:
        return wait(self._actions.kill(full(name), actions.signal_number(signal), whom), QUICK)

    def reset_failed(self, name: str) -> Outcome:
        return wait(self._actions.reset_failed(full(name)), QUICK)

    def logs(self, name: str, lines: int, since: int) -> list[LogLine]:
        _, own = wait(jobs.resolve(self._line, full(name)), QUICK)
        return journal.lines(self._root, own, lines, since)

    def _with_log(self, work: Coroutine[Any, Any, Outcome], seconds: float) -> Outcome:
        began = time.time_ns()
        outcome = wait(work, seconds)
        if outcome.result in (JobResult.DONE, JobResult.SKIPPED):
            return outcome
        try:
            return replace(
                outcome, log=journal.lines(self._root, outcome.unit, actions.LINES, began, sync=True)
            )
        except Problem:  # no journal: the outcome is told all the same
            return outcome
