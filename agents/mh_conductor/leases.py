"""What one process at a time does: a named lease in the store, by the store's time.

`take` belongs into each transaction of the work: its row stays locked until the commit, so a holder that was
stopped for longer than its lease finds out before it changes anything, whatever its own clock says.
"""

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mh_conductor import clock
from mh_conductor.tables import LEASES

SECOND = 10**9
SLACK = 60 * SECOND

_TAKE = (
    update(LEASES)
    .where(
        LEASES.c.name == bindparam("which"),
        (LEASES.c.holder == bindparam("mine"))
        | (LEASES.c.until <= bindparam("now"))
        | (LEASES.c.until > bindparam("latest")),
    )
    .values(holder=bindparam("mine"), until=bindparam("end"))
)
_LEAVE = delete(LEASES).where(LEASES.c.name == bindparam("which"), LEASES.c.holder == bindparam("mine"))


def take(connection: Connection, name: str, holder: str, seconds: float) -> bool:
    """Take a lease that is free or has run out, or hold on to one's own, for `seconds` from now; whether
    `holder` has it then. All who take one take it for as long: one that ends much later is from before the
    store's clock was set back, and may be that of a process which is long dead."""
    now = clock.now(connection)
    end = now + int(seconds * SECOND)
    values = {"which": name, "mine": holder, "now": now, "end": end, "latest": end + SLACK}
    if connection.execute(_TAKE, values).rowcount:
        return True
    if holder_of(connection, name):
        return False
    try:
        with connection.begin_nested():
            connection.execute(insert(LEASES), {"name": name, "holder": holder, "until": end})
    except IntegrityError:  # another process was as quick
        return False
    return True


def release(connection: Connection, name: str, holder: str) -> None:
    """Give one's own lease back; another's stays."""
    connection.execute(_LEAVE, {"which": name, "mine": holder})


def holder_of(connection: Connection, name: str) -> str:
    """Who has, or last had, a lease; empty where nobody ever did."""
    return connection.execute(select(LEASES.c.holder).where(LEASES.c.name == name)).scalar() or ""
