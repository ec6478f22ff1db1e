"""Rules made ready for judging many hosts: a set of rules is an integer, bit n for the n-th rule. Pure.

What a fact's value does to every rule that looks at it is found out once for each value that is seen: after
that a host is judged by one look-up for each fact, however many rules there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from libmh.api.host import Fact, FactStatus
from libmh.match import IN, Requirement
from libmh.spec import Plain
from mh_conductor.records import compact
from mh_conductor.rules import Rule, RuleSet
from mh_conductor.template import as_text

MAX_VALUES = 4096  # of one fact, that are remembered
UNKNOWN: tuple[Plain, str] = (None, "")
UNSURE = frozenset(each.value for each in (FactStatus.TIMEOUT, FactStatus.FAILED, FactStatus.DENIED))
"""The host did not come to know it: that says nothing about the machine."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of all rules about one host: each rule is in one of the three."""

    yes: int
    unsure: int
    no: int


def members(mask: int) -> Iterator[int]:
    """The bits that are set, the lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


class _FactRules:
    """The rules that look at one fact."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.named = 0
        """Those that have it in a name."""
        self._conditions: list[tuple[int, Requirement]] = []
        self._lacking: dict[object, int] = {}

    def add(self, bit: int, requirement: Requirement) -> None:
        self._conditions.append((bit, requirement))

    def lacking(self, value: Plain) -> int:
        """The rules that do not hold for a value."""
        key = _key(value)
        known = self._lacking.get(key)
        if known is None:
            known = self._look(value)
            if len(self._lacking) >= MAX_VALUES:
                self._lacking.clear()
            self._lacking[key] = known
        return known

    def _look(self, value: Plain) -> int:
        mask = self.named if as_text(value) is None else 0
        words = frozenset(value) if _is_words(value) else None
        for bit, requirement in self._conditions:
            if words is not None and requirement.operator == IN and requirement.operands:
                holds = requirement.operands[0] in words
            else:
                holds = requirement.holds(value)
            if not holds:
                mask |= bit
        return mask


def _is_words(value: Plain) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(type(each) is str for each in value)


def _key(value: Plain) -> object:
    """What differs when values do: to Python 1, 1.0 and True are one."""
    if _is_words(value):
        return tuple(value)
    if isinstance(value, list | dict):
        return (value.__class__, compact(value))
    return value if value.__class__ is str else (value.__class__, value)


class _TraitRules:
    """The rules that look at traits."""

    def __init__(self) -> None:
        self._required: dict[str, int] = {}
        self._forbidden: dict[str, int] = {}
        self._relevant: frozenset[str] = frozenset()
        self._lacking: dict[frozenset[str], int] = {}

    def add(self, bit: int, trait: str) -> None:
        kind = self._forbidden if trait.startswith("!") else self._required
        name = trait.removeprefix("!")
        kind[name] = kind.get(name, 0) | bit
        self._relevant |= {name}

    def lacking(self, traits: frozenset[str]) -> int:
        seen = self._relevant & traits
        known = self._lacking.get(seen)
        if known is None:
            known = 0
            for name in self._relevant:
                known |= (self._forbidden if name in seen else self._required).get(name, 0)
            if len(self._lacking) >= MAX_VALUES:
                self._lacking.clear()
            self._lacking[seen] = known
        return known


class Compiled:
    """Rules, and who looks at what."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.index: Mapping[str, int] = {rule.name: at for at, rule in enumerate(rules.rules)}
        self.all = (1 << len(rules.rules)) - 1
        self._facts: dict[str, _FactRules] = {}
        self._traits = _TraitRules()
        for at, rule in enumerate(rules.rules):
            self._add(1 << at, rule)
        self.templated = tuple(rule.aggregate.names for rule in rules.rules)
        self.named = tuple(sorted({name for names in self.templated for name in names}))
        """The facts that are in names of aggregates."""

    def _add(self, bit: int, rule: Rule) -> None:
        for name in rule.aggregate.names:
            self._fact(name).named |= bit
        for condition in rule.conditions:
            self._fact(condition.fact).add(bit, condition.requirement)
        for trait in rule.traits:
            self._traits.add(bit, trait)

    def _fact(self, name: str) -> _FactRules:
        return self._facts.setdefault(name, _FactRules(name))

    def facts(self) -> frozenset[str]:
        """Those that any rule looks at."""
        return frozenset(self._facts)

    def answers(self, facts: Mapping[str, Fact], traits: frozenset[str]) -> Answers:
        """Of a host that tells these."""
        seen = {name: (fact.value, fact.status) for name, fact in facts.items()}
        return self._answers(seen, traits)

    def answers_of(self, facts: Mapping[str, Mapping[str, Any]], traits: frozenset[str]) -> Answers:
        """Of a host by its facts as the store has them."""
        seen = {name: (fact.get("value"), fact["status"]) for name, fact in facts.items()}
        return self._answers(seen, traits)

    def _answers(self, seen: Mapping[str, tuple[Plain, str]], traits: frozenset[str]) -> Answers:
        no = unsure = 0
        for name, looking in self._facts.items():
            value, status = seen.get(name, UNKNOWN)
            if value is None and status in UNSURE:
                unsure |= looking.lacking(value)
            else:
                no |= looking.lacking(value)
        lacking = self._traits.lacking(traits)
        # traits are made from facts: where one of those could not be read, its traits are absent too
        if lacking and any(value is None and status in UNSURE for value, status in seen.values()):
            unsure |= lacking
        else:
            no |= lacking
        unsure &= ~no
        return Answers(self.all & ~(no | unsure), unsure, no)
