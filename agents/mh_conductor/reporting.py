"""The provider of `Reports`: hosts tell what they can do, and others are told what came of it."""

import logging
import time
from collections.abc import Iterable

from libmh.api.aggregates import Accepted, Aggregates, CapabilityReport, HostState, Reports
from libmh.call import answered
from libmh.caller import asking
from libmh.errors import InvalidArguments, NotAuthorized, Problem
from libmh.events import Hub
from mh_conductor.identity import sender
from mh_conductor.intake import Intake, Outcome
from mh_conductor.newer import report_as_it_came
from mh_conductor.registry import Done
from mh_conductor.workers import Tally

log = logging.getLogger("mh_conductor.reporting")
MAX_SHOWN = 200


class ReportIntake(Reports):
    """Takes reports in, and tells what came of them once it is in the store."""

    def __init__(self, intake: Intake, events: Hub, tally: Tally | None = None) -> None:
        self._intake = intake
        self._events = events
        self._tally = tally or Tally()

    def report(self, report: CapabilityReport) -> Accepted:
        try:
            outcome = self._intake.take(report, sender(asking()), report_as_it_came(answered()))
        except (InvalidArguments, NotAuthorized) as problem:
            self._tally.refuse(problem)
            log.warning("a report by %r was refused: %s", asking().identity[:MAX_SHOWN], problem)
            raise
        except Problem as problem:
            self._tally.fail(problem)
            raise
        self._tally.took(report.created, changed=outcome.accepted.changed)
        if outcome.accepted.changed:
            self._events.emit(
                Aggregates.host_changed,
                uuid=outcome.uuid,
                hostname=outcome.hostname,
                generation=outcome.accepted.generation,
            )
        announce(self._events, outcome)
        return outcome.accepted


def announce(events: Hub, outcome: Outcome) -> None:
    """Raise the events of what was done to aggregates, and that a host is back."""
    announce_done(events, outcome.done)
    if outcome.back:
        events.emit(
            Aggregates.host_silent,
            uuid=outcome.uuid,
            hostname=outcome.hostname,
            state=HostState.UP.value,
            last_seen=time.time_ns(),
        )


def announce_done(events: Hub, done: Iterable[Done]) -> None:
    """Raise the events of changes that were carried out."""
    for each in done:
        events.emit(
            Aggregates.aggregate_changed,
            aggregate=each.change.aggregate,
            change=each.change.kind.value,
            host=each.change.host,
            generation=each.generation,
            why=each.change.why,
        )
