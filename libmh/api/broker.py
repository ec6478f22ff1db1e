"""The embedded broker: what it carries."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U32, U64, Access, interface, method, prop


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue, or a private reply address."""

    name: Annotated[str, "its address"]
    messages: Annotated[U64, "that wait"]
    bytes: Annotated[U64, "of these"]
    consumers: Annotated[U32, "links that receive from it"]
    producers: Annotated[U32, "links that send to it, those to any address not counted"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through since the broker started; messages, but for the first."""

    connections: Annotated[U32, "now"]
    received: Annotated[U64, "from producers"]
    delivered: Annotated[U64, "handed to consumers"]
    expired: Annotated[U64, "outlived their time"]
    refused: Annotated[U64, "not taken, which the producer was told"]
    dropped: Annotated[U64, "came settled and could not be kept"]
    rejected: Annotated[U64, "by the consumer"]
    returned: Annotated[U64, "came back and were queued again"]
    abandoned: Annotated[U64, "waited for a receiver that went away"]
    spent: Annotated[U64, "were delivered too often"]
    messages: Annotated[U64, "that wait now"]
    bytes: Annotated[U64, "of these"]


@interface("org.matahariproject.Broker", version="1.0")
class Broker(Protocol):
    """The embedded broker: its queues and what goes through it."""

    @prop(source="the broker", inline=True)
    def traffic(self) -> Traffic:
        """What went through since it started."""
        ...

    @method(returns="queues")
    def queues(
        self,
        pattern: Annotated[str, "a shell pattern over addresses: 'mh.host.*'; empty matches all"] = "",
        limit: Annotated[U32, "at most so many, the fullest; 0 is 1,000, and at most 1,000 are told"] = 1000,
    ) -> list[QueueState]:
        """Queues and reply addresses, by name."""
        ...

    @method(access=Access.OPEN, objects=("name",), returns="messages")
    def waiting(self, name: Annotated[str, "the queue's address, in full"]) -> U64:
        """How many messages of a queue wait, those with it that nobody has answered yet. `not-found` where
        there is no such queue."""
        ...
