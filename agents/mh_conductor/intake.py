"""Taking reports in: decide, plan and write, in one transaction per report.

(uuid, boot id, sequence) decides. What came before, or twice, or from a boot that is over, changes nothing
and is answered with what the store has; so is what a peer sends again because our answer was lost.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from libmh.api.aggregates import Accepted, CapabilityReport
from libmh.errors import Conflict, InvalidArguments, Unavailable
from mh_conductor import hosts, registry
from mh_conductor.hosts import Arrival, Standing
from mh_conductor.judge import Subject, judge, subject_of
from mh_conductor.plan import Plan, orphans, plan
from mh_conductor.records import canonical, compact, plain_report, report_of
from mh_conductor.registry import Done
from mh_conductor.report_check import check, check_size
from mh_conductor.rules import RuleSet
from mh_conductor.store import Store

T = TypeVar("T")
log = logging.getLogger("mh_conductor.intake")
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report, or new rules, did to a host."""

    uuid: str
    hostname: str
    accepted: Accepted
    done: tuple[Done, ...] = ()


def arrival_of(report: CapabilityReport) -> Arrival:
    """A checked report as it is kept. Raises `InvalidArguments`."""
    check(report)
    # without the times of observation, which are new in every report
    told = {name: (fact.status, fact.value) for name, fact in report.facts.items()}
    what = [report.hostname, report.boot_id, report.agent_version, told, sorted(report.traits)]
    try:
        digest = hashlib.sha256(canonical(what).encode()).hexdigest()
        text = compact(plain_report(report))
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
        text=text,
        metrics=compact(report.metrics or {}),
    )


class Intake:
    """Reports and rules -> the store. For any number of threads, here and in other processes."""

    def __init__(self, store: Store, rules: RuleSet, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock

    def take(self, report: CapabilityReport) -> Outcome:
        """Take one report in. Raises `InvalidArguments` for the report, and what `Store.write` raises."""
        arrival = arrival_of(report)
        return self._again(lambda connection: self._take(connection, report, arrival))

    def reconcile(self) -> list[Outcome]:
        """Hold every host against rules that are new; answers where something changed. Begins again where it
        stopped when it was interrupted: the rules count as applied only at the end."""
        with self._store.read() as connection:
            if registry.rules_digest(connection) == self._rules.digest:
                return []
            uuids = hosts.uuids(connection)
        outcomes = [self._again(partial(self._replan, uuid=uuid)) for uuid in uuids]
        outcomes.append(self._again(self._finish))
        return [outcome for outcome in outcomes if outcome.done]

    def _again(self, attempt: Callable[[Connection], T]) -> T:
        """Another process may have written what we read: then all of it is done anew, from reading on."""
        for _ in range(MAX_ATTEMPTS):
            try:
                with self._store.write() as connection:
                    return attempt(connection)
            except Conflict as conflict:
                log.info("%s, reading again", conflict)
        raise Unavailable(f"the store changed under {MAX_ATTEMPTS} attempts, try again later")

    def _take(self, connection: Connection, report: CapabilityReport, arrival: Arrival) -> Outcome:
        was = hosts.standing(connection, arrival.uuid)
        if was is not None:
            if _is_old(connection, was, arrival):
                if was.boot_id != arrival.boot_id:
                    log.warning(
                        "'%s' (%s) reports from a boot that was over when '%s' did: it comes late, or there "
                        "are two hosts with one UUID",
                        *(arrival.hostname, arrival.uuid, was.hostname),
                    )
                return self._unchanged(connection, was, arrival)
            if was.digest == arrival.digest:
                hosts.touch(connection, was, arrival, self._clock())
                return self._unchanged(connection, was, arrival)
        now = self._clock()
        generation = hosts.put(connection, was, arrival, now)
        done = self._apply(connection, subject_of(report), now)
        registry.advance(connection, 1 + len(done), hosts=(arrival.uuid,), done=done)
        names = registry.names_of(connection, arrival.uuid)
        return Outcome(
            arrival.uuid, arrival.hostname, Accepted(generation, changed=True, aggregates=names), tuple(done)
        )

    @staticmethod
    def _unchanged(connection: Connection, was: Standing, arrival: Arrival) -> Outcome:
        names = registry.names_of(connection, arrival.uuid)
        return Outcome(arrival.uuid, was.hostname, Accepted(was.generation, changed=False, aggregates=names))

    def _apply(self, connection: Connection, subject: Subject, now: int) -> list[Done]:
        verdicts = judge(subject, self._rules)
        seen = registry.view_of(connection, subject.uuid, verdicts)
        made = plan(subject, verdicts, self._rules, seen.current)
        _tell(subject, made)
        done = registry.carry_out(connection, subject.uuid, made, seen, now)
        refused = [
            {"aggregate": each.aggregate, "change": "refused", "rule": each.rule}
            | {"host": subject.hostname, "why": each.reason}
            for each in made.refusals
        ]
        registry.record(connection, refused, now)
        return done

    def _replan(self, connection: Connection, uuid: str) -> Outcome:
        was = hosts.resolve(connection, uuid)
        subject = subject_of(report_of(hosts.report_text(connection, uuid)))
        done = self._apply(connection, subject, self._clock())
        if done:
            registry.advance(connection, len(done), done=done)
        names = registry.names_of(connection, uuid)
        return Outcome(
            uuid, was.hostname, Accepted(was.generation, changed=bool(done), aggregates=names), tuple(done)
        )

    def _finish(self, connection: Connection) -> Outcome:
        seen = registry.everything(connection)
        left = Plan(orphans(self._rules, seen.current.aggregates))
        done = registry.carry_out(connection, "", left, seen, self._clock())
        registry.advance(connection, 1 + len(done), done=done)
        registry.set_rules_digest(connection, self._rules.digest)
        return Outcome("", "", Accepted(0, changed=bool(done), aggregates=[]), tuple(done))


def _is_old(connection: Connection, was: Standing, arrival: Arrival) -> bool:
    if was.boot_id == arrival.boot_id:
        return arrival.sequence <= was.sequence
    return hosts.is_over(connection, arrival.uuid, arrival.boot_id)


def _tell(subject: Subject, made: Plan) -> None:
    for change in made.changes:
        log.info("%s %s: %s", change.kind, change.aggregate, change.why)
    for refusal in made.refusals:
        log.warning(
            "rule '%s' refused for %s in '%s': %s",
            *(refusal.rule, subject.hostname, refusal.aggregate, refusal.reason),
        )
