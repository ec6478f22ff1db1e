"""What a hostile peer can try: each hole of proton's, and of any AMQP listener, with what closes it.

Where a defence can be taken away in a test, it is, and the attack then succeeds: that shows what it is for.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from proton import Transport

from amqp_peers import (
    AMQP_HEADER,
    ATTACH,
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
    FALSE,
    HOST,
    LIMITS,
    NULL,
    OPEN,
    RECEIVES,
    SASL_CHALLENGE,
    SASL_HEADER,
    SASL_MECHANISMS,
    SASL_OUTCOME,
    SASL_RESPONSE,
    TRANSFER,
    TRUE,
    Echo,
    Hostile,
    attach,
    begin,
    binary,
    described,
    dialled,
    encoded,
    frame,
    hello,
    hostile,
    listening,
    opening,
    sasl_init,
    string,
    symbol,
    transfer,
    uint,
)
from libmh import errors
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.engine import Limits, dial
from mh_amqp.pump import Pump
from mh_amqp.sasl import FROM_DIALLER, Listening, Refused
from mh_amqp.security import Door, Offer
from mh_amqp.users import Users
from test_amqp_engine import Judge, run
from waiting import eventually

KNOWN = Door(users=Users(Path("/nonexistent")))
"""Who comes in has to know a password, and nobody does."""
SHORT = replace(LIMITS, handshake=0.2, closing=0.2)
BEFORE_SASL = SASL_HEADER + opening() + begin() + attach(0, "$management")
OFFER = frame(SASL_MECHANISMS, symbol("ANONYMOUS"), kind=1)
BODY = encoded(address="q", body=b"x" * 100)


def deep_list(depth: int) -> bytes:
    value = b"\x45"
    for _ in range(depth):
        value = b"\xd0" + (len(value) + 4).to_bytes(4) + (1).to_bytes(4) + value
    return value


async def still_serves(port: int) -> None:
    connection = await dial(HOST, port, container="decent")
    await (await connection.sender("q")).send_acked(BODY)
    assert (await connection.close()).description == "closed on this side"


async def settled_in(peer: Hostile, *attaches: bytes) -> None:
    """Through the handshake, with links attached, so that the window is open and credit has come."""
    await peer.says(hello())
    await peer.hears(b"\x00\x53\x11")
    for each in attaches:
        await peer.says(each)
    await peer.hears(b"\x00\x53\x12")


# before authentication


def test_frames_before_authentication_do_not_reach_proton() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, KNOWN) as listener:
            async with hostile(listener.port) as peer:
                await peer.says(BEFORE_SASL)
                await peer.ends()
            assert not echo.peers
            assert not echo.attached

    run(test())


def test_proton_alone_lets_frames_in_before_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the layer in front is for (CVE-2026-114230): with proton's own SASL, links are attached."""

    def proton_alone(self: Listening, data: bytes) -> tuple[bytes, bytes]:
        self.done = True
        return b"", data

    monkeypatch.setattr(Listening, "take", proton_alone)

    def with_sasl(self: Pump, *, server: bool) -> Transport:
        transport = made(self, server=server)
        transport.sasl().allowed_mechs("EXTERNAL")
        return transport

    made = Pump._make_transport
    monkeypatch.setattr(Pump, "_make_transport", with_sasl)

    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT) as listener, hostile(listener.port) as peer:
            await peer.says(BEFORE_SASL)
            await eventually(lambda: echo.attached)
            assert echo.attached[0].address == "$management"

    run(test())


def test_a_mechanism_that_is_not_listed_is_refused() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, KNOWN) as listener:
            async with hostile(listener.port) as peer:
                await peer.says(hello("ANONYMOUS"), attach(0, "$management"))
                await peer.ends()
            with pytest.raises(errors.Problem, match=r"refused|ended"):
                await dial(HOST, listener.port, container="anonymous")
            assert not echo.attached
            assert not echo.ends

    run(test())


