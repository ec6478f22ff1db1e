"""A store in one SQLite file (WAL).

Readers see a consistent state and never wait; writers take turns. A transaction is whole or absent, also
after `kill -9` (the write-ahead log is the kernel's by then); after a power cut the last few may be missing,
which the next reports mend.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from libmh.errors import BackendFailed

WRITING = "mh_writing"
PRAGMAS = ("synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY")
RETRY_SECONDS = (0.001, 0.005)


def engine(url: URL, connections: int, seconds: float) -> Engine:
    """Waits at most `seconds` for whoever writes. Raises `BackendFailed` for the directory."""
    try:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendFailed(
            f"cannot make the directory of the store '{url.database}': {error.strerror}"
        ) from error
    made = create_engine(
        url,
        connect_args={"timeout": seconds, "check_same_thread": False},
        pool_size=connections,
        max_overflow=0,
        pool_timeout=seconds,
    )

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # `begin` says BEGIN: the driver would say it too late
        _write_ahead(connection, seconds)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Connection) -> None:
        # a writer that began by reading could not wait for another one, only fail
        if connection.get_execution_options().get(WRITING, False):
            raw: Any = connection.connection.driver_connection
            _begin_writing(raw, seconds)
        else:
            connection.exec_driver_sql("BEGIN")

    event.listen(made, "connect", prepare)
    event.listen(made, "begin", begin)
    return made


def writer(made: Engine) -> Engine:
    """The same, for transactions that write."""
    return made.execution_options(**{WRITING: True})


def _write_ahead(connection: sqlite3.Connection, seconds: float) -> None:
    # while another process does the same to a new file, SQLite refuses at once, whatever its busy time-out
    _insist(lambda: connection.execute("PRAGMA journal_mode=WAL"), seconds)


def _begin_writing(connection: sqlite3.Connection, seconds: float) -> None:
    """Whoever waits in SQLite looks for the lock ten times a second: other processes with several writers
    would hold it whenever he looks."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        _insist(lambda: connection.execute("BEGIN IMMEDIATE"), seconds)
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")


def _insist(attempt: Callable[[], object], seconds: float) -> None:
    """Try for so long as the file is locked."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            pause.wait(random.uniform(*RETRY_SECONDS))  # noqa: S311 - no secret
        else:
            return
