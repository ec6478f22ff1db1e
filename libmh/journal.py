"""What an agent was asked to change, and what came of it: who asked can look it up later, when he was not
there for the answer, or the agent was not there for the question.

A file of JSON lines, one when a request begins and one when it ends; what began and did not end, because the
agent was killed, is `interrupted`. Bounded by count and by the size of each answer; the oldest goes first.
"""

import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path

from libmh import uris
from libmh.api.agent import Job
from libmh.errors import Problem
from libmh.spec import Plain

log = logging.getLogger(__name__)
RUNNING, DONE, INTERRUPTED = "running", "done", "interrupted"
MAX_JOBS = 500
MAX_RESULT = 4096
MAX_TEXT = 500
MAX_ID = 256
MAX_FILE = 16 << 20
LINES_PER_JOB = 4
"""How much longer than what it has to tell the file may grow before it is written anew."""
NAMES = frozenset(each.name for each in fields(Job))


class Journal:
    """Belongs to one event loop; in memory until `open` names its file."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._path: Path | None = None
        self._file = -1
        self._lines = 0

    def open(self, path: Path) -> None:
        """Read what earlier processes were asked, and go on in the same file. A file that cannot be kept is
        told in the log: the agent works without it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for line in _read(path).splitlines():
                self._take(line)
            for number, job in self._jobs.items():
                if job.outcome == RUNNING:
                    self._jobs[number] = replace(
                        job, outcome=INTERRUPTED, message="the agent ended meanwhile"
                    )
            self._path = path
            self._write_anew(path)
        except OSError as error:
            log.warning("what is asked is not kept in '%s': %s, ignoring", path, error.strerror)
            self._path = None

    def begin(self, number: str, member: str, objects: Mapping[str, str], by: str) -> None:
        """A request runs from now on."""
        named = {name[:MAX_ID]: uris.shown(value)[:MAX_ID] for name, value in objects.items()}
        self._keep(Job(number[:MAX_ID], member, named, by[:MAX_ID], time.time_ns(), RUNNING))

    def end(self, number: str, answer: Plain = None, problem: BaseException | None = None) -> None:
        """It has ended, well or by a problem; what is no `Problem` is a bug or the agent's own end."""
        job = self._jobs.get(number[:MAX_ID])
        if job is None:  # so many others began meanwhile
            return
        outcome, message = DONE, None
        if problem is not None:
            outcome = problem.word if isinstance(problem, Problem) else "internal"
            message = str(problem)[:MAX_TEXT] or None
        small = _small(answer)
        self._keep(replace(job, finished=time.time_ns(), outcome=outcome, message=message, result=small))

    def jobs(self) -> list[Job]:
        """The newest first."""
        return list(reversed(self._jobs.values()))

    def job(self, number: str) -> Job | None:
        return self._jobs.get(number[:MAX_ID])

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._jobs.move_to_end(job.id)
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)
        if self._path is None:
            return
        try:
            os.write(self._file, _line(job))
            self._lines += 1
            if self._lines > MAX_JOBS * LINES_PER_JOB:
                self._write_anew(self._path)
        except OSError as error:
            log.warning("what was asked is not kept in '%s': %s", self._path, error.strerror)

    def _take(self, line: str) -> None:
        try:
            told = json.loads(line)
            job = Job(**{name: value for name, value in told.items() if name in NAMES})
        except (ValueError, TypeError, AttributeError):  # cut short, when a process was killed
            return
        self._jobs[job.id] = job
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)

    def _write_anew(self, path: Path) -> None:
        self.close()
        temporary = path.with_name(path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(temporary, flags, 0o600)
        os.write(self._file, b"".join(map(_line, self._jobs.values())))
        temporary.replace(path)
        self._lines = len(self._jobs)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _line(job: Job) -> bytes:
    return json.dumps(asdict(job), separators=(",", ":")).encode() + b"\n"


def _small(answer: Plain) -> Plain:
    """An answer, if it is short and JSON can carry it."""
    try:
        return answer if len(json.dumps(answer)) <= MAX_RESULT else None
    except (TypeError, ValueError, RecursionError):  # bytes
        return None
