"""Strategies over type trees: the trees themselves, values that fit one, plain trees that do not."""

from collections.abc import Callable
from dataclasses import make_dataclass
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from libmh.spec import (
    RANGES,
    Anything,
    Field,
    ListOf,
    MapOf,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)
from libmh.wire import dump

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_INTEGER = st.integers(RANGES[Word.I64][0], RANGES[Word.U64][1])
PLAIN_LEAF = st.none() | st.booleans() | ANY_INTEGER | FINITE | TEXT | st.binary(max_size=20)


class Colour(StrEnum):
    """Words to choose from."""

    RED = "red"
    GREEN = "green"


def plain() -> st.SearchStrategy[Plain]:
    """Any plain tree that `Anything` takes."""
    return st.recursive(
        PLAIN_LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    )


def trees() -> st.SearchStrategy[Type]:
    """Any type tree that a declaration can have."""
    leaves = st.sampled_from(Word).map(Scalar) | st.just(Words(Colour)) | st.just(Anything())
    return st.recursive(
        leaves,
        lambda inner: inner.map(ListOf) | inner.map(MapOf) | st.lists(inner, max_size=3).map(_record),
        max_leaves=6,
    )


def _record(types: list[Type]) -> RecordOf:
    """Fields of these types; every second one is optional."""
    fields = tuple(
        Field(
            f"f{at}", OptionalOf(each) if at % 2 and not isinstance(each, Anything) else each, "", not at % 2
        )
        for at, each in enumerate(types)
    )
    required = [(each.name, object) for each in fields if each.required]
    optional = [(each.name, object, None) for each in fields if not each.required]
    return RecordOf(make_dataclass("Made", [*required, *optional], frozen=True, slots=True), fields)


def values(declared: Type) -> st.SearchStrategy[Any]:
    """Typed values of a type tree."""
    match declared:
        case Scalar(word):
            return scalars(word)
        case ListOf(item):
            return st.lists(values(item), max_size=3)
        case MapOf(item):
            return st.dictionaries(TEXT, values(item), max_size=3)
        case OptionalOf(item):
            return st.none() | values(item)
        case Words(choices):
            return st.sampled_from(choices)
        case RecordOf(record, fields):
            return st.builds(record, **{each.name: values(each.type) for each in fields})
        case Anything():
            return plain()


def scalars(word: Word) -> st.SearchStrategy[Any]:
    """Values of a scalar type, up to its edges."""
    if word in RANGES:
        low, high = RANGES[word]
        return st.integers(low, high) | st.sampled_from([low, high])
    simple: dict[Word, Callable[[], st.SearchStrategy[Any]]] = {
        Word.BOOL: st.booleans,
        Word.DOUBLE: lambda: FINITE,
        Word.STRING: lambda: TEXT,
        Word.BYTES: lambda: st.binary(max_size=20),
    }
    return simple[word]()


WRONG: dict[Word, st.SearchStrategy[Any]] = {
    Word.BOOL: st.integers(0, 1) | TEXT | FINITE | st.none() | st.just([True]),
    Word.DOUBLE: st.sampled_from([float("nan"), float("inf")]) | st.booleans() | TEXT | st.none(),
    Word.STRING: st.sampled_from(["a\0b", "x" * 65_536]) | ANY_INTEGER | st.booleans() | st.just(["a"]),
    Word.BYTES: TEXT | ANY_INTEGER | st.none() | st.just([1, 2]),
}
NO_INTEGER = st.booleans() | FINITE | TEXT | st.none() | st.just([1]) | st.just({"a": 1})


def wrong(declared: Type) -> st.SearchStrategy[Any]:
    """Plain trees that do not fit a type tree."""
    match declared:
        case Scalar(word) if word in RANGES:
            return st.sampled_from([RANGES[word][0] - 1, RANGES[word][1] + 1]) | NO_INTEGER
        case Scalar(word):
            return WRONG[word]
        case Words():
            return TEXT.map(lambda text: f"not {text}") | ANY_INTEGER | st.booleans() | st.just(["red"])
        case ListOf(item):
            return TEXT | ANY_INTEGER | st.just({"a": 1}) | wrong(item).map(lambda each: [each])
        case MapOf(item):
            return TEXT | ANY_INTEGER | st.just([1]) | wrong(item).map(lambda each: {"a": each})
        case RecordOf():
            return TEXT | ANY_INTEGER | st.booleans() | st.just([1])
        case OptionalOf(item):
            return wrong(item).filter(lambda each: each is not None)
        case Anything():
            return st.sampled_from([float("nan"), "a\0b", 2**64, [["\0"]]])


def dumped(declared: Type, value: Any) -> Plain:
    """The plain tree of a value that fits."""
    return dump(declared, value, "it")
