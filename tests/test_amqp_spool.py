"""Events that were not told yet, on disk: in order, at least once, bounded, whatever becomes of us."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from amqp_peers import Wire
from amqp_serving import SOURCE, TOY, Toy, asking, broker_agent, direct_agent, run, running_broker
from libmh.agent import ThisAgent
from libmh.api.agent import Agent as AgentInterface
from libmh.errors import NotImplementedHere
from libmh.events import Event, Hub
from libmh.spec import interface_of
from mh_amqp import messages, spool
from mh_amqp.events import Encoded, Outbox, decode_event, encode_event, lasting
from mh_amqp.messages import Message
from mh_amqp.outcome import Word
from mh_amqp.spool import Spool
from mh_amqp.upkeep import Pace
from processes import agent as agent_process
from processes import command as command_path
from test_amqp_events import keep, take
from waiting import eventually

PAST = interface_of(AgentInterface).name


def opened(path: Path) -> Spool:
    found = Spool(path / "events")
    found.open()
    return found


def outbox(hub: Hub, path: Path) -> Outbox:
    return Outbox(hub, SOURCE, lambda name: interface_of(Toy) if name == TOY else None, opened(path))


def numbers(taken: list[Encoded]) -> list[Any]:
    events = [decode_event(messages.decode(each.raw)) for each in taken]
    return [event.fields["times"] for event in events if event is not None and event.member == "rang"]


def ring(hub: Hub, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        hub.emit(Toy.rang, times=number, at=0)


def test_what_lasts_and_what_passes() -> None:
    for member, expected in (
        ("rang", True),
        ("heartbeat", False),
        ("", False),
        ("connection_changed", False),
    ):
        assert lasting(Event(TOY, member, {}, 0, 0)) is expected


def test_more_than_memory_holds_comes_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub, tmp_path)
        for part in range(20):
            ring(hub, 100, part * 100)
            await asyncio.sleep(0)
        await eventually(lambda: out.spool is not None and out.spool.last == 2000)
        assert out.waiting <= 256
        taken: list[Encoded] = []
        out.resume(lambda event: keep(event, taken), confirms=False)
        assert numbers(taken) == list(range(2000))
        assert (out.dropped, out.waiting, out.empty.is_set()) == (0, 0, True)
        ring(hub, 3, 2000)
        await eventually(lambda: len(taken) == 2003)
        out.close()

    run(test())


def test_another_process_tells_what_one_that_died_could_not(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from mh_amqp.spool import Spool\n"
        f"s = Spool(Path({str(tmp_path)!r}) / 'events'); s.open()\n"
        "for n in range(300): s.add('a', b'x%d' % n, time.time_ns())\n"
        "s.told(1); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == -9
    found = opened(tmp_path)
    left = found.untold(0, 1000)
    assert [each.raw for each in left] == [b"x%d" % number for number in range(1, 300)]
    assert found.last == 300
    assert found.add("a", b"more", 5) == 301


def test_what_was_not_settled_is_sent_again_in_its_place(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub, tmp_path)
        first: list[Encoded] = []
        out.resume(lambda event: keep(event, first), confirms=True)
        ring(hub, 5)
        await eventually(lambda: len(first) == 5)
        out.settled(first[0], Word.ACCEPTED)
        out.settled(first[2], Word.ACCEPTED)
        out.settled(first[3], Word.LOST)
        out.pause()
        ring(hub, 2, 5)
        again: list[Encoded] = []
        await asyncio.sleep(0)
        out.resume(lambda event: keep(event, again), confirms=True)
        assert numbers(again) == [1, 3, 4, 5, 6]
        ids = [messages.decode(each.raw).text("mh:event-id") for each in (*first, *again)]
        assert ids[1] == ids[5]
        assert len(set(ids)) == 7
        assert not out.empty.is_set()
        for each in again:
            out.settled(each, Word.RELEASED if each is again[0] else Word.ACCEPTED)
        assert out.empty.is_set()
        assert out.spool is not None
        assert out.spool.untold(0, 100) == []
        out.close()

    run(test())


def test_a_broker_that_settles_nothing_gets_so_many_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub, tmp_path)
        sent: list[Encoded] = []
        out.resume(lambda event: keep(event, sent), confirms=True)
        for part in range(5):
            ring(hub, 100, 100 * part)
            await asyncio.sleep(0)
        await eventually(lambda: out.spool is not None and out.spool.last == 500)
        assert len(sent) == 200
        for each in sent:  # which grows meanwhile
            out.settled(each, Word.ACCEPTED)
        assert numbers(sent) == list(range(500))
        assert out.empty.is_set()
        out.close()

    run(test())


def test_bounds_hold_and_what_is_lost_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_EVENTS", 50)
    monkeypatch.setattr(spool, "SWEEP_EVERY", 10)

    async def test() -> None:
        hub = Hub()
        out = outbox(hub, tmp_path)
        for part in range(4):
            ring(hub, 100, 100 * part)
            await asyncio.sleep(0)
        await eventually(lambda: out.spool is not None and out.spool.last == 400)
        taken: list[Encoded] = []
        out.resume(lambda event: keep(event, taken), confirms=False)
        await eventually(lambda: any(b"events_dropped" in each.raw for each in taken))
        told = next(each for each in taken if b"events_dropped" in each.raw)
        event = decode_event(messages.decode(told.raw))
        assert event is not None
        count = event.fields["count"]
        assert isinstance(count, int)
        assert 340 <= count <= 400
        assert numbers(taken)[-50:] == list(range(350, 400))
        out.close()

    run(test())


@pytest.mark.parametrize(("name", "value"), [("MAX_BYTES", 1000), ("MAX_AGE", 0.0), ("MAX_EVENTS", 10)])
def test_each_bound_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    kept = opened(tmp_path)
    for number in range(100):
        kept.add("a", b"x" * 100, time.time_ns() - 10**9 * number)
    kept.close()
    monkeypatch.setattr(spool, name, value)
    kept = opened(tmp_path)
    assert len(kept.untold(0, 1000)) <= 11
    assert kept.last == 100
    assert kept.dropped >= 89


def test_a_disk_that_is_full_costs_no_event_of_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub, tmp_path)
        assert out.spool is not None
        assert out.spool._database is not None
        out.spool._database.execute("PRAGMA max_page_count = 12")
        taken: list[Encoded] = []
        for part in range(3):
            ring(hub, 80, 80 * part)
            await asyncio.sleep(0)
        await eventually(lambda: "cannot be kept" in caplog.text)
        assert caplog.text.count("cannot be kept") == 1
        out.resume(lambda event: keep(event, taken), confirms=False)
        assert len(numbers(taken)) == 240
        out.close()

    run(test())


def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b"what is this? " * 100)
    found = opened(tmp_path)
    assert found.add("a", b"x", time.time_ns()) == 1
    assert (tmp_path / "events.damaged").read_bytes().startswith(b"what")
    (tmp_path / "file").write_text("")
    nowhere = Spool(tmp_path / "file" / "events")
    nowhere.open()
    assert nowhere.add("a", b"x", 1) == 0
    assert nowhere.untold(0, 10) == []


def test_nobody_else_reads_them(tmp_path: Path) -> None:
    opened(tmp_path)
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "events") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_events_of_a_time_without_a_broker_all_come(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, free):
            pass
        async with (
            running_broker() as (_, port),
            asking(port) as console,
            broker_agent(tmp_path, free) as agent,
        ):
            came: list[Message] = []
            await console.connection.receiver("mh.event.#", lambda d: take(d, came), credit=2000)
            agent.served.pace = Pace(first=0.1, most=0.2)
            await eventually(lambda: [s.state for s in agent.connections.list()] == ["waiting"])
            for part in range(5):
                ring(agent.context.events, 100, part * 100)
                await asyncio.sleep(0)
            async with Wire(port, free):
                await eventually(lambda: len(rung(came)) >= 500, 20)
                assert rung(came) == list(range(500))
                box = agent.served.outbox
                await eventually(lambda: box.spool is not None and box.spool.untold(0, 1) == [])

    run(test(), 60)


def rung(came: list[Message]) -> list[Any]:
    found = [decode_event(message) for message in came if message.subject == f"{TOY}.rang"]
    return [event.fields["times"] for event in found if event is not None]


def test_what_happened_can_be_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        async with direct_agent(tmp_path) as agent:
            hub = agent.dispatcher.context.events
            ring(hub, 3)
            await eventually(lambda: agent.served.outbox.spool and agent.served.outbox.spool.last == 3)
            found = await asyncio.to_thread(agent.served.outbox.past, 0, 2)
            assert [(each.name, each.fields["times"]) for each in found] == [
                (f"{TOY}.rang", n) for n in (1, 2)
            ]
            assert await asyncio.to_thread(agent.served.outbox.past, time.time_ns(), 10) == []

    run(test())


def test_an_agent_without_a_spool_says_so() -> None:
    from test_health import this

    me: ThisAgent = this()[0]
    with pytest.raises(NotImplementedHere, match="keeps no events"):
        me.past_events()


def test_a_console_sees_what_happened_and_then_what_comes(tmp_path: Path) -> None:
    options = ("--listen", "127.0.0.1:0", "--state", f"{tmp_path}/state")
    config = ("--config", f"{tmp_path}/agent.toml")
    (tmp_path / "agent.toml").write_text('[authority]\n"anonymous" = "operator"\n')
    (tmp_path / "state").mkdir()
    early = Spool(tmp_path / "state" / "mh-amqp.events")
    early.open()
    raised = Event(PAST, "events_dropped", {"count": 7}, time.time_ns(), 1)
    early.add("a", encode_event(raised, SOURCE, interface_of(AgentInterface), "x-1"), raised.time)
    early.close()
    with agent_process("mh-amqp", *options, *config) as host:
        mhctl = [command_path("mhctl"), "--on", host.url, "--json"]
        done = subprocess.run([*mhctl, "events", "Agent", "--since", "1h"], capture_output=True, timeout=20)
        assert [json.loads(line)["fields"] for line in done.stdout.splitlines()] == [{"count": 7}]
        assert subprocess.run([*mhctl, "set", "Host.update_interval", "1"], timeout=20).returncode == 0
        follows = [*mhctl, "events", "--since", "1h", "--follow", "--count", "3"]
        done = subprocess.run(follows, capture_output=True, timeout=20)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert told[0]["fields"] == {"count": 7}
        assert [each["event"] for each in told[1:]] == ["heartbeat", "heartbeat"]
