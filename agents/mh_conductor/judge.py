"""One host against the rules, without regard to what is: verdicts, each with its evidence. Pure."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from libmh.api.aggregates import CapabilityReport, Evidence
from libmh.api.host import Fact, FactStatus
from mh_conductor.compiled import Answers, Compiled, members
from mh_conductor.rules import Rule, RuleSet
from mh_conductor.template import as_text

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
    where one of them is not known, and for a rule without one. The evidence is made when asked for: most are
    never looked at. `instead`: why the answer is not what the facts say."""

    rule: Rule
    answer: Answer
    aggregate: str
    binding: Mapping[str, str]
    subject: Subject
    instead: Evidence | None = None

    def evidence(self) -> tuple[Evidence, ...]:
        shown = tuple(evidence(self.rule, self.subject, self.binding))
        return (self.instead, *shown) if self.instead else shown

    def metadata(self) -> Mapping[str, str]:
        """What the rule wants the aggregate's metadata to say, the zone with it."""
        return {key: template.render(self.binding) for key, template in self.rule.templates.items()}


def judge(subject: Subject, rules: RuleSet) -> tuple[Verdict, ...]:
    """One verdict per rule, in the order of the rules."""
    compiled = Compiled(rules)
    return verdicts(subject, compiled, compiled.answers(subject.facts, subject.traits), compiled.all)


def verdicts(subject: Subject, compiled: Compiled, answers: Answers, which: int) -> tuple[Verdict, ...]:
    """Those of the rules `which`, in their order."""
    return tuple(_verdict(subject, compiled.rules.rules[at], _answer(answers, at)) for at in members(which))


def _verdict(subject: Subject, rule: Rule, answer: Answer) -> Verdict:
    names = rule.aggregate.names
    binding = {name: text for name in names if (text := subject.text(name)) is not None}
    aggregate = rule.aggregate.render(binding) if len(binding) == len(names) else ""
    return Verdict(rule, answer, aggregate, binding, subject)


def _answer(answers: Answers, at: int) -> Answer:
    if answers.yes >> at & 1:
        return Answer.YES
    return Answer.UNSURE if answers.unsure >> at & 1 else Answer.NO


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
