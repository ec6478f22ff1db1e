"""A PostgreSQL of the tests' own: one server for all of them, reached by a socket in its directory, with a
database that is migrated, and emptied after each test; others are copied from it.

It sorts by a language's rules, unlike Python and SQLite: what depends on the order of texts shows.

`conftest.py` has the fixtures for every module, so what few need is imported where it is needed.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from testbed import needs
from testbed.child import spawn
from waiting import wait_for

if TYPE_CHECKING:
    import psycopg

PROGRAMS = Path("/usr/lib/postgresql")
OWNER = "postgres"
TEMPLATE = "migrated"
SHARED = "shared"
START_SECONDS = 60
# nobody else may hold on to what the next test writes
EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE each text; BEGIN
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
            AND tablename NOT IN ('fleet', 'alembic_version') LOOP
        EXECUTE 'DELETE FROM ' || quote_ident(each);
    END LOOP;
END $$;
UPDATE fleet SET generation = 0, rules = '', protocol = DEFAULT;
"""
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "jit": "off",
}


@dataclass
class PostgreSQL:
    """Where it is; `running` is the server."""

    programs: Path
    directory: Path
    running: "subprocess.Popen[str] | None" = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{OWNER}@/{database}?host={self.directory}"

    def begin(self) -> None:
        """Run it; it ends with the thread that this is called in."""
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        own = ["-D", str(self.directory / "data"), "-k", str(self.directory)]
        log = (self.directory / "out").open("a")
        command = [str(self.programs / "postgres"), *own, *options]
        self.running = spawn(_as_owner(command), stdout=log.fileno(), stderr=log.fileno())
        log.close()

    def start(self) -> None:
        """Run it until it answers."""
        self.begin()
        wait_for(self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Whether it takes connections; RuntimeError when it has ended."""
        assert self.running is not None
        if self.running.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {(self.directory / 'out').read_text()[-2000:]}")
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:  # it is starting
            return False
        return True

    def stop(self) -> None:
        """End it, its connections too, and wait for that."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it without a word. Its children see that and end, too: before that no other can start."""
        children = psutil.Process(self.running.pid).children() if self.running else []
        self._end(signal.SIGKILL)
        _, left = psutil.wait_procs(children, START_SECONDS)
        assert left == []

    def _end(self, how: signal.Signals) -> None:
        if self.running is not None:
            self.running.send_signal(how)
            self.running.wait(START_SECONDS)
            self.running = None

    def connect(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection where each statement is a transaction of its own."""
        import psycopg

        where = f"host={self.directory} user={OWNER} dbname={database} connect_timeout={START_SECONDS}"
        return psycopg.connect(where, autocommit=True)

    def execute(self, statement: str, database: str = OWNER) -> None:
        """Run SQL."""
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def create(self, template: str = "template0", name: str = "") -> str:
        """A new database's name."""
        made = name or f"test{next(self.numbers)}"
        with self.connect(OWNER) as connection:
            connection.execute(f"CREATE DATABASE {made} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        return made


def _as_owner(command: Sequence[str]) -> list[str]:
    # it refuses to run as root; what setpriv runs takes its place, so that it ends when it is killed
    user = [f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"] if os.geteuid() == 0 else []
    return [needs.command("setpriv", "util-linux"), "--pdeathsig=KILL", *user, *command]


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """One that answers, without databases; its data is gone afterwards."""
    programs = max(PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name), default=None)
    if programs is None:
        needs.missing(f"{PROGRAMS} ({needs.INSTALLABLE}postgresql)")
    directory = Path(tempfile.mkdtemp(prefix="mh-postgresql-", dir="/tmp"))
    server = PostgreSQL(programs, directory)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, OWNER, OWNER)
        data = ["-D", str(directory / "data"), "-U", OWNER, "--auth=trust", "--no-sync"]
        sorting = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]
        made = subprocess.run(
            _as_owner([str(programs / "initdb"), *data, *sorting]),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """Of all tests; those that stop it have one of their own."""
    from mh_conductor.store import open_store

    with postgresql() as server:
        server.create(name=TEMPLATE)
        open_store(server.url(TEMPLATE)).close()
        yield server


@pytest.fixture(scope="session")
def postgresql_shared(postgresql_server: PostgreSQL) -> Iterator[Callable[[], None]]:
    """Empties the shared database."""
    postgresql_server.create(TEMPLATE, SHARED)
    with postgresql_server.connect(SHARED) as connection:

        def empty() -> None:
            connection.execute(EMPTY.encode())

        yield empty


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL, postgresql_shared: Callable[[], None]) -> Iterator[str]:
    """The URL of a store in PostgreSQL that is empty."""
    yield postgresql_server.url(SHARED)
    postgresql_shared()


@pytest.fixture
def postgresql_new_url(postgresql_server: PostgreSQL) -> Iterator[str]:
    """The URL of a database without tables."""
    name = postgresql_server.create()
    yield postgresql_server.url(name)
    postgresql_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is not made yet: the test runs on each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_new_url"))
    return f"sqlite:///{tmp_path / 'conductor.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store: the test runs on each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'conductor.db'}"
