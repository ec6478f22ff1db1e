"""Rules: which hosts belong to which aggregate, and what its metadata says. Read from TOML::

    [settings]                            # see mh_conductor.regime
    grace = "1h"

    [[rule]]
    name = "avx512"                       # unique; what the rule makes carries it as its owner
    aggregate = "cpu-avx512"              # may contain facts: "os-{os_id}" makes an aggregate of each
    traits = ["HW_CPU_X86_AVX512F"]       # all of these; "!NAME" for one that must be absent
    requirements = { cpu_count = [">= 8", "<= 64"], arch = "x86_64" }   # see libmh.match
    metadata = { cpu_avx512 = "true" }    # may contain the facts that the aggregate's name contains
    zone = "az1"                          # likewise
    gives = ["CUSTOM_MH_AVX512"]          # traits of the hosts that fulfil it
    grace = "10min"                       # how long a silent host keeps its place; else that of [settings]

A rule without requirements and traits holds for every host that knows the facts in the aggregate's name. One
that only gives traits needs no aggregate.
"""

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from libmh.capability import FACTS
from libmh.errors import InvalidArguments
from libmh.match import Requirement, advice, read
from libmh.traits import KNOWN as KNOWN_TRAITS
from mh_conductor.limits import MAX_KEYS, ZONE_KEY, key_fault, name_fault, value_fault, zone_fault
from mh_conductor.positions import SETTINGS, TOP, Positions, positions
from mh_conductor.regime import DEFAULT_REGIME, DURATION_EXPECTED, Regime, read_regime, seconds
from mh_conductor.template import BadTemplate, Template, read_template

DEFAULT = "default"
MAX_FILE = 1 << 20
MAX_RULES = 1000
MAX_FAULTS = 20
MAX_WARNINGS = 100
MAX_SAID = 400
TRAIT = re.compile(r"!?[A-Z][A-Z0-9_]{0,254}")
GIVEN = re.compile(r"CUSTOM_MH_[A-Z0-9_]{1,245}")
KEYS = (
    *("name", "description", "aggregate", "requirements", "traits", "metadata", "zone"),
    *("gives", "grace"),
)
TABLES = ("rule", "settings")
NO_AGGREGATE = Template("", ())


@dataclass(frozen=True, slots=True)
class Condition:
    """One requirement over one fact."""

    fact: str
    requirement: Requirement


@dataclass(frozen=True, slots=True)
class Rule:
    """`aggregate` is of no text where the rule only gives traits; `grace`: seconds."""

    name: str
    aggregate: Template
    conditions: tuple[Condition, ...] = ()
    traits: tuple[str, ...] = ()
    metadata: Mapping[str, Template] = field(default_factory=dict)
    zone: Template | None = None
    gives: tuple[str, ...] = ()
    grace: float | None = None

    @property
    def templates(self) -> Mapping[str, Template]:
        """The metadata, the zone with it."""
        return {**self.metadata, ZONE_KEY: self.zone} if self.zone else self.metadata


@dataclass(frozen=True, slots=True)
class RuleSet:
    """`digest` names this set, made of `text`; `warnings` are about what means something else than it seems
    to."""

    rules: tuple[Rule, ...]
    digest: str = ""
    warnings: tuple[str, ...] = ()
    text: str = ""
    regime: Regime = DEFAULT_REGIME

    def by_name(self) -> Mapping[str, Rule]:
        return {rule.name: rule for rule in self.rules}

    def grace(self, rule: Rule) -> float:
        """Seconds for which a silent host keeps the places that a rule gave it."""
        return self.regime.grace if rule.grace is None else rule.grace