@pytest.mark.parametrize(
    "stream",
    [
        SASL_HEADER + frame(SASL_RESPONSE, binary(b"x"), kind=1),
        SASL_HEADER + sasl_init("PLAIN", b"\0a\0b") + frame(SASL_RESPONSE, binary(b"x"), kind=1) * 5,
        SASL_HEADER + sasl_init("NONE") + frame(SASL_RESPONSE, binary(b"x"), kind=1) * 5,
    ],
)
def test_a_response_that_nobody_asked_for_does_not_crash(stream: bytes) -> None:
    """Cyrus SASL takes a response without an init to a context that is not there."""

    async def test() -> None:
        for door in (Door(), KNOWN):
            async with listening(Echo(), SHORT, door) as listener, hostile(listener.port) as peer:
                await peer.says(stream)
                await peer.ends()

    run(test())


def test_no_sasl_at_all_is_refused_where_one_has_to_say_who_one_is() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, KNOWN) as listener, hostile(listener.port) as peer:
            await peer.says(AMQP_HEADER, opening(), begin())
            await peer.ends()
            assert not echo.ends

    run(test())


def test_no_sasl_at_all_is_anonymous_where_anybody_may_come() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT) as listener, hostile(listener.port) as peer:
            await peer.says(AMQP_HEADER, opening(), begin())
            await eventually(lambda: echo.peers)
            assert echo.peers[0].user == "anonymous"

    run(test())


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_decent_peers_come_in(step: int) -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo) as listener, hostile(listener.port) as peer:
            stream = hello() + attach(0, "q")
            for start in range(0, len(stream), step):
                await peer.says(stream[start : start + step])
                await asyncio.sleep(0)
            await eventually(lambda: echo.attached)

    run(test())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1", "protocol header"),
        (SASL_HEADER + sasl_init("ANONYMOUS"), "is not offered"),
        (SASL_HEADER + opening(), "frame type 0"),
        (SASL_HEADER + frame(0x44, uint(0), kind=1), "expected sasl-init"),
        (SASL_HEADER + frame(SASL_RESPONSE, binary(b"x"), kind=1), "expected sasl-init"),
        (SASL_HEADER + sasl_init("EXTERNAL", b"") + SASL_HEADER, "after authentication"),
        (SASL_HEADER + (FROM_DIALLER + 1).to_bytes(4) + b"\x02\x01\0\0", f"at most {FROM_DIALLER}"),
        (SASL_HEADER + b"\x00\x00\x00\x08\x02\x01\x00\x00", "not of 8"),
        (SASL_HEADER + b"\x00\x00\x00\x10\x01\x01\x00\x00" + bytes(8), "frame type 1"),
    ],
)
def test_what_comes_before_authentication_is_refused(data: bytes, why: str) -> None:
    def feed(step: int) -> None:
        listener = Listening(Offer(("EXTERNAL",), external="CN=x"))
        for start in range(0, len(data), step):
            listener.take(data[start : start + step])

    for step in (1, len(data)):
        with pytest.raises(Refused, match=why):
            feed(step)


@pytest.mark.parametrize("stream", [b"", b"AMQP", SASL_HEADER, SASL_HEADER + sasl_init() + AMQP_HEADER])
def test_a_handshake_has_a_deadline(stream: bytes) -> None:
    async def test() -> None:
        async with listening(Echo(), SHORT) as listener:
            async with hostile(listener.port) as peer:
                await peer.says(stream)
                await peer.ends(2)
            assert not listener.connections
            async with (
                listening(Echo(), replace(SHORT, handshake=60)) as patient,
                hostile(patient.port) as peer,
            ):
                await peer.says(stream)
                with pytest.raises(TimeoutError):
                    await peer.ends(0.5)

    run(test())


# too much of something


