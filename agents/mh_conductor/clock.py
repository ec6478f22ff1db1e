"""The store's own time: what processes on several machines compare has to come from one clock."""

import time

from sqlalchemy import Connection, text

_POSTGRESQL = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
MICROSECOND = 1000
ASK_AGAIN = 10 * 10**9


class Steady:
    """The store's time for who needs it very often: asked for now and then, and counted on from there,
    whatever becomes of this machine's own clock. For any number of threads."""

    def __init__(self) -> None:
        self._known: tuple[int, int] | None = None

    def __call__(self, connection: Connection) -> int:
        """Nanoseconds since the epoch."""
        if connection.dialect.name != "postgresql":
            return now(connection)
        ticks, known = time.monotonic_ns(), self._known
        if known is None or ticks - known[1] > ASK_AGAIN:
            known = self._known = (now(connection), ticks)
        return known[0] + ticks - known[1]


def now(connection: Connection) -> int:
    """Nanoseconds since the epoch: by the server where there is one; processes that share a file share a
    machine, too."""
    if connection.dialect.name != "postgresql":
        return time.time_ns()
    microseconds: int = connection.execute(_POSTGRESQL).scalar_one()
    return microseconds * MICROSECOND
