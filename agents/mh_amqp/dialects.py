"""What the logical addresses are called at each broker, and what the broker can do.

==========  ====================================  ==============================================  =========
dialect     requests                              casts, events, replies                          tried with
==========  ====================================  ==============================================  =========
direct      `$management`, `mh.host.<uuid>`       to who is attached there                        ourselves
mh-broker   as they are                           as they are, dynamic reply nodes                ourselves
rabbitmq-3  `/queue/mh.host.<uuid>`               keys of `/exchange/amq.topic`, in the subject   3.10
rabbitmq-4  `/queues/mh.host.<uuid>`, declared    `/exchanges/amq.topic/KEY`, received from       4.0
            through `/management`                 queues that are declared and bound
artemis     as they are                           as they are; receivers have the capability      nothing
                                                  `topic`
router      as they are                           casts as they are, all events at `mh.event`:    nothing
                                                  both have to be configured as multicast
==========  ====================================  ==============================================  =========

At RabbitMQ 3 a host's queue is durable, so that what is left for a host outlives the broker: who attaches
there has to ask for a durable node (`terminus-durability` 2), or to say `/amq/queue/mh.host.<uuid>`.

"Nothing" means: written from the broker's documents. A broker that is not known is taken for one like ours
that does not check who a message is from.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote

from libmh.errors import InvalidArguments
from mh_amqp.addresses import REPLY_PREFIX, Kind, kind
from mh_amqp.names import AGENT_CONTAINER, EVENT_PREFIX, HOST_PREFIX
from mh_amqp.names import is_private as takes_nothing_else

MAX_KEY = 255
"""Bytes of a routing key (AMQP 0-9-1, shortstr): a longer one would end the session at RabbitMQ."""
BROKER_CONTAINER = "mh-broker"
EVENTS = "mh.event"


class Name(StrEnum):
    """The words of `dialect` in the table `[amqp]`."""

    DIRECT = "direct"
    MH_BROKER = "mh-broker"
    RABBITMQ_3 = "rabbitmq-3"
    RABBITMQ_4 = "rabbitmq-4"
    ARTEMIS = "artemis"
    ROUTER = "router"
    UNKNOWN = "unknown"


def is_private(address: str) -> bool:
    """Whether replies may go there: neither where requests, reports or events go, nor to everybody."""
    return takes_nothing_else(address) and kind(address) not in (Kind.MULTICAST, Kind.TOPIC)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message is handed in: the address of the sending link, None for the anonymous terminus, and
    what the message has to say there, None to leave it. `to` is signed, so that of a request stays.
    `durable`: what is kept there outlives the broker."""

    link: str | None
    subject: str | None = None
    to: str | None = None
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """Where messages are received; `capabilities` are those of the source, `durable` as of a target."""

    link: str
    capabilities: tuple[str, ...] = ()
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """`target` and `node` take a logical address. `reply` takes what a request has as its reply-to, and
    gives None for what is no private place. `standing` are the links by which replies and events go.

    `dynamic`: the broker makes reply nodes. `checks_user`: a message's user-id is who logged in, so it can
    be believed; it `stamps` it itself, or its clients say it. `declares`: queues are made before they are
    used. `overshoots`: it forgets what is under way when it is given credit. `warning` is what an
    administrator has to know.
    """

    name: Name
    target: Callable[[str], Target] = lambda _address: Target(None)
    node: Callable[[str], Node] = Node
    reply: Callable[[str], Target | None] = lambda address: Target(None) if is_private(address) else None
    standing: tuple[str | None, ...] = (None,)
    dynamic: bool = True
    checks_user: bool = False
    stamps: bool = False
    declares: bool = False
    overshoots: bool = False
    warning: str = ""


def _key(address: str) -> str:
    if len(address.encode()) > MAX_KEY:
        raise InvalidArguments(f"'{address[:64]}...' is too long for a routing key: {MAX_KEY} bytes")
    return address


def _is_queue(address: str) -> bool:
    return kind(address) is Kind.QUEUE


def _is_host(address: str) -> bool:
    """Whether requests wait there for a host that is off."""
    return address.startswith(HOST_PREFIX)


TOPIC_3 = "/exchange/amq.topic"
TOPIC_4 = "/exchanges/amq.topic"
REPLY_3 = re.compile(r"(?:/topic/|/exchange/amq\.topic/|(?!/))([^/%*#]{1,255})")
REPLY_4 = re.compile(r"(?:/exchanges/amq\.topic/|(?!/))([^/*#]{1,512})")


def _target_3(address: str) -> Target:
    if not _is_queue(address):
        return Target(TOPIC_3, _key(address))
    return Target(f"/queue/{address}", durable=_is_host(address))


