"""Events on disk: what could not be told yet, and for a while what was.

A SQLite file of the agent's own. An event stays until the broker has taken it, in the order in which they
were raised, over restarts of the agent; afterwards it is history, for who asks what happened. Number, bytes
and age are bounded: the oldest goes first, and of those that nobody was told of the number is kept.
"""

import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from libmh.errors import BackendFailed
from mh_amqp.ownfile import BUSY_SECONDS, begun, connected

log = logging.getLogger(__name__)
MAX_EVENTS = 10_000
MAX_BYTES = 16 << 20
MAX_AGE = 24 * 3600.0
SWEEP_EVERY = 100
"""Events: bounds are looked at now and then, and may be exceeded by so many."""
NANOSECONDS = 10**9
TABLES = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, address TEXT NOT NULL, raw BLOB NOT NULL,
    time INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS unsent ON events (number) WHERE sent = 0;
CREATE TABLE IF NOT EXISTS meta (epoch TEXT NOT NULL);
"""
FIRST_KEPT = """
SELECT coalesce(min(number), 0) FROM (
    SELECT number, sum(length(raw)) OVER (ORDER BY number DESC) AS bytes,
        row_number() OVER (ORDER BY number DESC) AS place
    FROM events WHERE time >= ?
) WHERE bytes <= ? AND place <= ?
"""
COLUMNS = "SELECT number, address, raw, time FROM events "


@dataclass(frozen=True, slots=True)
class Kept:
    """An event as it was kept; `time` is when it was raised, nanoseconds since the epoch."""

    number: int
    address: str
    raw: bytes
    time: int


@dataclass(slots=True)
class Spool:
    """`dropped` counts what went untold. Every method may find the disk full or gone: it then keeps nothing
    and says so once in the log; what is raised meanwhile is kept in memory alone, by the outbox."""

    path: Path
    dropped: int = 0
    epoch: str = ""
    last: int = 0
    _database: sqlite3.Connection | None = None
    _added: int = 0
    _complained: bool = field(default=False)

    def open(self) -> None:
        """Begin, with what earlier processes left. A file that is no database is put aside."""
        try:
            begun(self.path, self._begin)
        except (OSError, sqlite3.Error) as error:
            self._complain(error)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def add(self, address: str, raw: bytes, when: int) -> int:
        """Keep an event under the number `last + 1`, which is returned; 0 when it could not be kept."""
        with self._trying() as database:
            if database is not None:
                database.execute(
                    "INSERT INTO events (number, address, raw, time) VALUES (?, ?, ?, ?)",
                    (self.last + 1, address, raw, when),
                )
                self.last += 1
                self._added += 1
                if self._added % SWEEP_EVERY == 0:
                    self._sweep(database)
                return self.last
        return 0

    def told(self, number: int) -> None:
        """The broker has it: from now on it is history."""
        with self._trying() as database:
            if database is not None:
                database.execute("UPDATE events SET sent = 1 WHERE number = ?", (number,))

    def untold(self, after: int, limit: int) -> list[Kept]:
        """The next events that nobody was told of, in order."""
        with self._trying() as database:
            if database is not None:
                sql = f"{COLUMNS} WHERE number > ? AND sent = 0 ORDER BY number LIMIT ?"
                return [Kept(*row) for row in database.execute(sql, (after, limit))]
        return []

    def past(self, since: int, limit: int) -> list[Kept]:
        """The last so many events that are not older, in order; from any thread."""
        sql = f"{COLUMNS} WHERE time >= ? ORDER BY number DESC LIMIT ?"
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as database:
                return [Kept(*row) for row in database.execute(sql, (since, limit))][::-1]
        except sqlite3.Error as error:
            raise BackendFailed(f"cannot read the events in '{self.path}': {error}") from error

    def _begin(self) -> None:
        self.close()
        database = connected(self.path)
        try:
            # whole after a power failure, which may cost the last second
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(TABLES)
            if database.execute("SELECT epoch FROM meta").fetchone() is None:
                database.execute("INSERT INTO meta (epoch) VALUES (?)", (secrets.token_hex(4),))
            (self.epoch,) = database.execute("SELECT epoch FROM meta").fetchone()
            (self.last,) = database.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
            self._sweep(database)
        except BaseException:
            database.close()
            raise
        self._database = database

    def _sweep(self, database: sqlite3.Connection) -> None:
        oldest = time.time_ns() - int(MAX_AGE * NANOSECONDS)
        (first,) = database.execute(FIRST_KEPT, (oldest, MAX_BYTES, MAX_EVENTS)).fetchone()
        first = first or self.last + 1
        lost = database.execute("SELECT count(*) FROM events WHERE number < ? AND sent = 0", (first,))
        self.dropped += lost.fetchone()[0]
        # the newest stays, so that no number is given twice
        database.execute("DELETE FROM events WHERE number < ? AND number < ?", (first, self.last))

    @contextlib.contextmanager
    def _trying(self) -> Iterator[sqlite3.Connection | None]:
        try:
            yield self._database
        except sqlite3.Error as error:
            self._complain(error)
        else:
            self._complained = self._complained and self._database is None

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            log.warning("events cannot be kept in '%s': %s; they wait in memory alone", self.path, error)
        self._complained = True