@pytest.mark.parametrize(("limits", "taken"), [(replace(LIMITS, message=100_000), False), (LIMITS, True)])
def test_a_message_has_a_size(limits: Limits, *, taken: bool) -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, limits) as listener:
            async with hostile(listener.port) as peer:
                await settled_in(peer, attach(0, "q"))
                for _ in range(5):
                    await peer.says(transfer(0, 0, b"x" * 30_000, more=True))
                await peer.says(transfer(0, 0, b"x"))
                if taken:
                    await eventually(lambda: echo.arrived)
                else:
                    await peer.hears(b"amqp:link:message-size-exceeded")
                    assert not echo.arrived
            await still_serves(listener.port) if taken else None

    run(test())


def test_the_rest_of_an_oversized_message_is_not_kept() -> None:
    async def test() -> None:
        judge = Judge()
        async with (
            listening(judge, replace(LIMITS, message=100_000)) as listener,
            hostile(listener.port) as peer,
        ):
            await settled_in(peer, attach(0, "q"), attach(1, "q"))
            before = resident()
            for _ in range(200):  # within the window
                await peer.says(transfer(0, 0, b"x" * 60_000, more=True))
                await asyncio.sleep(0)
            await peer.hears(b"amqp:link:message-size-exceeded")
            await peer.says(transfer(0, 0, b"x"), transfer(1, 1, b"the other link lives"))
            await eventually(
                lambda: [delivery.raw for delivery in judge.arrived] == [b"the other link lives"]
            )
            assert resident() - before < 6_000

    run(test())


def test_messages_without_credit_cost_the_link() -> None:
    async def test() -> None:
        judge = Judge(credit=5)
        async with listening(judge) as listener, hostile(listener.port) as peer:
            await settled_in(peer, attach(0, "q"))
            judge.attached[0].hold = True  # type: ignore[union-attr]
            for number in range(20):
                await peer.says(transfer(0, number, BODY))
            await peer.hears(b"amqp:link:transfer-limit-exceeded")
            assert len(judge.arrived) == 5

    run(test())


FLOODS: dict[str, Callable[[int], bytes]] = {
    "links": lambda number: attach(number, "q"),
    "links on one handle": lambda number: attach(0, "q", name=f"n{number}"),
    "sessions on one channel": lambda _: begin(),
}


@pytest.mark.parametrize("name", FLOODS)
def test_links_and_sessions_are_counted(name: str) -> None:
    async def test() -> None:
        async with listening(Echo(), replace(LIMITS, links=10, channels=5)) as listener:
            async with hostile(listener.port) as peer:
                await settled_in(peer, attach(1000, "q"))
                for number in range(4 if "session" in name else 9):
                    await peer.says(FLOODS[name](number))
                await asyncio.sleep(0.05)
                assert b"limit" not in peer.answer
                await peer.says(*(FLOODS[name](number) for number in range(20, 40)))
                await peer.hears(b"amqp:resource-limit-exceeded")
                await peer.ends()
            await still_serves(listener.port)

    run(test())


def test_a_channel_above_the_most_ends_the_connection() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, hostile(listener.port) as peer:
            await settled_in(peer, attach(0, "q"))
            await peer.says(begin(LIMITS.channels))
            await peer.hears(b"amqp:connection:framing-error")
            await peer.ends()

    run(test())


def test_a_frame_has_a_size() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, hostile(listener.port) as peer:
            await settled_in(peer, attach(0, "q"))
            await peer.says(b"\xff\xff\xff\xff\x02\x00\x00\x00")
            await peer.hears(b"amqp:connection:framing-error")
            await peer.ends()

    run(test())


@pytest.mark.parametrize("limits", [replace(SHORT, connections=3), replace(SHORT, per_peer=3)])
def test_connections_are_counted(limits: Limits) -> None:
    async def test() -> None:
        async with listening(Echo(), limits) as listener:
            for _ in range(2):
                peers = [await dial(HOST, listener.port, container="one of many") for _ in range(3)]
                with pytest.raises(errors.Unavailable, match="ended the connection"):
                    await dial(HOST, listener.port, container="one too many")
                for peer in peers:
                    peer.abort()
                await eventually(lambda: not listener.connections)
            assert (listener.accepted, listener.refusals.count) == (6, 2)

    run(test())


