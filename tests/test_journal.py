"""What an agent was asked to change, looked up later."""

import asyncio
import json
from pathlib import Path

import pytest

from amqp_serving import TOY, CountingToy, toys
from libmh.agent import ThisAgent
from libmh.call import Request, Verb
from libmh.caller import Caller
from libmh.connections import Connections
from libmh.context import Context, Settings
from libmh.dispatch import Dispatcher
from libmh.errors import Conflict, NotFound, Problem
from libmh.journal import DONE, INTERRUPTED, MAX_JOBS, RUNNING, Journal
from libmh.providers import Providers
from waiting import eventually

WHO = Caller("amqp", "CN=console")


def test_what_was_asked_outlives_the_process(tmp_path: Path) -> None:
    first = Journal()
    first.open(tmp_path / "state" / "x.jobs")
    first.begin("1", "Toy.strike", {"what": "a bell"}, "amqp CN=console")
    first.end("1", {"rang": 3})
    first.begin("2", "Toy.strike", {}, "local local")
    first.end("2", problem=Conflict("it changed"))
    first.begin("3", "Toy.strike", {}, "local local")
    with (tmp_path / "state" / "x.jobs").open("a") as file:
        file.write('{"id": "4", "mem')  # killed in the middle of a line
    second = Journal()
    second.open(tmp_path / "state" / "x.jobs")
    assert [(job.id, job.outcome) for job in second.jobs()] == [
        ("3", INTERRUPTED),
        ("2", "conflict"),
        ("1", DONE),
    ]
    kept = second.job("1")
    assert kept is not None
    assert (kept.result, kept.objects, kept.by) == ({"rang": 3}, {"what": "a bell"}, "amqp CN=console")
    assert kept.finished is not None
    assert kept.finished >= kept.started
    assert (tmp_path / "state" / "x.jobs").stat().st_mode & 0o777 == 0o600


def test_it_is_bounded(tmp_path: Path) -> None:
    journal = Journal()
    journal.open(tmp_path / "x.jobs")
    for number in range(MAX_JOBS * 3):
        journal.begin(str(number), "Toy.strike", {"what": "x" * 9999}, "y" * 9999)
        journal.end(str(number), "z" * 9999 if number % 2 else b"bytes")
    assert len(journal.jobs()) == MAX_JOBS
    assert journal.job("0") is None
    assert {job.result for job in journal.jobs()} == {None}
    lines = (tmp_path / "x.jobs").read_text().splitlines()
    assert len(lines) <= MAX_JOBS * 4 + 1
    assert max(map(len, lines)) < 2000
    journal.end("0")  # long forgotten
    assert json.loads(lines[-1])["id"] == str(MAX_JOBS * 3 - 1)


def test_without_a_place_it_works_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal()
    journal.open(tmp_path / "file" / "x.jobs")
    journal.begin("1", "Toy.strike", {}, "me")
    assert "is not kept" in caplog.text
    assert [job.outcome for job in journal.jobs()] == [RUNNING]


def test_what_runs_can_be_stopped(tmp_path: Path) -> None:
    async def test() -> None:
        toy = CountingToy()
        dispatcher = Dispatcher(toys(toy), Context(settings=Settings(tmp_path / "settings.json")))
        this = ThisAgent("mh-test", Providers(), Connections(dispatcher.context.events))
        this.attach(dispatcher)
        with pytest.raises(NotFound, match="no operation 'e' runs here"):
            this.cancel("e")
        slow = asyncio.ensure_future(
            dispatcher.call(Request(TOY, "strike_slowly", Verb.CALL, {}, WHO, id="e"))
        )
        await eventually(lambda: [job.id for job in this.operations()] == ["e"])
        assert this.cancel("e") is False  # it does not attend to that
        toy.gate.set()
        await slow
        toy.gate.clear()
        toy.attends, toy.waiting = True, False
        slow = asyncio.ensure_future(
            dispatcher.call(Request(TOY, "strike_slowly", Verb.CALL, {}, WHO, id="f"))
        )
        await eventually(lambda: toy.waiting)
        assert this.cancel("f") is True
        await slow
        with pytest.raises(NotFound):
            this.cancel("f")

    asyncio.run(test())


def test_nobody_hides_what_runs_behind_its_id(tmp_path: Path) -> None:
    """Callers choose ids, and two may choose the same."""

    async def test() -> None:
        toy = CountingToy(attends=True)
        dispatcher = Dispatcher(toys(toy), Context(settings=Settings(tmp_path / "settings.json")))

        def slow(by: str) -> "asyncio.Future[object]":
            asked = Request(TOY, "strike_slowly", Verb.CALL, {}, Caller("test", by), id="1")
            return asyncio.ensure_future(dispatcher.call(asked))

        first = slow("one")
        await eventually(lambda: toy.waiting)
        second = slow("other")
        await eventually(lambda: dispatcher.counts().outstanding == 2)
        assert dispatcher.stop("1") is True
        await asyncio.gather(first, second)
        with pytest.raises(NotFound):
            dispatcher.stop("1")

    asyncio.run(test())


def test_the_agent_tells_what_it_was_asked(tmp_path: Path) -> None:
    async def test() -> None:
        toy = CountingToy()
        dispatcher = Dispatcher(toys(toy), Context(settings=Settings(tmp_path / "settings.json")))
        providers = Providers()
        this = ThisAgent("mh-test", providers, Connections(dispatcher.context.events))
        this.attach(dispatcher)

        async def call(member: str, number: str, verb: Verb = Verb.CALL, **given: int | str) -> object:
            return await dispatcher.call(Request(TOY, member, verb, given, WHO, id=number))

        await call("strike", "a", what="a bell")
        await call("level", "b", Verb.SET, value=3)
        await call("echo", "c", value="reads")
        with pytest.raises(Problem):
            await call("fail", "d", how="failed")  # that is open to everybody, and changes nothing
        slow = asyncio.ensure_future(call("strike_slowly", "e"))
        await eventually(lambda: [job.id for job in this.operations()] == ["e"])
        toy.gate.set()
        await slow
        assert [(job.id, job.outcome) for job in this.jobs()] == [("e", DONE), ("b", DONE), ("a", DONE)]
        assert [job.id for job in this.jobs(1)] == ["e"]
        found = this.job("a")
        assert (found.member, found.by) == (f"{TOY}.strike", "amqp CN=console")
        assert found.result == 1
        with pytest.raises(NotFound, match="was not asked"):
            this.job("c")
        assert (tmp_path / "mh-test.jobs").exists()

    asyncio.run(test())
