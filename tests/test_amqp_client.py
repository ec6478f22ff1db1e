"""The client half: URLs, every verb, errors, events, and a connection that does not last."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import (
    HOST,
    TOY,
    UUID,
    Toy,
    broker_agent,
    command,
    direct_agent,
    port_of,
    run,
    running_broker,
)
from libmh.api.aggregates import Aggregates
from libmh.call import Request, Verb
from libmh.client import connect as connect_blocking
from libmh.errors import (
    Conflict,
    Failed,
    Internal,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    Problem,
    Timeout,
    Unavailable,
)
from libmh.events import Event
from libmh.providers import find_interface
from libmh.spec import interface_of
from mh_amqp import client
from mh_amqp.authority import Roles
from mh_amqp.client import AmqpTransport, connect
from mh_amqp.names import event_pattern, listening_place, place
from waiting import eventually


@pytest.fixture(autouse=True)
def _toy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's declaration, as if its distribution were installed here."""
    monkeypatch.setattr(
        client, "find_interface", lambda name: interface_of(Toy) if name == TOY else find_interface(name)
    )


def asked(member: str, *arguments: Any, verb: Verb = Verb.CALL, **more: Any) -> Request:
    return Request(TOY, member, verb, arguments, **more)


def with_client(state: Path, check: Any, path: str = "", **options: Any) -> None:
    async def test() -> None:
        async with direct_agent(state, **options) as agent:
            transport = await connect(agent.url + path)
            try:
                await check(agent, transport)
            finally:
                await transport.close()

    run(test())


@pytest.mark.parametrize("path", ["", f"/{UUID}"])
def test_every_verb_crosses(tmp_path: Path, path: str) -> None:
    async def check(agent: Any, host: AmqpTransport) -> None:
        everything = {"level": 1, "born": 1_700_000_000_123_000_000, "blob": b"\x00\xff"}
        assert await host.call(asked("", verb=Verb.GET_ALL)) == everything
        assert await host.call(asked("blob", verb=Verb.GET)) == b"\x00\xff"
        assert await host.call(asked("level", 5, verb=Verb.SET)) is None
        assert await host.call(asked("level", verb=Verb.GET)) == 5
        assert await host.call(asked("split", 7)) == [3, 4]
        assert await host.call(Request(TOY, "strike", arguments={"what": "x"})) == 1
        tree = {"a": [1, 2.5, None, True, b"\x00", {"b": "ü" * 3000}]}
        assert await host.call(asked("echo", tree)) == tree
        assert await host.call(asked("echo")) is None

    with_client(tmp_path, check, path)


def test_an_answer_that_is_too_long_is_no_fault_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mh_amqp.types.MAX_INFLATED", 40)

    async def check(agent: Any, host: AmqpTransport) -> None:
        assert await host.call(asked("level", verb=Verb.GET)) == 1
        with pytest.raises(Failed, match=r"the answer of .* cannot be read: body: expected at most 40 by"):
            await host.call(asked("", verb=Verb.GET_ALL))

    with_client(tmp_path, check)


def test_an_interface_that_is_not_known_here_is_carried_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "find_interface", lambda _name: None)

    async def check(agent: Any, host: AmqpTransport) -> None:
        assert await host.call(asked("split", 7)) == [3, 4]
        assert await host.call(asked("echo", {"x": b"\x00"})) == {"x": b"\x00"}
        assert await host.call(asked("level", 6, verb=Verb.SET)) is None
        assert await host.call(asked("level", verb=Verb.GET)) == 6

    with_client(tmp_path, check)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (asked("split", "x"), InvalidArguments),
        (asked("split"), InvalidArguments),
        (asked("nothing"), NotFound),
        (asked("note", verb=Verb.GET), NotFound),
        (asked("born", 1, verb=Verb.SET), InvalidArguments),
        (asked("level", verb=Verb.SET), InvalidArguments),
        (asked("fail", "conflict"), Conflict),
        (asked("fail", "bug"), Internal),
        (asked("wait", deadline=0.05), Timeout),
        (asked("split", 1, version="2.0"), Problem),
        (Request("org.example.Nothing", "x"), NotFound),
    ],
)
def test_errors_come_back_as_themselves(tmp_path: Path, request_: Request, kind: type[Problem]) -> None:
    async def check(agent: Any, host: AmqpTransport) -> None:
        with pytest.raises(kind):
            await host.call(request_)
        assert await host.call(asked("level", verb=Verb.GET)) == 1

    with_client(tmp_path, check)


