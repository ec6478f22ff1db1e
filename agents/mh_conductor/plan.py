"""Verdicts and what is -> what has to change, and why. Pure; a plan is applied whole or not at all.

A rule changes only what carries its ownership mark: the aggregates, members and metadata keys that it made.
What was made by hand stays as it is; where the two meet, the plan refuses and says so.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from libmh.api.aggregates import Evidence
from mh_conductor.judge import Answer, Subject, Verdict
from mh_conductor.limits import ZONE_KEY, name_fault, value_fault, zone_fault
from mh_conductor.rules import Rule, RuleSet


class Kind(StrEnum):
    """The words of the event `aggregate_changed`."""

    CREATED = "created"
    METADATA = "metadata"
    HOST_ADDED = "host-added"
    HOST_REMOVED = "host-removed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Owned:
    """A metadata value, and the rule that set it; None when it was set by hand."""

    value: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """An aggregate as it is. `others`: it has hosts beside the one that is planned for; `rival_zones`: the
    zones that its members have through other aggregates."""

    name: str
    owner: str | None
    binding: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Owned] = field(default_factory=dict)
    others: bool = False
    rival_zones: frozenset[str] = frozenset()

    @property
    def zone(self) -> str | None:
        held = self.metadata.get(ZONE_KEY)
        return held.value if held else None


@dataclass(frozen=True, slots=True)
class Membership:
    """`owner` is the rule that added the host; None when it was added by hand."""

    owner: str | None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Current:
    """What there is of one host: its memberships, and the aggregates named in them or in a verdict."""

    aggregates: Mapping[str, Known] = field(default_factory=dict)
    memberships: Mapping[str, Membership] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One step. `metadata` are the keys to set, or with None to delete; `owner` is the rule that acts."""

    kind: Kind
    aggregate: str
    owner: str
    why: str
    host: str = ""
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    binding: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a rule wanted and did not get."""

    rule: str
    aggregate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`changes` in the order in which they are safe; `kept` is fresh evidence for memberships that stay."""

    changes: tuple[Change, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    kept: Mapping[str, Membership] = field(default_factory=dict)


def named(verdicts: tuple[Verdict, ...]) -> set[str]:
    """The aggregates that a plan has to know of, beside the host's own."""
    return {each.aggregate for each in verdicts if each.answer is Answer.YES and each.rule.aggregate.text}


def plan(
    subject: Subject,
    verdicts: tuple[Verdict, ...],
    rules: RuleSet,
    current: Current,
    unchanged: Container[str] = (),
) -> Plan:
    """What has to change for one host. Of rules in `unchanged` the evidence that is there still serves."""
    return _Planner(subject, verdicts, rules, current, unchanged).plan()


def orphans(rules: RuleSet, aggregates: Mapping[str, Known]) -> tuple[Change, ...]:
    """Delete the empty aggregates that nobody wants any more: their rule is gone, or made them for a
    fact that no host has now, and nobody added anything by hand."""
    known = rules.by_name()
    empty = (each for each in aggregates.values() if not each.others)
    return tuple(_deletion(each) for each in empty if _disposable(each, known))


def _deletion(aggregate: Known) -> Change:
    return Change(
        Kind.DELETED, aggregate.name, aggregate.owner or "", f"'{aggregate.name}' has no host any more"
    )


def _disposable(aggregate: Known, rules: Mapping[str, Rule]) -> bool:
    if aggregate.owner is None or any(held.owner is None for held in aggregate.metadata.values()):
        return False
    return bool(aggregate.binding) or not _made(aggregate, rules)


def _made(aggregate: Known, rules: Mapping[str, Rule]) -> bool:
    """Whether the rule that owns it makes it still: it may be gone, or make another one by now."""
    rule = rules.get(aggregate.owner or "")
    if rule is None or aggregate.binding.keys() != set(rule.aggregate.names):
        return False
    return rule.aggregate.render(aggregate.binding) == aggregate.name


class _Planner:
    """The working state of one plan."""

    def __init__(
        self,
        subject: Subject,
        verdicts: tuple[Verdict, ...],
        rules: RuleSet,
        current: Current,
        unchanged: Container[str],
    ) -> None:
        self._unchanged = unchanged
        self._subject = subject
        self._rules = rules.by_name()
        self._current = current
        self._verdicts = verdicts
        self._refusals: list[Refusal] = []
        self._wanted: dict[str, Verdict] = {}
        self._kept: dict[str, Membership] = {}

    def plan(self) -> Plan:
        self._choose()
        leaving = [change for name in sorted(self._current.memberships) for change in self._leave(name)]
        left = {change.aggregate for change in leaving if change.kind is Kind.HOST_REMOVED}
        zones = self._zones(left)
        joining: list[Change] = []
        early: list[Change] = []
        for name, verdict in self._wanted.items():
            steps = list(self._join(name, verdict, zones))
            zone = self._zone_after(name, steps)
            added = any(step.kind is Kind.HOST_ADDED for step in steps)
            if zone and (added or name in self._current.memberships):
                zones[name] = zone
            if zone and added:
                # a host can be in one zone only, so here the old place has to go before the new one comes
                early += [step for step in leaving if step not in early and self._other_zone(step, zone)]
            joining += steps
        late = [step for step in leaving if step not in early]
        return Plan((*early, *joining, *late), tuple(self._refusals), self._kept)

    def _choose(self) -> None:
        """Of the rules that hold, keep those that may: a faulty name, or two rules for one, is refused."""
        for verdict in self._verdicts:
            if verdict.answer is not Answer.YES or not verdict.rule.aggregate.text:
                continue
            name = verdict.aggregate
            if name in self._wanted:
                self._refuse(verdict, f"rule '{self._wanted[name].rule.name}' makes '{name}' already")
            elif fault := name_fault(name) or _values_fault(verdict):
                self._refuse(verdict, fault)
            else:
                self._wanted[name] = verdict

    def _refuse(self, verdict: Verdict, reason: str) -> None:
        self._refusals.append(Refusal(verdict.rule.name, verdict.aggregate, reason))

    def _leave(self, name: str) -> Iterator[Change]:
        membership = self._current.memberships[name]
        if membership.owner is None or name in self._wanted or self._holds(name, membership.owner):
            return
        verdict = self._of(membership.owner)
        shown = tuple(verdict.evidence()) if verdict else ()
        host = self._subject.hostname
        why = f"{host} is no longer in {name} because {self._departure(verdict, membership.owner)}"
        yield Change(Kind.HOST_REMOVED, name, membership.owner, why, host, evidence=shown)
        aggregate = self._current.aggregates[name]
        if not aggregate.others and _disposable(aggregate, self._rules):
            yield _deletion(aggregate)

    def _of(self, owner: str) -> Verdict | None:
        return next((each for each in self._verdicts if each.rule.name == owner), None)

    def _holds(self, name: str, owner: str) -> bool:
        """Whether a member stays although its rule cannot tell now."""
        verdict = self._of(owner)
        return verdict is not None and verdict.answer is Answer.UNSURE and verdict.aggregate in ("", name)

    def _departure(self, verdict: Verdict | None, owner: str) -> str:
        if verdict is None:
            return f"rule '{owner}' is gone"
        if verdict.answer is Answer.YES:
            return f"rule '{owner}' places it in {verdict.aggregate}"
        return _because(tuple(each for each in verdict.evidence() if not each.matched))

    def _zones(self, left: set[str]) -> dict[str, str]:
        """The host's zones by the aggregates in which it stays."""
        stay = self._current.memberships.keys() - left
        return {name: zone for name in stay if (zone := self._current.aggregates[name].zone)}

    def _zone_after(self, name: str, steps: list[Change]) -> str | None:
        for step in steps:
            if ZONE_KEY in step.metadata:
                return step.metadata[ZONE_KEY]
        known = self._current.aggregates.get(name)
        return known.zone if known else None

    def _other_zone(self, step: Change, zone: str) -> bool:
        known = self._current.aggregates.get(step.aggregate)
        return known is not None and known.zone not in (None, zone)

    def _join(self, name: str, verdict: Verdict, zones: Mapping[str, str]) -> Iterator[Change]:
        known = self._current.aggregates.get(name)
        if known is not None and (fault := self._foreign(known, verdict)):
            self._refuse(verdict, fault)
            return
        wanted = dict(verdict.metadata())
        zone = wanted.get(ZONE_KEY) or (known.zone if known else None)
        if zone and (others := {other for at, other in zones.items() if at != name} - {zone}):
            self._refuse(verdict, f"the host is in zone {_listed(others)} already, not in '{zone}'")
            return
        if known is None:
            why = f"rule '{verdict.rule.name}' holds for {self._subject.hostname}"
            yield Change(Kind.CREATED, name, verdict.rule.name, why, binding=verdict.binding)
        yield from self._describe(name, verdict, known, wanted)
        yield from self._add(name, verdict)

    def _foreign(self, known: Known, verdict: Verdict) -> str | None:
        if known.owner is None:
            return f"'{known.name}' was made by hand"
        if known.owner != verdict.rule.name and _made(known, self._rules):
            return f"'{known.name}' belongs to rule '{known.owner}'"
        if (
            known.owner == verdict.rule.name
            and known.binding.keys() == verdict.binding.keys()
            and dict(known.binding) != dict(verdict.binding)
        ):
            return f"'{known.name}' stands for {dict(known.binding)}, not for {dict(verdict.binding)}"
        return None

    def _describe(
        self, name: str, verdict: Verdict, known: Known | None, wanted: Mapping[str, str]
    ) -> Iterator[Change]:
        changes = dict(self._metadata(verdict, known, wanted))
        rule = verdict.rule.name
        if known is not None and known.owner != rule:
            gone = "no longer makes it" if known.owner in self._rules else "is gone"
            why = f"rule '{rule}' takes over from '{known.owner}', which {gone}"
        elif changes or (known and known.binding.keys() != verdict.binding.keys()):
            why = f"rule '{rule}' says so"
        else:
            return
        yield Change(Kind.METADATA, name, rule, why, metadata=changes, binding=verdict.binding)

    def _metadata(
        self, verdict: Verdict, known: Known | None, wanted: Mapping[str, str]
    ) -> Iterator[tuple[str, str | None]]:
        held = known.metadata if known else {}
        for key, value in wanted.items():
            now = held.get(key)
            if now is not None and now.value == value:
                continue
            if now is not None and now.owner is None:
                self._refuse(verdict, f"metadata '{key}' was set to '{now.value}' by hand")
            elif key == ZONE_KEY and known and (rivals := known.rival_zones - {value}):
                self._refuse(verdict, f"zone '{value}' refused: members are in zone {_listed(rivals)}")
            else:
                yield key, value
        for key, now in held.items():
            if now.owner is None or key in wanted:
                continue
            if key == ZONE_KEY:
                self._refuse(verdict, f"zone '{now.value}' stays: a zone that was set cannot be unset")
            else:
                yield key, None

    def _add(self, name: str, verdict: Verdict) -> Iterator[Change]:
        membership = self._current.memberships.get(name)
        if membership is not None:
            rule = verdict.rule.name
            if membership.owner is not None and (membership.owner != rule or rule not in self._unchanged):
                self._kept[name] = Membership(verdict.rule.name, verdict.evidence())
            return
        shown = verdict.evidence()
        why = f"{self._subject.hostname} is in {name} because {_because(shown)}"
        yield Change(Kind.HOST_ADDED, name, verdict.rule.name, why, self._subject.hostname, evidence=shown)


def _values_fault(verdict: Verdict) -> str | None:
    for key, value in verdict.metadata().items():
        if fault := zone_fault(value) if key == ZONE_KEY else value_fault(value):
            return f"metadata '{key}': {fault}"
    return None


def _because(shown: tuple[Evidence, ...]) -> str:
    return "; ".join(each.reason for each in shown) or "the rule holds for every host"


def _listed(words: frozenset[str] | set[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))
