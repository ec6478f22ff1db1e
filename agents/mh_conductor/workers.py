"""The conductor processes on one store: what each has done, and that it lives.

A process counts in memory and writes its row every few seconds; rows of processes that no longer do are
removed by the others. All times that are compared are the store's.
"""

import asyncio
import logging
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from libmh.agent import software_version
from libmh.api.conductor import Worker
from libmh.errors import Problem
from mh_conductor import clock, once, protocol
from mh_conductor.store import Store
from mh_conductor.tables import WORKERS

log = logging.getLogger("mh_conductor.workers")
BEAT_SECONDS = 4.0
STALE_SECONDS = 120
SECOND = 10**9
RATE_SECONDS = 60
MAX_ERROR = 500

_WRITE = update(WORKERS).where(WORKERS.c.id == bindparam("which"))
_LEAVE = delete(WORKERS).where(WORKERS.c.id == bindparam("which"))
# a row of the future is from before the store's clock was set back: who lives writes it anew
_BURY = delete(WORKERS).where(
    (WORKERS.c.last_seen < bindparam("before")) | (WORKERS.c.last_seen > bindparam("after"))
)


def this_process() -> str:
    """HOST:PID:START: no other process ever has it."""
    return f"{platform.node()[:200]}:{os.getpid()}:{time.time_ns() // SECOND}"


@dataclass(slots=True)
class Tally:
    """What this process has done; for any number of threads."""

    id: str = field(default_factory=this_process)
    started: int = field(default_factory=time.time_ns)
    seconds: Callable[[], float] = time.monotonic
    reports: int = 0
    changed: int = 0
    refused: int = 0
    lag: float = 0.0
    last_error: str | None = None
    last_error_at: int = 0
    _recent: deque[list[int]] = field(default_factory=lambda: deque(maxlen=RATE_SECONDS + 1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, created: int, *, changed: bool) -> None:
        """A report was taken in; `created` is when it was made, by its host's clock, which may be wrong."""
        with self._lock:
            self._count()
            self.changed += changed
            self.lag = max(0.0, (time.time_ns() - created) / SECOND)

    def refuse(self, problem: Problem) -> None:
        """A report was refused."""
        with self._lock:
            self._count()
            self.refused += 1
        self.fail(problem)

    def fail(self, problem: Problem) -> None:
        """Something did not work."""
        with self._lock:
            self.last_error, self.last_error_at = problem.message[:MAX_ERROR], time.time_ns()

    def rate(self) -> float:
        """Reports a second, over the last minute or as long as the process lives."""
        with self._lock:
            now = int(self.seconds())
            lately = [each for each in self._recent if now - RATE_SECONDS <= each[0] < now]
            if not lately:
                return 0.0
            return sum(count for _, count in lately) / (now - lately[0][0])

    def _count(self) -> None:
        self.reports += 1
        second = int(self.seconds())
        if not self._recent or self._recent[-1][0] != second:
            self._recent.append([second, 0])
        self._recent[-1][1] += 1


def write(connection: Connection, tally: Tally) -> None:
    """Tell that this process lives, and bury those that no longer do. Raises `Displaced` when programs have
    taken the store over beside which this one cannot work."""
    protocol.stay(connection)
    now = clock.now(connection)
    values = {
        "last_seen": now,
        "reports": tally.reports,
        "changed": tally.changed,
        "refused": tally.refused,
        "rate": tally.rate(),
        "lag": tally.lag,
        "last_error": tally.last_error,
        "last_error_at": tally.last_error_at,
    }
    if not connection.execute(_WRITE.values(values), {"which": tally.id}).rowcount:
        who = {"id": tally.id, "version": software_version(), "protocol": protocol.PROTOCOL}
        connection.execute(insert(WORKERS), {**who, "started": tally.started, **values})
    once.forget(connection)
    stale = STALE_SECONDS * SECOND
    connection.execute(_BURY, {"before": now - stale, "after": now + stale})


def leave(connection: Connection, tally: Tally) -> None:
    """Take the row of a process away that ends."""
    connection.execute(_LEAVE, {"which": tally.id})


def alive(connection: Connection) -> list[Worker]:
    """The processes that live, by id."""
    rows = connection.execute(select(WORKERS).where(protocol.living(connection)).order_by(WORKERS.c.id))
    return [
        Worker(**{name: value for name, value in row.items() if name in SHOWN}) for row in rows.mappings()
    ]


def last_error(connection: Connection) -> str | None:
    """The latest of any process."""
    query = select(WORKERS.c.last_error).where(WORKERS.c.last_error.is_not(None))
    return connection.execute(query.order_by(WORKERS.c.last_error_at.desc()).limit(1)).scalar()


SHOWN = frozenset(Worker.__dataclass_fields__)


async def keep(store: Store, tally: Tally, seconds: float = BEAT_SECONDS) -> None:
    """Write the row again and again. Raises `Displaced`; a store that is away comes back."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(beat, store, tally)
        except protocol.Displaced:
            raise
        except Problem as problem:
            log.warning("this process cannot tell the store that it lives: %s, ignoring", problem)


def beat(store: Store, tally: Tally) -> None:
    """Write the row in a transaction of its own."""
    with store.write() as connection:
        write(connection, tally)


def farewell(store: Store, tally: Tally) -> None:
    """Take the row away; a store that is away does not keep anybody from ending."""
    try:
        with store.write() as connection:
            leave(connection, tally)
    except Problem as problem:
        log.info("this process cannot tell the store that it ends: %s, ignoring", problem)
