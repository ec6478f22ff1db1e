"""What the kernel knows of a connection that AMQP does not: that our own address has gone, or that nothing
of what we send is taken any more."""

import asyncio
import errno
import logging
import socket
from typing import Any

from mh_amqp.connection import Connection

log = logging.getLogger(__name__)
LOOK_SECONDS = 3.0


def tune(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Let the kernel give a connection up when the peer takes nothing for so long; by itself it tries for a
    quarter of an hour (tcp(7), TCP_USER_TIMEOUT). Not every system can."""
    raw, option = transport.get_extra_info("socket"), getattr(socket, "TCP_USER_TIMEOUT", None)
    if raw is None or option is None:
        return
    try:
        raw.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
    except OSError as error:  # no TCP
        log.debug("the kernel keeps its own time: %s", error)


def is_ours(name: Any) -> bool:
    """Whether the address of a socket's own end is still one of this machine's: then one can bind to it.
    What is no Internet address has not gone."""
    if not isinstance(name, tuple) or len(name) not in (2, 4):
        return True
    family = socket.AF_INET6 if len(name) == 4 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((name[0], 0, *name[2:]))
    except OSError as error:
        # ENODEV: the link of a link-local address; anything else, as too many open files, says nothing
        return error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV)
    return True


async def kept(connection: Connection) -> None:
    """Watch the connection's own address as long as it lasts, and end it when the address has gone: else it
    would be noticed when the peer has been silent for long."""
    own = connection.pump.own
    while not connection.closed.done():
        await asyncio.sleep(LOOK_SECONDS)
        if not is_ours(own):
            connection.abort(f"this machine has the address {own[0]} no longer")
            return
