"""Declared types on D-Bus: signatures, and plain trees that come back as they went, through a real
marshaller."""

import contextlib
import io
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmh.bus import library
from libmh.errors import InvalidArguments
from libmh.spec import (
    RANGES,
    Anything,
    ListOf,
    MapOf,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
    interface_of,
)
from libmh.wire import dump, parse
from mh_dbus.signatures import (
    arguments_signature,
    complete_types,
    decode,
    encoder,
    results_signature,
    signature_of,
)
from probe import Colour, Probe

MEMBERS = interface_of(Probe).members
OUTER = MEMBERS["outer"].type

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)


SCALARS: dict[Word, st.SearchStrategy[Any]] = {
    Word.BOOL: st.booleans(),
    Word.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    Word.STRING: TEXT,
    Word.BYTES: st.binary(max_size=50),
    **{word: st.integers(*limits) for word, limits in RANGES.items()},
}


def plain_of(declared: Type) -> st.SearchStrategy[Any]:
    """Plain trees of a type."""
    match declared:
        case Scalar(word):
            return SCALARS[word]
        case ListOf(item):
            return st.lists(plain_of(item), max_size=3)
        case MapOf(value):
            return st.dictionaries(TEXT, plain_of(value), max_size=3)
        case OptionalOf(item):
            return st.none() | plain_of(item)
        case Words(choices):
            return st.sampled_from([str(each) for each in choices])
        case RecordOf(_, fields):
            kinds = {field.name: plain_of(field.type) for field in fields}
            required = {field.name: kinds.pop(field.name) for field in fields if field.required}
            return st.fixed_dictionaries(required, optional=kinds)
        case Anything():
            return ANYTHING


TYPES: dict[str, Type] = {
    **{argument.name: argument.type for argument in MEMBERS["scalars"].arguments},
    **{argument.name: argument.type for argument in MEMBERS["shapes"].arguments},
    "bytes as a list": ListOf(Scalar(Word.U8)),
    "lists in lists": ListOf(ListOf(Scalar(Word.I64))),
    "a map of maps": MapOf(MapOf(Scalar(Word.DOUBLE))),
    "a list of optionals": ListOf(OptionalOf(Scalar(Word.STRING))),
    "a map of anything": MapOf(Anything()),
    "an optional of anything": OptionalOf(Anything()),
    "records by name": MapOf(OUTER),
}


def carried(declared: Type, plain: Plain) -> Plain:
    """Through the bytes of a message, as another process would see it."""
    lib = library()
    body = [encoder(declared)(plain)]
    sent = lib.message(
        path="/a", interface="a.b", member="M", signature=signature_of(declared), body=body, serial=1
    )
    return decode(declared, unmarshalled(lib.name, sent).body[0])


def unmarshalled(name: str, sent: Any) -> Any:
    wire: Any = io.BytesIO(sent._marshall() if name == "dbus-next" else sent._marshall(False))
    unmarshaller: Any = import_module(f"{name.replace('-', '_')}._private.unmarshaller").Unmarshaller
    return unmarshaller(wire).unmarshall()


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_went_comes_back(kind: str, data: st.DataObject) -> None:
    declared = TYPES[kind]
    # what a dispatcher answers has passed through its types
    plain = dump(declared, parse(declared, data.draw(plain_of(declared)), "x"), "x")
    assert carried(declared, plain) == plain


@pytest.mark.parametrize("name", ["dbus-fast", "dbus-next"])
def test_both_libraries_carry_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATAHARI_DBUS_LIBRARY", name)
    library.cache_clear()
    tree: Plain = {"a": [None, True, -1, 2**64 - 1, 0.5, "ü", b"\x00", [], {}], "b": {"c": {"d": None}}}
    assert library().name == name
    assert carried(Anything(), tree) == tree
    assert carried(Anything(), None) is None
    assert carried(OptionalOf(Scalar(Word.U16)), None) is None
    assert carried(OptionalOf(Scalar(Word.U16)), 7) == 7
    library.cache_clear()


@pytest.mark.parametrize(
    ("declared", "signature"),
    [
        (Words(Colour), "s"),
        (ListOf(ListOf(Scalar(Word.I8))), "aan"),
        (MapOf(ListOf(OUTER)), "a{saa{sv}}"),
        (OptionalOf(Scalar(Word.U16)), "aq"),
        (Anything(), "v"),
        (Scalar(Word.BYTES), "ay"),
        (Scalar(Word.TIME), "t"),
    ],
)
def test_signatures(declared: Type, signature: str) -> None:
    assert signature_of(declared) == signature


def test_members_have_the_signatures_of_their_parts() -> None:
    assert arguments_signature(MEMBERS["scalars"]) == "byqutnixdsayt"
    assert results_signature(MEMBERS["shapes"]) == "asa{si}a{sv}saqv"
    assert complete_types("sa{sv}aa{s(ii)}(a(ss)v)ay") == ["s", "a{sv}", "aa{s(ii)}", "(a(ss)v)", "ay"]
    assert complete_types("") == []


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(TYPES)), ANYTHING)
def test_decoding_never_raises(kind: str, anything: Plain) -> None:
    # whatever a peer puts where something else is declared is `parse`'s to refuse
    plain = decode(TYPES[kind], encoder(Anything())(anything))
    with contextlib.suppress(InvalidArguments):
        parse(TYPES[kind], plain, "x")
