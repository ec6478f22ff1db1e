"""What the embedded broker asks before it lets a peer use an address: `access` says what, the audit is told
of each refusal, and nobody speaks for a host that he is not."""

from dataclasses import dataclass, field
from typing import Protocol

from mh_amqp import messages
from mh_amqp.access import Access, Way
from mh_amqp.addresses import REPLY_PREFIX, Kind, kind
from mh_amqp.codec import Malformed
from mh_amqp.connection import Connection
from mh_amqp.links import Link, Sender
from mh_amqp.names import HOST_PREFIX
from mh_amqp.refusals import Refusals

CLAIM = "mh:host"
MAX_SHOWN = 200


class Peer(Protocol):
    """Who it is, and where."""

    user: str
    peer: str


@dataclass(slots=True)
class Gate:
    """Each method answers why not, for the peer; "" when it may."""

    access: Access
    refusals: Refusals = field(default_factory=Refusals)

    def attach(self, connection: Connection, link: Link) -> str:
        """A link to an address or from it; the anonymous terminus leads nowhere yet."""
        way = Way.RECEIVE if isinstance(link, Sender) else Way.SEND
        address = REPLY_PREFIX if link.asked and link.asked.dynamic else link.address
        if address is None:
            return ""
        refused = self.use(connection, way, address)
        if not refused and way is Way.RECEIVE and address.startswith(HOST_PREFIX):
            self.access.owners.claim(connection.user, address.removeprefix(HOST_PREFIX))
        return refused

    def use(self, connection: Peer, way: Way, address: str) -> str:
        """An address as such."""
        verdict = self.access.judge(connection.user, way, address)
        if verdict.allowed:
            return ""
        preposition = "to" if way is Way.SEND else "from"
        return self._refused(connection, f"{way} {preposition} '{address[:MAX_SHOWN]}'", verdict.why)

    def speak(self, connection: Connection, address: str, raw: bytes) -> str:
        """A message for an address that may be used: whose it says that it is. Only what tells of a host
        is looked at."""
        if kind(address) not in (Kind.TOPIC, Kind.REPLY) or self.access.any_host(connection.user):
            return ""
        try:
            claimed = messages.decode(raw).text(CLAIM)
        except Malformed:
            return self._refused(connection, f"send to '{address[:MAX_SHOWN]}'", "it cannot be read")
        if not claimed:
            if not self.access.judge(connection.user, Way.SEND, address).own:
                return ""
            why = f"it does not say which host it is from ({CLAIM})"
        elif self.access.owners.is_one(connection.user, claimed):
            return ""
        else:
            why = f"it says that it is from host '{claimed[:MAX_SHOWN]}', which is not the sender's"
        return self._refused(connection, f"send to '{address[:MAX_SHOWN]}'", why)

    def _refused(self, connection: Peer, what: str, why: str) -> str:
        self.refusals.use(connection.user, what, connection.peer, why)
        return f"'{connection.user[:MAX_SHOWN]}' may not {what}: {why}"
