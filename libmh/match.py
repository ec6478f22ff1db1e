"""The requirement grammar that filters, aggregate rules and flavors share: `match(value, requirement)`.

It is Nova's `extra_specs_ops`, with a reason for every answer and without its exceptions::

    avx512f               the value is exactly this text, blanks and all
    = 8   >= 8            a number of at least 8 (`=` is historical: it does not mean "equal")
    == 8  != 8  <= 8      numbers; there is no `>` and no `<`
    s== b  s!= s< s<= s> s>=   the order of strings
    <in> avx512f          a member of a list, or a part of a string
    <all-in> aes avx2     all of these are in the value
    <or> amd <or> intel   the value is one of these

The first word is an operator only if it is exactly one of these; anything else is compared whole. A missing
value never matches, not even `!=`; an operator without an operand never matches. Words too many are ignored.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MAX_SHOWN = 60
MAX_BITS = 1024  # of an integer that is written out; more cannot be a fact

Compare = Callable[[Any, Any], bool]
NUMERIC: Mapping[str, Compare] = MappingProxyType(
    {"=": operator.ge, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le}
)
TEXTUAL: Mapping[str, Compare] = MappingProxyType(
    {
        "s==": operator.eq,
        "s!=": operator.ne,
        "s<": operator.lt,
        "s<=": operator.le,
        "s>": operator.gt,
        "s>=": operator.ge,
    }
)
IN, ALL_IN, OR = "<in>", "<all-in>", "<or>"
OPERATORS = (*NUMERIC, *TEXTUAL, IN, ALL_IN, OR)


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a requirement holds. `reason` reads on after the name of the thing: `has 'avx512f'`."""

    matched: bool
    reason: str

    def __bool__(self) -> bool:
        return self.matched


def _yes(reason: str) -> Match:
    return Match(matched=True, reason=reason)


def _no(reason: str) -> Match:
    return Match(matched=False, reason=reason)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement that has been read once, for matching many values."""

    text: str
    operator: str | None
    operands: tuple[str, ...]

    def match(self, value: object) -> Match:
        """Never raises, whatever the value is: what cannot be compared does not match, and says why."""
        if value is None:
            return _no("is not known")
        if self.operator is None:
            return _equal(value, self.text)
        if not self.operands:
            return _no(f"cannot be compared: '{self.operator}' has no operand")
        if self.operator in NUMERIC:
            return _numeric(self.operator, value, self.operands[0])
        if self.operator in TEXTUAL:
            return _textual(self.operator, value, self.operands[0])
        if self.operator == OR:
            return _one_of(value, self.operands[::2])
        return _contains(value, self.operands if self.operator == ALL_IN else self.operands[:1])


def read(requirement: str) -> Requirement:
    """Split a requirement into its operator and operands; every text is one."""
    words = requirement.split()
    if not words or words[0] not in OPERATORS:
        return Requirement(requirement, None, ())
    return Requirement(requirement, words[0], tuple(words[1:]))


def match(value: object, requirement: str) -> Match:
    """Whether a value (string, number, bool, list of those, or None) fulfils a requirement, and why."""
    return read(requirement).match(value)


def advice(requirement: str) -> str | None:
    """What is probably wrong with a requirement that means something else than it looks like."""
    first = requirement.split(maxsplit=1)[0] if requirement.strip() else ""
    if first == "=":
        return f"'{_short(requirement)}' means 'at least': write '>=', or '==' for equality"
    if first in ("<", ">"):
        return f"there is no operator '{first}': use '{first}='"
    if first in OPERATORS:
        return _advice_on_operands(read(requirement))
    for known in sorted(OPERATORS, key=len, reverse=True):
        if first.startswith(known) and not known.isalnum():
            return f"'{_short(first)}' is compared as text: write a blank after '{known}'"
    return None


def _advice_on_operands(requirement: Requirement) -> str | None:
    if not requirement.operands:
        return f"'{requirement.operator}' without an operand never matches"
    first = _short(requirement.operands[0])
    if requirement.operator in NUMERIC and _number(requirement.operands[0]) is None:
        return f"'{first}' is not a number, and '{requirement.operator}' compares numbers"
    if requirement.operator not in (ALL_IN, OR) and len(requirement.operands) > 1:
        return f"only '{first}' counts after '{requirement.operator}', the rest is ignored"
    return None


def _equal(value: object, wanted: str) -> Match:
    text = _text(value)
    if text is None:
        return _no(f"is {_shown(value)}, which equals no text; use {IN} for a list")
    if text == wanted or (isinstance(value, bool) and text == wanted.lower()):
        return _yes(f"is {_shown(value)}")
    return _no(f"is {_shown(value)}, not '{_short(wanted)}'")


def _numeric(word: str, value: object, operand: str) -> Match:
    wanted = _number(operand)
    if wanted is None:
        return _no(f"cannot be compared: '{_short(operand)}' after '{word}' is not a number")
    seen = _number(value)
    if seen is None:
        return _no(f"is {_shown(value)}, which is not a number")
    return _compared(value, ">=" if word == "=" else word, operand, holds=NUMERIC[word](seen, wanted))


def _textual(word: str, value: object, operand: str) -> Match:
    text = _text(value)
    if text is None:
        return _no(f"is {_shown(value)}, which is not text")
    return _compared(value, word, operand, holds=TEXTUAL[word](text, operand))


def _compared(value: object, word: str, operand: str, *, holds: bool) -> Match:
    shown = f"is {_shown(value)}"
    wanted = f"'{word} {_short(operand)}'"
    return _yes(f"{shown}, as {wanted} asks") if holds else _no(f"{shown}, not {wanted}")


def _one_of(value: object, wanted: tuple[str, ...]) -> Match:
    text = _text(value)
    if text is not None and text in wanted:
        return _yes(f"is {_shown(value)}")
    return _no(f"is {_shown(value)}, not one of {_listed(wanted)}")


def _contains(value: object, wanted: tuple[str, ...]) -> Match:
    if isinstance(value, str):
        lacking = tuple(each for each in wanted if each not in value)
    elif isinstance(value, list | tuple):
        members = {_text(each) for each in value}
        lacking = tuple(each for each in wanted if each not in members)
    else:
        return _no(f"is {_shown(value)}, which is neither a list nor text")
    return _no(f"lacks {_listed(lacking)}") if lacking else _yes(f"has {_listed(wanted)}")


def _number(value: object) -> int | float | None:
    """A bool is no number, as in Nova; integers stay exact."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:  # not written as this kind of number, or thousands of digits long
            continue
    return None


def _text(value: object) -> str | None:
    """The text that a value is compared as; None for what has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= MAX_BITS else None
    return repr(value) if isinstance(value, float) else None


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = _text(value)
    if text is None:
        return f"a {type(value).__name__}"
    return f"'{_short(text)}'" if isinstance(value, str) else text[:MAX_SHOWN]


def _listed(words: tuple[str, ...]) -> str:
    return _short(", ".join(f"'{word}'" for word in words))


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
