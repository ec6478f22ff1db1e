"""Jobs of systemd that take long: told of after a second, then again and again until they have ended."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from libmh.errors import Problem
from libmh.linux.init.jobs import JOB
from libmh.linux.init.line import Line

log = logging.getLogger("libmh.linux.init.jobwatch")
LONG = 1.0
OFTEN = 10  # told every second so many times, then every ten seconds
SELDOM = 10.0
MAX_JOBS = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """A job under way, or just ended: `state` is waiting, running, or systemd's word for its result."""

    id: int
    unit: str
    verb: str
    state: str
    seconds: float


@dataclass(slots=True)
class _Job:
    id: int
    unit: str
    began: float
    timer: asyncio.TimerHandle | None = None
    verb: str = ""
    times: int = 0
    looking: "asyncio.Task[None] | None" = None


class JobWatch:
    """Everything happens in the bus's loop; `tell` must not wait."""

    def __init__(self, line: Line, tell: Callable[[Progress], None]) -> None:
        self._line = line
        self._tell = tell
        self._jobs: dict[str, _Job] = {}

    def heard(self, member: str, body: Sequence[Any]) -> None:
        """A signal of systemd's manager."""
        match member, list(body):
            case "JobNew", [int(number), str(path), str(unit)] if len(self._jobs) < MAX_JOBS:
                loop = asyncio.get_running_loop()
                job = self._jobs[path] = _Job(number, unit, loop.time())
                job.timer = loop.call_later(LONG, self._look, path)
            case "JobRemoved", [int(), str(path), str(), str(result)]:
                self._ended(path, result)

    def _ended(self, path: str, result: str) -> None:
        job = self._jobs.pop(path, None)
        if job is None:
            return
        if job.timer is not None:
            job.timer.cancel()
        if job.times:
            self._say(job, result)

    def _look(self, path: str) -> None:
        job = self._jobs.get(path)
        if job is not None:
            job.looking = asyncio.ensure_future(self._ask(path, job))

    async def _ask(self, path: str, job: _Job) -> None:
        try:
            verb, state = await self._line.get([(path, JOB, "JobType"), (path, JOB, "State")])
        except Problem as problem:
            log.debug("job %s is not followed: %s", job.id, problem)
            self._jobs.pop(path, None)
            return
        if path not in self._jobs:
            return  # it has ended meanwhile, as `_ended` has told if anybody was told of it
        if isinstance(verb, Problem) or isinstance(state, Problem):
            self._jobs.pop(path)
            return
        job.verb = str(verb)
        job.times += 1
        self._say(job, str(state))
        pause = LONG if job.times < OFTEN else SELDOM
        job.timer = asyncio.get_running_loop().call_later(pause, self._look, path)

    def _say(self, job: _Job, state: str) -> None:
        seconds = asyncio.get_running_loop().time() - job.began
        self._tell(Progress(job.id, job.unit, job.verb, state, seconds))
