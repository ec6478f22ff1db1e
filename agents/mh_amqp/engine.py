"""AMQP 1.0 on asyncio, dialled and accepted: what the agent, the client half and the broker stand on.

    connection = await dial("127.0.0.1", 5672, container="console")
    sender = await connection.sender("mh.host.<uuid>")
    replies = await connection.receiver(None, on_delivery, dynamic=True, credit=1000)  # replies.address
    sender.send(raw, settled=True)

    listener = await listen("127.0.0.1", 0, served, container="agent")  # listener.port

Messages are bytes here; encoding them is the business of the layer above. All of it lives in one event loop.
A host that starts with "/" is the path of a Unix socket or of a character device, and its port is not used.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from libmh import errors
from mh_amqp.connection import Connection, Served
from mh_amqp.device import connect, is_device, served_at
from mh_amqp.entrance import Entrance
from mh_amqp.lifeline import tune
from mh_amqp.limits import Limits
from mh_amqp.links import Asked, Delivery, Link, Receiver, Sender
from mh_amqp.outcome import Outcome, Word, problem
from mh_amqp.pump import Closed, Pump
from mh_amqp.refusals import Refusals, host_of
from mh_amqp.security import Door, Login, check_listen, check_login, is_unix

log = logging.getLogger(__name__)

BACKLOG = 1024
DEFAULT_LIMITS = Limits()
DEFAULT_LOGIN = Login()
DEFAULT_DOOR = Door()

__all__ = [
    "Asked",
    "Closed",
    "Connection",
    "Delivery",
    "Door",
    "Limits",
    "Link",
    "Listener",
    "Login",
    "Outcome",
    "Receiver",
    "Sender",
    "Served",
    "Word",
    "dial",
    "listen",
]


async def dial(
    host: str,
    port: int,
    *,
    container: str,
    login: Login = DEFAULT_LOGIN,
    limits: Limits = DEFAULT_LIMITS,
    served: Served | None = None,
    deadline: float = 10.0,
    certified: str = "",
) -> Connection:
    """Connect, authenticate, open. `served` answers links that the peer attaches; without it they are
    refused. `certified` is the name that the peer's certificate has to be for, where it is not `host`.

    Raises `Unavailable` (nobody listens, or it closed: its words), `NotAuthorized`, `Timeout` after
    `deadline` seconds.
    """
    check_login(host, login)
    where = host if is_unix(host) else f"{host}:{port}"
    connection = Connection(container, limits, login, served)
    try:
        async with asyncio.timeout(deadline):
            await _connect(connection.pump, host, port, login, certified or host)
            await connection.ready
    except TimeoutError as late:
        connection.abort()
        raise errors.Timeout(f"'{where}' did not answer as an AMQP peer in {deadline} s") from late
    except ssl.SSLError as error:  # whoever is there is not whom we trust
        raise errors.NotAuthorized(f"'{where}' could not prove who it is: {error}") from error
    except OSError as error:  # refused, unreachable, no such name
        raise errors.Unavailable(f"cannot connect to '{where}': {error}") from error
    except asyncio.CancelledError:
        connection.abort()
        raise
    if connection.closed.done():
        reason = connection.closed.result()
        if not reason.condition:
            raise errors.Unavailable(f"'{where}' ended the connection: {reason}")
        raise problem(reason.condition, reason.description, f"'{where}' refused the connection")
    return connection


async def _connect(pump: Pump, host: str, port: int, login: Login, certified: str) -> None:
    loop = asyncio.get_running_loop()
    secured = None if login.tls is None else login.tls.dialling()
    if is_unix(host) and is_device(host):
        connect(host, pump)
    elif is_unix(host):
        await loop.create_unix_connection(lambda: pump, host)
    else:
        named = None if secured is None else certified
        made, _ = await loop.create_connection(lambda: pump, host, port, ssl=secured, server_hostname=named)
        tune(made, pump.limits.stall)


async def listen(
    host: str,
    port: int,
    served: Served,
    *,
    container: str,
    door: Door = DEFAULT_DOOR,
    limits: Limits = DEFAULT_LIMITS,
) -> "Listener":
    """Accept peers; port 0 picks one. Raises `InvalidArguments` where strangers could come in,
    `BackendFailed` when TLS cannot be set up, `Unavailable` when it cannot listen."""
    check_listen(host, door)
    listener = Listener(served, container, door, limits)
    loop = asyncio.get_running_loop()
    try:
        if is_unix(host):
            _check_free(host)
            listener.server = await loop.create_unix_server(listener.accept, host, backlog=BACKLOG)
            listener.path = Path(host)
        else:
            accept: Callable[[], asyncio.Protocol] = listener.accept
            if door.tls is not None:
                secured = door.tls.listening(strict=door.users is None)
                listener.entrance = Entrance(listener, secured, limits.handshake)
                accept = listener.entrance.accept
            listener.server = await loop.create_server(accept, host, port, backlog=BACKLOG)
    except OSError as error:  # in use, no such address, not permitted
        raise errors.Unavailable(f"cannot listen on '{host}:{port}': {error}") from error
    return listener


def _check_free(path: str) -> None:
    """Raise OSError when somebody listens at a Unix socket: asyncio would take it away from them."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except (
            FileNotFoundError,
            ConnectionRefusedError,
        ):  # nothing there, or left behind by one that ended
            return
        except BlockingIOError:  # its backlog is full
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there")


