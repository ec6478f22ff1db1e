"""What one peer may use of us: every number that bounds memory or waiting in the AMQP engine."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; each is enforced here, whatever the peer was told and whatever
    proton checks.

    `capacity` bounds what a peer may leave unread in one session (the AMQP incoming window), `message` one
    whole message, `outgoing` what is handed to proton before it is written, `backlog` and `backlog_bytes`
    what waits in a sender for credit, `stall` how long a peer may refuse to read, `idle` how long it may
    say nothing.
    """

    frame: int = 64 * KIB
    channels: int = 16
    links: int = 64
    capacity: int = 16 * MIB
    message: int = 4 * MIB
    outgoing: int = 1 * MIB
    backlog: int = 10_000
    backlog_bytes: int = 16 * MIB
    unsettled: int = 5_000
    address: int = 1024
    handshake: float = 5.0
    attach: float = 10.0
    closing: float = 2.0
    idle: float = 60.0
    stall: float = 60.0
    connections: int = 4_000
    per_peer: int = 4_000