def test_who_may_not_is_told(tmp_path: Path) -> None:
    async def check(agent: Any, host: AmqpTransport) -> None:
        with pytest.raises(
            NotAuthorized, match=r"'anonymous' may not use 'org\.example\.Toy\.strike'"
        ) as caught:
            await host.call(asked("strike", "x"))
        assert caught.value.details["action"] == "org.example.Toy.strike"

    with_client(tmp_path, check, authority=Roles())


def test_another_hosts_uuid_is_not_found(tmp_path: Path) -> None:
    async def check(agent: Any, host: AmqpTransport) -> None:
        with pytest.raises(NotFound):
            await host.call(asked("level", verb=Verb.GET))

    with_client(tmp_path, check, "/another")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp:///uuid",
        "amqp://h:port",
        "amqp://h:1/a/b",
        "amqp://h:99999",
        "http://h",
        "amqp://h?x",
        "amqp://[::1",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidArguments, match="expected amqp://host:port"):
        place(url)


def test_a_url_has_parts() -> None:
    found = place("amqp://me:se%40cret@[::1]:77/abc")
    assert (found.host, found.port, found.uuid, found.user, found.password) == (
        "::1",
        77,
        "abc",
        "me",
        "se@cret",
    )
    assert found.shown == "amqp://[::1]:77/abc"
    assert place("amqp://h").port == 5672
    assert listening_place("[::1]:0") == ("::1", 0)
    for wrong in ("h", ":1", "h:x", "h:70000"):
        with pytest.raises(InvalidArguments, match="expected HOST:PORT"):
            listening_place(wrong)
    assert event_pattern("", "x") == "mh.event.#"
    assert event_pattern("a.B", "") == "mh.event.a.B.*"


def test_nobody_there_is_unavailable_at_once() -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            pass
        with pytest.raises(Unavailable, match="cannot connect"):
            await connect(f"amqp://{HOST}:{port}")

    run(test())


def test_a_broker_needs_a_uuid_and_says_how_to_find_one() -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            broker = await connect(f"amqp://{HOST}:{port}")
            with pytest.raises(
                InvalidArguments, match=rf"mhctl --on amqp://127\.0\.0\.1:{port} aggregate hosts"
            ):
                await broker.call(asked("level", verb=Verb.GET))
            with pytest.raises(Timeout):  # it goes to the conductor, and there is none
                await broker.call(Request(interface_of(Aggregates).name, "hosts", deadline=0.1))
            await broker.close()
            with pytest.raises(Unavailable):
                await broker.call(Request(interface_of(Aggregates).name, "hosts", deadline=0.1))

    run(test())


def test_a_lost_connection_is_made_again_and_nothing_runs_twice(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port), broker_agent(tmp_path, port) as agent:
            host = await connect(f"amqp://{HOST}:{port}/{UUID}")
            out = asyncio.create_task(host.call(asked("strike_slowly", deadline=10)))
            await eventually(lambda: agent.toy.calls["strike_slowly"])
            assert host._asker is not None
            host._asker.connection.abort()
            await eventually(lambda: agent.served.intake.record.repeated, 10)
            agent.toy.gate.set()
            assert await out == 1
            assert agent.toy.calls["strike_slowly"] == 1
            await host.close()

    run(test())


def test_a_broker_that_is_killed_and_comes_back_loses_no_call(tmp_path: Path) -> None:
    async def test() -> None:
        with command("mh_amqp.broker_main", "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (
            broker,
            line,
        ):
            port = port_of(line)
            async with broker_agent(tmp_path, port) as agent:
                host = await connect(f"amqp://{HOST}:{port}/{UUID}")
                out = asyncio.create_task(host.call(asked("strike_slowly", deadline=20)))
                await eventually(lambda: agent.toy.calls["strike_slowly"])
                broker.kill()
                await asyncio.to_thread(broker.wait)
                again = command(
                    "mh_amqp.broker_main", "--listen", f"{HOST}:{port}", "--state", str(tmp_path)
                )
                with again:
                    agent.toy.gate.set()
                    assert await out == 1
                    assert agent.toy.calls["strike_slowly"] == 1
                    await host.close()

    run(test(), 60)


