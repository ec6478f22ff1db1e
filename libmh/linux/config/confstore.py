"""What configuration runs leave behind, in one SQLite file of the state directory: plans that wait, the
history, contents by their hash, and the journal of a run that is under way.

One file, because what belongs together then changes together: that a plan is used up, that a run counts as
applied and that another counts as undone is one commit, on the disk before `transaction` returns.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from libmh.context import unreadable
from libmh.errors import BackendFailed, NotAuthorized, Problem, Unavailable

log = logging.getLogger("libmh.linux.config.confstore")
NAME = "sysconfig"
SECRET, PRIVATE = 0o600, 0o700
BUSY_SECONDS = 20.0
LOCK_STEP, LOCK_LONGEST = 0.005, 0.25
MAX_CONTENTS = 256 << 20
CACHE_KIB = 512
SCHEMA = """
CREATE TABLE IF NOT EXISTS plans(
    id TEXT PRIMARY KEY, made INTEGER, expires INTEGER, size INTEGER, record TEXT, text BLOB, undoes TEXT);
CREATE TABLE IF NOT EXISTS plan_files(
    plan TEXT, position INTEGER, path TEXT, before TEXT, after TEXT, look TEXT, told INTEGER, content BLOB,
    PRIMARY KEY(plan, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, key TEXT, result TEXT, confirm_by INTEGER,
    undone_by TEXT, reason TEXT, status TEXT, output TEXT, directories TEXT, record TEXT);
CREATE INDEX IF NOT EXISTS runs_key ON runs(key, seq);
CREATE INDEX IF NOT EXISTS runs_pending ON runs(result) WHERE result = 'pending';
CREATE TABLE IF NOT EXISTS files(
    run TEXT, path TEXT, before TEXT, after TEXT, look TEXT, PRIMARY KEY(run, path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_path ON files(path);
CREATE TABLE IF NOT EXISTS contents(hash TEXT PRIMARY KEY, size INTEGER, content BLOB);
CREATE INDEX IF NOT EXISTS contents_size ON contents(size);
CREATE TABLE IF NOT EXISTS journal(run TEXT PRIMARY KEY, state TEXT, record TEXT);
"""
DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def digest(content: bytes) -> str:
    """SHA-256, as 64 digits."""
    return hashlib.sha256(content).hexdigest()


class Store:
    """The file, and the lock that lets one run at a time change the host. Safe to use from any thread."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.directory = state / NAME
        self._guard = threading.Lock()
        self._made: sqlite3.Connection | None = None
        self._path = self.directory / "runs.sqlite"
        self._inode = 0

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept. `not-authorized` where that is not for us to know."""
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unreadable(str(self.directory), error) from error
        return True

    def close(self) -> None:
        with self._guard:
            made, self._made = self._made, None
            if made is not None:
                made.close()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; with `durable` it outlives a power failure. `backend-failed` where the disk
        refuses, and nothing has happened then."""
        with self._guard:
            try:
                connection = self._connection()
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # it has been rolled back already
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                if _is_damaged(error):
                    self._put_aside(error)
                raise self._problem(str(error)) from error

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Hold off every other run of this host; `unavailable` when one does not end in time."""
        self._prepare()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(self.directory / "lock", flags, SECRET)
        except OSError as error:
            raise self._problem(error.strerror) from error
        try:
            _acquire(handle, seconds)
            yield
        finally:
            os.close(handle)  # and with it the lock

    def _connection(self) -> sqlite3.Connection:
        if self._made is not None and self._inode != _inode(self._path):  # another process put it aside
            self._made.close()
            self._made = None
        if self._made is None:
            self._prepare()
            self._inode = 0
            try:
                self._made = _open(self._path)
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                self._put_aside(error)
                self._made = _open(self._path)
            self._inode = _inode(self._path)
        return self._made

    def _put_aside(self, error: sqlite3.Error) -> None:
        """Begin anew, with the next transaction: a record that is damaged would keep every run from running.
        Another process may have done so already."""
        made, self._made = self._made, None
        if made is not None:
            made.close()
        try:
            if self._inode not in (0, _inode(self._path)):
                return
            aside = self._path.with_name("runs.damaged")
            self._path.replace(aside)
            for rest in ("-wal", "-shm"):
                self._path.with_name(self._path.name + rest).unlink(missing_ok=True)
        except OSError as another:
            raise self._problem(f"{error}; {another.strerror}") from another
        log.warning(
            "'%s' was damaged: %s; it is kept as '%s', and a new one begins", self._path, error, aside
        )

    def _prepare(self) -> None:
        """The directory: nobody else's, for what is in it is written to the host by root."""
        try:
            self.directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(handle)
                if status.st_uid != os.geteuid():
                    raise NotAuthorized(f"'{self.directory}' belongs to the user {status.st_uid}")
                if status.st_mode & 0o7777 != PRIVATE:  # it may have got its parent's setgid bit
                    os.fchmod(handle, PRIVATE)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._problem(error.strerror) from error

    def _problem(self, why: str | None) -> Problem:
        return BackendFailed(f"configuration runs cannot be kept in '{self.directory}': {why}")


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:  # it has gone, or its disk
        return -1


def _is_damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("PRAGMA journal_mode=WAL")
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            connection.executescript("PRAGMA auto_vacuum=INCREMENTAL; BEGIN IMMEDIATE;" + SCHEMA + "COMMIT;")
            connection.execute("PRAGMA user_version=1")
    except BaseException:
        connection.close()
        raise
    return connection


def _acquire(handle: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    pause, step = threading.Event(), LOCK_STEP
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable("another configuration run is under way, try again later") from None
            pause.wait(step)
            step = min(step * 2, LOCK_LONGEST)
        else:
            return


def keep(connection: sqlite3.Connection, content: bytes) -> str:
    """Keep a content; its hash finds it again."""
    name = digest(content)
    values = (name, len(content), content)
    connection.execute("INSERT OR IGNORE INTO contents(hash, size, content) VALUES(?, ?, ?)", values)
    return name


def content_of(connection: sqlite3.Connection, name: str | None) -> bytes | None:
    """What was kept under a hash; None for one that is not, or no longer."""
    row = connection.execute("SELECT content FROM contents WHERE hash = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def forget_contents(connection: sqlite3.Connection) -> None:
    """Let contents go that no run needs, and past the limit those of the oldest runs. Only where no journal
    is open: its contents count as needed by nobody."""
    total = connection.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()[0]
    if total <= MAX_CONTENTS:
        return
    connection.execute(
        "DELETE FROM contents WHERE hash NOT IN (SELECT before FROM files WHERE before IS NOT NULL "
        "UNION SELECT after FROM files WHERE after IS NOT NULL)"
    )
    rows = connection.execute(
        "SELECT DISTINCT hash FROM runs JOIN files ON run = id JOIN contents ON hash IN (before, after) "
        "ORDER BY seq"
    ).fetchall()
    for (name,) in rows:
        total = connection.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()[0]
        if total <= MAX_CONTENTS // 2:
            break
        connection.execute("DELETE FROM contents WHERE hash = ?", (name,))
    connection.execute("PRAGMA incremental_vacuum")
