"""`libmh.bus` on a real bus, with each D-Bus library: calls, failures, losses, and what a hostile peer can
send."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from libmh import bus as dbus
from libmh.bus import (
    DAEMON,
    DAEMON_PATH,
    Bus,
    BusCall,
    Message,
    connect,
    problem_of,
    unwrap,
    variant,
)
from libmh.errors import (
    PROBLEMS,
    BackendFailed,
    Conflict,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
    dbus_name,
)
from libmh.systembus import SystemBus
from source_tree import ROOT
from testbed.bus import bus_daemon, private_bus
from testbed.callers import run_python_as
from waiting import eventually, wait_for

NAME, PATH, INTERFACE = "org.example.Peer", "/org/example/Peer", "org.example.Peer"
PLACE = (NAME, PATH, INTERFACE)
PEER = (DAEMON, DAEMON_PATH, DAEMON, "GetId")
GET_ID = BusCall(DAEMON, DAEMON_PATH, DAEMON, "GetId")


def on_bus(case: Callable[[Bus, Bus], Awaitable[None]], seconds: float = 20) -> None:
    """Run a case with two connections to a private bus; the first owns NAME."""

    async def run(address: str) -> None:
        async with asyncio.timeout(seconds):
            peer, caller = await connect(address), await connect(address)
            await peer.own(NAME)
            try:
                await case(peer, caller)
            finally:
                await peer.close()
                await caller.close()

    with private_bus() as address:
        asyncio.run(run(address))


def echo(peer: Bus) -> None:
    peer.on_call(lambda message: peer.reply(message, message.signature, message.body))


def test_values_come_back_as_they_went(either: str) -> None:
    body = [True, 1, 2**63, -5, 0.5, "ü", b"\x00\xff", ["a"], {"k": variant("as", ["x"])}, [7, "s"]]

    async def case(peer: Bus, caller: Bus) -> None:
        echo(peer)
        answer = await caller.call(*PLACE, "Echo", "bytidsayasa{sv}(ys)", body)
        assert answer == [*body[:8], {"k": ["x"]}, [7, "s"]]
        (raw,) = await caller.call(*PLACE, "Echo", "v", [variant("u", 3)], raw=True)
        assert (raw.signature, raw.value) == ("u", 3)
        assert await caller.call(*PLACE, "Echo") == []

    on_bus(case)


def test_each_problem_crosses_as_itself(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        peer.on_call(lambda message: peer.fail(message, message.body[0], "words\0\ud800"))
        for problem in PROBLEMS:
            with pytest.raises(problem) as caught:
                await caller.call(*PLACE, "Fail", "s", [dbus_name(problem)])
            assert type(caught.value) is problem
            assert caught.value.message.startswith("words")

    on_bus(case)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", NotAuthorized),
        ("org.freedesktop.DBus.Error.ServiceUnknown", Unavailable),
        ("org.freedesktop.DBus.Error.NoReply", Unavailable),
        ("org.freedesktop.DBus.Error.Spawn.ExecFailed", Unavailable),
        ("org.freedesktop.DBus.Error.TimedOut", Timeout),
        ("org.freedesktop.DBus.Error.UnknownProperty", NotFound),
        ("org.freedesktop.DBus.Error.InvalidArgs", InvalidArguments),
        ("org.freedesktop.DBus.Error.NotSupported", NotImplementedHere),
        ("org.freedesktop.systemd1.NoSuchUnit", BackendFailed),
    ],
)
def test_foreign_errors_have_a_meaning(name: str, kind: type[Problem]) -> None:
    problem = problem_of(name, "why")
    assert type(problem) is kind
    assert "why" in problem.message
    assert problem.details["dbus_error"] == name


def test_what_is_not_there(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        with pytest.raises(Unavailable):
            await caller.call("org.example.Nobody", PATH, INTERFACE, "M")
        with pytest.raises(NotFound):
            await caller.call(DAEMON, DAEMON_PATH, DAEMON, "NoSuchMethod")
        with pytest.raises(Conflict):
            await caller.own(NAME)
        await peer.release(NAME)
        await caller.own(NAME)

    on_bus(case)


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        ("s", [5]),
        ("s", []),
        ("y", [256]),
        ("u", [-1]),
        ("a{sv}", [{"k": 1}]),
        ("zz", [1]),
        ("a", [[]]),
    ],
)
def test_a_body_that_does_not_fit_is_the_callers_error(
    either: str, signature: str, arguments: list[object]
) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        echo(peer)
        with pytest.raises(InvalidArguments):
            await caller.call(*PLACE, "Echo", signature, arguments)
        assert await caller.call(*PLACE, "Echo", "s", ["still here"]) == ["still here"]

    on_bus(case)


@pytest.mark.parametrize(
    "place", [("no name", PATH, INTERFACE), (NAME, "no/path", INTERFACE), (NAME, PATH, "no")]
)
def test_a_place_that_is_none_is_the_callers_error(either: str, place: tuple[str, str, str]) -> None:
    async def case(_peer: Bus, caller: Bus) -> None:
        with pytest.raises(InvalidArguments):
            await caller.call(*place, "M")

    on_bus(case)


def test_no_answer_is_a_timeout_and_is_forgotten(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        unanswered: list[Message] = []
        peer.on_call(unanswered.append)
        with pytest.raises(Timeout, match="did not answer org"):
            await caller.call(*PLACE, "M", timeout=0.05)
        await eventually(lambda: unanswered)
        peer.reply(unanswered[0])  # too late
        echo(peer)
        assert await caller.call(*PLACE, "Echo", "s", ["next"]) == ["next"]

    on_bus(case)


def test_a_peer_that_dies_with_a_call_out(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        came = asyncio.Event()
        peer.on_call(lambda _: came.set())
        call = asyncio.create_task(caller.call(*PLACE, "M"))
        await came.wait()
        await peer.close()
        with pytest.raises(Unavailable):
            await call

    on_bus(case)


def test_a_bus_that_dies_with_a_call_out(either: str) -> None:
    async def case(address: str, kill: Callable[[], None]) -> None:
        async with asyncio.timeout(10):
            peer, caller = await connect(address), await connect(address)
            await peer.own(NAME)
            came = asyncio.Event()
            peer.on_call(lambda _: came.set())
            call = asyncio.create_task(caller.call(*PLACE, "M"))
            await came.wait()
            await asyncio.to_thread(kill)
            with pytest.raises(Unavailable):
                await call
            assert await caller.closed
            assert not caller.connected
            with pytest.raises(Unavailable):
                await caller.call(*PLACE, "M")
            await caller.close()

    with bus_daemon() as daemon:
        asyncio.run(case(daemon.address, daemon.stop))


def test_many_calls_at_once_with_large_bodies(either: str) -> None:
    text = "x" * 20_000

    async def case(peer: Bus, caller: Bus) -> None:
        echo(peer)
        answers = await asyncio.gather(*(caller.call(*PLACE, "Echo", "su", [text, n]) for n in range(300)))
        assert answers == [[text, n] for n in range(300)]

    on_bus(case)


def test_no_answer_is_sent_to_those_who_want_none(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        seen: list[str] = []

        def answer(message: Message) -> None:
            seen.append(message.member)
            peer.reply(message)
            peer.fail(message, "org.example.Error", "no")

        peer.on_call(answer)
        with pytest.raises(Timeout):
            await caller.call(*PLACE, "Quiet", flags=dbus.NO_REPLY_EXPECTED, timeout=0.05)
        await eventually(lambda: seen == ["Quiet"])

    on_bus(case)


def test_signals_reach_those_who_asked(either: str) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        seen: list[list[object]] = []
        end = caller.on_signal(lambda message: seen.append([message.member, *message.body]))
        await caller.add_match(f"type='signal',interface='{INTERFACE}'")
        peer.signal(PATH, INTERFACE, "Happened", "su", ["x", 1])
        await eventually(lambda: ["Happened", "x", 1] in seen)
        end()
        before = len(seen)
        peer.signal(PATH, INTERFACE, "Happened", "su", ["x", 2])
        await caller.ask("GetId")  # answered after the signal was delivered
        assert len(seen) == before

    on_bus(case)


@pytest.mark.parametrize("address", ["", "foo", "unix:nothing=3", "tcp:host=localhost,port=x"])
def test_an_address_that_is_none(either: str, address: str) -> None:
    with pytest.raises(InvalidArguments):
        asyncio.run(connect(address))


def test_an_address_may_escape_its_path(either: str, tmp_path: Path) -> None:
    with private_bus() as address:
        odd = tmp_path / "ä b%,"
        odd.symlink_to(Path(address.removeprefix("unix:path=")).parent)
        name = Path(address).name

        async def open_and_close() -> None:
            connection = await dbus.connect(f"unix:path={quote(str(odd))}/{name}")
            await connection.close()

        asyncio.run(open_and_close())


def test_no_bus_at_all(either: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no bus"):
        asyncio.run(connect(f"unix:path={tmp_path}/none"))


@pytest.mark.parametrize("words", [b"", b"REJECTED EXTERNAL\r\n", b"OK nonsense", b"\xff\r\n" * 50])
def test_a_bus_that_hangs_up_or_talks_nonsense(either: str, tmp_path: Path, words: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()

    def serve() -> None:
        for _ in range(2):  # the probe, and the connection
            peer, _address = listener.accept()
            with peer, contextlib.suppress(OSError):  # it may be gone already
                peer.settimeout(1)
                peer.recv(1)
                peer.sendall(words)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener, pytest.raises((Unavailable, NotAuthorized, InvalidArguments)):
        asyncio.run(connect(f"unix:path={tmp_path}/bus", timeout=3))


def test_a_silent_bus_is_given_up(either: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        with pytest.raises(Unavailable, match="did not answer within"):
            asyncio.run(connect(f"unix:path={tmp_path}/bus", timeout=0.2))


def test_the_blocking_client_from_many_threads(either: str) -> None:
    with private_bus() as address:
        client = SystemBus(address)
        answers: list[list[object]] = []
        threads = [threading.Thread(target=lambda: answers.append(client.call(*PEER))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len({str(answer) for answer in answers}) == 1
        assert len(answers) == 8
        client.close()
        assert client.call(*PEER) == answers[0]  # it connects again
        client.close()


def test_the_blocking_client_tells_each_outcome(either: str) -> None:
    with private_bus() as address:
        client = SystemBus(address)
        bad = BusCall(DAEMON, DAEMON_PATH, DAEMON, "NoSuchMethod")
        wrong = BusCall(DAEMON, DAEMON_PATH, DAEMON, "NameHasOwner", "s", [5])
        outcomes = client.call_many([GET_ID, bad, wrong, GET_ID] + [GET_ID] * 600)
        assert outcomes[0] == outcomes[3] == outcomes[-1]
        assert isinstance(outcomes[1], NotFound)
        assert isinstance(outcomes[2], InvalidArguments)
        with pytest.raises(NotFound):
            client.call(DAEMON, DAEMON_PATH, DAEMON, "NoSuchMethod")
        assert client.call_many([]) == []
        client.close()


def test_the_blocking_client_comes_back_after_a_loss(either: str) -> None:
    with bus_daemon() as daemon:
        client = SystemBus(daemon.address)
        client.call(*PEER)
        daemon.stop()
        with pytest.raises(Unavailable):
            client.call(*PEER)
        outcomes = client.call_many([GET_ID, GET_ID])
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        daemon.start()
        assert wait_for(lambda: client.call(*PEER))
        client.close()


def test_a_uid_that_the_policy_refuses(either: str) -> None:
    snippet = """
        import asyncio, sys
        from libmh.bus import connect
        from libmh.errors import NotAuthorized
        async def case():
            bus = await connect(sys.argv[1])
            try:
                await bus.own("org.example.Peer")
            except NotAuthorized:
                print("refused")
        asyncio.run(case())
    """
    with private_bus(sorted((ROOT / "packaging/dbus-1/system.d").glob("*.conf"))) as address:
        assert run_python_as(snippet, address).stdout == "refused\n"


def test_unwrap_goes_all_the_way_down() -> None:
    nested = variant("av", [variant("a{sv}", {"k": variant("ai", [1])}), variant("s", "x")])
    assert unwrap([nested, (1, 2)]) == [[{"k": [1]}, "x"], [1, 2]]


HEADER = struct.Struct("<BBBBIII")
STRING_FIELD = struct.Struct("<BBBBI")


def message(fields: bytes, *, kind: int = 1, flags: int = 0, body: bytes = b"") -> bytes:
    """A message in its wire form (D-Bus specification, "Message Format")."""
    head = HEADER.pack(ord("l"), kind, flags, 1, len(body), 77, len(fields)) + fields
    return head + b"\0" * (-len(head) % 8) + body


def field(code: int, kind: str, value: str, before: int) -> bytes:
    text = value.encode()
    packed = STRING_FIELD.pack(code, 1, ord(kind), 0, len(text)) + text + b"\0"
    return b"\0" * (-before % 8) + packed


def hostile(*extra: bytes, kind: int = 1, flags: int = 0) -> bytes:
    fields = b""
    for code, letter, value in ((1, "o", PATH), (2, "s", INTERFACE), (3, "s", "Evil"), (6, "s", NAME)):
        fields += field(code, letter, value, len(fields))
    for each in extra:
        fields += b"\0" * (-len(fields) % 8) + each
    return message(fields, kind=kind, flags=flags)


@pytest.mark.parametrize(
    "sent",
    [
        hostile(struct.pack("<BBBBI", 77, 1, ord("u"), 0, 5)),  # a header field that nobody knows
        hostile(flags=0xFF),  # flags that nobody knows
        hostile(kind=9),  # a type of message that nobody knows
    ],
    ids=["field", "flags", "type"],
)
def test_what_the_future_may_send_does_not_cut_us_off(either: str, sent: bytes) -> None:
    async def case(peer: Bus, caller: Bus) -> None:
        echo(peer)
        path = caller.address.removeprefix("unix:path=")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"\0AUTH EXTERNAL 30\r\n")
        assert (await reader.readline()).startswith(b"OK")
        hello = b""
        for code, kind, value in (
            (1, "o", DAEMON_PATH),
            (2, "s", DAEMON),
            (3, "s", "Hello"),
            (6, "s", DAEMON),
        ):
            hello += field(code, kind, value, len(hello))
        writer.write(b"BEGIN\r\n" + message(hello))
        await reader.read(1)
        writer.write(sent)
        await writer.drain()
        for _ in range(20):
            assert await caller.call(*PLACE, "Echo", "s", ["alive"]) == ["alive"]
        writer.close()

    on_bus(case)
