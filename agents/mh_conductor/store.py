"""The store: one SQLite file (WAL), reached through SQLAlchemy Core, made and kept current by Alembic.

Readers see a consistent state and never wait; writers take turns. A transaction is whole or absent, also
after `kill -9` (the write-ahead log is the kernel's by then); after a power cut the last few may be missing,
which the next reports mend.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

from libmh.errors import BackendFailed, Conflict, InvalidArguments, Problem, Unavailable
from mh_conductor import once, protocol

T = TypeVar("T")
log = logging.getLogger("mh_conductor.store")
MAX_ATTEMPTS = 5
BUSY_SECONDS = 10.0
MAX_CONNECTIONS = 20
WRITING = "mh_writing"
MIGRATIONS = Path(__file__).parent / "migrations"
PRAGMAS = ("synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY")
RETRY_SECONDS = 0.02
AGGREGATES_LOCK = 0x6D617461  # whoever asks for a lock in PostgreSQL names it by a number


class LostRace(Conflict):
    """Another writer came between: the same again, from reading on, may succeed."""


class Store:
    """Transactions on an open store; for any number of threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITING: True})
        # threads that queue in SQLite sleep and poll for the file's lock; this one wakes the next at once
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view. Raises `Unavailable` or `BackendFailed`."""
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of it or nothing. Raises `Conflict` where another writer came between, and as `read`."""
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"the store did not take a write within {BUSY_SECONDS:g} s")
        try:
            with translated(), self._writer.begin() as connection:
                yield connection
        finally:
            self._turn.release()

    def close(self) -> None:
        self._engine.dispose()


def alone(connection: Connection) -> None:
    """Wait until no other transaction changes aggregates, and keep others from it to the end of this one."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AGGREGATES_LOCK})


def again(store: Store, attempt: Callable[[Connection], T]) -> T:
    """Another process may have written what we read: then all of it is done anew, from reading on."""
    for _ in range(MAX_ATTEMPTS):
        try:
            with store.write() as connection:
                once.note(connection)
                return attempt(connection)
        except LostRace as lost:
            log.info("%s, reading again", lost)
    raise Unavailable(f"the store changed under {MAX_ATTEMPTS} attempts, try again later")


@contextmanager
def translated() -> Iterator[None]:
    """The database's failures as ours."""
    try:
        yield
    except IntegrityError as error:  # two writers made the same name at once
        raise LostRace(f"the store refused a write: {error.orig}") from error
    except OperationalError as error:
        raise _operational(error) from error
    except DBAPIError as error:  # a damaged file, a value that does not fit
        raise BackendFailed(f"the store failed: {error.orig}") from error


def _operational(error: OperationalError) -> Problem:
    text = str(error.orig)
    if "locked" in text or "busy" in text:
        return Unavailable(f"the store was busy for {BUSY_SECONDS:g} s: {text}")
    return BackendFailed(f"the store failed: {text}")


def open_store(url: str) -> Store:
    """Open, make or migrate a store. Raises `InvalidArguments` for the URL, `BackendFailed` for the file."""
    engine = _engine(_checked(url))
    store = Store(engine)
    try:
        migrate(store)
    except Problem:
        store.close()
        raise
    return store


def _checked(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidArguments(f"'{text}' is not the URL of a store: expected sqlite:///PATH") from error
    # an empty path would be a store in memory, of its own for every thread
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise InvalidArguments(f"'{text}' is not a store that can be used here: expected sqlite:///PATH")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendFailed(
            f"cannot make the directory of the store '{url.database}': {error.strerror}"
        ) from error
    return url


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=MAX_CONNECTIONS,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin` says BEGIN: the driver would say it too late
    _write_ahead(connection)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    """Switch to the write-ahead log. While another process does the same to a new file, SQLite refuses at
    once, whatever its busy time-out."""
    deadline = time.monotonic() + BUSY_SECONDS
    pause = threading.Event()
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            pause.wait(RETRY_SECONDS)
        else:
            return


def _begin(connection: Connection) -> None:
    # a writer that began by reading could not wait for another one, only fail
    writing = connection.get_execution_options().get(WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def migrate(store: Store) -> None:
    """Bring the tables up to date, in one transaction; of several processes that start, one does it."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)  # at `info` it lists its plug-ins at every start
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with store.write() as connection:
        config.attributes["connection"] = connection
        protocol.admit(connection)
        try:
            command.upgrade(config, "head")
        except CommandError as error:  # a revision that this program does not have
            if protocol.of(connection) is None:
                raise BackendFailed(
                    f"the store was made by another version of this program: {error}"
                ) from error
            log.info("a newer version of this program has added to the store, working beside it")
        protocol.mark(connection)
