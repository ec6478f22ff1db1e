"""Routing fields straight from the bytes: the same as proton reads, and nothing else accepted."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proton import Message

from amqp_peers import described, encoded, listed, string, symbol, uint
from mh_amqp import raw

TEXT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
IDS = st.none() | st.integers(0, 2**64 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(address=TEXT, subject=TEXT, reply_to=TEXT, id=IDS, ttl=st.integers(0, 4_000_000), body=NESTED)
def test_it_reads_what_proton_wrote(address: str | None, ttl: int, body: object, **fields: object) -> None:
    message = encoded(address=address, ttl=ttl, body=body, user_id=b"me", properties={"a": 1}, **fields)
    read = raw.routing(message)
    assert read.to == address
    assert read.subject == fields["subject"]
    assert read.reply_to == fields["reply_to"]
    assert read.user_id == b"me"
    assert (read.ttl or 0) == ttl * 1000
    assert (read.message_id is None) == (fields["id"] is None)


@given(st.binary(max_size=200))
def test_noise_is_malformed_or_read(noise: bytes) -> None:
    with contextlib.suppress(raw.Malformed):
        raw.routing(noise)


@given(st.data())
def test_a_cut_or_bent_message_is_malformed_or_read(data: st.DataObject) -> None:
    message = bytearray(
        encoded(address="mh.host.x", subject="s", ttl=5, id="1", body={"a": [1, {"b": "c"}]})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    bent = bytes(message[: data.draw(st.integers(0, len(message)))])
    with contextlib.suppress(raw.Malformed):
        raw.routing(bent)


@pytest.mark.parametrize("count", [1, 255, 70_000])
@pytest.mark.parametrize("fields", [{}, {"ttl": 7, "priority": 3, "durable": True}, {"delivery_count": 9}])
def test_delivery_count_is_set_and_the_rest_kept(fields: dict[str, object], count: int) -> None:
    message = Message()
    message.decode(raw.with_delivery_count(encoded(address="q", body={"a": 1}, **fields), count))
    assert message.delivery_count == count
    assert message.address == "q"
    assert message.body == {"a": 1}
    assert message.ttl == fields.get("ttl", 0)
    assert message.durable == fields.get("durable", False)


@pytest.mark.parametrize("odd", [string("x" * 250), string("x" * 300), listed(uint(1), string("y" * 200))])
def test_a_header_with_fields_of_other_types_gets_its_count(odd: bytes) -> None:
    content = odd + b"\x40\x40\x40\x52\x01" + b"\x40" * 2  # with more than a header has
    header = b"\x00\x53\x70\xd0" + (len(content) + 4).to_bytes(4) + (7).to_bytes(4) + content
    counted = raw.with_delivery_count(header + b"\x00\x53\x77\xa1\x02hi", 3)
    assert raw.routing(counted).delivery_count == 3
    assert odd in counted
    assert counted.endswith(b"\x00\x53\x77\xa1\x02hi")


def test_a_message_without_a_header_gets_one() -> None:
    body = b"\x00\x53\x77\xa1\x02hi"
    message = Message()
    message.decode(raw.with_delivery_count(body, 2))
    assert message.delivery_count == 2
    assert message.body == "hi"


def test_sections_may_be_named_and_annotations_are_skipped() -> None:
    properties = b"\x00" + symbol("amqp:properties:list") + listed(b"\x40", b"\x40", string("there"))
    annotations = b"\x00\x80" + (0x72).to_bytes(8) + b"\xc1\x01\x00"
    assert raw.routing(annotations + properties).to == "there"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "empty"),
        (b"\xa1\x01x", "expected a section"),
        (described(0x73, b"\x40", b"\x40", uint(1)), "expected a string in field 2"),
        (described(0x70, b"\x40", b"\x40", string("x")), "expected a uint in field 2"),
        (described(0x73, *[b"\x40"] * 8, uint(1)), "expected a timestamp in field 8"),
        (described(0x73, b"\x40", b"\x40", string(b"\xff\xfe")), "not UTF-8"),
        (described(0x73, *[b"\x40"] * 17), "17 fields"),
        (described(0x10), "no section"),
        (b"\x00" * 50, "within each other"),
        (described(0x73, b"\x40", b"\x40", string("there"))[:-2], "ends inside"),
        (b"\x00\x53\x73\xc0\x02\x03\x40\x40\x40\x40", "beyond their list"),
        (b"\x00\x53\x73\xa1\x01x", "expected a list"),
    ],
)
def test_what_does_not_fit_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(raw.Malformed, match=why):
        raw.routing(message)


@given(address=TEXT, subject=TEXT, id=IDS, ttl=st.integers(0, 4_000_000), body=NESTED)
@pytest.mark.parametrize("said", [{}, {"user_id": b"another"}])
def test_the_user_is_set_and_the_rest_kept(said: dict[str, bytes], **fields: object) -> None:
    before = encoded(properties={"a": 1}, **fields, **said)
    after = raw.with_user_id(before, raw.routing(before), b"CN=console")
    read = raw.routing(after)
    assert read.user_id == b"CN=console"
    expected, found = Message(), Message()
    expected.decode(before)
    found.decode(after)
    for name in ("address", "subject", "id", "ttl", "properties"):
        assert getattr(found, name) == getattr(expected, name)
    assert after.endswith(before[raw.routing(before).properties[1] :])


def test_a_message_without_properties_gets_some() -> None:
    body = b"\x00\x53\x77\x45"
    header = b"\x00\x53\x70\x45"
    for before in (body, header + body):
        after = raw.with_user_id(before, raw.routing(before), b"me")
        assert raw.routing(after).user_id == b"me"
        assert after.endswith(body)
        assert after.startswith(before[: -len(body)])
