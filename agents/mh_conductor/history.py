"""What changed: who or which rule did it, when and why."""

from sqlalchemy import Connection, select

from libmh.api.aggregates import HistoryEntry
from libmh.errors import InvalidArguments
from mh_conductor.limits import storable
from mh_conductor.tables import HISTORY

MAX_ENTRIES = 10_000


def history(connection: Connection, name: str = "", host: str = "", limit: int = 100) -> list[HistoryEntry]:
    """The latest first; of the aggregate that had this name, or the host, where one is named. Raises
    `InvalidArguments` for a limit beyond 1 to 10,000."""
    if not 1 <= limit <= MAX_ENTRIES:
        raise InvalidArguments(f"limit: expected 1 to {MAX_ENTRIES}, got {limit}", argument="limit")
    if not storable(name + host):
        return []
    query = select(HISTORY).order_by(HISTORY.c.id.desc()).limit(limit)
    if name:
        query = query.where(HISTORY.c.aggregate == name)
    if host:
        query = query.where(HISTORY.c.host == host)
    return [
        HistoryEntry(row.time, row.who or row.rule, row.aggregate, row.change, row.host, row.why)
        for row in connection.execute(query)
    ]
