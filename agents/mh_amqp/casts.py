"""Requests to many hosts at once: each host looks whether it is meant, stays silent when it is not, and
answers after a pause that spreads the answers of a large fleet.

A cast is a request to `mh.hosts` or `mh.group.<name>` with two application properties: `mh:where`, a JSON
list of requirements (`libmh.selection`), all of which have to hold, and `mh:fleet`, how many there are.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from libmh import selection
from libmh.capability import Capabilities, Reporter
from libmh.errors import InvalidArguments, Problem, Unavailable
from libmh.guard import SHARED
from libmh.spec import Plain
from mh_amqp import codec, messages
from mh_amqp.addresses import GROUP_PREFIX, MULTICAST
from mh_amqp.events import Source
from mh_amqp.intake import Intake, Send
from mh_amqp.links import Delivery, Receiver
from mh_amqp.messages import Message

log = logging.getLogger(__name__)
WHERE, FLEET = "mh:where", "mh:fleet"
FRESH_SECONDS = 150.0
"""How long facts are good for; an agent that reports has younger ones."""
SURVEY_SECONDS = 10.0
SPREAD_PER_HOST = 0.0001
MOST_SPREAD = 1.0
SMALL = 20
MAX_GROUPS = 16
MAX_NAME = 100
MAX_LATER = 256
PUNCTUATION = str.maketrans("", "", "-_")

Identity = Callable[[Message], str]


@dataclass(slots=True)
class Knowledge:
    """What this host says of itself, kept from its last report; without a reporter only its name."""

    source: Source
    reporter: Reporter | None = None
    _surveying: "asyncio.Future[Capabilities] | None" = None

    def held(self) -> Mapping[str, Plain] | None:
        """What is known now; None when it has to be found out first."""
        if self.reporter is None:
            return selection.known(self.source.host, self.source.hostname, {}, ())
        latest = self.reporter.latest
        if latest is None or time.monotonic() - self.reporter.surveyed > FRESH_SECONDS:
            return None
        return latest.known()

    async def found(self) -> Mapping[str, Plain]:
        """The same, found out once for all who ask meanwhile; old facts when it cannot be. Raises
        `Unavailable` where there are none."""
        held = self.held()
        if held is not None or self.reporter is None:
            return held or {}
        if self._surveying is None:
            asked = SHARED.submit("report", self.reporter.survey)
            self._surveying = asyncio.wrap_future(asked)
            self._surveying.add_done_callback(self._surveyed)
        try:
            async with asyncio.timeout(SURVEY_SECONDS):
                return (await asyncio.shield(self._surveying)).known()
        except (Problem, TimeoutError) as error:
            if self.reporter.latest is not None:
                return self.reporter.latest.known()
            raise Unavailable(f"this host does not know its facts: {error or 'too slow'}") from error

    def _surveyed(self, done: "asyncio.Future[Capabilities]") -> None:
        self._surveying = None
        if not done.cancelled():
            done.exception()  # told to who waits, if anybody still does


@dataclass(slots=True)
class Counters:
    """`passed` were for others, `unclear` could not be judged."""

    passed: int = 0
    unclear: int = 0


@dataclass(slots=True)
class Casts:
    """Takes casts for the node at `home`, which is this host's own address."""

    intake: Intake
    home: str
    knowledge: Knowledge
    addresses: tuple[str, ...] = (MULTICAST,)
    counters: Counters = field(default_factory=Counters)
    _later: set["asyncio.Task[None]"] = field(default_factory=set)

    def deliveries(self, receiver: Receiver, identity: Identity, send: Send) -> Callable[[Delivery], None]:
        """What a receiver's deliveries are given to."""

        def arrived(delivery: Delivery) -> None:
            self.take(delivery, identity, send)
            self.intake.relieve(receiver)

        return arrived

    def take(self, delivery: Delivery, identity: Identity, send: Send) -> None:
        """Deal with one cast. Never raises what a peer causes."""
        try:
            message = messages.decode(delivery.raw)
            where = selection.received(message.text(WHERE) or "[]")
        except (codec.Malformed, InvalidArguments) as error:
            self.counters.unclear += 1
            log.info("a cast cannot be read: %s, ignoring", error)
            delivery.accept()
            return
        run = partial(self.intake.take, delivery, self.home, identity, spread(send, message.number(FLEET)))
        held = self.knowledge.held()
        if not where.requirements:
            run()
        elif held is not None:
            self._judge(where, held, delivery, run)
        elif len(self._later) >= MAX_LATER:
            self.counters.unclear += 1
            delivery.accept()
        else:
            task = asyncio.ensure_future(self._find_out(where, delivery, run))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    def _judge(
        self,
        where: selection.Where,
        known: Mapping[str, Plain],
        delivery: Delivery,
        run: Callable[[], None],
    ) -> None:
        if where.fits(known):
            run()
        else:
            self.counters.passed += 1
            delivery.accept()

    async def _find_out(self, where: selection.Where, delivery: Delivery, run: Callable[[], None]) -> None:
        try:
            known = await self.knowledge.found()
        except Unavailable as problem:  # what is not known does not match
            log.warning("a cast is not answered: %s", problem)
            self.counters.unclear += 1
            delivery.accept()
            return
        self._judge(where, known, delivery, run)


def spread(send: Send, fleet: int | None) -> Send:
    """`send` after a random pause that grows with the fleet: a console is not answered by all at once."""
    if fleet is None or fleet <= SMALL:
        return send
    most = min(fleet * SPREAD_PER_HOST, MOST_SPREAD)

    def later(to: str, raw: bytes) -> None:
        def now() -> None:
            try:
                send(to, raw)
            except (Unavailable, InvalidArguments) as error:  # the connection has gone; it may ask again
                log.debug("a reply was not sent: %s", error)

        pause = random.uniform(0.0, most)  # noqa: S311 - jitter is no secret
        asyncio.get_running_loop().call_later(pause, now)

    return later


def cast_addresses(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Where an agent receives casts: with every host, and in the groups that `groups` in the table `[fleet]`
    of its configuration names. Raises `InvalidArguments`."""
    table = config.get("fleet", {})
    groups = table.get("groups", [])
    listed = set(table) <= {"groups"} and isinstance(groups, list) and len(groups) <= MAX_GROUPS
    if listed and all(isinstance(name, str) and is_group(name) for name in groups):
        return (MULTICAST, *(GROUP_PREFIX + name for name in dict.fromkeys(groups)))
    raise InvalidArguments(
        f"[fleet]: expected groups, a list of at most {MAX_GROUPS} names of letters, digits, '-' and '_'",
        argument="fleet",
    )


def is_group(name: str) -> bool:
    """Whether a group may be called so: it becomes a part of an address."""
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.translate(PUNCTUATION).isalnum()