def test_who_does_not_read_is_not_answered_without_end() -> None:
    """Each attach and detach is answered; answers that nobody reads must not pile up here."""
    flood = b"".join(attach(0, "q", name=f"n{n}") + frame(DETACH, uint(0), TRUE) for n in range(1000))

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(1000):
            writer.write(flood)
            await writer.drain()

    async def test() -> None:
        async with listening(Broker(BrokerLimits()), replace(LIMITS, stall=1.5)) as listener:
            before = resident()
            _, writer = await asyncio.open_connection(HOST, listener.port, limit=1024)
            writer.write(hello())
            pouring = asyncio.create_task(pour(writer))
            await eventually(lambda: listener.connections)
            ended = await next(iter(listener.connections)).closed
            assert "read nothing" in ended.description
            assert resident() - before < 60_000
            pouring.cancel()
            writer.transport.abort()
            await asyncio.wait({pouring})

    run(test(), 60)


# what is not what it should be

NOT_UTF8 = {
    "container": SASL_HEADER + sasl_init() + AMQP_HEADER + opening(b"\xff\xfe"),
    "address": hello() + attach(0, b"\xff\xfe"),
    "source": hello() + attach(0, b"\xc3", RECEIVES),
    "name": hello()
    + frame(ATTACH, string(b"\xff"), uint(0), FALSE, NULL, NULL, described(0x28), described(0x29)),
}


@pytest.mark.parametrize("where", NOT_UTF8)
def test_text_that_is_none_ends_that_connection_alone(where: str) -> None:
    async def test() -> None:
        async with listening(Echo()) as listener:
            connection = await dial(HOST, listener.port, container="decent")
            async with hostile(listener.port) as peer:
                await peer.says(NOT_UTF8[where])
                await peer.hears(b"amqp:decode-error")
                await peer.ends()
            await (await connection.sender("q")).send_acked(BODY)
            connection.abort()

    run(test())


def test_an_address_has_a_length() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, hostile(listener.port) as peer:
            await settled_in(peer, attach(0, b"q" * 1025))
            await peer.hears(b"amqp:invalid-field")

    run(test())


PROPERTIES = [NULL] * 7
DEEP = {
    "described in link properties": frame(
        ATTACH,
        string("l"),
        uint(0),
        FALSE,
        NULL,
        NULL,
        described(0x28),
        described(0x29),
        *PROPERTIES[:6],
        b"\x00" * 60_000 + NULL,
    ),
    "lists in link properties": frame(
        ATTACH,
        string("l"),
        uint(0),
        FALSE,
        NULL,
        NULL,
        described(0x28),
        described(0x29),
        *PROPERTIES[:6],
        deep_list(6500),
    ),
    "described as source": frame(ATTACH, string("l"), uint(0), FALSE, NULL, NULL, b"\x00" * 60_000 + NULL),
    "lists in a target": frame(
        ATTACH,
        string("l"),
        uint(0),
        FALSE,
        NULL,
        NULL,
        described(0x28),
        described(0x29, *PROPERTIES[:5], deep_list(6000)),
    ),
    "lists in a delivery state": frame(
        TRANSFER, uint(5), uint(0), binary(b"0"), uint(0), TRUE, FALSE, NULL, deep_list(6000)
    ),
    "lists in a body": transfer(5, 0, b"\x00\x53\x77" + deep_list(6000)),
    "described as body": transfer(5, 0, b"\x00\x53\x77" + b"\x00" * 60_000),
}


@pytest.mark.parametrize("where", DEEP)
def test_depth_stops_nobody(where: str) -> None:
    async def test() -> None:
        broker = Broker(BrokerLimits())
        async with listening(broker) as listener:
            async with hostile(listener.port) as peer:
                await settled_in(peer, attach(5, "q"))
                await peer.says(DEEP[where], transfer(5, 1, BODY))
                await asyncio.sleep(0.1)
            await still_serves(listener.port)

    run(test())


