"""Our codec against proton's, both ways, and against bytes that nobody should send."""

import uuid
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proton import (
    UNDESCRIBED,
    Array,
    Data,
    byte,
    char,
    float32,
    int32,
    short,
    symbol,
    timestamp,
    ubyte,
    uint,
    ulong,
    ushort,
)
from proton import Message as Foreign

from mh_amqp import codec, messages
from mh_amqp.codec import Malformed
from mh_amqp.messages import Message

SMALL = settings(max_examples=150, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=300)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


def owned(value: Any) -> Any:
    """What proton decoded, with the views into its memory copied and its own number types dropped."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {owned(key): owned(each) for key, each in value.items()}
    return [owned(each) for each in value] if isinstance(value, list) else value


def foreign(raw: bytes) -> Foreign:
    message = Foreign()
    message.decode(raw)
    return message


@SMALL
@given(TREES)
def test_what_we_encode_proton_reads(tree: Any) -> None:
    raw = messages.encode(Message(value=codec.any_value(tree)))
    read = foreign(raw)
    assert owned(read.body) == tree


@SMALL
@given(TREES)
def test_what_proton_encodes_we_read(tree: Any) -> None:
    body = ulong(tree) if isinstance(tree, int) and not isinstance(tree, bool) and tree >= 2**63 else tree
    try:
        raw = bytes(Foreign(body=body).encode())
    except (OverflowError, ValueError):  # an integer above 2^63 inside a container is beyond proton
        return
    message = messages.decode(raw)
    read = message.data if message.value is None else codec.decode(message.value)[0]
    assert read == tree


@SMALL
@given(TREES)
def test_a_tree_comes_back(tree: Any) -> None:
    raw = codec.any_value(tree)
    assert codec.decode(raw) == (tree, len(raw))
    assert codec.skip(raw, 0) == len(raw)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (ubyte(200), 200),
        (ushort(60_000), 60_000),
        (uint(0), 0),
        (uint(2**32 - 1), 2**32 - 1),
        (ulong(0), 0),
        (ulong(2**64 - 1), 2**64 - 1),
        (byte(-100), -100),
        (short(-30_000), -30_000),
        (int32(-(2**31)), -(2**31)),
        (timestamp(1_700_000_000_123), 1_700_000_000_123_000_000),
        (float32(1.5), 1.5),
        (symbol("a-symbol"), "a-symbol"),
        (char("ü"), "ü"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (Array(cast("Any", UNDESCRIBED), Data.INT, 1, -2, 3), [1, -2, 3]),
        (Array(cast("Any", UNDESCRIBED), Data.STRING, "a", "bc"), ["a", "bc"]),
        ({symbol("key"): uint(5)}, {"key": 5}),
    ],
)
def test_every_type_of_the_standard(value: Any, plain: Any) -> None:
    message = messages.decode(bytes(Foreign(body=value).encode()))
    assert message.value is not None
    assert codec.decode(message.value)[0] == plain


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (codec.ubyte(9), ubyte),
        (codec.ushort(9), ushort),
        (codec.uint(9), uint),
        (codec.ulong(2**63), ulong),
        (codec.byte(-9), byte),
        (codec.short(-9), short),
        (codec.int32(-9), int32),
        (codec.int32(200), int32),
        (codec.long(2**40), int),
        (codec.double(0.5), float),
        (codec.timestamp(1_000_000), timestamp),
        (codec.symbol("s"), symbol),
        (codec.string("s"), str),
        (codec.boolean(True), bool),
    ],
)
def test_widths_are_told(ours: bytes, theirs: type) -> None:
    assert type(foreign(messages.encode(Message(value=ours))).body) is theirs


def test_an_envelope_comes_back() -> None:
    sent = Message(
        message_id=codec.ulong(0),
        correlation_id=codec.string("c"),
        to="mh.host.x",
        subject="a subject",
        reply_to="mh.reply.1",
        content_type="application/json",
        content_encoding="deflate",
        ttl=1500,
        expiry=1_700_000_000_000,
        properties={"operation": "READ", "mh:deadline": 5},
        data=b"{}",
    )
    assert messages.decode(messages.encode(sent)) == sent


def test_proton_reads_our_envelope() -> None:
    raw = messages.encode(
        Message(
            message_id=codec.ulong(0),
            correlation_id=codec.string("c"),
            to="a",
            reply_to="b",
            subject="s",
            ttl=1500,
            content_type="application/json",
            expiry=1_700_000_000_000,
            properties={"operation": "READ"},
            data=b"{}",
        )
    )
    read = foreign(raw)
    assert (read.id, read.correlation_id) == (0, "c")
    assert (read.address, read.reply_to, read.subject, read.ttl) == ("a", "b", "s", 1.5)
    assert (read.content_type, read.expiry_time) == ("application/json", 1_700_000_000.0)
    assert read.properties == {"operation": "READ"}
    assert owned(read.body) == b"{}"


@pytest.mark.parametrize("identity", ["text", 0, 2**64 - 1, uuid.UUID(int=3), b"\x00\x01"])
def test_an_id_keeps_its_type(identity: Any) -> None:
    request = Foreign(body=None)
    request.id = ulong(identity) if isinstance(identity, int) else identity
    asked = messages.decode(bytes(request.encode())).message_id
    raw = messages.encode_reply("to", asked, (), messages.value_section(codec.NULL))
    assert messages.decode(raw).correlation_id == asked
    assert owned(foreign(raw).correlation_id) == identity


def test_sections_by_name_and_several_data_sections() -> None:
    name = codec.symbol("amqp:data:binary")
    raw = b"\x00" + name + codec.binary(b"one ") + messages.data_section(b"two")
    assert messages.decode(raw).data == b"one two"


NESTED = b"\xd0\x00\x00\x00\x05\x00\x00\x00\x01"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x00\x53",
        b"\x00\x53\x77",
        b"\x01\x02",
        b"\x00\x53\x99\x40",
        b"\x00\x80\x00\x00\x00\x00\x00\x00\x00\x10\x40",
        messages.value_section(codec.NULL) * 2,
        messages.section(messages.PROPERTIES, codec.string("no list")),
        messages.section(messages.PROPERTIES, b"\xc0\x03\x09\x40\x40"),
        messages.section(messages.PROPERTIES, codec.list_of([codec.TRUE])),
        messages.section(messages.PROPERTIES, codec.list_of([codec.NULL, codec.NULL, codec.ulong(1)])),
        messages.section(messages.APPLICATION_PROPERTIES, codec.string("no map")),
        messages.section(messages.APPLICATION_PROPERTIES, codec.map_of([codec.string("odd")])),
        messages.section(messages.APPLICATION_PROPERTIES, codec.map_of([codec.TRUE, codec.TRUE])),
        messages.section(messages.DATA, codec.string("no binary")),
    ],
)
def test_a_malformed_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        messages.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xa1\x05abc",
        b"\xb1\xff\xff\xff\xff",
        b"\xa1\x01\xff",
        b"\xd0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
        b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
        b"\xf0\x00\x00\x00\x07\x00\x00\x00\x02\x60\x00",
        b"\xe0\x01\x00",
        b"\x84" + b"\0" * 16,
        b"\x00\x53\x01\x40",
        b"\x3f",
        codec.map_of([codec.string("a"), codec.NULL, codec.string("a"), codec.NULL]),
    ],
)
def test_a_malformed_value_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(raw)


def test_deep_nesting_is_refused_without_recursion() -> None:
    raw = codec.NULL
    for _ in range(20_000):
        raw = b"\xd0" + codec.WORD.pack(len(raw) + 4) + codec.WORD.pack(1) + raw
    with pytest.raises(Malformed, match="deeper than 32"):
        codec.decode(raw)
    described = b"\x00\x53\x77" * 50_000 + b"\x40"
    with pytest.raises(Malformed):
        codec.decode(described)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (codec.decode, messages.decode):
        try:
            read(raw)
        except Malformed:
            continue


@settings(max_examples=300, deadline=None)
@given(TREES, st.data())
def test_a_mutated_message_is_read_or_refused(tree: Any, data: st.DataObject) -> None:
    raw = bytearray(
        messages.encode(
            Message(message_id=codec.string("m"), properties={"operation": "x"}, value=codec.any_value(tree))
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = messages.decode(bytes(raw))
        codec.decode(message.value or codec.NULL)
    except Malformed:
        pass


def nested(depth: int) -> bytes:
    body = b"\x45"
    for _ in range(depth):
        body = b"\xd0" + (len(body) + 4).to_bytes(4) + (1).to_bytes(4) + body
    return body


@pytest.mark.parametrize("depth", [33, 5000])
def test_depth_is_bounded(depth: int) -> None:
    with pytest.raises(Malformed, match="nest deeper than 32"):
        codec.decode(nested(depth))
    assert codec.decode(nested(32))[1] == len(nested(32))


@pytest.mark.parametrize(
    "value", [b"\x00\x53\x01" * 5000 + b"\x40", b"\x00" * 5000, b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40"]
)
def test_values_that_claim_more_than_they_are_get_nowhere(value: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(value)
