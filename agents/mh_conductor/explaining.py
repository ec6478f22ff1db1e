"""Why a host is, or is not, in an aggregate: the evidence that is kept, or the rules held against it now."""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from libmh.api.aggregates import Evidence, HostState
from libmh.errors import NotFound
from mh_conductor import catalogue, clock, damping, hosts, registry
from mh_conductor.compiled import Compiled
from mh_conductor.hosts import Standing
from mh_conductor.judge import Subject, Verdict, evidence, subject_of, verdicts
from mh_conductor.plan import plan
from mh_conductor.records import evidence_of, report_of
from mh_conductor.rulebook import Rulebook
from mh_conductor.rules import Rule, RuleSet

BY_HAND = "the host was added by hand"


class Explaining:
    """Explains with the rules in force; `given` hold until the store has some."""

    def __init__(self, given: RuleSet, clock: Callable[[Connection], int] = clock.now) -> None:
        self._book = Rulebook(given)
        self._clock = clock

    def why(self, connection: Connection, host: str, name: str) -> list[Evidence]:
        """Raises `NotFound` for an unknown host or aggregate."""
        found = hosts.resolve(connection, host)
        if name:
            return self._why(connection, found, name)
        return [
            each
            for aggregate in registry.names_of(connection, found.uuid)
            for each in self._why_member(connection, found, aggregate) or ()
        ]

    def _why(self, connection: Connection, host: Standing, name: str) -> list[Evidence]:
        compiled = self._book.current(connection)
        try:
            aggregate = catalogue.find(connection, name)
        except NotFound:
            # a rule that no host fulfils yet has made no aggregate
            rule = next(
                (rule for rule in compiled.rules.rules if name in (rule.name, rule.aggregate.text)), None
            )
            if rule is None:
                raise
            return list(self._why_not(connection, host, compiled, rule, None))
        held = self._why_member(connection, host, aggregate.name)
        if held is not None:
            return held
        rule = compiled.rules.by_name().get(aggregate.owner or "")
        if rule is None:
            said = f"'{aggregate.name}' was made by hand" if aggregate.owner is None else "its rule is gone"
            return [
                Evidence(aggregate.owner or "", "", "", matched=False, reason=f"no rule adds hosts: {said}")
            ]
        binding = catalogue.binding(connection, aggregate.name)
        return list(self._why_not(connection, host, compiled, rule, (aggregate.name, binding)))

    def _why_member(self, connection: Connection, host: Standing, aggregate: str) -> list[Evidence] | None:
        """None for a host that is no member."""
        membership = catalogue.membership(connection, host.uuid, aggregate)
        if membership is None:
            return None
        owner, text = membership
        if owner is None:
            return [Evidence("", "", "", matched=True, reason=f"{BY_HAND} to '{aggregate}'")]
        return [*evidence_of(text), *self._stays(connection, host, owner)]

    def _stays(self, connection: Connection, host: Standing, rule: str) -> Iterator[Evidence]:
        """What keeps the host where it is whatever it tells now."""
        regime = self._book.current(connection).rules.regime
        note = damping.notes_of(connection, host.uuid).get(rule)
        until = note.held_until(regime, self._clock(connection)) if note else None
        if note is not None and until is not None:
            yield note.evidence(regime, until)

    def _why_not(
        self,
        connection: Connection,
        host: Standing,
        compiled: Compiled,
        rule: Rule,
        of: tuple[str, dict[str, str]] | None,
    ) -> Iterator[Evidence]:
        if host.state == HostState.REGISTERED:
            yield Evidence(rule.name, "", "", matched=False, reason="the host has not reported yet")
            return
        subject = subject_of(report_of(hosts.report_text(connection, host.uuid)))
        answers = compiled.answers(subject.facts, subject.traits)
        judged = verdicts(subject, compiled, answers, compiled.all)
        own = next(verdict for verdict in judged if verdict.rule is rule)
        yield from evidence(rule, subject, of[1] if of else own.binding)
        if host.state != HostState.UP:
            said = f"the host is {host.state}: it joins nothing before it reports again"
            yield Evidence(rule.name, "", "", matched=False, reason=said)
        yield from self._stays(connection, host, rule.name)
        yield from self._refusals(connection, subject, compiled, judged, own, of[0] if of else own.aggregate)

    @staticmethod
    def _refusals(
        connection: Connection,
        subject: Subject,
        compiled: Compiled,
        judged: tuple[Verdict, ...],
        own: Verdict,
        aggregate: str,
    ) -> Iterator[Evidence]:
        """What stands in the way although every requirement holds: a zone, an aggregate made by hand."""
        seen = registry.view_of(connection, subject.uuid, judged)
        for refusal in plan(subject, judged, compiled.rules, seen.current).refusals:
            if refusal.rule == own.rule.name and refusal.aggregate == aggregate:
                yield Evidence(refusal.rule, "", "", matched=False, reason=refusal.reason)