def test_deep_connection_properties_stop_nobody() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener:
            async with hostile(listener.port) as peer:
                nulls = [NULL] * 8
                deep = frame(OPEN, string("x"), *nulls, deep_list(6500))
                await peer.says(SASL_HEADER, sasl_init(), AMQP_HEADER, deep, begin())
                await peer.hears(b"\x00\x53\x11")
            await still_serves(listener.port)

    run(test())


def test_a_message_on_a_link_that_only_receives_ends_the_connection() -> None:
    """proton takes it, and would keep a pointer to it after it is gone."""

    async def test() -> None:
        async with listening(Echo()) as listener:
            async with hostile(listener.port) as peer:
                await settled_in(peer, attach(0, "q", RECEIVES))
                state = described(0x24)
                answers = [frame(DISPOSITION, role, uint(0), uint(9), TRUE, state) for role in (TRUE, FALSE)]
                await peer.says(
                    *(transfer(0, number, BODY, settled=False) for number in range(10)), *answers
                )
                await peer.says(frame(DETACH, uint(0), TRUE), frame(END))
                await peer.ends()
            await still_serves(listener.port)

    run(test())


def test_nonsense_after_the_handshake_is_survived() -> None:
    wide = [
        frame(DISPOSITION, role, uint(0x80000001), uint(0), TRUE, described(0x24)) for role in (TRUE, FALSE)
    ]
    nonsense = [
        opening() + opening(),
        sasl_init() * 3,
        attach(0, "q") * 2,
        transfer(7, 0, BODY),
        frame(DETACH, uint(9), TRUE),
        frame(END) + attach(0, "q"),
        frame(CLOSE) + begin(1) + attach(0, "q", channel=1),
        b"".join(wide),
        b"\x00\x00\x00\x08\x00\x00\x00\x00" * 3,
        b"\x00\x00\x00\x08\x02\x00\x00\x00" * 10_000,
        frame(0x99, uint(1)),
    ]

    async def test() -> None:
        async with listening(Broker(BrokerLimits()), SHORT) as listener:
            for piece in nonsense:
                async with hostile(listener.port) as peer:
                    await settled_in(peer, attach(0, "q"))
                    await peer.says(piece)
                    await asyncio.sleep(0.02)
            await still_serves(listener.port)

    run(test())


@pytest.mark.parametrize(
    "stream",
    [
        SASL_HEADER + opening("impostor") + begin() + attach(0, "q"),
        SASL_HEADER + frame(SASL_CHALLENGE, binary(b"x"), kind=1) * 3,
        SASL_HEADER + frame(SASL_OUTCOME, b"\x50\x00", kind=1) + AMQP_HEADER + opening("impostor"),
        SASL_HEADER + OFFER + frame(SASL_CHALLENGE, binary(b"x"), kind=1) * 3,
        SASL_HEADER + OFFER + frame(SASL_OUTCOME, b"\x50\x01", kind=1) + AMQP_HEADER + opening("impostor"),
        AMQP_HEADER + opening("impostor"),
    ],
)
def test_a_hostile_listener_cannot_make_a_dialler_act(stream: bytes) -> None:
    """Frames instead of the SASL exchange: the dialler neither takes the peer for open nor crashes."""

    async def test() -> None:
        async def impostor(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(stream)

        server = await asyncio.start_server(impostor, HOST, 0)
        with pytest.raises(errors.Problem):
            await dial(HOST, server.sockets[0].getsockname()[1], container="test", deadline=0.5)
        server.close()

    run(test())


def test_without_somebody_to_ask_links_are_refused() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, dialled(listener.port) as connection:
            await eventually(lambda: listener.connections)
            (far,) = listener.connections
            with pytest.raises(errors.Problem, match="nothing can be attached"):
                await far.sender("you")
            assert not connection.closed.done()

    run(test())


def resident() -> int:
    """This process's resident memory in kB, from /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - PurePath adds nothing
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
