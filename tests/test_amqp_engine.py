"""The AMQP engine between two of its own ends, and against proton's blocking client."""

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proton import Message
from proton.utils import BlockingConnection

from amqp_peers import HOST, LIMITS, Echo, Wire, dialled, encoded, listening
from libmh import errors
from mh_amqp.connection import Connection
from mh_amqp.engine import Delivery, Link, Outcome, Receiver, Sender, Word, dial, listen
from mh_amqp.pn import lib
from mh_amqp.security import is_loopback
from waiting import eventually

IDLE = "amqp:resource-limit-exceeded"


def run(test: Coroutine[Any, Any, None], seconds: float = 20) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await test

    asyncio.run(bounded())


def has(items: list[Delivery], index: int) -> bool:
    return len(items) > index


class Judge(Echo):
    """Keeps what arrives instead of answering it."""

    def echo(self, _: Connection, delivery: Delivery) -> None:
        self.arrived.append(delivery)


def test_what_is_sent_comes_back() -> None:
    async def test() -> None:
        got: list[bytes] = []
        async with listening(Echo()) as listener, dialled(listener.port) as connection:
            receiver = await connection.receiver(None, lambda d: got.append(d.raw), dynamic=True)
            sender = await connection.sender("anywhere")
            assert receiver.address == "made-for-you"
            raw = encoded(body={"a": 1})
            sender.send(raw, settled=True)
            await sender.send_acked(raw)
            await eventually(lambda: got == [raw, raw])
            assert connection.remote_container == "here"
            assert connection.user == "anonymous"

    run(test())


