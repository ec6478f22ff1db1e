"""The way in: whoever does not come in is written down, a flood is not, and nobody waits for long because of
others. A herd of thousands, which takes some minutes:

    .venv/bin/pytest -m slow -s tests/test_amqp_entrance.py
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from amqp_peers import HOST, SASL_HEADER, Echo, hostile, listening
from amqp_serving import command, port_of
from audited import Lines, audited
from certificates import Authority, authority
from libmh.errors import Problem, Unavailable
from mh_amqp import refusals, turns
from mh_amqp.broker_main import limits_of, serve
from mh_amqp.engine import Door, Listener, Login, dial
from mh_amqp.limits import Limits
from mh_amqp.refusals import MOST_HOSTS, MOST_LINES, Refusals
from mh_amqp.security import EXTERNAL
from mh_amqp.tls import Files, Tls
from mh_amqp.turns import AT_ONCE, Turns, place_of
from test_amqp_bad_times import simulated
from test_amqp_engine import run
from test_amqp_secured import tls_table
from waiting import eventually

SHORT = Limits(handshake=1.0, closing=0.2)
LONG = replace(SHORT, handshake=15.0)
DOWN_SECONDS = 2.0
BACK_SECONDS = 600.0


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture
def record() -> Iterator[Lines]:
    with audited() as lines:
        yield lines


@asynccontextmanager
async def secured(ours: Authority, limits: Limits = LONG) -> AsyncIterator[tuple[Listener, Echo]]:
    echo = Echo()
    async with listening(echo, limits, Door(tls=Tls(ours.give("broker")))) as listener:
        yield listener, echo


def told_once(record: Lines, why: str) -> None:
    (line,) = record.lines
    assert (line["verb"], line["transport"], line["times"]) == ("enter", "amqp", 1)
    assert str(line["peer"]).startswith(f"{HOST}:")
    assert why in str(line["why"])


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("none", "peer did not return a certificate"),
        ("foreign", "certificate verify failed: unable"),
        ("expired", "certificate verify failed: certificate has expired"),
        ("distrusts", "hung up"),
    ],
)
def test_a_bad_certificate_is_written_down(
    ours: Authority, record: Lines, tmp_path: Path, case: str, why: str
) -> None:
    theirs = authority(tmp_path, "Another Authority")
    shown = {
        "none": Files(authorities=ours.path),
        "foreign": replace(theirs.give("rogue"), authorities=ours.path),
        "expired": ours.give("late", days=-1),
        "distrusts": theirs.give("rogue"),
    }[case]

    async def test() -> None:
        async with secured(ours) as (listener, echo):
            with pytest.raises(Problem):
                await dial(HOST, listener.port, container="x", login=Login((EXTERNAL,), tls=Tls(shown)))
            await eventually(lambda: record.lines)
            assert not echo.peers

    run(test())
    told_once(record, why)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (SASL_HEADER, "wrong version number"),
        (b"GET / HTTP/1.0\r\n\r\n", "http request"),
        (b"", "no handshake within 1 s"),
        (b"\x16\x03\x01", "no handshake within 1 s"),
    ],
)
def test_what_is_no_tls_is_written_down(ours: Authority, record: Lines, said: bytes, why: str) -> None:
    async def test() -> None:
        limits = SHORT if "within" in why else LONG
        async with secured(ours, limits) as (listener, _), hostile(listener.port) as peer:
            await peer.says(said)
            await peer.ends()
            await eventually(lambda: record.lines)

    run(test())
    told_once(record, why)


def test_who_hangs_up_in_the_middle_is_written_down(ours: Authority, record: Lines) -> None:
    async def test() -> None:
        async with secured(ours) as (listener, _), hostile(listener.port) as peer:
            await peer.says(b"\x16\x03\x01")
            await eventually(lambda: listener.entrance and not listener.entrance.turns.waiting)
            peer.writer.close()
            await eventually(lambda: record.lines)
            await eventually(lambda: listener.entrance and not listener.entrance.tasks)

    run(test())
    told_once(record, "hung up during the handshake")


def test_who_never_says_who_he_is_is_written_down(record: Lines) -> None:
    async def test() -> None:
        async with listening(Echo(), SHORT) as listener, hostile(listener.port) as peer:
            await peer.ends()
            await eventually(lambda: record.lines)

    run(test())
    told_once(record, "did not open within 1 s")


def test_what_comes_with_the_end_of_the_handshake_is_not_lost(ours: Authority) -> None:
    """A peer says its header in the packet that ends the handshake."""
    shown = ours.give("console")
    context = ssl.create_default_context(cafile=str(ours.path))
    context.load_cert_chain(str(shown.certificate), str(shown.key))

    def handshake(port: int) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
        with socket.create_connection((HOST, port), timeout=15) as raw:
            while True:
                try:
                    peer.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65536))
            peer.write(SASL_HEADER)
            raw.sendall(outgoing.read())
            while True:
                with suppress(ssl.SSLWantReadError):
                    return peer.read(100)
                incoming.write(raw.recv(65536))

    async def test() -> None:
        async with secured(ours) as (listener, _):
            said = await asyncio.to_thread(handshake, listener.port)
            assert said.startswith(SASL_HEADER)
            assert b"EXTERNAL" in said

    run(test())


def test_those_who_stall_keep_nobody_waiting(ours: Authority) -> None:
    """More than may shake hands at once begin and do not go on: their turns pass on."""

    async def test() -> None:
        async with secured(ours, replace(SHORT, handshake=20.0)) as (listener, echo):
            with ExitStack() as stack:
                for _ in range(AT_ONCE + 10):
                    stack.enter_context(socket.create_connection((HOST, listener.port))).sendall(b"\x16")
                login = Login((EXTERNAL,), tls=Tls(ours.give("console")))
                connection = await dial(HOST, listener.port, container="x", login=login, deadline=15)
                await eventually(lambda: echo.peers)
                connection.abort()

    run(test())


def test_who_waits_for_his_turn_is_counted_and_loses_no_time(ours: Authority, record: Lines) -> None:
    """He gets all of his time when it has come, and there is a place for each, or none."""

    async def test() -> None:
        limits = replace(SHORT, per_peer=3, handshake=2.5)
        async with secured(ours, limits) as (listener, echo):
            assert listener.entrance is not None
            those = listener.entrance.turns
            those.free = 0
            login = Login((EXTERNAL,), tls=Tls(ours.give("console")))
            dialling = [
                asyncio.create_task(dial(HOST, listener.port, container="x", login=login, deadline=20))
                for _ in range(4)
            ]
            await eventually(lambda: those.waiting == 3)
            await eventually(lambda: any(each.done() for each in dialling))
            await asyncio.sleep(2.7)  # longer than a handshake may take
            assert sum(each.done() for each in dialling) == 1
            those._pass_on()
            await eventually(lambda: len(echo.peers) == 3)
            done = await asyncio.gather(*dialling, return_exceptions=True)
            assert sum(isinstance(each, Problem) for each in done) == 1
            for each in done:
                if not isinstance(each, BaseException):
                    each.abort()
            await eventually(lambda: not echo.peers)
            again = await dial(HOST, listener.port, container="x", login=login)
            again.abort()

    run(test())
    told_once(record, "3 of its host")


def test_who_has_gone_when_it_is_his_turn_costs_nothing(ours: Authority, record: Lines) -> None:
    async def test() -> None:
        async with secured(ours) as (listener, _):
            assert listener.entrance is not None
            listener.entrance.turns.free = 0
            async with hostile(listener.port) as peer:
                await peer.says(b"\x16")
                await eventually(lambda: listener.entrance and listener.entrance.turns.waiting)
                peer.writer.close()
            listener.entrance.turns._pass_on()
            await eventually(lambda: listener.entrance and not listener.entrance.tasks)

    run(test())
    assert not record.lines


def test_who_comes_when_turns_are_late_is_sent_away_at_once(
    ours: Authority, record: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LATE_SECONDS", 0.1)

    async def test() -> None:
        async with secured(ours) as (listener, echo):
            assert listener.entrance is not None
            those = listener.entrance.turns
            those.free = 0
            login = Login((EXTERNAL,), tls=Tls(ours.give("console")))
            first = asyncio.create_task(dial(HOST, listener.port, container="x", login=login))
            await eventually(lambda: those.late(HOST))
            with pytest.raises(Unavailable):
                await dial(HOST, listener.port, container="x", login=login)
            assert listener.entrance.sent_away == 1
            those._pass_on()
            (await first).abort()
            await eventually(lambda: not echo.peers)
            (await dial(HOST, listener.port, container="x", login=login)).abort()

    run(test())
    assert not record.lines


def test_turns_are_taken_in_order() -> None:
    async def test() -> None:
        those, took = Turns(free=1), []

        async def one(number: int) -> None:
            end = await those.take(HOST)
            took.append(number)
            end()
            end()  # twice is once

        await asyncio.gather(*(one(number) for number in range(5)))
        assert took == [0, 1, 2, 3, 4]
        assert those.free == 1

    run(test())


def test_many_from_one_place_keep_nobody_from_elsewhere_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        those, took = Turns(free=1), list[str]()

        async def one(place: str) -> None:
            end = await those.take(place)
            took.append(place)
            await asyncio.sleep(0)
            end()

        crowd = [asyncio.create_task(one("crowd")) for _ in range(100)]
        await asyncio.sleep(0)
        monkeypatch.setattr(turns, "LATE_SECONDS", -1.0)
        assert those.late("crowd")
        monkeypatch.undo()
        assert not those.late("elsewhere")
        await asyncio.gather(one("elsewhere"), *crowd)
        assert took.index("elsewhere") < 10
        assert (those.free, those.waiting) == (1, 0)

    run(test())


def test_who_is_late_by_his_own_line_alone() -> None:
    async def test() -> None:
        those = Turns(free=0)
        loop = asyncio.get_running_loop()
        crowd = [asyncio.create_task(those.take("crowd")) for _ in range(3)]
        await asyncio.sleep(0)
        line = those._lines["crowd"]
        line.waiting[1] = (loop.time() - 100, line.waiting[1][1])
        those._pass_on()
        assert those.late("crowd")
        assert not those.late("elsewhere")  # it would be the next but one
        line.since -= 100
        assert those.late("elsewhere")  # turns do not come at all
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    run(test())


def test_where_addresses_are_from() -> None:
    assert place_of("192.0.2.1") != place_of("192.0.2.2")
    assert place_of("[2001:db8::1]") == place_of("[2001:db8::f00d:1]")
    assert place_of("[2001:db8::1]") != place_of("[2001:db8:0:1::1]")
    assert place_of("[fe80::1%eth0]") == place_of("[fe80::2]")
    assert place_of("unix") == "unix"


def test_a_flood_of_those_who_say_nothing_keeps_nobody_out(
    ours: Authority, record: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no turns, whatever these last."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 1000.0)

    async def test() -> None:
        async with secured(ours, replace(SHORT, handshake=60.0)) as (listener, echo):
            with ExitStack() as stack:
                for _ in range(3 * AT_ONCE):
                    stack.enter_context(socket.create_connection((HOST, listener.port)))
                login = Login((EXTERNAL,), tls=Tls(ours.give("console")))
                connection = await dial(HOST, listener.port, container="x", login=login, deadline=20)
                await eventually(lambda: echo.peers)
                connection.abort()
                assert listener.entrance is not None
                assert listener.entrance.sent_away == 0
            # those who hang up leave at once, and are written down
            await eventually(lambda: listener.refusals.count == 3 * AT_ONCE, 20)
            assert len(record.lines) == MOST_LINES
            assert not listener.entrance.tasks

    run(test())


# what a flood writes


def test_a_flood_is_a_few_lines_and_a_number(record: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "WINDOW_SECONDS", 0.2)

    async def test() -> None:
        told = Refusals()
        for number in range(1000):
            told.entry(f"192.0.2.1:{number}", f"bad {number}")
        assert len(record.lines) == MOST_LINES
        for number in range(MOST_HOSTS + 300):
            told.entry(f"[2001:db8::{number:x}]:1", "worse")
        assert len(record.lines) == MOST_LINES + MOST_HOSTS - 1
        await eventually(lambda: len(record.lines) == MOST_LINES + MOST_HOSTS + 1)
        of_one, others = record.lines[-2:]
        assert (of_one["peer"], of_one["why"], of_one["times"]) == ("192.0.2.1", "bad 999", 995)
        assert (others["peer"], others["times"]) == ("elsewhere", 301)
        told.entry("192.0.2.1:1", "again")
        assert (record.lines[-1]["peer"], record.lines[-1]["times"]) == ("192.0.2.1:1", 1)
        told.flush()
        assert told.count == 1000 + MOST_HOSTS + 300 + 1

    run(test())


def test_a_flood_of_handshakes_is_a_few_lines(ours: Authority, record: Lines) -> None:
    async def test() -> None:
        async with secured(ours) as (listener, _):
            for _ in range(30):
                async with hostile(listener.port) as peer:
                    await peer.says(SASL_HEADER)
                    await peer.ends()
            await eventually(lambda: listener.refusals.count == 30)
            assert len(record.lines) == MOST_LINES
        assert record.lines[-1]["times"] == 30 - MOST_LINES

    run(test())


# a herd


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1000, 2000])
def test_a_herd_comes_in(ours: Authority, tmp_path: Path, record: Lines, hosts: int) -> None:
    """All hosts of a broker that was killed come back by TLS: the time in which it is busy with the others
    is nobody's fault."""
    (tmp_path / "hosts.toml").write_text(tls_table(ours.give("agent")))
    (tmp_path / "broker.toml").write_text(tls_table(ours.give("broker")))
    words = ["--listen", f"{HOST}:0", "--state", str(tmp_path), "--config", str(tmp_path / "broker.toml")]
    words += ["--log-level", "error"]
    with ExitStack() as stack:
        first, line = stack.enter_context(command("mh_amqp.broker_main", *words))
        port = port_of(line)
        url = f"amqps://{HOST}:{port}"
        given = ("--config", str(tmp_path / "hosts.toml"), "--rate", "150")
        stack.enter_context(simulated(hosts, url, tmp_path / "hosts", *given))
        first.kill()
        first.wait(5)

        async def test() -> None:
            await asyncio.sleep(DOWN_SECONDS)
            limits = limits_of(hosts)
            broker, listener = await serve(f"{HOST}:{port}", limits, Door(tls=Tls(ours.give("broker"))))
            began = time.monotonic()
            await eventually(lambda: broker.counters.connections == hosts, BACK_SECONDS)
            took = time.monotonic() - began
            listener.refusals.flush()
            late = sum(int(str(each["times"])) for each in record.lines if "within" in str(each["why"]))
            print(
                f"{hosts} hosts: all back by TLS after {took:.1f} s, {listener.refusals.count} in vain, "
                f"{late} too late, {listener.entrance.sent_away if listener.entrance else 0} sent away"
            )
            await listener.close()

        run(test(), BACK_SECONDS + 30)
    late = [line for line in record.lines if "within" in str(line["why"])]
    assert late == []
