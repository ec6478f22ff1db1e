"""A request that changes something is carried out once, whichever process it is delivered to.

Within a process its transport sees to that. But a requester whose connection was lost sends his request
again, and a broker may deliver what a process took that died: then it can come to another process. So the id
of a request is written in the transaction that it makes; where it is there already, the request is refused.
Therefore the members that change something are declared idempotent: a request is acknowledged when it was
carried out, so that none is lost, either.
"""

import hashlib
from contextvars import ContextVar

from sqlalchemy import Connection, delete, insert, select

from libmh.call import Request, answered
from libmh.errors import Conflict
from mh_conductor import clock
from mh_conductor.tables import REQUESTS

MIN_ID = 32
"""Characters: shorter ids are counted by their callers, and two callers may count alike."""
LIFETIME = 900 * 10**9
_noted: ContextVar[Request | None] = ContextVar("noted", default=None)


def note(connection: Connection) -> None:
    """Write down that the request that is answered now is carried out in this transaction. Raises `Conflict`
    where another process has done that, `LostRace` where one does at this moment."""
    request = answered()
    if request is None or len(request.id) < MIN_ID:
        return
    key = _key(request)
    if connection.execute(select(REQUESTS.c.id).where(REQUESTS.c.id == key)).scalar() is None:
        connection.execute(insert(REQUESTS), {"id": key, "time": clock.now(connection)})
        _noted.set(request)
    elif _noted.get() is not request:
        raise Conflict("this request was carried out already, and its answer lost: look what came of it")


def forget(connection: Connection) -> None:
    """Drop what nobody can send again any more."""
    connection.execute(delete(REQUESTS).where(REQUESTS.c.time < clock.now(connection) - LIFETIME))


def _key(request: Request) -> str:
    said = "\n".join((request.caller.transport, request.caller.identity, request.interface, request.member))
    return hashlib.sha256(f"{said}\n{request.id}".encode()).hexdigest()