@pytest.mark.parametrize("size", [100, 70_000, 1_000_000, 4 * 1024 * 1024])
def test_large_messages_come_whole(size: int) -> None:
    async def test() -> None:
        got: list[bytes] = []
        async with listening(Echo()) as listener, dialled(listener.port) as connection:
            await connection.receiver("back", lambda d: got.append(d.raw))
            sender = await connection.sender("there")
            raw = (bytes(range(256)) * (size // 256 + 1))[:size]
            for _ in range(3):
                sender.send(raw)
            await eventually(lambda: len(got) == 3)
            assert set(got) == {raw}

    run(test())


def test_each_outcome_reaches_the_sender() -> None:
    async def test() -> None:
        judge = Judge()
        outcomes: dict[int, Outcome] = {}
        async with listening(judge) as listener, dialled(listener.port) as connection:
            sender = await connection.sender("court")
            for number in range(4):
                sender.send(b"%d" % number, on_outcome=partial(outcomes.__setitem__, number))
            await eventually(lambda: len(judge.arrived) == 4)
            assert not outcomes
            first, second, third, fourth = judge.arrived
            first.accept()
            second.reject("amqp:not-allowed", "never")
            third.release()
            fourth.modify()
            first.reject("amqp:not-allowed", "an answer is given once")
            await eventually(lambda: len(outcomes) == 4)
            words = [outcomes[number].word for number in range(4)]
            assert words == [Word.ACCEPTED, Word.REJECTED, Word.RELEASED, Word.MODIFIED]
            assert outcomes[1] == Outcome(Word.REJECTED, "amqp:not-allowed", "never")
            assert sender.unsettled == 0

    run(test())


def test_send_acked_raises_what_the_peer_meant() -> None:
    async def test() -> None:
        judge = Judge()
        async with listening(judge) as listener, dialled(listener.port) as connection:
            sender = await connection.sender("court")
            tasks = [asyncio.create_task(sender.send_acked(b"x", 5)) for _ in range(3)]
            await eventually(lambda: len(judge.arrived) == 3)
            judge.arrived[0].reject("amqp:resource-limit-exceeded", "full")
            judge.arrived[1].release()
            with pytest.raises(errors.Unavailable, match=r"resource-limit-exceeded \(full\)"):
                await tasks[0]
            with pytest.raises(errors.Unavailable, match="released"):
                await tasks[1]
            with pytest.raises(errors.Timeout, match="did not settle"):
                await sender.send_acked(b"y", 0.05)
            connection.abort()
            with pytest.raises(errors.Unavailable, match="lost"):
                await tasks[2]

    run(test())


def test_credit_bounds_what_is_in_hands() -> None:
    async def test() -> None:
        class Slow(Judge):
            def attach(self, connection: Connection, link: Link) -> None:
                assert isinstance(link, Receiver)
                link.on_delivery = self.arrived.append
                connection.admit(link, credit=4, hold=True)

        slow = Slow()
        async with listening(slow) as listener, dialled(listener.port) as connection:
            sender = await connection.sender("slow")
            for number in range(20):
                sender.send(b"%d" % number, settled=bool(number % 2))
            await eventually(lambda: len(slow.arrived) == 4)
            await asyncio.sleep(0.05)
            assert len(slow.arrived) == 4
            assert sender.waiting == 16
            for number in range(20):
                await eventually(partial(has, slow.arrived, number))
                assert slow.arrived[number].raw == b"%d" % number
                slow.arrived[number].accept()
            await eventually(lambda: sender.waiting == 0 and sender.unsettled == 0)

    run(test())


def test_what_waits_for_credit_is_bounded() -> None:
    async def test() -> None:
        limits = replace(LIMITS, backlog=10, backlog_bytes=1000)
        async with listening(Judge(credit=0)) as listener, dialled(listener.port, limits) as connection:
            sender = await connection.sender("closed")
            for _ in range(10):
                sender.send(b"x")
            with pytest.raises(errors.Unavailable, match="too much waits"):
                sender.send(b"x")
            other = await connection.sender("closed too")
            with pytest.raises(errors.Unavailable, match="too much waits"):
                other.send(b"x" * 1001)

    run(test())


def test_a_refused_attach_raises_and_leaves_the_rest_alone() -> None:
    async def test() -> None:
        class Picky(Echo):
            def attach(self, connection: Connection, link: Link) -> None:
                if link.address == "no":
                    connection.refuse(link, "amqp:unauthorized-access", "not you")
                elif link.address == "session":
                    lib.pn_session_close(lib.pn_link_session(link.handle))
                    connection.touch()
                elif link.address != "never":
                    super().attach(connection, link)

        got: list[bytes] = []
        async with listening(Picky()) as listener, dialled(listener.port) as connection:
            await connection.receiver("back", lambda d: got.append(d.raw))
            sender = await connection.sender("there")
            for attaching in (connection.sender("no"), connection.receiver("no", print)):
                with pytest.raises(errors.NotAuthorized, match="not you"):
                    await attaching
            with pytest.raises(errors.Failed, match="session"):
                await connection.sender("session")
            with pytest.raises(errors.Timeout, match="'never'"):
                await connection.sender("never", deadline=0.1)
            sender.send(b"still here")
            await eventually(lambda: got == [b"still here"])

    run(test())


def test_links_come_and_go_without_a_trace() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo) as listener, dialled(listener.port) as connection:
            for _ in range(3 * LIMITS.links):
                sender = await connection.sender("there")
                receiver = await connection.receiver("back", print)
                sender.close()
                receiver.close()
            await eventually(lambda: not connection._links and not connection._sessions)
            await eventually(lambda: not echo.peers[0]._links and not echo.peers[0]._sessions)

    run(test())


@pytest.mark.parametrize("channels", [(4, 16), (16, 4), (1, 1)])
def test_links_share_a_session_when_channels_run_out(channels: tuple[int, int]) -> None:
    async def test() -> None:
        here, there = (replace(LIMITS, channels=count) for count in channels)
        async with listening(Echo(), there) as listener, dialled(listener.port, here) as connection:
            senders = [await connection.sender(f"there-{number}") for number in range(30)]
            for sender in senders:
                await sender.send_acked(b"x")
            assert len(connection._sessions) == min(channels)

    run(test())


def test_the_far_end_closing_a_link_is_told() -> None:
    async def test() -> None:
        told: list[tuple[str, str]] = []
        lost: list[Outcome] = []
        judge = Judge()
        async with listening(judge) as listener, dialled(listener.port) as connection:
            sender = await connection.sender("there")
            sender.on_closed = lambda *why: told.append(why)
            sender.send(b"x", on_outcome=lost.append)
            await eventually(lambda: judge.arrived)
            judge.attached[0].close("amqp:link:stolen", "somebody else")
            await eventually(lambda: told == [("amqp:link:stolen", "somebody else")])
            assert [outcome.word for outcome in lost] == [Word.LOST]
            assert not sender.open
            assert sender.credit == 0
            with pytest.raises(errors.Unavailable, match="closed"):
                sender.send(b"x")
            judge.arrived[0].accept()

    run(test())


def test_closing_gives_the_same_reason_to_both() -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo) as listener, dialled(listener.port) as connection:
            await eventually(lambda: echo.peers)
            assert str(await connection.close("amqp:connection:forced", "enough")) == (
                "enough (amqp:connection:forced)"
            )
            await eventually(lambda: [str(end) for end in echo.ends] == ["enough (amqp:connection:forced)"])
            await eventually(lambda: not listener.connections)
            with pytest.raises(errors.Unavailable, match="enough"):
                await connection.sender("there")

    run(test())


