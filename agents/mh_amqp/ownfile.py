"""A SQLite file of the process's own: nobody else may read it, and one that is damaged is put aside."""

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
BUSY_SECONDS = 1.0
T = TypeVar("T")


def begun(path: Path, begin: Callable[[], T]) -> T:
    """What `begin` makes of the file: of a new one where this one is no database, which is then kept beside
    it. Raises `OSError` and `sqlite3.Error`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return begin()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_name(path.name + ".damaged")
        log.warning("'%s': %s; it is kept as '%s', and a new one begins", path, error, aside)
        path.replace(aside)
        return begin()


def connected(path: Path) -> sqlite3.Connection:
    """A connection to it; every statement is a transaction. Raises as `begun`."""
    # the files that SQLite makes beside it have its mode
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