class Listener:
    """The accepted connections, all of them in `connections`; those above the limits are cut off at once,
    and counted. Whom it does not let in is told to `refusals`."""

    def __init__(self, served: Served, container: str, door: Door, limits: Limits) -> None:
        self.server: asyncio.Server | None = None
        self.path: Path | None = None
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.refusals = Refusals()
        self.entrance: Entrance | None = None
        self._served = served
        self._container = container
        self._door = door
        self._limits = limits
        self._taken = 0
        self._per_host: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix socket."""
        if self.server is None or self.path is not None or not self.server.sockets:
            return 0
        return int(self.server.sockets[0].getsockname()[1])

    def accept(self) -> Pump:
        """A protocol for the next peer, for asyncio alone."""
        return self._connection(self._arrived).pump

    async def attach(self, path: str) -> None:
        """Serve the other end of a character device, or of a Unix socket that another listens on, for
        ever."""
        await served_at(path, self.accept)

    async def close(self) -> None:
        """Stop listening, close every connection politely, and wait for that within the closing time."""
        if self.server is not None:
            self.server.close()
        if self.entrance is not None:
            self.entrance.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.fail("amqp:connection:forced", "shutting down")
        ending = [connection.closed for connection in self.connections]
        if ending:
            await asyncio.wait(ending, timeout=self._limits.closing + 1)
        self.refusals.flush()

    # for the entrance

    def room(self, peer: str) -> bool:
        """Take a place for a peer; False, which was told, where there is none."""
        host = host_of(peer)
        here = self._per_host.get(host, 0)
        if self._taken >= self._limits.connections or here >= self._limits.per_peer:
            self.refused(peer, f"there are {self._taken} connections, {here} of its host")
            return False
        self._taken += 1
        self._per_host[host] = here + 1
        return True

    def leave(self, peer: str) -> None:
        """The peer's place is free again."""
        host = host_of(peer)
        self._taken -= 1
        left = self._per_host.get(host, 1) - 1
        if left > 0:
            self._per_host[host] = left
        else:
            self._per_host.pop(host, None)

    def refused(self, peer: str, why: str) -> None:
        """A peer did not come in."""
        self.refusals.entry(peer, why)

    def inside(self, peer: str) -> Pump:
        """What talks to a peer that has come in by TLS."""
        return self._connection(lambda connection: self._keep(connection, peer)).pump

    def _connection(self, made: Callable[[Connection], None]) -> Connection:
        connection = Connection(self._container, self._limits, self._door, self._served)
        pump, named = connection.pump, connection.pump.on_made

        def begun() -> None:
            named()
            pump.on_refused = lambda why: self.refused(connection.peer, why)
            made(connection)

        pump.on_made = begun
        return connection

    def _arrived(self, connection: Connection) -> None:
        if self.room(connection.peer):
            self._keep(connection, connection.peer)
        else:
            connection.abort("too many connections")

    def _keep(self, connection: Connection, peer: str) -> None:
        self.accepted += 1
        self.connections.add(connection)

        def gone(_: object) -> None:
            self.connections.discard(connection)
            self.leave(peer)

        connection.closed.add_done_callback(gone)
