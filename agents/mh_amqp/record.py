"""What was asked and answered lately: a request that comes again with its id is answered from here, never
run twice.

Two requests are the same when caller, message-id and content are the same. A client of ours takes random
ids; others count from 0, and many callers may be `anonymous`, so an id that is shorter than a UUID counts
only together with the reply address that it came with.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from mh_amqp.messages import Message
from mh_amqp.status import Answer

MAX_ENTRIES = 4096
MAX_BYTES = 4 << 20
LIFETIME = 60.0
LONGEST = 300.0
UUID_ID = 0x98
BINARY_ID = 0xA0
MIN_BINARY = 16
MIN_TEXT = 32
MAX_KEPT = 64
WHERE, FLEET = "mh:where", "mh:fleet"
"""Which hosts are meant, and how many they are: a request to many may come again to one alone."""
ASIDE = (
    *("mh:deadline", "mh:trace", "mh:key", "mh:issued", "mh:lifetime", "mh:signature"),
    *(WHERE, FLEET),
)
"""Properties that a request may change when it comes again."""
OVERHEAD = 500

Reply = Callable[[Answer], None]


def key_of(message: Message, identity: str) -> Hashable | None:
    """What makes a request the same as another; None for one without an id, which is always new."""
    if not message.message_id:
        return None
    who, number = _short(identity), _short(message.message_id)
    where = None if unique(message.message_id) else _short(message.reply_to or "")
    try:
        said = frozenset((name, each) for name, each in message.properties.items() if name not in ASIDE)
        return hash((said, message.value, message.data)), who, number, where
    except TypeError:  # a property that is a list or a map: refused later, by name
        return who, number, where


def _short(text: str | bytes) -> str | bytes:
    # a key is kept as long as its answer, and its parts are as long as the peer makes them
    if len(text) <= MAX_KEPT:
        return text
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def unique(message_id: bytes) -> bool:
    """Whether an encoded id is long enough that no two callers choose the same: as a UUID, in any form."""
    code, header = message_id[0], 2
    if code == BINARY_ID:
        return len(message_id) >= header + MIN_BINARY
    return code == UUID_ID or len(message_id) >= header + MIN_TEXT


def lifetime(message: Message, *, reads: bool) -> float:
    """Seconds for which the answer is kept: as long as the requester may still ask again. A read that does
    not say is not kept: to run it again harms nobody, and its answer would be old."""
    milliseconds = [each for each in (message.ttl, message.number("mh:deadline")) if each is not None]
    if not milliseconds:
        return 0.0 if reads else LIFETIME
    return max(0.0, min(max(milliseconds) / 1000, LONGEST))


@dataclass(slots=True)
class Record:
    """Bounded by count, bytes and age; the oldest answer goes first. Requests that run now are not bounded
    here but by the credit of the links that they came on."""

    max_entries: int = MAX_ENTRIES
    max_bytes: int = MAX_BYTES
    clock: Callable[[], float] = time.monotonic
    repeated: int = 0
    _running: dict[Hashable, list[Reply]] = field(default_factory=dict)
    _kept: OrderedDict[Hashable, tuple[float, Answer]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def begin(self, key: Hashable | None, reply: Reply) -> bool:
        """Whether a request is new and has to be run. One that is not gets its answer from here, now or
        when the first copy of it has been answered."""
        if key is None:
            return True
        waiting = self._running.get(key)
        if waiting is not None:
            self.repeated += 1
            waiting.append(reply)
            return False
        kept = self._kept.get(key)
        if kept is None or kept[0] <= self.clock():
            self._running[key] = [reply]
            return True
        self.repeated += 1
        reply(kept[1])
        return False

    def finish(self, key: Hashable, answer: Answer, seconds: float) -> None:
        """Give the answer to everyone who waits for it, and keep it."""
        waiting = self._running.pop(key, [])
        if seconds > 0:
            self._keep(key, answer, seconds)
        for reply in waiting:
            reply(answer)

    def _keep(self, key: Hashable, answer: Answer, seconds: float) -> None:
        self._drop(key)
        self._kept[key] = (self.clock() + seconds, answer)
        self._bytes += len(answer.sections) + OVERHEAD
        while self._kept and self._over():
            self._drop(next(iter(self._kept)))

    def _over(self) -> bool:
        return len(self._kept) > self.max_entries or self._bytes > self.max_bytes or self._old()

    def _old(self) -> bool:
        return next(iter(self._kept.values()))[0] <= self.clock()

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept[1].sections) + OVERHEAD

    def __len__(self) -> int:
        return len(self._kept)