def load(place: str) -> RuleSet:
    """Read a file of rules, or the ones that are shipped (`default`). Raises `InvalidArguments` with every
    fault that was found, each with the file's line."""
    path = files("mh_conductor") / "rules" / "default.toml" if place == DEFAULT else Path(place)
    try:
        with path.open("rb") as file:
            content: bytes = file.read(MAX_FILE + 1)
        text = content.decode()
    except OSError as error:
        raise InvalidArguments(f"cannot read the rules in '{place}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArguments(f"the rules in '{place}' are not UTF-8: {error}") from error
    if len(content) > MAX_FILE:
        raise InvalidArguments(f"the rules in '{place}' are longer than {MAX_FILE} bytes")
    return parse(text, place)


def parse(text: str, place: str = "rules") -> RuleSet:
    """Rules from TOML; `place` is what messages call the file. Raises as `load`."""
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
        raise InvalidArguments(f"{place}: {error}") from error
    reader = Reader(place, positions(text))
    rules = tuple(reader.read(content))
    if reader.faults:
        more = [f"and {reader.left} more"] if reader.left else []
        raise InvalidArguments("; ".join([*reader.faults, *more]))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return RuleSet(rules, digest, tuple(reader.warnings), text, reader.regime)


class Reader:
    """Turns a TOML document into rules and collects what is wrong with it."""

    def __init__(self, place: str, where: Positions) -> None:
        self.faults: list[str] = []
        self.left = 0
        """Faults beyond those."""
        self.warnings: list[str] = []
        self._place = place
        self._where = where
        self._at = TOP
        self.regime = DEFAULT_REGIME

    def read(self, content: Mapping[str, Any]) -> Iterator[Rule]:
        for key in sorted(content.keys() - set(TABLES)):
            self._fault(f"unknown key '{key}': expected only [[rule]] tables and [settings]", key)
        self._settings(content)
        tables = content.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._fault("expected [[rule]] tables, in double brackets", "rule")
            return
        if len(tables) > MAX_RULES:
            self._fault(f"expected at most {MAX_RULES} rules, got {len(tables)}")
            return
        seen: dict[str, set[str]] = {"name": set(), "aggregate": set()}
        for self._at, table in enumerate(tables):
            self._unique(table, seen)
            rule = self._rule(table)
            if rule is not None:
                yield rule

    def _settings(self, content: Mapping[str, Any]) -> None:
        table = self._table(content, "settings")
        self._at = SETTINGS
        self.regime = read_regime(table, self._fault)
        self._at = TOP

    def _unique(self, table: Mapping[str, Any], seen: Mapping[str, set[str]]) -> None:
        for key, words in seen.items():
            word = table.get(key)
            if isinstance(word, str):
                if word in words:
                    self._fault(f"{key} '{word}' is taken by a rule above", key)
                words.add(word)

    def _rule(self, table: Mapping[str, Any]) -> Rule | None:
        before = len(self.faults) + self.left
        for key in sorted(table.keys() - set(KEYS)):
            self._fault(f"unknown key '{key}': expected {', '.join(KEYS)}", key)
        self._text(table, "description")
        name = self._text(table, "name", needed=True)
        if name and (fault := name_fault(name)):
            self._fault(f"name: {fault}", "name")
        aggregate = self._aggregate(table)
        rule = Rule(
            name or "",
            aggregate or NO_AGGREGATE,
            tuple(self._conditions(table)),
            tuple(self._traits(table)),
            dict(self._metadata(table, aggregate)),
            self._zone(table, aggregate),
            tuple(self._gives(table)),
            self._grace(table),
        )
        return rule if len(self.faults) + self.left == before else None

    def _aggregate(self, table: Mapping[str, Any]) -> Template | None:
        if "aggregate" not in table and table.get("gives"):
            for key in ("metadata", "zone"):
                if key in table:
                    self._fault(f"{key}: there is no aggregate to have it", key)
            return NO_AGGREGATE
        text = self._text(table, "aggregate", needed=True)
        aggregate = self._template("aggregate", text or "-")
        if aggregate and not aggregate.names and (fault := name_fault(aggregate.render({}))):
            self._fault(f"aggregate: {fault}", "aggregate")
        return aggregate

    def _gives(self, table: Mapping[str, Any]) -> Iterator[str]:
        given = table.get("gives", [])
        for trait in given if isinstance(given, list) else [given]:
            if isinstance(trait, str) and GIVEN.fullmatch(trait):
                yield trait
            else:
                self._fault(f"gives: expected names like 'CUSTOM_MH_FAST', got {trait!r}", "gives")

    def _grace(self, table: Mapping[str, Any]) -> float | None:
        if "grace" not in table:
            return None
        grace = seconds(table["grace"])
        if grace is None:
            self._fault(f"grace: expected {DURATION_EXPECTED}, got {table['grace']!r}", "grace")
        return grace

    def _conditions(self, table: Mapping[str, Any]) -> Iterator[Condition]:
        for fact, wanted in self._table(table, "requirements").items():
            texts = wanted if isinstance(wanted, list) else [wanted]
            if not texts or not all(isinstance(text, str) for text in texts):
                self._fault(
                    f"requirements.{fact}: expected a string or a list of them, got {wanted!r}", fact
                )
                continue
            self._expect(fact, FACTS, fact, "tells the fact")
            for text in texts:
                if said := advice(text):
                    self._warn(f"requirements.{fact}: {said}", fact)
                yield Condition(fact, read(text))

    def _traits(self, table: Mapping[str, Any]) -> Iterator[str]:
        traits = table.get("traits", [])
        for trait in traits if isinstance(traits, list) else [traits]:
            if isinstance(trait, str) and TRAIT.fullmatch(trait):
                self._expect(trait.removeprefix("!"), KNOWN_TRAITS, "traits", "reports the trait")
                yield trait
            else:
                self._fault(f"traits: expected names like 'HW_CPU_X86_AVX2', got {trait!r}", "traits")

    def _metadata(
        self, table: Mapping[str, Any], aggregate: Template | None
    ) -> Iterator[tuple[str, Template]]:
        texts = self._table(table, "metadata")
        if len(texts) > MAX_KEYS:
            self._fault(f"metadata: expected at most {MAX_KEYS} keys, got {len(texts)}", "metadata")
            return
        for key, text in texts.items():
            if key == ZONE_KEY:
                self._fault(f"metadata.{key}: write it as zone = ...", key)
            elif fault := key_fault(key):
                self._fault(f"metadata key '{key}': {fault}", key)
            elif not isinstance(text, str):
                self._fault(f"metadata.{key}: expected a string, got {text!r}", key)
            elif template := self._filled(f"metadata.{key}", text, aggregate, key):
                if not template.names and (fault := value_fault(template.render({}))):
                    self._fault(f"metadata.{key}: {fault}", key)
                yield key, template

    def _zone(self, table: Mapping[str, Any], aggregate: Template | None) -> Template | None:
        text = self._text(table, "zone")
        if text is None:
            return None
        template = self._filled("zone", text, aggregate, "zone")
        if template and not template.names and (fault := zone_fault(template.render({}))):
            self._fault(f"zone: {fault}", "zone")
        return template

    def _filled(self, what: str, text: str, aggregate: Template | None, key: str) -> Template | None:
        template = self._template(what, text, key)
        if template and aggregate:
            for name in set(template.names) - set(aggregate.names):
                # hosts of one aggregate could differ in it, and the last to report would win
                self._fault(f"{what}: {{{name}}} must be in the aggregate's name too", key)
        return template

    def _template(self, what: str, text: str, key: str = "") -> Template | None:
        try:
            return read_template(text)
        except BadTemplate as error:
            self._fault(f"{what}: {error}", key or what)
            return None

    def _text(self, table: Mapping[str, Any], key: str, *, needed: bool = False) -> str | None:
        value = table.get(key)
        if isinstance(value, str) and (value or not needed):
            return value
        if value is not None:
            self._fault(f"{key}: expected a string, got {value!r}", key)
        elif needed:
            self._fault(f"'{key}' is missing")
        return None

    def _table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault(f"{key}: expected a table, got {value!r}", key)
        return {}

    def _expect(self, word: str, known: Collection[str], key: str, does: str) -> None:
        """A typo matches nothing, silently; but an agent of another version may tell more than ours."""
        if len(self.warnings) < MAX_WARNINGS and word not in known and not word.startswith("CUSTOM_"):
            near = get_close_matches(word, known, 1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            self._warn(f"no agent of this version {does} '{word}'{hint}", key)

    def _warn(self, message: str, key: str) -> None:
        # to find a line takes a look at all of them
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(f"{self._line(key)}: {_cut(message)}")

    def _fault(self, message: str, key: str = "") -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{self._line(key)}: {_cut(message)}")
        else:
            self.left += 1

    def _line(self, key: str) -> str:
        return f"{self._place}:{self._where.line(self._at, key)}"


def _cut(message: str) -> str:
    return message if len(message) <= MAX_SAID else message[: MAX_SAID - 3] + "..."
