"""What the embedded broker keeps on disk: messages that say that they are durable, as long as they wait in a
queue. A SQLite file of the broker's own; it survives the process, and a power failure but for the last
moments."""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mh_amqp.ownfile import begun, connected

log = logging.getLogger(__name__)
MAX_MESSAGES = 200_000
MAX_BYTES = 256 << 20
TABLE = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, raw BLOB NOT NULL, expires REAL
);
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One that was kept; `expires` is a time of `time.time()`, None for never."""

    number: int
    queue: str
    raw: bytes
    expires: float | None


@dataclass(slots=True)
class Kept:
    """`count` and `size` are of what is kept now. A disk that fails is told in the log, once; meanwhile
    nothing is taken."""

    path: Path
    count: int = 0
    size: int = 0
    _database: sqlite3.Connection | None = None
    _complained: bool = False

    def open(self) -> list[Message]:
        """Begin with what earlier processes left, which is returned in the order of arrival. A file that is
        no database is put aside."""
        try:
            return begun(self.path, self._begin)
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
            return []

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def add(self, queue: str, raw: bytes, expires: float | None) -> int:
        """Keep a message; its number, 0 when it could not be kept."""
        if self.count >= MAX_MESSAGES or self.size + len(raw) > MAX_BYTES:
            return 0
        with self._trying() as database:
            if database is not None:
                added = "INSERT INTO messages (queue, raw, expires) VALUES (?, ?, ?)"
                number = database.execute(added, (queue, raw, expires)).lastrowid or 0
                self.count += 1
                self.size += len(raw)
                return number
        return 0

    def remove(self, number: int, size: int) -> None:
        """It waits no longer: taken, refused, too late."""
        with self._trying() as database:
            if database is not None:
                database.execute("DELETE FROM messages WHERE number = ?", (number,))
                self.count -= 1
                self.size -= size

    def _begin(self) -> list[Message]:
        self.close()
        database = connected(self.path)
        try:
            # two brokers would both deliver what is here
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(TABLE)
            database.execute("DELETE FROM messages WHERE expires <= ?", (time.time(),))
            rows = database.execute("SELECT number, queue, raw, expires FROM messages ORDER BY number")
            found = [Message(*row) for row in rows]
        except BaseException:
            database.close()
            raise
        self._database = database
        self.count, self.size = len(found), sum(len(each.raw) for each in found)
        return found

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
            log.error("messages cannot be kept in '%s': %s; durable ones are refused", self.path, error)
        self._complained = True
