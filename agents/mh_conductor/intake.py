"""Taking reports in: decide, plan and write, in one transaction per report.

(uuid, boot id, sequence) decides. What came before, or twice, or from a boot that is over, changes nothing
and is answered with what the store has; so is what a peer sends again because our answer was lost.
"""

import hashlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from sqlalchemy import Connection

from libmh.api.aggregates import Accepted, CapabilityReport, HostState
from libmh.errors import Conflict, InvalidArguments, Unavailable
from libmh.spec import Plain
from mh_conductor import clock as stores_clock
from mh_conductor import hosts, registry, rulebook
from mh_conductor.compiled import Compiled
from mh_conductor.hosts import Arrival, Standing
from mh_conductor.identity import Senders
from mh_conductor.judge import Subject, subject_of
from mh_conductor.newer import keep_unknown
from mh_conductor.records import canonical, compact, plain_report
from mh_conductor.registration import awaited, stamp_places, succeed
from mh_conductor.registry import Done
from mh_conductor.replan import replan
from mh_conductor.report_check import check, check_size
from mh_conductor.rulebook import Rulebook
from mh_conductor.rules import RuleSet
from mh_conductor.store import Store, reporting

ANYBODY = Senders()
T = TypeVar("T")
log = logging.getLogger("mh_conductor.intake")
MAX_ATTEMPTS = 20
MOST_PAUSE = 0.05
KEPT = 2
"""Grows when more is kept of a report than before: then the next one of each host tells something new."""
NOTHING: Mapping[str, Plain] = MappingProxyType({})
KEY_FACTS = ("arch", "cpu_count", "memory_gib", "os_name", "os_version", "virtualization")
MAX_KEY_FACT = 255


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report, or new rules, did to a host; `back`: its reports had stopped, and go on."""

    uuid: str
    hostname: str
    accepted: Accepted
    done: tuple[Done, ...] = ()
    back: bool = False


def arrival_of(report: CapabilityReport, came: Mapping[str, Plain] = NOTHING) -> Arrival:
    """A checked report as it is kept; `came` is its plain tree, which may tell more. Raises
    `InvalidArguments`."""
    check(report)
    plain = plain_report(report)
    keep_unknown(plain, came)
    # without the times of observation, which are new in every report
    told = {name: (fact.status, fact.value) for name, fact in report.facts.items()}
    what = [KEPT, report.hostname, report.boot_id, report.agent_version, told, sorted(report.traits)]
    try:
        digest = hashlib.sha256(canonical(what).encode()).hexdigest()
        text = compact(plain)
    except TypeError as error:  # bytes: nothing else that `parse` lets through has no JSON
        raise InvalidArguments(
            "report.facts: expected values of text, numbers, booleans, lists and maps",
            argument="report.facts",
        ) from error
    check_size(text)
    return Arrival(
        uuid=report.uuid,
        hostname=report.hostname,
        boot_id=report.boot_id,
        sequence=report.sequence,
        agent_version=report.agent_version,
        facts=len(report.facts),
        traits=len(report.traits),
        digest=digest,
        report=text,
        metrics=compact(report.metrics or {}),
        summary=compact(summary_of(report)),
    )


def summary_of(report: CapabilityReport) -> dict[str, Plain]:
    """The key facts that are known, as far as they are what they should be."""
    values = {name: fact.value for name in KEY_FACTS if (fact := report.facts.get(name))}
    return {name: value for name, value in values.items() if _is_short(value)}


def _is_short(value: Plain) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= MAX_KEY_FACT)


class Intake:
    """Reports and rules -> the store. For any number of threads, here and in other processes."""

    def __init__(
        self,
        store: Store,
        rules: RuleSet,
        clock: Callable[[], int] | None = None,
        senders: Senders = ANYBODY,
    ) -> None:
        self._store = store
        self._rules = rules
        self._book = Rulebook(rules)
        self._clock = stores_clock.Steady() if clock is None else lambda _connection: clock()
        self._senders = senders

    def take(
        self, report: CapabilityReport, who: str | None = None, came: Mapping[str, Plain] = NOTHING
    ) -> Outcome:
        """Take one report in, from `who`, None for nobody in particular; `came` is its plain tree. Raises
        `InvalidArguments` for the report, `NotAuthorized` for its sender, and what `Store.write` raises."""
        arrival = arrival_of(report, came)
        return self._again(lambda connection: self._take(connection, report, arrival, who))

    def _again(self, attempt: Callable[[Connection], T]) -> T:
        """Another process may have written what we read: then all of it is done anew, from reading on."""
        for number in range(MAX_ATTEMPTS):
            try:
                with self._store.write() as connection:
                    return attempt(connection)
            except Conflict as conflict:
                log.info("%s, reading again", conflict)
            # those who met do not meet again
            pause = random.uniform(0.0, min(MOST_PAUSE, 0.001 * 2**number))  # noqa: S311 - no secret
            threading.Event().wait(pause)
        raise Unavailable(f"the store changed under {MAX_ATTEMPTS} attempts, try again later")

    def _take(
        self, connection: Connection, report: CapabilityReport, arrival: Arrival, who: str | None
    ) -> Outcome:
        was = hosts.standing(connection, arrival.uuid) or awaited(connection, arrival.hostname)
        tied = was.identity if was else None
        arrival = replace(arrival, identity=self._senders.check(who, arrival.uuid, arrival.hostname, tied))
        if was is not None and was.reported:
            if _is_old(connection, was, arrival):
                _tell_replay(was, arrival)
                return self._unchanged(connection, was, arrival)
            if was.digest == arrival.digest and was.state == HostState.UP and tied == arrival.identity:
                hosts.touch(connection, was, arrival, self._clock(connection))
                return self._unchanged(connection, was, arrival)
        return self._change(connection, was, report, arrival)

    def _change(
        self, connection: Connection, was: Standing | None, report: CapabilityReport, arrival: Arrival
    ) -> Outcome:
        reporting(connection)
        now = self._clock(connection)
        generation = hosts.put(connection, was, arrival, now)
        taken_over = was is not None and was.uuid != arrival.uuid
        if was is not None and taken_over:
            succeed(connection, was.uuid, arrival.uuid)
        known = was is not None and was.reported
        compiled, done = self._apply(connection, subject_of(report), now, known=known)
        stamp = registry.advance(connection, 1 + len(done), hosts=(arrival.uuid,), done=done)
        rulebook.confirm(connection, compiled.rules)
        if taken_over:
            stamp_places(connection, arrival.uuid, stamp)
        names = registry.names_of(connection, arrival.uuid)
        return Outcome(
            arrival.uuid,
            arrival.hostname,
            Accepted(generation, changed=True, aggregates=names),
            done,
            back=was is not None and was.state in (HostState.SILENT, HostState.GONE),
        )

    @staticmethod
    def _unchanged(connection: Connection, was: Standing, arrival: Arrival) -> Outcome:
        names = registry.names_of(connection, arrival.uuid)
        return Outcome(arrival.uuid, was.hostname, Accepted(was.generation, changed=False, aggregates=names))

    def _apply(
        self, connection: Connection, subject: Subject, now: int, *, known: bool = True
    ) -> tuple[Compiled, tuple[Done, ...]]:
        compiled = self._book.current(connection)
        return compiled, replan(connection, subject, compiled, now, known=known).done


def _is_old(connection: Connection, was: Standing, arrival: Arrival) -> bool:
    if was.boot_id == arrival.boot_id:
        return arrival.sequence <= was.sequence
    return hosts.is_over(connection, arrival.uuid, arrival.boot_id)


def _tell_replay(was: Standing, arrival: Arrival) -> None:
    if was.boot_id != arrival.boot_id:
        log.warning(
            "'%s' (%s) reports from a boot that was over when '%s' did: it comes late, or there are two "
            "hosts with one UUID",
            *(arrival.hostname, arrival.uuid, was.hostname),
        )
