"""A store in one SQLite file (WAL).

Readers see a consistent state and never wait; writers take turns. A transaction is whole or absent, also
after `kill -9` (the write-ahead log is the kernel's by then); after a power cut the last few may be missing,
which the next reports mend.
"""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from libmh.errors import BackendFailed

WRITING = "mh_writing"
PRAGMAS = ("synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY")
RETRY_SECONDS = 0.02


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
        connection.isolation_level = None  # `_begin` says BEGIN: the driver would say it too late
        _write_ahead(connection, seconds)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(made, "connect", prepare)
    event.listen(made, "begin", _begin)
    return made


def writer(made: Engine) -> Engine:
    """The same, for transactions that write."""
    return made.execution_options(**{WRITING: True})


def _write_ahead(connection: Any, seconds: float) -> None:
    """Switch to the write-ahead log. While another process does the same to a new file, SQLite refuses at
    once, whatever its busy time-out."""
    deadline = time.monotonic() + seconds
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
