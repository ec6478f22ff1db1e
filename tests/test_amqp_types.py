"""Every declared member in both forms: what goes out comes back, with the widths that were declared."""

import math
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proton import Message as Foreign
from proton import int32, timestamp, uint, ulong

from libmh.errors import InvalidArguments
from libmh.providers import shipped_interfaces
from libmh.spec import (
    RANGES,
    Anything,
    ListOf,
    MapOf,
    Member,
    OptionalOf,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)
from libmh.wire import dump, parse
from mh_amqp import codec, messages, types

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXT | st.binary(max_size=20)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def plain_of(declared: Type) -> st.SearchStrategy[Any]:
    """Plain trees of a type; times are whole milliseconds, which is what an AMQP timestamp can carry."""
    match declared:
        case Scalar(word):
            return scalar(word)
        case OptionalOf(item):
            return plain_of(item)
        case ListOf(item):
            return st.lists(plain_of(item), max_size=3)
        case MapOf(value):
            return st.dictionaries(TEXT, plain_of(value), max_size=3)
        case RecordOf(_, fields):
            required = {f.name: plain_of(f.type) for f in fields if not isinstance(f.type, OptionalOf)}
            optional = {f.name: plain_of(f.type) for f in fields if isinstance(f.type, OptionalOf)}
            return st.fixed_dictionaries(required, optional=optional)
        case Words(choices):
            return st.sampled_from([str(choice) for choice in choices])
        case Anything():
            return PLAIN


def scalar(word: Word) -> st.SearchStrategy[Any]:
    if word is Word.TIME:
        return st.integers(0, 2**62 // codec.MILLISECOND).map(lambda ms: ms * codec.MILLISECOND)
    if word in RANGES:
        return st.integers(*RANGES[word])
    simple: dict[Word, st.SearchStrategy[Any]] = {
        Word.BOOL: st.booleans(),
        Word.DOUBLE: FLOATS,
        Word.STRING: TEXT,
        Word.BYTES: st.binary(max_size=40),
    }
    return simple[word]


def declared_types() -> list[Any]:
    found = []
    for interface in shipped_interfaces():
        for member in interface.members.values():
            found += [pytest.param(t, id=f"{member.action}-{n}") for n, t in typed(member)]
    return found


def typed(member: Member) -> list[tuple[str, Type]]:
    return [(a.name, a.type) for a in member.arguments] + [(r.name, r.type) for r in member.results]


@pytest.mark.parametrize("declared", declared_types())
def test_a_declared_value_comes_back_in_both_forms(declared: Type) -> None:
    @settings(max_examples=15, deadline=None)
    @given(plain_of(declared))
    def check(plain: Any) -> None:
        raw = types.encoder(declared)(plain)
        assert codec.decode(raw) == (plain, len(raw))
        out, back = types.to_json(declared), types.from_json(declared)
        text = types.dump_json(out(plain) if out else plain)
        read = types.load_json(text)
        assert (back(read) if back else read) == plain
        assert dump(declared, parse(declared, plain, "x"), "x") == plain

    check()


@pytest.mark.parametrize(
    ("word", "value", "foreign"),
    [
        (Word.U32, 5, uint),
        (Word.U64, 5, ulong),
        (Word.I32, -5, int32),
        (Word.I64, -5, int),
        (Word.DOUBLE, 1.0, float),
        (Word.BOOL, True, bool),
        (Word.STRING, "x", str),
        (Word.TIME, 5_000_000, timestamp),
        (Word.BYTES, b"\x00", memoryview),
    ],
)
def test_widths_are_those_declared(word: Word, value: Any, foreign: type) -> None:
    message = Foreign()
    message.decode(messages.value_section(types.encoder(ListOf(Scalar(word)))([value])))
    body: Any = message.body
    assert type(body[0]) is foreign


def test_bytes_travel_as_base64_where_the_type_is_known_and_tagged_where_not() -> None:
    known = types.to_json(Scalar(Word.BYTES))
    unknown = types.to_json(Anything())
    assert known is not None
    assert unknown is not None
    assert known(b"\x00\xff") == "AP8="
    assert unknown({"a": [b"\x00\xff"]}) == {"a": [{"$bytes": "AP8="}]}


def test_a_string_that_is_no_base64_is_left_for_the_parser_to_refuse() -> None:
    back = types.from_json(Scalar(Word.BYTES))
    assert back is not None
    assert back("no base64!") == "no base64!"
    assert back("ü") == "ü"
    assert back(5) == 5


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b"{", b"", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArguments, match="body: expected JSON"):
        types.load_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_never_sent(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        types.dump_json([value])


def test_only_what_is_long_is_deflated() -> None:
    assert types.deflated(b"x" * 2048) == (b"x" * 2048, None)
    data, encoding = types.deflated(b"x" * 2049)
    assert encoding == "deflate"
    assert len(data) < 100
    assert types.inflated(data, encoding) == b"x" * 2049


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (zlib.compress(b"\0" * (types.MAX_INFLATED + 1)), "deflate", "longer"),
        (b"\0" * (types.MAX_INFLATED + 1), None, "at most"),
        (zlib.compress(b"hello world" * 100)[:-5], "deflate", "cut short"),
        (b"not deflated", "deflate", "cannot be inflated"),
        (b"{}", "gzip", "expected the content-encoding"),
    ],
)
def test_a_body_has_a_limit(data: bytes, encoding: str | None, message: str) -> None:
    with pytest.raises(InvalidArguments, match=message):
        types.inflated(data, encoding)