def test_a_call_that_begins_without_a_broker_waits_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            host = await connect(f"amqp://{HOST}:{port}/{UUID}")
        out = asyncio.create_task(host.call(asked("level", verb=Verb.GET, deadline=15)))
        async with running_broker(port), broker_agent(tmp_path, port):
            assert await out == 1
            await host.close()

    run(test())


def test_a_broker_that_stays_away_is_told_in_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            host = await connect(f"amqp://{HOST}:{port}/{UUID}")
        with pytest.raises(Problem) as caught:
            await host.call(asked("level", verb=Verb.GET, deadline=0.5))
        assert caught.value.word in ("unavailable", "timeout")

    run(test())


# events


def test_events_come_as_they_were_raised(tmp_path: Path) -> None:
    async def check(agent: Any, host: AmqpTransport) -> None:
        came: list[Event] = []

        async def listen(interface: str, member: str) -> None:
            async for event in host.events(interface, member):
                came.append(event)  # noqa: PERF401 - seen while it grows

        tasks = [asyncio.create_task(listen(*names)) for names in ((TOY, "rang"), (TOY, ""), ("", ""))]
        await eventually(lambda: sum(len(p.subscriptions) for p in agent_peers(agent)) == 3)
        events = agent.dispatcher.context.events
        at = 1_700_000_000_123_000_000
        await asyncio.to_thread(events.emit, Toy.rang, times=3, at=at)
        events.changed(Toy, level=8)
        await eventually(lambda: len(came) == 5)
        rang = next(event for event in came if event.member == "rang")
        assert (rang.interface, rang.fields, rang.host) == (TOY, {"times": 3, "at": at}, UUID)
        assert [event.fields for event in came if not event.member] == [{"level": 8}] * 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await eventually(lambda: not any(p.subscriptions for p in agent_peers(agent)))

    with_client(tmp_path, check)


def agent_peers(agent: Any) -> list[Any]:
    return list(agent.served.outbox.deliver.__self__._peers.values())


def test_events_end_when_the_peer_is_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with direct_agent(tmp_path) as agent:
            host = await connect(agent.url)
            stream = host.events()
            first = asyncio.ensure_future(anext(stream))
            await eventually(lambda: any(p.subscriptions for p in agent_peers(agent)))
        with pytest.raises(Unavailable, match="the events have ended"):
            await first
        await host.close()

    run(test())


def test_only_the_named_hosts_events_come(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (broker, port), broker_agent(tmp_path, port) as agent:
            mine, other = [await connect(f"amqp://{HOST}:{port}/{uuid}") for uuid in (UUID, "another")]
            stream = mine.events(TOY)
            first = asyncio.ensure_future(anext(stream))
            silent = other.events(TOY)
            nothing = asyncio.ensure_future(anext(silent))
            await eventually(lambda: len(broker._subscribers) == 3)  # the agent hears casts
            agent.context.events.emit(Toy.rang, times=1, at=0)
            assert (await first).fields == {"times": 1, "at": 0}
            assert not nothing.done()
            nothing.cancel()
            await asyncio.wait({nothing})
            await mine.close()
            await other.close()

    run(test())


# the whole way, as a library user has it


def test_a_blocking_connection_reads_this_host(tmp_path: Path) -> None:
    from libmh.api.host import Host

    with (
        command("mh_amqp.main", "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (agent, line),
        connect_blocking(f"amqp://{HOST}:{port_of(line)}") as host,
    ):
        here = host.proxy(Host)
        assert here.memory() > 0
        assert here.operating_system().id
        assert [disk.name for disk in here.disks()] == [disk.name for disk in here.disks()]
        beat = next(iter(host.events(interface_of(Host).name, "heartbeat", timeout=15)))
        assert beat.fields["hostname"] == here.hostname()
        os.kill(agent.pid, signal.SIGKILL)
        gone = threading.Thread(target=agent.wait)
        gone.start()
        with pytest.raises(Problem) as caught:
            host.request(Request(interface_of(Host).name, "memory", Verb.GET, deadline=0.5))
        assert caught.value.word in ("unavailable", "timeout")
        gone.join()
