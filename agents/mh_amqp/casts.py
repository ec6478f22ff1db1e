"""Requests to many hosts at once: each host looks whether it is meant, and stays silent when it is not.

Such a request goes to `mh.hosts`, `mh.group.<name>` or to one host, and has two application properties:
`mh:where`, a JSON list of requirements (`libmh.selection`), all of which have to hold, and `mh:fleet`, how
many hosts are asked: they put off their answers accordingly.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from libmh import selection
from libmh.capability import Capabilities, Reporter
from libmh.errors import InvalidArguments, Problem, Unavailable
from libmh.guard import SHARED
from libmh.spec import Plain
from mh_amqp.addresses import GROUP_PREFIX, MULTICAST
from mh_amqp.events import Source
from mh_amqp.messages import Message
from mh_amqp.record import WHERE

log = logging.getLogger(__name__)
FRESH_SECONDS = 150.0
"""How long facts are good for; an agent that reports has younger ones."""
SURVEY_SECONDS = 10.0
MAX_GROUPS = 16
MAX_NAME = 100
MAX_LATER = 256
PUNCTUATION = str.maketrans("", "", "-_")


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
    """What is received at `addresses` is for this host's node at `home`, if the host is meant."""

    home: str
    knowledge: Knowledge
    addresses: tuple[str, ...] = (MULTICAST,)
    counters: Counters = field(default_factory=Counters)
    _later: set["asyncio.Task[None]"] = field(default_factory=set)

    def judge(self, message: Message, run: Callable[[], None], pass_by: Callable[[], None]) -> None:
        """`mh_amqp.intake.Gate`. Never raises what a peer causes."""
        try:
            where = selection.received(message.text(WHERE) or "")
        except InvalidArguments as error:
            self.counters.unclear += 1
            log.info("a request to many cannot be read: %s, ignoring", error)
            pass_by()
            return
        held = self.knowledge.held()
        if held is not None or not where.requirements:
            self._decide(where, held or {}, run, pass_by)
        elif len(self._later) >= MAX_LATER:
            self.counters.unclear += 1
            pass_by()
        else:
            task = asyncio.ensure_future(self._find_out(where, run, pass_by))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    def _decide(
        self,
        where: selection.Where,
        known: Mapping[str, Plain],
        run: Callable[[], None],
        pass_by: Callable[[], None],
    ) -> None:
        if where.fits(known):
            run()
        else:
            self.counters.passed += 1
            pass_by()

    async def _find_out(
        self, where: selection.Where, run: Callable[[], None], pass_by: Callable[[], None]
    ) -> None:
        try:
            known = await self.knowledge.found()
        except Unavailable as problem:  # what is not known does not match
            log.warning("a request to many is not answered: %s", problem)
            self.counters.unclear += 1
            pass_by()
            return
        self._decide(where, known, run, pass_by)


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
