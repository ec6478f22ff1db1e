"""The store's own time: what processes on several machines compare has to come from one clock."""

import time

from sqlalchemy import Connection, text

_POSTGRESQL = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
MICROSECOND = 1000


def now(connection: Connection) -> int:
    """Nanoseconds since the epoch: by the server where there is one; processes that share a file share a
    machine, too."""
    if connection.dialect.name != "postgresql":
        return time.time_ns()
    microseconds: int = connection.execute(_POSTGRESQL).scalar_one()
    return microseconds * MICROSECOND
