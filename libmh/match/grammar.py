"""The requirement grammar: `match(value, requirement)`. The package's own text has it."""

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


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement that has been read once, for matching many values. `exact`: as Nova compares values that
    are no strings."""

    text: str
    operator: str | None
    operands: tuple[str, ...]
    exact: bool = False

    def match(self, value: object) -> Match:
        """Never raises, whatever the value is: what cannot be compared does not match, and says why."""
        answer = _judge(self, value)
        return Match(answer is True, _reason(self, value, answer=answer))

    def holds(self, value: object) -> bool:
        """The answer alone."""
        return _judge(self, value) is True

    def predicate(self) -> Callable[[object], bool]:
        """As `holds`, for very many values: of numbers, the one that is asked for is read once."""
        compare = NUMERIC.get(self.operator or "")
        if compare is None or not self.operands:
            return self.holds
        wanted = _as_number(self, self.operands[0])
        if wanted is None:
            return lambda _value: False

        def holds(value: object) -> bool:
            seen = value if type(value) is int and not self.exact else _as_number(self, value)
            return seen is not None and compare(seen, wanted)

        return holds

    def wanted(self) -> str:
        """What would match, in words."""
        first = f"'{_short(self.operands[0])}'" if self.operands else ""
        if self.operator is None:
            return f"'{_short(self.text)}'"
        if not self.operands:
            return "nothing"
        if self.operator == OR:
            return f"one of {_listed(self.operands[::2])}"
        if self.operator in (IN, ALL_IN):
            return f"what has {first if self.operator == IN else _listed(self.operands)}"
        kind = "a number" if self.operator in NUMERIC else "a text"
        return f"{kind} '{_sign(self.operator)} {_short(self.operands[0])}'"


def read(requirement: str, *, exact: bool = False) -> Requirement:
    """Split a requirement into its operator and operands; every text is one."""
    words = requirement.split()
    if not words or words[0] not in OPERATORS:
        return Requirement(requirement, None, (), exact)
    return Requirement(requirement, words[0], tuple(words[1:]), exact)


def match(value: object, requirement: str) -> Match:
    """Whether a value (string, number, bool, list of those, or None) fulfils a requirement, and why: true
    exactly where Nova's `match` is, and false where that raises."""
    return read(requirement, exact=True).match(value)


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


def _judge(requirement: Requirement, value: object) -> bool | None:
    """None: they cannot be compared."""
    word = requirement.operator
    if value is None:
        return False
    if word is None:
        return _as_text(requirement, value) == requirement.text or (
            isinstance(value, bool) and not requirement.exact and str(value) == requirement.text
        )
    if not requirement.operands:
        return None
    if word in NUMERIC:
        seen, wanted = _as_number(requirement, value), _as_number(requirement, requirement.operands[0])
        return None if seen is None or wanted is None else NUMERIC[word](seen, wanted)
    if word in TEXTUAL:
        return _textual(requirement, word, value)
    if word == OR:
        return _as_text(requirement, value) in requirement.operands[::2]
    lacking = _lacking(requirement, value)
    return None if lacking is None else not lacking


def _textual(requirement: Requirement, word: str, value: object) -> bool | None:
    text = _as_text(requirement, value)
    if text is not None:
        return TEXTUAL[word](text, requirement.operands[0])
    # Nova compares what is no text all the same: it equals none, and only an order there is not
    return {"s==": False, "s!=": True}.get(word) if requirement.exact else None


def _lacking(requirement: Requirement, value: object) -> tuple[str, ...] | None:
    """Which operands are not in the value; None where nothing can be in it."""
    wanted = requirement.operands if requirement.operator == ALL_IN else requirement.operands[:1]
    if isinstance(value, str):
        return tuple(each for each in wanted if each not in value)
    if not isinstance(value, list | tuple | dict if requirement.exact else list | tuple):
        return None
    missing = tuple(each for each in wanted if each not in value)
    if not missing:
        return ()
    members = {_as_text(requirement, each) for each in value if not isinstance(each, str)}
    return tuple(each for each in missing if each not in members)


def _reason(requirement: Requirement, value: object, *, answer: bool | None) -> str:
    word, shown = requirement.operator, f"is {_shown(value)}"
    if value is None:
        return "is not known"
    if word is None:
        return _on_equality(requirement, value, shown, answer=answer)
    if not requirement.operands:
        return f"cannot be compared: '{word}' has no operand"
    if word in NUMERIC or word in TEXTUAL:
        return _on_order(requirement, word, shown, answer=answer)
    if word == OR:
        return shown if answer else f"{shown}, not one of {_listed(requirement.operands[::2])}"
    lacking = _lacking(requirement, value)
    if lacking is None:
        return f"{shown}, which is neither a list nor text"
    has = requirement.operands if word == ALL_IN else requirement.operands[:1]
    return f"lacks {_listed(lacking)}" if lacking else f"has {_listed(has)}"


def _on_equality(requirement: Requirement, value: object, shown: str, *, answer: bool | None) -> str:
    if answer:
        return shown
    if _as_text(requirement, value) is None:
        return f"{shown}, which equals no text" + (
            f"; use {IN} for a list" if isinstance(value, list | tuple) else ""
        )
    return f"{shown}, not '{_short(requirement.text)}'"


def _on_order(requirement: Requirement, word: str, shown: str, *, answer: bool | None) -> str:
    operand = requirement.operands[0]
    wanted = f"'{_sign(word)} {_short(operand)}'"
    if answer is not None:
        return f"{shown}, as {wanted} asks" if answer else f"{shown}, not {wanted}"
    if word in NUMERIC and _number(operand) is None:
        return f"cannot be compared: '{_short(operand)}' after '{word}' is not a number"
    return f"{shown}, which is not {'a number' if word in NUMERIC else 'text'}"


def _sign(word: str) -> str:
    return ">=" if word == "=" else word


def _as_number(requirement: Requirement, value: object) -> int | float | None:
    if not requirement.exact:
        return _number(value)
    # Nova: a bool and rounding included
    return _numeral(float, value) if isinstance(value, int | float | str) else None


def _number(value: object) -> int | float | None:
    """A bool is no number; integers stay exact."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    whole = _numeral(int, value)
    return _numeral(float, value) if whole is None else whole


def _numeral(kind: type[int] | type[float], value: float | str) -> int | float | None:
    try:
        return kind(value)
    except (ValueError, OverflowError):  # not written as this kind of number, or beyond any of it
        return None


def _as_text(requirement: Requirement, value: object) -> str | None:
    if isinstance(value, str):
        return value
    return None if requirement.exact else _text(value)


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