def _node_3(address: str) -> Node:
    if not _is_queue(address):
        return Node(f"/topic/{_key(address)}")
    return Node(f"/queue/{address}", durable=_is_host(address))


def _reply_3(address: str) -> Target | None:
    found = REPLY_3.fullmatch(address)
    return Target(TOPIC_3, found[1]) if found and _fits(found[1]) else None


def _target_4(address: str) -> Target:
    if _is_queue(address):
        return Target(f"/queues/{quote(address, safe='')}")
    to = _topic_4(address)
    return Target(None, to=to) if kind(address) in (Kind.TOPIC, Kind.REPLY) else Target(to)


def _topic_4(key: str) -> str:
    return f"{TOPIC_4}/{quote(_key(key), safe='')}"


def _node_4(address: str) -> Node:
    return Node(f"/queues/{quote(address, safe='')}")


def _reply_4(address: str) -> Target | None:
    found = REPLY_4.fullmatch(address)
    if not found:
        return None
    key = unquote(found[1]) if address.startswith("/") else found[1]
    return Target(None, to=_topic_4(key)) if _fits(key) else None


def _fits(key: str) -> bool:
    """Whether replies may go there; a longer key would end the session of whoever answers."""
    return is_private(key) and len(key.encode()) <= MAX_KEY


def _node_artemis(address: str) -> Node:
    shared = kind(address) in (Kind.QUEUE, Kind.REPLY)
    return Node(address, ("queue",) if shared else ("topic",))


def _node_router(address: str) -> Node:
    """A router compares whole addresses, so all events meet at one, and receivers choose among them."""
    return Node(EVENTS if address.startswith(EVENT_PREFIX) else address)


def _target_router(address: str) -> Target:
    return Target(EVENTS) if address.startswith(EVENT_PREFIX) else Target(None)


LEAK = (
    "every subscription leaves a queue behind that fills for ever, unless a policy lets it expire: "
    "rabbitmqctl set_policy matahari-gen '^amq\\.gen-' '{\"expires\":60000}' --apply-to queues"
)
MH_BROKER = Dialect(Name.MH_BROKER, checks_user=True, stamps=True)
DIRECT = replace(MH_BROKER, name=Name.DIRECT)
UNKNOWN = Dialect(Name.UNKNOWN)
RABBITMQ_3 = Dialect(
    Name.RABBITMQ_3,
    _target_3,
    _node_3,
    _reply_3,
    standing=(TOPIC_3,),
    dynamic=False,
    checks_user=True,
    overshoots=True,
    warning=LEAK,
)
RABBITMQ_4 = Dialect(
    Name.RABBITMQ_4,
    _target_4,
    _node_4,
    _reply_4,
    dynamic=False,
    checks_user=True,
    declares=True,
)
ARTEMIS = Dialect(Name.ARTEMIS, node=_node_artemis)
ROUTER = Dialect(Name.ROUTER, _target_router, _node_router, standing=(None, EVENTS))
DIALECTS: Mapping[str, Dialect] = {
    each.name: each for each in (DIRECT, MH_BROKER, RABBITMQ_3, RABBITMQ_4, ARTEMIS, ROUTER, UNKNOWN)
}
PRODUCTS: tuple[tuple[str, str, Dialect], ...] = (
    ("rabbitmq", "3.", RABBITMQ_3),
    ("rabbitmq", "", RABBITMQ_4),
    ("apache-activemq-artemis", "", ARTEMIS),
    ("qpid-dispatch-router", "", ROUTER),
    ("skupper-router", "", ROUTER),
)
"""What an open frame's properties `product` and `version` begin with."""


def spoken(container: str, product: str, version: str) -> Dialect:
    """The dialect of a peer, by what its open frame says."""
    if container.startswith(AGENT_CONTAINER):
        return DIRECT
    if container == BROKER_CONTAINER:
        return MH_BROKER
    for name, release, dialect in PRODUCTS:
        if product.lower().startswith(name) and version.startswith(release):
            return dialect
    return UNKNOWN


def chosen(config: Mapping[str, Any]) -> Dialect | None:
    """The dialect that `dialect` in a configuration's table `[amqp]` names. Raises `InvalidArguments`."""
    table = config.get("amqp", {})
    word = table.get("dialect")
    if not set(table) <= {"dialect"} or not (word is None or (isinstance(word, str) and word in DIALECTS)):
        raise InvalidArguments(f"[amqp]: expected dialect, one of {', '.join(DIALECTS)}", argument="amqp")
    return None if word is None else DIALECTS[word]


def private_address(token: str) -> str:
    """A reply address that its receiver makes up; `token` is hard to guess."""
    return REPLY_PREFIX + token
