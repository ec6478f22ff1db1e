"""Proxies: objects that are a Host, wherever the host is; and connections that end as they should."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gauges import Gauges, TestBench
from libmh.api.host import Host
from libmh.call import Bound, Request, Verb
from libmh.client import Connection, connect, proxy
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import (
    BackendFailed,
    Failed,
    Internal,
    InvalidArguments,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)
from libmh.events import Event
from libmh.local import LocalConnection
from libmh.providers import shipped_interfaces
from libmh.remote import AsyncConnection, BlockingConnection, open_transport
from libmh.spec import Interface, Kind, Plain, interface_of
from libmh.testing import Loopback, conforming, loopback, unanswered
from probe import OUTER, Colour, Probe, ProbeHost
from waiting import wait_for

GIVEN = (True, 255, 65535, 2**32 - 1, 2**64 - 1, -1, -1, -(2**63), 0.5, "t", b"r", 8)


@pytest.fixture
def bench() -> Iterator[TestBench]:
    made = TestBench()
    yield made
    made.gate.set()


@pytest.fixture
def connection(bench: TestBench) -> Iterator[BlockingConnection]:
    context = Context()
    with loopback(ProbeHost(context), bench, context=context) as made:
        yield made


def recorded(protocol: type, answer: Plain = None) -> tuple[Any, list[Request]]:
    asked: list[Request] = []

    def ask(request: Request) -> Plain:
        asked.append(request)
        return answer

    return proxy(protocol, ask), asked


@pytest.mark.parametrize("declared", shipped_interfaces(), ids=lambda declared: declared.short)
def test_a_proxy_is_what_it_stands_for(declared: Interface) -> None:
    made, asked = recorded(declared.protocol)
    assert isinstance(made, declared.protocol)
    assert interface_of(type(made)) is declared
    assert unanswered(type(made)) == []
    assert type(made) is type(recorded(declared.protocol)[0])
    assert asked == []


@pytest.mark.parametrize("declared", shipped_interfaces(), ids=lambda declared: declared.short)
def test_every_member_becomes_its_request(declared: Interface) -> None:
    for member in declared.members.values():
        made, asked = recorded(declared.protocol)
        if member.kind is Kind.PROPERTY:
            with pytest.raises(Failed):
                getattr(made, member.attribute)()
            assert (asked[0].interface, asked[0].member, asked[0].verb) == (
                declared.name,
                member.name,
                Verb.GET,
            )
        elif member.kind is Kind.METHOD and any(argument.required for argument in member.arguments):
            with pytest.raises(InvalidArguments, match="is missing"):
                getattr(made, member.attribute)()
            assert asked == []


def test_a_host_is_reached_like_an_object(connection: Connection) -> None:
    here = connection.proxy(Probe)
    assert here.scalars(*GIVEN) == GIVEN
    assert here.shapes(["a"], {"b": 1}, OUTER, Colour.RED, None, {"k": [1]}) == (
        *(["a"], {"b": 1}, OUTER, Colour.RED, None, {"k": [1]}),
    )
    assert here.outer() == OUTER
    here.set_number(7)
    here.set_number(value=8)
    assert here.number() == 8
    assert here.guarded(unit="u", value="v", key="k") == "u k v"
    assert here.guarded("u", key="k", value="v") == "u k v"


def test_an_absent_value_is_none_again(connection: Connection) -> None:
    here = connection.proxy(Probe)
    assert here.maybe() is None
    here.set_maybe("x")
    assert here.maybe() == "x"
    here.set_maybe(None)
    assert here.maybe() is None
    with pytest.raises(NotFound, match="no interface"), loopback(TestBench()) as other:
        other.proxy(Probe).maybe()


def test_a_default_is_the_hosts(connection: Connection, bench: TestBench) -> None:
    made, asked = recorded(Gauges)
    made.wipe("sda")
    assert asked[0].arguments == {"disk": "sda"}
    connection.proxy(Gauges).wipe("sda")
    assert bench.reads["wipe sda"] == 1


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda here: here.gauge(1), "gauge: a property takes no arguments"),
        (lambda here: here.set_number(), "number: expected one value, got 0"),
        (lambda here: here.set_number(1, 2), "number: expected one value, got 2"),
        (lambda here: here.set_number(True), "number: expected u32, got True"),
        (lambda here: here.set_number(amount=1), "there is no argument 'amount'"),
        (lambda here: here.guarded("u", "k"), "value: is missing"),
        (lambda here: here.guarded("u", "k", "v", "w"), "guarded: takes 3 arguments, got 4"),
        (lambda here: here.guarded("u", "k", "v", unit="u"), "no further argument 'unit'"),
        (lambda here: here.guarded("u", "k", "v", more=1), "there is no argument 'more'"),
        (lambda here: here.guarded("u\0", "k", "v"), "unit: expected a string without NUL"),
        (lambda here: here.blob(2**32), "kib: expected u32"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_leaves(use: Callable[[Any], Any], says: str) -> None:
    made, asked = recorded(Probe)
    with pytest.raises(InvalidArguments, match=says):
        use(made)
    assert asked == []


def test_problems_arrive_as_they_were_raised(connection: Connection) -> None:
    here = connection.proxy(Probe)
    with pytest.raises(BackendFailed, match="as asked: backend-failed"):
        here.fail("backend-failed")
    with pytest.raises(Problem, match="internal error") as met:
        here.fail("nothing known")
    assert met.value.word == "internal"


def test_the_caller_does_not_wait_longer_than_the_deadline(connection: Connection, bench: TestBench) -> None:
    with pytest.raises(Timeout):
        connection.request(Request(interface_of(Gauges).name, "measure", Verb.CALL, ["sda"], deadline=0.05))


def test_events_come_and_end(connection: Connection) -> None:
    seen: list[Event] = []

    def listen() -> None:
        events = connection.events("org.example.Probe")
        seen.extend(event for _, event in zip(range(2), events, strict=False))

    listener = threading.Thread(target=listen)
    listener.start()

    def both() -> bool:
        connection.proxy(Probe).announce(OUTER, None)
        return len(seen) >= 2

    wait_for(both)
    listener.join(5)
    assert {event.member for event in seen} == {"announced"}
    with pytest.raises(Timeout):
        next(connection.events("org.example.Nothing", timeout=0.02))


def test_a_closed_connection_says_so() -> None:
    made = loopback(ProbeHost())
    made.close()
    made.close()
    with pytest.raises(Unavailable, match="this connection is closed"):
        made.proxy(Probe).gauge()


def test_closing_ends_who_still_waits() -> None:
    made = loopback(ProbeHost())
    met: list[BaseException] = []

    def listen() -> None:
        try:
            next(made.events())
        except (Problem, StopIteration, asyncio.CancelledError) as error:
            met.append(error)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    before = threading.active_count()
    made.close()
    wait_for(lambda: threading.active_count() < before)
    listener.join(5)
    assert not listener.is_alive()


@pytest.mark.parametrize("url", ["", "nowhere:", "http://host", "Host", "amqp", "://"])
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        connect(url)
    assert refused.value.details["argument"] == "url"


def test_a_transport_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmh.remote.TRANSPORTS", {"amqp": "libmh.nothing_of_that_name"})
    with pytest.raises(NotImplementedHere, match=r"pip install 'matahari\[amqp\]'"):
        asyncio.run(open_transport("amqp://host"))


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    for url in (f"unix:path={tmp_path}/none", "amqp://127.0.0.1:1"):
        with pytest.raises((Unavailable, Timeout)):
            connect(url)


def test_the_same_for_asyncio(bench: TestBench) -> None:
    async def work() -> None:
        context = Context()
        providers = {interface_of(type(each)).name: each for each in (ProbeHost(context), bench)}
        bound = {name: Bound(interface_of(type(each)), each) for name, each in providers.items()}
        async with asyncio.timeout(10), AsyncConnection(Loopback(Dispatcher(bound, context))) as here:
            probe: Any = Probe
            assert await here.call(probe.outer) == OUTER
            assert await here.call(probe.guarded, "u", key="k", value="v") == "u k v"
            assert await here.call(probe.set_number, 9) is None
            assert await here.call(probe.number) == 9
            assert await here.call(probe.maybe) is None
            answer = await here.request(Request(interface_of(Gauges).name, "level", Verb.GET))
            assert answer == 1

    asyncio.run(work())


def test_local_is_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    with connect("local:") as here:
        host = here.proxy(Host)
        assert host.memory() > 0
        assert host.hostname()
        host.set_update_interval(77)
        with pytest.raises(InvalidArguments, match="update_interval: expected u32"):
            host.set_update_interval(-1)
        everything = here.request(Request(interface_of(Host).name, verb=Verb.GET_ALL))
        assert isinstance(everything, dict)
        assert everything["update_interval"] == 77
        with pytest.raises(NotFound, match="no interface"):
            here.request(Request("org.example.Nothing", "x", Verb.GET))
    assert connect().proxy(Host).update_interval() == 77


def test_local_goes_through_the_same_steps(bench: TestBench) -> None:
    with LocalConnection(Context()) as here:
        here._bound[interface_of(Gauges).name] = Bound(interface_of(Gauges), bench)
        gauges = here.proxy(Gauges)
        assert gauges.level() == 1
        assert gauges.unknown() is None
        with pytest.raises(BackendFailed):
            gauges.broken()
        with pytest.raises(Internal, match="internal error"):
            gauges.buggy()
        with pytest.raises(Timeout):
            gauges.measure("sda")
        with pytest.raises(Timeout, match="has not come back"):
            gauges.measure("sda")
        with pytest.raises(Timeout):
            next(here.events(timeout=0.02))


def test_the_checks_for_providers_find_what_is_wrong() -> None:
    class Lazy(Gauges):
        """Answers one thing, and that wrongly."""

        def level(self) -> int:
            return -1

    lazy: Any = Lazy
    assert "level" not in unanswered(lazy)
    assert {"built", "set_level", "wipe"} <= set(unanswered(lazy))
    with pytest.raises(InvalidArguments):
        conforming(lazy())
    assert unanswered(ProbeHost) == []
    assert conforming(ProbeHost())["number"] == 1


def test_local_leaves_out_what_hangs_and_answers_the_rest(bench: TestBench) -> None:
    with LocalConnection(Context()) as here:
        name = interface_of(Gauges).name
        here._bound[name] = Bound(interface_of(Gauges), bench)
        for _ in range(2):
            answer = here.request(Request(name, verb=Verb.GET_ALL))
            assert isinstance(answer, dict)
            assert sorted(answer) == ["built", "counter", "fresh", "level"]
        assert bench.reads["slow"] == 1
        bench.gate.set()
        wait_for(lambda: "slow" in dict(here.request(Request(name, verb=Verb.GET_ALL))))  # type: ignore[arg-type]