def test_a_listener_says_goodbye() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, dialled(listener.port) as connection:
            await connection.sender("there")
            await listener.close()
            assert str(await connection.closed) == "shutting down (amqp:connection:forced)"

    run(test())


def test_a_pulled_cable_is_noticed_at_both_ends() -> None:
    async def test() -> None:
        limits = replace(LIMITS, idle=0.4)
        echo = Echo()
        async with (
            listening(echo, limits) as listener,
            Wire(listener.port) as wire,
            dialled(wire.port, limits) as connection,
        ):
            await connection.sender("there")
            await asyncio.sleep(1.0)
            assert not connection.closed.done()  # an idle connection lives on heartbeats
            assert not echo.ends
            wire.pull()
            assert (await connection.closed).condition == IDLE
            await eventually(lambda: [end.condition for end in echo.ends] == [IDLE])

    run(test())


def test_dialling_nobody_and_the_silent() -> None:
    async def test() -> None:
        server = await asyncio.start_server(lambda *_: None, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(errors.Timeout, match="did not answer as an AMQP peer"):
            await dial(HOST, port, container="test", deadline=0.2)
        server.close()
        await server.wait_closed()
        with pytest.raises(errors.Unavailable, match="cannot connect"):
            await dial(HOST, port, container="test", deadline=5)

    run(test())


def test_dialling_what_is_not_amqp() -> None:
    async def test() -> None:
        async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = await asyncio.start_server(http, HOST, 0)
        with pytest.raises(errors.Problem, match="connection"):
            await dial(HOST, server.sockets[0].getsockname()[1], container="test", deadline=5)
        server.close()

    run(test())


def test_a_unix_socket_is_not_taken_from_who_listens_there(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "socket"
        first = await listen(str(path), 0, Echo(), container="first")
        with pytest.raises(errors.Unavailable, match="somebody listens there"):
            await listen(str(path), 0, Echo(), container="second")
        await (await dial(str(path), 0, container="test")).close()
        await first.close()
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        third = await listen(str(path), 0, Echo(), container="third")
        await third.close()

    run(test())


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "amqp"
        listener = await listen(str(path), 0, Echo(), container="here")
        connection = await dial(str(path), 0, container="test")
        await (await connection.sender("there")).send_acked(b"x")
        await listener.close()
        assert not path.exists()

    run(test())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "no-such-name.invalid"])
def test_strangers_cannot_be_listened_to(host: str) -> None:
    async def test() -> None:
        with pytest.raises(errors.InvalidArguments, match="not a loopback address"):
            await listen(host, 0, Echo(), container="here")

    run(test())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "/run/matahari/amqp"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


def test_a_taken_port_is_one_sentence() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener:
            with pytest.raises(errors.Unavailable, match=r"cannot listen on '127\.0"):
                await listen(HOST, listener.port, Echo(), container="second")

    run(test())


def test_peer_that_does_not_read_is_not_buffered_for() -> None:
    """Of 60 MB no more than `outgoing` and the sockets' buffers leave our own bounded backlog."""

    async def test() -> None:
        class Pouring(Echo):
            def attach(self, connection: Connection, link: Link) -> None:
                assert isinstance(link, Sender)
                connection.state = link
                connection.admit(link)

        limits = replace(LIMITS, outgoing=256 * 1024, backlog_bytes=100_000_000, stall=1.0)
        pouring = Pouring()
        async with (
            listening(pouring, limits) as listener,
            Wire(listener.port) as wire,
            dialled(wire.port, replace(LIMITS, capacity=100_000_000)) as connection,
        ):
            await connection.receiver("flood", lambda _: None, credit=1000)
            sender = pouring.peers[0].state
            assert isinstance(sender, Sender)
            await eventually(lambda: sender.credit == 1000)
            wire.pull()
            for _ in range(600):
                sender.send(b"x" * 100_000, settled=True)
            await eventually(lambda: pouring.peers and pouring.peers[0].paused)
            assert sender.waiting > 300
            await eventually(lambda: pouring.ends)
            assert "read nothing for 1.0 s" in pouring.ends[0].description

    run(test())


def test_proton_blocking_client_is_served() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener:
            await asyncio.to_thread(blocking_round, listener.port)

    def blocking_round(port: int) -> None:
        connection = BlockingConnection(f"{HOST}:{port}", timeout=5)
        receiver = connection.create_receiver("back", credit=10)
        sender = connection.create_sender("there")
        sender.send(Message(body={"n": 1}))
        message = receiver.receive(timeout=5)
        assert message.body == {"n": 1}
        connection.close()

    run(test())
