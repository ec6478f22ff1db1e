"""When a request is run and when not: repetition, expiry, malformed bytes, limits."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqp_serving import (
    EVERYBODY,
    TOY,
    CountingToy,
    ask,
    asking,
    code,
    request,
    toys,
    value,
    with_agent,
)
from libmh.caller import Caller
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import Problem
from mh_amqp import codec, direct, messages, status, types
from mh_amqp.asking import Asker
from mh_amqp.management import Management
from mh_amqp.messages import Message
from mh_amqp.record import Record, key_of, lifetime
from waiting import eventually

SURROGATES = st.text(st.characters(), max_size=5)


def test_a_repeated_request_is_answered_from_the_record(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        message = request("strike", body={"what": "once"}, ttl=5000)
        first, again = await ask(console, message), await ask(console, message)
        assert value(first) == value(again) == {"count": 1}
        assert agent.toy.calls["strike"] == 1
        assert value(await ask(console, request("strike", body={"what": "once"}))) == {"count": 2}

    with_agent(tmp_path, check)


def test_a_copy_that_comes_while_the_first_runs_waits_for_its_answer(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        message = request("strike_slowly", ttl=5000)
        async with asking(agent.listener.port, "another") as other:
            first = asyncio.create_task(ask(console, message))
            await eventually(lambda: agent.toy.calls["strike_slowly"])
            second = asyncio.create_task(ask(other, message))
            await eventually(lambda: agent.served.intake.record.repeated)
            agent.toy.gate.set()
            assert value(await first) == value(await second) == {"result": 1}
        assert agent.toy.calls["strike_slowly"] == 1

    with_agent(tmp_path, check)


def test_short_ids_of_two_clients_are_two_requests(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        message = request("strike", body={"what": "x"}, message_id=codec.ulong(0), ttl=5000)
        async with asking(agent.listener.port, "another") as other:
            assert value(await ask(console, message)) == {"count": 1}
            assert value(await ask(other, message)) == {"count": 2}
            assert value(await ask(console, message)) == {"count": 1}

    with_agent(tmp_path, check)


class Given:
    """A delivery, and what became of it."""

    def __init__(self, message: Message) -> None:
        self.raw = messages.encode(message)
        self.became: list[str] = []

    def release(self) -> None:
        self.became.append("released")

    def accept(self) -> None:
        self.became.append("accepted")


@pytest.mark.parametrize(("shared", "became"), [(True, ["released"]), (False, ["accepted"])])
def test_who_ends_leaves_what_comes_to_those_who_serve_the_same(
    tmp_path: Path, shared: bool, became: list[str]
) -> None:
    async def check(agent: Any, console: Asker) -> None:
        intake = agent.served.intake
        intake.shared = shared
        await intake.stop(0)
        given: Any = Given(request("strike", body={"what": "late"}))
        intake.take(given, next(iter(intake.nodes)), lambda _message: "somebody", lambda _to, _raw: None)
        await eventually(lambda: given.became)
        assert given.became == became
        assert agent.toy.calls["strike"] == 0

    with_agent(tmp_path, check)


def test_the_record_is_bounded_by_count_bytes_and_age() -> None:
    now = 1000.0
    record = Record(max_entries=10, max_bytes=100_000, clock=lambda: now)
    given: list[status.Answer] = []
    answer = status.Answer((), b"x" * 1000)
    for number in range(30):
        assert record.begin(number, given.append)
        record.finish(number, answer, 60)
    assert len(record) == 10
    assert not record.begin(29, given.append)
    assert record.begin(0, given.append)
    record.finish(0, status.Answer((), b"x" * 99_000), 60)
    assert len(record) == 1
    now += 61
    assert record.begin(0, given.append)
    assert record.begin(None, given.append)


def test_an_answer_is_kept_as_long_as_the_request_lives() -> None:
    assert lifetime(Message(), reads=True) == 0
    assert lifetime(Message(), reads=False) == 60
    assert lifetime(Message(ttl=5000), reads=True) == 5
    assert lifetime(Message(properties={"mh:deadline": 7000}), reads=False) == 7
    assert lifetime(Message(ttl=2**32 - 1), reads=False) == 300


def test_requests_differ_by_caller_id_and_content() -> None:
    base = request("strike", body={"what": "x"})
    assert key_of(base, "a") == key_of(replace(base, reply_to="elsewhere"), "a")
    others = [(base, "b"), (replace(base, value=codec.NULL), "a"), (request("strike"), "a")]
    assert len({key_of(base, "a"), *(key_of(message, who) for message, who in others)}) == 4
    assert key_of(Message(), "a") is None


def test_what_has_expired_or_cannot_be_answered_is_not_run(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        sent = [
            request("strike", body={"what": "late"}, expiry=int(time.time() * 1000) - 1),
            request("strike", body={"what": "late"}, ttl=0),
            request("echo"),
        ]
        for message in sent:
            console.post.standing[None].send(messages.encode(message))
        console.post.standing[None].send(messages.encode(request("strike", body={"what": "unasked"})))
        await eventually(lambda: agent.toy.calls["strike"])
        assert agent.toy.calls == {"strike": 1}
        assert (agent.served.intake.counters.expired, agent.served.intake.counters.ignored) == (2, 1)

    with_agent(tmp_path, check)


def test_what_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        for raw in (b"\xff" * 50, b"\x00\x53\x77", messages.section(0x74, codec.list_of([codec.TRUE]))):
            with pytest.raises(Problem, match="refused a message"):
                await console.post.standing[None].send_acked(raw)
        with pytest.raises(Problem, match="there is no node 'elsewhere'"):
            await console.post.standing[None].send_acked(messages.encode(request("READ", to="elsewhere")))
        assert agent.served.intake.counters.malformed == 3
        assert code(await ask(console, request("READ"))) == 200

    with_agent(tmp_path, check)


def test_a_reply_has_the_requests_correlation(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        assert console.receiver is not None
        seen: list[Message] = []
        console.receiver.on_delivery = lambda delivery: seen.append(messages.decode(delivery.raw))
        ids = [codec.ulong(0), codec.string("text"), codec.binary(b"\x01"), b"\x98" + bytes(16)]
        for identity in ids:
            asked = request("level", message_id=identity, reply_to=console.receiver.address)
            console.post.standing[None].send(messages.encode(asked))
            console.post.standing[None].send(
                messages.encode(replace(asked, correlation_id=codec.string("mine")))
            )
        await eventually(lambda: len(seen) == 8)
        assert {reply.correlation_id for reply in seen} == {*ids, codec.string("mine")}

    with_agent(tmp_path, check)


def test_an_answer_that_is_too_long_is_refused_clearly(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        many: Any = ["x" * 60_000] * 60
        assert code(await ask(console, request("echo", body={"value": many}))) == 200

        class Talker(CountingToy):
            def echo(self, value: Any = None) -> Any:
                return ["x" * 60_000] * 100

        agent.dispatcher.interfaces[TOY] = replace(agent.dispatcher.interfaces[TOY], provider=Talker())
        refused = await ask(console, request("echo"))
        assert code(refused) == 400
        assert "at most 4194304 are sent" in (refused.text("statusDescription") or "")

    with_agent(tmp_path, check)


def test_few_run_at_a_time_and_reads_go_on(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        waiting = [asyncio.create_task(ask(console, request("wait"), 10)) for _ in range(40)]
        await eventually(lambda: agent.toy.calls["wait"])
        async with asking(agent.listener.port, "another") as other:
            assert code(await ask(other, request("READ"))) == 200
        agent.toy.gate.set()
        assert {code(await each) for each in waiting} <= {200, 408}

    with_agent(tmp_path, check)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | SURROGATES,
        lambda inner: st.lists(inner) | st.dictionaries(SURROGATES, inner),
    )
)
def test_any_json_is_answered(body: Any) -> None:
    async def test() -> None:
        dispatcher = Dispatcher(toys(CountingToy()), Context(), EVERYBODY)
        node = Management(dispatcher, "")
        asked = request("split", content_type=messages.JSON)
        answer = await node.answer(replace(asked, data=json.dumps(body).encode()), Caller("amqp", "x"))
        assert code(messages.decode(answer.reply("to", b""))) in (200, 400)

    asyncio.run(test())


@pytest.mark.parametrize(
    "address",
    ["mh.report", "mh.conductor", "mh.host.another", "mh.event.org.matahariproject.Host.heartbeat"],
)
def test_no_reply_goes_where_it_would_be_taken_for_something_else(tmp_path: Path, address: str) -> None:
    async def check(agent: Any, console: Asker) -> None:
        message = replace(request("strike", body={"what": "once"}), reply_to=address)
        with pytest.raises(Problem, match=f"amqp:not-allowed.*'{address}' is no place for replies"):
            await console.ask(message, 5)
        assert not agent.toy.calls

    with_agent(tmp_path, check)


def test_callers_of_one_name_do_not_share_short_ids(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        message = request("strike", body={"what": "x"}, message_id=codec.string("console-request-0001"))
        async with asking(agent.listener.port, "another") as other:
            assert value(await ask(console, message)) == {"count": 1}
            assert value(await ask(other, message)) == {"count": 2}
            assert value(await ask(console, message)) == {"count": 1}

    with_agent(tmp_path, check)


def test_an_id_counts_for_the_very_same_question_alone(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        one = request("strike", body={"what": "x"}, mh_trace="a", mh_deadline=5000)
        other = replace(one, properties={**one.properties, "mh:v": "1.0"})
        again = replace(one, properties={**one.properties, "mh:trace": "b", "mh:deadline": 4000})
        assert [value(await ask(console, each)) for each in (one, other, again)] == [
            {"count": 1},
            {"count": 2},
            {"count": 1},
        ]

    with_agent(tmp_path, check)


@pytest.mark.parametrize(
    ("name", "said", "status_code"),
    [("mh:deadline", "soon", 400), ("identity", "another", 404), ("mh:v", "9.0", 501)],
)
def test_what_memory_holds_is_asked_for_in_the_same_words(
    tmp_path: Path, name: str, said: str, status_code: int
) -> None:
    async def check(_agent: Any, console: Asker) -> None:
        for _ in range(2):
            assert code(await ask(console, request("READ"))) == 200
            assert code(await ask(console, request("READ", properties={name: said}))) == status_code

    with_agent(tmp_path, check)


def test_a_body_of_too_many_values_is_refused_before_it_is_built(tmp_path: Path) -> None:
    async def check(_agent: Any, console: Asker) -> None:
        count = 1_000_000
        size = (count + 4).to_bytes(4)
        lists = b"\xd0" + size + count.to_bytes(4) + b"\x45" * count
        array = b"\xf0" + size + (count - 1).to_bytes(4) + b"\x50" + b"\x00" * (count - 1)
        text = types.deflated(b"[" + b"{}," * count + b"{}]")
        message = request("echo")
        json_body = replace(
            message, value=None, data=text[0], content_encoding=text[1], content_type=messages.JSON
        )
        for at, bad in enumerate((replace(message, value=lists), replace(message, value=array), json_body)):
            began = time.monotonic()
            reply = await ask(console, replace(bad, message_id=codec.string(f"{at:040}")))
            assert code(reply) == 400
            assert "values" in (reply.text("statusDescription") or "")
            assert time.monotonic() - began < 20

    with_agent(tmp_path, check)


def test_attributes_asked_for_are_counted(tmp_path: Path) -> None:
    async def check(_agent: Any, console: Asker) -> None:
        reply = await ask(console, request("READ", body={"attributeNames": ["level"] * 1001}))
        assert (code(reply), reply.text("statusDescription")) == (
            400,
            "attributeNames: expected at most 1000, got 1001",
        )
        assert code(await ask(console, request("READ", body={"attributeNames": ["level"] * 1000}))) == 200

    with_agent(tmp_path, check)


def test_a_long_id_is_not_kept_as_long_as_it_is() -> None:
    def key(last: bytes) -> object:
        message = request("READ", message_id=codec.string("i" * 100_000) + last, reply_to="r" * 100_000)
        return key_of(message, "CN=" + "c" * 100_000)

    assert key(b"a") == key(b"a") != key(b"b")
    assert len(repr(key(b"a"))) < 1000


def test_consoles_that_take_no_replies_cost_a_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MAX_HELD", 10_000)

    async def check(agent: Any, console: Asker) -> None:
        links = [
            await console.connection.receiver(None, lambda _: None, dynamic=True, credit=0) for _ in range(4)
        ]
        for number in range(40):
            message = request("echo", body={"value": "x" * 1000}, reply_to=links[number % 4].address)
            console.post.standing[None].send(messages.encode(message))
        counters = agent.served.intake.counters
        await eventually(lambda: counters.unsent > 30)
        await eventually(lambda: agent.toy.calls["echo"] == 40)
        assert value(await ask(console, request("echo", body={"value": "y"}))) == {"result": "y"}

    with_agent(tmp_path, check)
