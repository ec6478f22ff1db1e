"""Capability reports: requests to the conductor, each sent again, unchanged, until it was answered.

Its number, generation and boot id are the report's identity; the conductor answers a copy of one that it
has taken in without taking it in again. So nothing that was reported is lost or counted twice, whichever
side dies in between.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from libmh.api.aggregates import CapabilityReport, Reports
from libmh.api.host import Host
from libmh.capability import Reporter
from libmh.errors import (
    Conflict,
    InvalidArguments,
    NotAuthorized,
    NotImplementedHere,
    Problem,
)
from libmh.events import Event, Hub
from libmh.guard import SHARED
from libmh.spec import interface_of, member_of
from libmh.wire import dump
from mh_amqp import codec, types
from mh_amqp.asking import Asker
from mh_amqp.bodies import arguments_in_json
from mh_amqp.messages import JSON, Message
from mh_amqp.names import REPORT
from mh_amqp.status import body_of, problem_of

log = logging.getLogger(__name__)
SURVEY_SECONDS = 30.0
SETTLE_SECONDS = 1.0
FINAL = (InvalidArguments, NotAuthorized, NotImplementedHere, Conflict)
"""Refusals of the report itself: to send it again would change nothing. A `failed` or `internal` conductor
may recover."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between reports, for an answer, and before an unanswered one is sent again, doubled each
    time up to the last."""

    interval: float = 60.0
    answer: float = 30.0
    again: float = 2.0
    again_most: float = 60.0


@dataclass(slots=True)
class Counters:
    """`answered` were taken in, `refused` were not and never will be, `repeated` were sent more than
    once."""

    made: int = 0
    answered: int = 0
    refused: int = 0
    repeated: int = 0


@dataclass(slots=True)
class Sending:
    """Makes and sends the reports of one host; `owed` is the one that is not answered yet. It outlives
    connections."""

    reporter: Reporter
    pace: Pace
    owed: CapabilityReport | None = None
    counters: Counters = field(default_factory=Counters)
    again: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, hub: Hub) -> Callable[[], None]:
        """Report soon after a property of the host has changed; answers what ends that."""
        loop = asyncio.get_running_loop()
        host = interface_of(Host).name

        def raised(event: Event) -> None:
            if event.interface == host and not event.member:
                loop.call_soon_threadsafe(self.again.set)

        return hub.subscribe(raised)

    async def run(self, asker: Asker) -> None:
        """Report at once, on change and at every interval, until the connection ends."""
        while True:
            self.again.clear()
            if self.owed is None:
                self.owed = await self._make()
            if self.owed is not None:
                await self._until_answered(asker, self.owed)
                self.owed = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.again.wait(), self.pace.interval)
                await asyncio.sleep(SETTLE_SECONDS)  # changes come in groups

    async def _make(self) -> CapabilityReport | None:
        try:
            future = SHARED.submit("report", self.reporter.report)
            made = await asyncio.wait_for(asyncio.wrap_future(future), SURVEY_SECONDS)
        except (Problem, TimeoutError) as error:
            log.warning(
                "no report can be made: %s, trying again in %g s", error or "too slow", self.pace.interval
            )
            return None
        self.counters.made += 1
        return made

    async def _until_answered(self, asker: Asker, report: CapabilityReport) -> None:
        pause, tries = self.pace.again, 0
        message = report_message(report, self.pace.answer)
        while True:
            tries += 1
            self.counters.repeated += tries == 2
            try:
                accepted = await self._ask(asker, message)
            except FINAL as problem:
                self.counters.refused += 1
                log.warning("report %d is refused: %s", report.sequence, problem)
                return
            except Problem as problem:
                if not asker.open:
                    raise  # the next connection goes on with the same report
                log.warning("report %d is not answered: %s, sending it again", report.sequence, problem)
            else:
                self.counters.answered += 1
                log.info("report %d is taken in: %s", report.sequence, accepted)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.pace.again_most)

    async def _ask(self, asker: Asker, message: Message) -> Any:
        address = asker.receiver.address if asker.receiver else None
        reply = await asker.ask(replace(message, reply_to=address), self.pace.answer)
        problem = problem_of(reply)
        if problem is not None:
            raise problem
        return body_of(reply)


def report_message(report: CapabilityReport, lifetime: float) -> Message:
    """The request that a report is: every copy has the same id, and outlives the wait for its answer by
    nothing."""
    member = member_of(Reports.report)
    argument = member.arguments[0]
    plain = dump(argument.type, report, argument.name)
    data, encoding = types.deflated(arguments_in_json(member, {argument.name: plain}))
    return Message(
        message_id=codec.string(f"{report.uuid}:{report.boot_id}:{report.sequence}"),
        to=REPORT,
        ttl=int(lifetime * 1000),
        content_type=JSON,
        content_encoding=encoding,
        properties={
            "operation": member.name,
            "type": member.interface,
            "name": "self",
            "mh:v": interface_of(Reports).version,
        },
        data=data,
    )
