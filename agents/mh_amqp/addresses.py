"""What the broker makes of an address, and which addresses a pattern means."""

from enum import StrEnum

REPLY_PREFIX = "mh.reply."
TOPIC_PREFIX = "mh.event."
MULTICAST = "mh.hosts"
GROUP_PREFIX = "mh.group."
RESERVED_PREFIX = "$"
ONE_WORD, ANY_WORDS = "*", "#"
MOST_PATTERN_WORDS = 32


class Kind(StrEnum):
    """QUEUE: each message to one consumer. MULTICAST and TOPIC: to every receiver, a topic's by pattern.
    REPLY: private to the connection that made it. RESERVED: the broker's own, nothing there."""

    QUEUE = "queue"
    MULTICAST = "multicast"
    TOPIC = "topic"
    REPLY = "reply"
    RESERVED = "reserved"


def kind(address: str) -> Kind:
    if address.startswith(REPLY_PREFIX):
        return Kind.REPLY
    if address.startswith(TOPIC_PREFIX):
        return Kind.TOPIC
    if address == MULTICAST or address.startswith(GROUP_PREFIX):
        return Kind.MULTICAST
    return Kind.RESERVED if address.startswith(RESERVED_PREFIX) else Kind.QUEUE


def has_wildcards(address: str) -> bool:
    words = address.split(".")
    return ONE_WORD in words or ANY_WORDS in words


def matches(pattern: str, address: str) -> bool:
    """`*` stands for one word between dots, `#` for any number of them, none included."""
    reach = [True] + [False] * len(words := address.split("."))
    for part in pattern.split("."):
        if part == ANY_WORDS:
            first = reach.index(True) if True in reach else len(reach)
            reach = [index >= first for index in range(len(reach))]
        else:
            steps = [here and part in (ONE_WORD, word) for here, word in zip(reach, words, strict=False)]
            reach = [False, *steps]
    return reach[-1]
