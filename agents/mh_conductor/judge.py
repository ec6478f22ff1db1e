"""One host against the rules, without regard to what is: verdicts, each with its evidence. Pure."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from libmh.api.aggregates import CapabilityReport, Evidence
from libmh.api.host import Fact, FactStatus
from mh_conductor.rules import Rule, RuleSet
from mh_conductor.template import as_text

UNSURE = (FactStatus.TIMEOUT, FactStatus.FAILED, FactStatus.DENIED)
"""The host did not come to know it: that says nothing about the machine."""
NANOSECONDS = 10**9


class Answer(StrEnum):
    """UNSURE: a fact that decides could not be read; a member stays, a stranger does not join."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged."""

    uuid: str
    hostname: str
    facts: Mapping[str, Fact]
    traits: frozenset[str]

    def text(self, name: str) -> str | None:
        """A fact's value as it is written into names."""
        fact = self.facts.get(name)
        return as_text(fact.value) if fact else None


def subject_of(report: CapabilityReport) -> Subject:
    return Subject(report.uuid, report.hostname, report.facts, frozenset(report.traits))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's answer about a host. `binding` holds the facts in the aggregate's name; `aggregate` is empty
    where one of them is not known. The evidence is made when asked for: most are never looked at."""

    rule: Rule
    answer: Answer
    aggregate: str
    binding: Mapping[str, str]
    subject: Subject

    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(evidence(self.rule, self.subject, self.binding))

    def metadata(self) -> Mapping[str, str]:
        """What the rule wants the aggregate's metadata to say, the zone with it."""
        return {key: template.render(self.binding) for key, template in self.rule.templates.items()}


def judge(subject: Subject, rules: RuleSet) -> tuple[Verdict, ...]:
    """One verdict per rule, in the order of the rules."""
    return tuple(_verdict(subject, rule) for rule in rules.rules)


def _verdict(subject: Subject, rule: Rule) -> Verdict:
    binding = {name: text for name in rule.aggregate.names if (text := subject.text(name)) is not None}
    bound = len(binding) == len(rule.aggregate.names)
    aggregate = rule.aggregate.render(binding) if bound else ""
    return Verdict(rule, _answer(subject, rule), aggregate, binding, subject)


def _answer(subject: Subject, rule: Rule) -> Answer:
    unsure = False
    for lacking in _lacking(subject, rule):
        if lacking is Answer.NO:
            return lacking
        unsure = True
    return Answer.UNSURE if unsure else Answer.YES


def _lacking(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """An answer for everything that does not hold."""
    for name in rule.aggregate.names:
        if subject.text(name) is None:
            yield _without(subject.facts.get(name))
    for condition in rule.conditions:
        fact = subject.facts.get(condition.fact)
        if not condition.requirement.match(fact.value if fact else None):
            yield _without(fact)
    for trait in rule.traits:
        if (trait.removeprefix("!") in subject.traits) is trait.startswith("!"):
            yield _traits_lacking(subject)


def _without(fact: Fact | None) -> Answer:
    return Answer.UNSURE if fact and fact.value is None and fact.status in UNSURE else Answer.NO


def _traits_lacking(subject: Subject) -> Answer:
    # traits are made from facts: where one of those could not be read, its traits are absent too
    return (
        Answer.UNSURE
        if any(_without(fact) is Answer.UNSURE for fact in subject.facts.values())
        else Answer.NO
    )


def evidence(rule: Rule, subject: Subject, binding: Mapping[str, str]) -> Iterator[Evidence]:
    """Every requirement of a rule with the value that was seen; what the facts in the aggregate's name must
    be is a requirement too."""
    for name in rule.aggregate.names:
        fact = subject.facts.get(name)
        wanted, seen = binding.get(name), subject.text(name)
        matched = seen is not None and seen == wanted
        said = f"is '{seen}'" if matched else f"is {_quoted(seen)}, not {_quoted(wanted)}"
        yield _of_fact(rule, name, wanted or "any", fact, said, matched=matched)
    for condition in rule.conditions:
        fact = subject.facts.get(condition.fact)
        match = condition.requirement.match(fact.value if fact else None)
        text = condition.requirement.text
        yield _of_fact(rule, condition.fact, text, fact, match.reason, matched=match.matched)
    for trait in rule.traits:
        yield _of_trait(rule, trait, subject)
    if not (rule.aggregate.names or rule.conditions or rule.traits):
        yield Evidence(rule.name, "", "", matched=True, reason="the rule holds for every host")


def _quoted(text: str | None) -> str:
    return "not known" if text is None else f"'{text}'"


def _of_fact(
    rule: Rule, name: str, requirement: str, fact: Fact | None, said: str, *, matched: bool
) -> Evidence:
    if fact is None:
        return Evidence(rule.name, name, requirement, matched, f"{name} {said}: the host does not report it")
    seen = f", seen {clock(fact.observed)}" if fact.value is not None else ""
    trouble = (
        f" ({fact.status}: {fact.reason or 'no reason given'})" if fact.status is not FactStatus.OK else ""
    )
    reason = f"{name} {said}{seen}{trouble}"
    return Evidence(
        rule.name, name, requirement, matched, reason, fact.value, fact.status, fact.source, fact.observed
    )


def _of_trait(rule: Rule, trait: str, subject: Subject) -> Evidence:
    name = trait.removeprefix("!")
    has, wanted = name in subject.traits, not trait.startswith("!")
    reason = f"the host {'has' if has else 'lacks'} the trait {name}"
    requirement = "present" if wanted else "absent"
    return Evidence(rule.name, f"trait:{name}", requirement, has is wanted, reason, has)


def clock(nanoseconds: int) -> str:
    """A moment for people, in UTC."""
    if not 0 < nanoseconds // NANOSECONDS < 253_402_300_800:  # the year 10000: a host may say anything
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(nanoseconds // NANOSECONDS))
