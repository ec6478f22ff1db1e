"""The one way in: the order of its steps, deadlines, what is held, what is counted and written down."""

import asyncio
import gc
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import pytest

from gauges import Gauges, TestBench
from libmh.call import Bound, Request, Verb
from libmh.caller import Caller
from libmh.context import Context
from libmh.dispatch import MAX_OUTSTANDING, Dispatcher, Objects
from libmh.errors import (
    BackendFailed,
    Internal,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
    Timeout,
    Unavailable,
)
from libmh.events import Event
from libmh.guard import Guard
from libmh.spec import Interface, Kind, Member, interface_of
from waiting import eventually

NAME = "org.example.Gauges"
GAUGES = interface_of(Gauges)
SOMEBODY = Caller("test", "CN=some\nbody", 1000)


@pytest.fixture
def bench() -> Iterator[TestBench]:
    made = TestBench()
    yield made
    made.gate.set()


class Gatekeeper:
    """Refuses what it is told to, and remembers who asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.asked: list[tuple[str | None, dict[str, str], str]] = []

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None:
        name = member.name if member else None
        self.asked.append((name, dict(await objects()), request.caller.identity))
        if name in self.refused:
            raise NotAuthorized(
                f"'{interface.name}.{name}' is not for you", action=f"{interface.name}.{name}"
            )


def dispatcher(
    bench: TestBench, gatekeeper: Gatekeeper | None = None, guard: Guard | None = None
) -> Dispatcher:
    return Dispatcher({NAME: Bound(GAUGES, bench)}, Context(), gatekeeper, guard or Guard())


def asked(member: str, *arguments: Any, verb: Verb = Verb.CALL, **more: Any) -> Request:
    return Request(NAME, member, verb, arguments, SOMEBODY, **more)


def read(member: str, **more: Any) -> Request:
    return asked(member, verb=Verb.GET, **more)


ALL = Request(NAME, verb=Verb.GET_ALL)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("request_", "error", "asked_for"),
    [
        (Request("org.example.Other", "wipe"), NotFound, 0),
        (asked("wipe", "sda", version="2.0"), NotImplementedHere, 0),
        (asked("nothing"), NotFound, 0),
        (asked("wipe", 5), InvalidArguments, 0),
        (asked("wipe", "sda"), NotAuthorized, 1),
        (asked("level", "x", verb=Verb.SET), InvalidArguments, 0),
        (asked("level", 5, verb=Verb.SET), NotAuthorized, 1),
        (read("nothing"), NotFound, 0),
    ],
)
def test_each_step_comes_after_the_one_before(
    bench: TestBench, request_: Request, error: type[Exception], asked_for: int
) -> None:
    async def work() -> None:
        gatekeeper = Gatekeeper("wipe", "level")
        with pytest.raises(error):
            await dispatcher(bench, gatekeeper).call(request_)
        assert len(gatekeeper.asked) == asked_for

    run(work)
    assert not bench.reads


def test_the_authority_learns_what_is_acted_on(bench: TestBench) -> None:
    async def work() -> None:
        gatekeeper = Gatekeeper()
        own = dispatcher(bench, gatekeeper)
        await own.call(asked("wipe", "sda"))
        await own.call(read("fresh"))
        await own.call(ALL)
        who = SOMEBODY.identity
        assert gatekeeper.asked == [("wipe", {"disk": "sda"}, who), ("fresh", {}, who), (None, {}, "local")]

    run(work)


class Disks(TestBench):
    """A provider that knows its disks under several names."""

    problem: Exception | None = None

    def canonical(self, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
        if self.problem is not None:
            raise self.problem
        return {name: f"{member} {value.lower()}" for name, value in objects.items()}


def test_the_authority_learns_the_names_that_the_host_has() -> None:
    async def work() -> None:
        bench, gatekeeper = Disks(), Gatekeeper()
        own = dispatcher(bench, gatekeeper)
        await own.call(asked("wipe", "SDA"))
        assert gatekeeper.asked == [("wipe", {"disk": "wipe sda"}, SOMEBODY.identity)]
        assert bench.reads["wipe SDA"] == 1
        for problem, met in ((Timeout("no"), Timeout), (ValueError("bug"), Internal)):
            bench.problem = problem
            with pytest.raises(met):
                await own.call(asked("wipe", "SDA"))
        assert (len(gatekeeper.asked), bench.reads["wipe SDA"]) == (1, 1)
        await dispatcher(bench).call(asked("wipe", "SDA"))  # nobody looks at names here

    run(work)


def test_what_changes_is_written_down_whatever_comes_of_it(
    bench: TestBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        own = dispatcher(bench, Gatekeeper("level"))
        await own.call(asked("wipe", "sda", id="one\ntwo"))
        await own.call(asked("measure", "sda"))
        for refused in (
            asked("wipe", "sdb", "fail"),
            asked("wipe", "sdc", "bug"),
            asked("level", 5, verb=Verb.SET),
        ):
            with pytest.raises((BackendFailed, Internal, NotAuthorized)):
                await own.call(refused)

    caplog.set_level(logging.INFO, "libmh.audit")
    bench.gate.set()
    run(work)
    lines = [r.getMessage() for r in caplog.records if r.name == "libmh.audit"]
    who = r"by test 'CN=some\nbody' (uid 1000)"
    assert lines[0] == rf"call {NAME}.wipe {{'disk': 'sda'}} {who}: done, request 'one\ntwo'"
    assert [re.sub(r", request .*", "", line) for line in lines[1:]] == [
        f"call {NAME}.wipe {{'disk': 'sdb'}} {who}: backend-failed",
        f"call {NAME}.wipe {{'disk': 'sdc'}} {who}: failed",
        f"set {NAME}.level {{}} {who}: not-authorized",
    ]


def test_a_bug_is_told_by_an_id_and_written_down_under_it(
    bench: TestBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        with pytest.raises(Internal) as met:
            await dispatcher(bench).call(asked("wipe", "sda", "bug"))
        number = met.value.details["id"]
        assert number in met.value.message
        assert "a bug" not in met.value.message
        [record] = [r for r in caplog.records if r.name == "libmh.call"]
        assert number in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)

    run(work)


def test_deadlines_are_the_members_or_the_callers_if_shorter(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        with pytest.raises(Timeout, match=r"did not answer within 0\.2 s"):
            await own.call(asked("measure", "sda", deadline=60.0))
        for deadline in (0.05, 0.0, -1.0, float("nan")):
            with pytest.raises(Timeout, match=r"within 0\.05 s|within 0\.001 s"):
                await own.call(asked("measure", f"disk {deadline}", deadline=deadline))

    run(work)


def test_a_source_that_hangs_costs_one_thread_and_is_refused_at_once(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        calls = [own.call(asked("measure", "sda")) for _ in range(30)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Timeout}
        assert own.counts().stuck == 1
        assert bench.reads["measure sda"] == 1
        with pytest.raises(Timeout, match="has not come back"):
            await own.call(asked("measure", "sda", deadline=60.0))
        assert await own.call(asked("wipe", "sda")) is None
        bench.gate.set()
        await eventually(lambda: own.counts().stuck == 0)
        assert await own.call(asked("measure", "sda")) == 1

    run(work)


def test_long_work_keeps_nobody_else_waiting(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        formatting = [asyncio.ensure_future(own.call(asked("format", f"disk {n}"))) for n in range(40)]
        formatting += [asyncio.ensure_future(own.call(asked("format", "one disk"))) for _ in range(3)]
        await eventually(lambda: bench.reads["format disk 39"] == 1)
        await eventually(lambda: bench.reads["format one disk"] == 3)
        assert await own.call(read("fresh")) == 1
        bench.gate.set()
        assert await asyncio.gather(*formatting) == [1] * 43

    run(work)


def test_a_property_that_hangs_costs_its_own_value_only(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for _ in range(3):
            answer = await own.call(ALL)
            assert isinstance(answer, dict)
            assert sorted(answer) == ["built", "counter", "fresh", "level"]
        assert bench.reads["slow"] == 1
        with pytest.raises(Timeout, match=r"'org\.example\.Gauges\.slow'"):
            await own.call(read("slow"))

    run(work)


def test_a_reader_with_a_short_deadline_leaves_the_reading_to_the_others(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        patient = asyncio.ensure_future(own.call(read("slow")))
        await eventually(lambda: bench.reads["slow"] == 1)
        with pytest.raises(Timeout, match=r"within 0\.01 s"):
            await own.call(read("slow", deadline=0.01))
        bench.gate.set()
        assert await patient == 1
        assert bench.reads["slow"] == 1

    run(work)


def test_one_reading_answers_all_who_ask_meanwhile(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        readers = [asyncio.ensure_future(own.call(read("slow"))) for _ in range(40)]
        await eventually(lambda: bench.reads["slow"] == 1)
        readers[0].cancel()
        bench.gate.set()
        assert await asyncio.gather(*readers[1:]) == [1] * 39
        assert bench.reads["slow"] == 1

    run(work)


def test_values_are_held_as_long_as_they_are_declared_to_be(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for name in ("built", "level", "fresh", "counter"):
            for _ in range(3):
                await own.call(read(name))
        assert bench.reads == {"built": 1, "level": 1, "fresh": 3, "counter": 3}

    run(work)


def test_what_cannot_be_read_is_not_tried_again_at_once(
    bench: TestBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for name, error in (("broken", BackendFailed), ("unknown", NotFound)):
            for _ in range(3):
                with pytest.raises(error):
                    await own.call(read(name))
            assert bench.reads[name] == 1
        monkeypatch.setattr("libmh.readings.FAILURE_SECONDS", 0.0)
        again = dispatcher(bench)
        for _ in range(3):
            with pytest.raises(BackendFailed):
                await again.call(read("broken"))
        assert bench.reads["broken"] == 4

    run(work)


def test_an_optional_value_that_is_absent_is_not_found(bench: TestBench) -> None:
    async def work() -> None:
        with pytest.raises(NotFound, match=f"'{NAME}.unknown' is not known on this host"):
            await dispatcher(bench).call(read("unknown"))

    run(work)


def test_what_is_set_is_announced_and_read_from_then_on(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        seen: list[Event] = []
        own.context.events.subscribe(seen.append)
        assert await own.call(read("level")) == 1
        assert await own.call(asked("level", 7, verb=Verb.SET)) is None
        assert await own.call(read("level")) == 7
        assert [(event.interface, event.member, event.fields) for event in seen] == [
            (NAME, "", {"level": 7})
        ]

    run(work)


def test_a_reading_that_began_before_a_change_is_not_believed(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        early = asyncio.ensure_future(own.call(read("level")))
        await asyncio.sleep(0)
        bench.now = 5
        own.context.events.changed(Gauges, level=5)
        await early
        assert await own.call(read("level")) == 5
        assert bench.reads["level"] == 2

    run(work)


def test_a_bug_in_one_property_leaves_the_others(bench: TestBench, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        bench.gate.set()
        answer = await dispatcher(bench).call(ALL)
        assert isinstance(answer, dict)
        assert sorted(answer) == ["built", "counter", "fresh", "level", "slow"]
        with pytest.raises(Internal):
            await dispatcher(bench).call(read("buggy"))

    run(work)
    assert sum("internal error" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("member", ["fresh", "counter", "wipe", "reset"])
@pytest.mark.parametrize(
    "raised",
    [
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        StopIteration,
        StopAsyncIteration,
        asyncio.CancelledError,
        futures.CancelledError,
    ],
)
def test_what_would_end_the_loop_is_a_bug_of_the_provider(member: str, raised: type[BaseException]) -> None:
    class Leaving(TestBench):
        def _read(self, name: str) -> int:
            raise raised(name)

    async def work() -> None:
        own = dispatcher(Leaving())
        arguments = ("sda",) if member == "wipe" else ()
        kind = GAUGES.members[member].kind
        verb = Verb.GET if kind is Kind.PROPERTY else Verb.CALL
        with pytest.raises(Internal):
            await asyncio.wait_for(own.call(asked(member, *arguments, verb=verb)), 1)
        answer = await own.call(ALL)
        assert answer == {}
        assert own.counts().outstanding == 0

    run(work)


def test_memory_answers_at_once(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for name in ("level", "fresh", "unknown", "broken"):
            with pytest.raises(LookupError):
                own.answer_now(read(name))
        await own.call(read("level"))
        assert own.answer_now(read("level")) == 1
        assert own.answer_now(read("counter")) == 1
        with pytest.raises(LookupError):
            own.answer_now(ALL)
        assert own.counts().answered == 3

    run(work)


def test_nothing_but_a_property_is_answered_at_once(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for request in (read("reset"), asked("reset"), read("wipe"), asked("level", 5, verb=Verb.SET)):
            with pytest.raises(LookupError):
                own.answer_now(request)
        with pytest.raises(LookupError):
            own.answer_now(Request("org.example.Other", "x", Verb.GET))
        assert not bench.reads

    run(work)


def test_a_draining_agent_refuses_and_finishes(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        under_way = asyncio.ensure_future(own.call(read("slow")))
        await eventually(lambda: bench.reads["slow"] == 1)
        ending = asyncio.ensure_future(own.drain(5))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="this agent is shutting down"):
            await own.call(read("fresh"))
        with pytest.raises(LookupError):
            own.answer_now(read("counter"))
        bench.gate.set()
        assert await ending
        assert await under_way == 1

    run(work)


def test_draining_ends_when_its_time_is_over(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        under_way = asyncio.ensure_future(own.call(asked("measure", "sda")))
        await eventually(lambda: bench.reads["measure sda"] == 1)
        assert not await own.drain(0.02)
        with pytest.raises(Timeout):
            await under_way

    run(work)


def test_everything_is_counted(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench, Gatekeeper("wipe"))
        await own.call(read("fresh"))
        for request, error in (
            (read("broken"), BackendFailed),
            (read("buggy"), Internal),
            (asked("wipe", "sda"), NotAuthorized),
        ):
            with pytest.raises(error):
                await own.call(request)
        calling = asyncio.ensure_future(own.call(asked("measure", "sda")))
        await eventually(lambda: bench.reads["measure sda"] == 1)
        counts = own.counts()
        assert (counts.answered, counts.failed, counts.denied, counts.outstanding) == (1, 2, 1, 1)
        bench.gate.set()
        await calling
        assert (own.counts().answered, own.counts().outstanding) == (2, 0)

    run(work)


def test_calls_under_way_are_bounded(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        under_way = [asyncio.ensure_future(own.call(read("slow"))) for _ in range(MAX_OUTSTANDING)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="calls are outstanding"):
            await own.call(read("slow"))
        bench.gate.set()
        await asyncio.gather(*under_way)
        assert await own.call(read("fresh")) == 1

    run(work)


def test_a_cancelled_caller_is_not_outstanding(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        calling = asyncio.ensure_future(own.call(asked("measure", "sda")))
        await eventually(lambda: bench.reads["measure sda"] == 1)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        assert own.counts().outstanding == 0
        bench.gate.set()
        assert await own.call(asked("measure", "sda")) == 1

    run(work)


def test_failures_leave_nothing_behind(bench: TestBench) -> None:
    async def work() -> None:
        own = dispatcher(bench)
        for _ in range(50):
            with pytest.raises(BackendFailed):
                await own.call(read("broken"))
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(500):
            with pytest.raises(BackendFailed):
                await own.call(read("broken"))
        gc.collect()
        assert len(gc.get_objects()) - before < 200

    run(work)
