"""Typed value <-> plain tree: what goes out comes back, and what does not fit is refused by its place."""

import contextlib
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trees
from libmh.api.host import Fact, FactStatus
from libmh.declaration import type_of
from libmh.errors import InvalidArguments
from libmh.spec import U8, U32, Anything, ListOf, MapOf, OptionalOf, Scalar, Type, Word, Words
from libmh.wire import MAX_BYTES, MAX_ITEMS, MAX_STRING, dump, parse


@dataclass(frozen=True, slots=True)
class Part:
    """A part."""

    name: Annotated[str, "its name"]
    size: Annotated[U8 | None, "its size"] = None


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole."""

    parts: Annotated[list[Part], "of it"]
    by_name: Annotated[dict[str, U32], "numbers"]

    def __post_init__(self) -> None:
        if len(self.parts) == 13:
            raise ValueError("thirteen parts are too many")


WHOLE = type_of("whole", Whole)
U8_TYPE = Scalar(Word.U8)
TEXT = Scalar(Word.STRING)


@given(st.data())
def test_what_goes_out_comes_back(data: st.DataObject) -> None:
    declared = data.draw(trees.trees())
    value = data.draw(trees.values(declared))
    assert parse(declared, dump(declared, value, "it"), "it") == value


@given(st.data())
def test_what_does_not_fit_is_refused_by_its_place(data: st.DataObject) -> None:
    declared = data.draw(trees.trees())
    with pytest.raises(InvalidArguments) as refused:
        parse(declared, data.draw(trees.wrong(declared)), "it")
    assert refused.value.message.startswith("it")
    assert refused.value.details["argument"].startswith("it")


@given(st.data())
def test_nothing_but_a_refusal_comes_of_any_tree(data: st.DataObject) -> None:
    declared = data.draw(trees.trees())
    anything = data.draw(st.one_of(trees.plain(), trees.wrong(data.draw(trees.trees()))))
    with contextlib.suppress(InvalidArguments):
        value = parse(declared, anything, "it")
        assert parse(declared, dump(declared, value, "it"), "it") == value


DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("declared", "given_", "says"),
    [
        (U8_TYPE, True, r"it: expected u8 .*, got True|it: expected u8, got True"),
        (U8_TYPE, 256, r"it: expected u8 \(0 to 255\), got 256"),
        (U8_TYPE, -1, r"it: expected u8 \(0 to 255\), got -1"),
        (U8_TYPE, 10**5000, "got an integer of 16610 bits"),
        (U8_TYPE, 1.0, "it: expected u8, got 1.0"),
        (Scalar(Word.I64), 2**63, "expected i64"),
        (Scalar(Word.TIME), -1, "expected time"),
        (Scalar(Word.BOOL), 1, "expected bool, got 1"),
        (Scalar(Word.DOUBLE), True, "expected double, got True"),
        (Scalar(Word.DOUBLE), float("nan"), "expected a finite number, got nan"),
        (Scalar(Word.DOUBLE), float("inf"), "expected a finite number, got inf"),
        (Scalar(Word.DOUBLE), 10**400, "expected a double"),
        (TEXT, b"bytes", "expected string, got b'bytes'"),
        (TEXT, "a\0b", "expected a string without NUL"),
        (TEXT, "\ud800", "expected a string of Unicode characters"),
        (TEXT, "x" * (MAX_STRING + 1), f"at most {MAX_STRING} characters, got {MAX_STRING + 1}"),
        (Scalar(Word.BYTES), "text", "expected bytes, got 'text'"),
        (Scalar(Word.BYTES), b"x" * (MAX_BYTES + 1), f"at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"),
        (ListOf(U8_TYPE), {"a": 1}, "expected a list, got a map of 1"),
        (ListOf(U8_TYPE), [1, 2, "c"], r"it\[2\]: expected u8"),
        (ListOf(U8_TYPE), [0] * (MAX_ITEMS + 1), f"at most {MAX_ITEMS} items, got {MAX_ITEMS + 1}"),
        (MapOf(U8_TYPE), [1], "expected a map, got a list of 1"),
        (MapOf(U8_TYPE), {"a": 300}, "it.a: expected u8"),
        (MapOf(U8_TYPE), {1: 1}, "expected keys that are strings"),
        (MapOf(U8_TYPE), {"a\0": 1}, "expected keys that are strings"),
        (MapOf(U8_TYPE), dict.fromkeys(map(str, range(MAX_ITEMS + 1)), 1), f"at most {MAX_ITEMS} entries"),
        (Words(FactStatus), "fine", "expected one of ok, stale"),
        (Words(FactStatus), ["ok"], "expected one of ok, stale"),
        (OptionalOf(U8_TYPE), "a", "expected u8"),
        (Anything(), DEEP, "nesting of at most 16"),
        (Anything(), {"a": [{"b": "\0"}]}, r"it.a\[0\].b: expected a string without NUL"),
        (Anything(), 2**64, "an integer of 64 bits"),
        (Anything(), object(), "expected a plain value"),
        (WHOLE, {"parts": []}, "it.by_name: is missing"),
        (WHOLE, {"parts": [{"name": "a"}, {"size": 1}], "by_name": {}}, r"it.parts\[1\].name: is missing"),
        (WHOLE, {"parts": [{"name": "a", "size": True}], "by_name": {}}, r"it.parts\[0\].size: expected u8"),
        (WHOLE, {"parts": [], "by_name": {"x": -1}}, "it.by_name.x: expected u32"),
        (WHOLE, {"parts": [{"name": "a"}] * 13, "by_name": {}}, "it: thirteen parts are too many"),
    ],
    ids=lambda each: each if isinstance(each, str) and each.isprintable() and len(each) < 60 else "it",
)
def test_refusals_name_the_place_and_what_was_expected(declared: Type, given_: object, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says):
        parse(declared, given_, "it")


def test_an_integer_may_stand_for_a_double() -> None:
    assert repr(parse(Scalar(Word.DOUBLE), 3, "it")) == "3.0"


def test_an_unknown_key_of_a_record_is_a_newer_peers() -> None:
    assert parse(WHOLE, {"parts": [], "by_name": {}, "new": 1}, "it") == Whole([], {})


def test_an_absent_optional_is_an_absent_key() -> None:
    assert dump(WHOLE, Whole([Part("a")], {}), "it") == {"parts": [{"name": "a"}], "by_name": {}}


def test_a_fact_without_a_value_is_carried() -> None:
    declared = type_of("fact", Fact)
    fact = Fact(FactStatus.DENIED, "a file", 1, reason="may not be read")
    assert "value" not in dict(dump(declared, fact, "it"))  # type: ignore[arg-type]
    assert parse(declared, dump(declared, fact, "it"), "it") == fact


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Part("a"), "expected a Whole"),
        ({"parts": [], "by_name": {}}, "expected a Whole"),
        (Whole([Part("a", 256)], {}), "size: expected u8"),
        (Whole([], {"a": True}), "expected u32"),
        (Whole([], None), "by_name: expected a value, got None"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_provider_that_breaks_its_declaration_is_found_out(value: object, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says):
        dump(WHOLE, value, "it")


def test_a_refusal_deep_inside_is_short() -> None:
    tree: Any = "\0"
    for _ in range(12):
        tree = {"k" * 60_000: tree}
    with pytest.raises(InvalidArguments) as refused:
        parse(Anything(), tree, "it")
    assert len(refused.value.details["argument"]) <= 200
