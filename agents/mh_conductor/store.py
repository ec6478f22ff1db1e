"""The store: a SQLite file or a PostgreSQL database, reached through SQLAlchemy Core, made and kept current
by Alembic. What differs between the two is in `sqlite` and `postgresql`.
"""

import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoneFree

from libmh.caller import time_left
from libmh.errors import BackendFailed, Conflict, InvalidArguments, Problem, Timeout, Unavailable
from mh_conductor import once, postgresql, protocol, sqlite
from mh_conductor.limits import DEFAULT_ZONE, zone_fault

T = TypeVar("T")
log = logging.getLogger("mh_conductor.store")
MAX_ATTEMPTS = 5
BUSY_SECONDS = 10.0
NO_SERVER = "no server"
DEFAULT = "mh_default_zone"
MAX_CONNECTIONS = 20
MIGRATIONS = Path(__file__).parent / "migrations"
EXPECTED = "expected sqlite:///PATH or postgresql+psycopg://[USER[:PASSWORD]@][HOST[:PORT]]/DATABASE"
PASSWORD = re.compile(r"(?<=://)([^/:@?]*):.*@|(?<=password=)[^&]*")


class LostRace(Conflict):
    """Another writer came between: the same again, from reading on, may succeed."""


class Store:
    """Transactions on an open store; for any number of threads. `default_zone` is that of hosts which no
    aggregate gives one."""

    def __init__(self, engine: Engine, default_zone: str = DEFAULT_ZONE) -> None:
        self.default_zone = default_zone
        self._engine = engine = engine.execution_options(**{DEFAULT: default_zone})
        self._server = engine.dialect.name == postgresql.NAME
        self._reader = postgresql.reader(engine) if self._server else engine
        self._writer = postgresql.writer(engine) if self._server else sqlite.writer(engine)
        # threads that queue in SQLite sleep and poll for the file's lock; this one wakes the next at once
        self._turn = threading.Semaphore(MAX_CONNECTIONS if self._server else 1)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view. Raises `Unavailable` or `BackendFailed`."""
        with translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of it or nothing. Raises `LostRace` where another writer came between, and as `read`."""
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"the store did not take a write within {BUSY_SECONDS:g} s")
        try:
            with translated(), self._writer.begin() as connection:
                yield connection
        finally:
            self._turn.release()

    def close(self) -> None:
        self._engine.dispose()


def default_zone(connection: Connection) -> str:
    """The zone of hosts which no aggregate gives one."""
    zone: str = connection.get_execution_options().get(DEFAULT, DEFAULT_ZONE)
    return zone


def alone(connection: Connection) -> None:
    """Wait until no other transaction changes aggregates, or hosts by what they told, and keep others from
    it to the end of this one: before reading what the writes depend on. SQLite has one writer."""
    if connection.dialect.name == postgresql.NAME:
        postgresql.alone(connection)


def reporting(connection: Connection) -> None:
    """Before changing a host by what it told: wait for whoever is `alone`, and let him wait. Hosts do not
    wait for each other."""
    if connection.dialect.name == postgresql.NAME:
        postgresql.reporting(connection)


def placing(connection: Connection) -> bool:
    """As `alone`, for who is `reporting`: others may go on to change hosts, but no aggregates. Answers
    whether they could until now, so that what was read before may be old."""
    if connection.dialect.name != postgresql.NAME:
        return False
    postgresql.placing(connection)
    return True


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


def in_time() -> None:
    """Last in a transaction: whoever asked may have been told meanwhile that there was no answer, and do it
    another way; then nothing comes of it. Raises `Timeout`."""
    if not time_left():
        raise Timeout("the store did not take it in before whoever asked gave up, nothing was changed")


@contextmanager
def translated() -> Iterator[None]:
    """The database's failures as ours."""
    try:
        yield
    except DBAPIError as error:
        raise _problem(error) from error
    except sqlite3.OperationalError as error:  # of the beginning, which SQLAlchemy does not see
        raise _of_file(str(error)) from error
    except NoneFree as error:
        raise Unavailable(f"no connection to the store became free within {BUSY_SECONDS:g} s") from error
    except (UnicodeEncodeError, OverflowError) as error:  # half a character, a number beyond 64 bits
        raise InvalidArguments(f"the store cannot hold a value: {error}") from error


def _problem(error: DBAPIError) -> Problem:
    said = " ".join(str(error.orig).split())
    if isinstance(error, IntegrityError):  # two writers made the same name at once
        return LostRace(f"the store refused a write: {said}")
    if isinstance(error, DataError):
        return InvalidArguments(f"the store cannot hold a value: {said}")
    state = getattr(error.orig, "sqlstate", NO_SERVER)
    if state != NO_SERVER:
        return _of_server(state or "", said)
    return _of_file(said)


def _of_file(said: str) -> Problem:
    if "locked" in said or "busy" in said:
        return Unavailable(f"the store was busy for {BUSY_SECONDS:g} s: {said}")
    return BackendFailed(f"the store failed: {said}")  # a damaged file, a full disk


def _of_server(state: str, said: str) -> Problem:
    if postgresql.is_race(state):
        return LostRace(f"the store refused a write: {said}")
    if postgresql.is_away(state):
        return Unavailable(f"the store is not available: {said}")
    return BackendFailed(f"the store failed: {said}")


def open_store(url: str, default_zone: str = DEFAULT_ZONE) -> Store:
    """Open, make or migrate a store. Raises `InvalidArguments` for the URL, `BackendFailed` for what is
    there, `Unavailable` for a server that cannot be reached."""
    if fault := zone_fault(default_zone):
        raise InvalidArguments(f"the default zone '{default_zone}': {fault}", argument="default-zone")
    store = Store(_engine(_checked(url)), default_zone)
    try:
        migrate(store)
    except Problem:
        store.close()
        raise
    return store


def _checked(text: str) -> URL:
    shown = PASSWORD.sub(lambda found: "***" if found[1] is None else f"{found[1]}:***@", text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # a port that is no number
        raise InvalidArguments(f"'{shown}' is not the URL of a store: {EXPECTED}") from error
    known = url.drivername in ("sqlite", postgresql.NAME, postgresql.DRIVER)
    # an empty path would be a store in memory, of its own for every thread
    if not known or not url.database or url.database == ":memory:":
        raise InvalidArguments(f"'{shown}' is not a store that can be used here: {EXPECTED}")
    return url


def _engine(url: URL) -> Engine:
    make = sqlite.engine if url.drivername == "sqlite" else postgresql.engine
    return make(url, MAX_CONNECTIONS, BUSY_SECONDS)


def migrate(store: Store) -> None:
    """Bring the tables up to date, in one transaction; of several processes that start, one does it."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it lists its plug-ins when it is imported
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with store.write() as connection:
        if connection.dialect.name == postgresql.NAME:
            postgresql.migrating(connection)
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
