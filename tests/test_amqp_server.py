"""The management node: what it answers, when it runs something, and what it survives."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proton import Message as Foreign
from proton.utils import BlockingConnection, SyncRequestResponse

from amqp_serving import (
    EVERYBODY,
    HOST,
    SOURCE,
    TOY,
    UUID,
    CountingToy,
    Toy,
    ask,
    asking,
    broker_agent,
    code,
    command,
    direct_agent,
    everything,
    port_of,
    request,
    run,
    running_broker,
    value,
    with_agent,
)
from libmh.call import Request, Verb
from libmh.caller import Caller
from libmh.dispatch import no_objects
from libmh.errors import PROBLEMS, InvalidArguments, NotAuthorized, NotFound, Problem
from libmh.providers import shipped_interfaces
from libmh.spec import Access, Interface, Kind, Member, interface_of
from mh_amqp import codec, messages, server, status, types
from mh_amqp.asking import Asker
from mh_amqp.authority import Roles, roles
from mh_amqp.messages import Message
from mh_amqp.names import MANAGEMENT, host_address
from mh_amqp.record import key_of
from waiting import eventually


def test_a_read_gives_every_property_with_its_width(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        reply = await ask(console, request("READ"))
        assert code(reply) == reply.number("status-code") == 200
        assert reply.text("mh:host") == UUID
        assert value(reply) == {"level": 1, "born": 1_700_000_000_123_000_000, "blob": b"\x00\xff"}
        assert reply.value is not None
        assert codec.ulong(1) not in reply.value
        assert codec.string("level") + codec.uint(1) in reply.value
        some = await ask(console, request("READ", body={"attributeNames": ["level"]}))
        assert value(some) == {"level": 1}
        assert value(await ask(console, request("level"))) == {"level": 1}

    with_agent(tmp_path, check)


def test_calls_take_a_map_or_a_list_and_give_named_results(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        assert value(await ask(console, request("split", body={"value": 7}))) == {"low": 3, "high": 4}
        assert value(await ask(console, request("split", body=[7]))) == {"low": 3, "high": 4}
        assert value(await ask(console, request("echo", body={"value": [1, "a", None]}))) == {
            "result": [1, "a", None]
        }
        assert value(await ask(console, request("echo"))) == {}

    with_agent(tmp_path, check)


def test_an_update_sets_all_or_nothing(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        assert value(await ask(console, request("UPDATE", body={"level": 9}))) == {"level": 9}
        assert agent.toy.held == 9
        for body in ({"level": 3, "born": 1}, {"level": 3, "nothing": 1}, {"level": 3, "echo": 1}):
            refused = await ask(console, request("UPDATE", body=body))
            assert code(refused) in (400, 404)
        assert agent.toy.held == 9
        assert agent.toy.calls["set_level"] == 1
        assert code(await ask(console, request("UPDATE"))) == 400

    with_agent(tmp_path, check)


def test_json_in_json_out_deflated_when_long(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        asked = request("echo", content_type=messages.JSON)
        short = await ask(console, replace(asked, data=b'{"value":{"$bytes":"AP8="}}'))
        assert (short.content_type, short.content_encoding) == (messages.JSON, None)
        assert short.data == b'{"result":{"$bytes":"AP8="}}'
        data, encoding = types.deflated(types.dump_json({"value": "x" * 5000}))
        long = await ask(
            console, replace(asked, message_id=codec.ulong(1), data=data, content_encoding=encoding)
        )
        assert long.content_encoding == "deflate"
        assert types.load_json(types.inflated(long.data or b"", "deflate")) == {"result": "x" * 5000}
        read = await ask(console, request("READ", content_type=messages.JSON, data=b""))
        assert types.load_json(read.data or b"")["blob"] == "AP8="

    with_agent(tmp_path, check)


def test_the_node_describes_itself(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        node = "org.amqp.management"
        rows = value(await ask(console, request("QUERY", node)))
        assert rows["attributeNames"] == ["name", "type", "identity", "version", "summary"]
        assert rows["results"][0][:4] == [UUID, TOY, UUID, "1.2"]
        columns = {"attributeNames": ["level", "type", "no-such"]}
        some = await ask(
            console, request("QUERY", node, columns, properties={"entityType": TOY, "count": 5})
        )
        assert value(some)["results"] == [[1, TOY, None]]
        assert some.number("count") == 1
        typed = await ask(console, request("QUERY", node, properties={"entityType": TOY}))
        assert codec.timestamp(1_700_000_000_123_000_000) in (typed.value or b"")
        json = request("QUERY", node, properties={"entityType": TOY}, content_type=messages.JSON, data=b"")
        row = types.load_json((await ask(console, json)).data or b"")["results"][0]
        assert row == [UUID, TOY, UUID, 1, 1_700_000_000_123_000_000, None, "AP8="]
        assert value(await ask(console, request("GET-TYPES", node))) == {TOY: []}
        attributes = value(await ask(console, request("GET-ATTRIBUTES", node)))
        assert attributes[TOY] == ["name", "type", "identity", "level", "born", "note", "blob"]
        operations = value(await ask(console, request("GET-OPERATIONS", node)))
        assert operations[TOY]["strike"] == ["what"]
        assert operations[TOY]["UPDATE"] == ["level"]
        assert value(await ask(console, request("GET-MGMT-NODES", node))) == []
        assert value(await ask(console, request("GET-ANNOTATIONS", node))) == {TOY: []}
        assert code(await ask(console, request("REGISTER", node))) == 501

    with_agent(tmp_path, check)


@pytest.mark.parametrize(
    ("message", "expected", "word"),
    [
        (request("no_such"), 404, "not-found"),
        (request("rang"), 404, "not-found"),
        (request("READ", "org.example.Nothing"), 404, "not-found"),
        (request("READ", properties={"name": "another"}), 404, "not-found"),
        (request("READ", properties={"identity": "another"}), 404, "not-found"),
        (request("READ", mh_v="1.3"), 501, "not-implemented"),
        (request("READ", mh_v="2.0"), 501, "not-implemented"),
        (request("READ", mh_deadline=0), 400, "invalid-arguments"),
        (request("READ", mh_deadline="soon"), 400, "invalid-arguments"),
        (request("READ", body={"attributeNames": "level"}), 400, "invalid-arguments"),
        (request("READ", body={"x": 1}), 400, "invalid-arguments"),
        (request("split", body={"value": True}), 400, "invalid-arguments"),
        (request("split", body={"value": -1}), 400, "invalid-arguments"),
        (request("split", body={}), 400, "invalid-arguments"),
        (request("split", body=[1, 2]), 400, "invalid-arguments"),
        (request("split", body="7"), 400, "invalid-arguments"),
        (request("level", body={"value": 1}), 400, "invalid-arguments"),
        (request("fail", body={"how": "conflict"}), 409, "conflict"),
        (request("fail", body={"how": "failed"}), 500, "failed"),
        (request("fail", body={"how": "bug"}), 500, "internal"),
        (request("fail", body={"how": "\0"}), 400, "invalid-arguments"),
        (request("READ", properties={"operation": 5}), 400, "invalid-arguments"),
        (request("READ", properties={"type": ["x"]}), 400, "invalid-arguments"),
        (request("wait", mh_deadline=50), 408, "timeout"),
        (request("note"), 404, "not-found"),
    ],
)
def test_a_refusal_has_its_status_and_word(
    tmp_path: Path, message: Message, expected: int, word: str
) -> None:
    async def check(agent: Any, console: Asker) -> None:
        reply = await ask(console, message)
        assert (code(reply), reply.text("mh:error")) == (expected, word)
        assert reply.text("statusDescription")
        assert status.problem_of(reply) is not None
        assert code(await ask(console, request("READ"))) == 200

    with_agent(tmp_path, check)


def test_details_of_a_refusal_cross(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        problem = status.problem_of(await ask(console, request("split", body={"value": "x"})))
        assert problem is not None
        assert problem.details == {"argument": "value"}
        json = replace(request("split"), content_type=messages.JSON, data=b'{"value":1,"more":2}')
        problem = status.problem_of(await ask(console, json))
        assert problem is not None
        assert problem.details == {"argument": "more"}

    with_agent(tmp_path, check)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_problem_comes_back_as_itself(kind: type[Problem]) -> None:
    for form in status.Form:
        raw = status.refusal(kind("what happened", key="value"), "h", form).reply("to", codec.ulong(0))
        again = status.problem_of(messages.decode(raw))
        assert type(again) is kind
        assert again.message == "what happened"
        assert again.details == {"key": "value"}


def test_a_reply_without_our_words_is_a_problem_all_the_same() -> None:
    for status_code, word in (
        (404, "not-found"),
        (401, "not-authorized"),
        (418, "failed"),
        (None, "failed"),
    ):
        reply = Message(properties={} if status_code is None else {"status-code": status_code})
        problem = status.problem_of(reply)
        assert problem is not None
        assert problem.word == word
    assert status.problem_of(Message(properties={"statusCode": 204})) is None


# who may


def test_roles_decide(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        assert code(await ask(console, request("READ"))) == 200
        assert code(await ask(console, request("echo"))) == 200
        refused = await ask(console, request("strike", body={"what": "a bell"}))
        assert (code(refused), refused.text("mh:error")) == (403, "not-authorized")
        assert refused.text("statusDescription") == "'anonymous' may not use 'org.example.Toy.strike'"
        assert code(await ask(console, request("UPDATE", body={"level": 9}))) == 403
        assert agent.toy.calls["strike"] == agent.toy.calls["set_level"] == 0

    with_agent(tmp_path, check, authority=Roles())


def test_a_guest_gets_what_no_local_user_is_asked_for() -> None:
    async def allowed(interface: Interface, member: Member, verb: Verb) -> bool:
        asked = Request(interface.name, member.name, verb, (), Caller("amqp", "anonymous"))
        try:
            await Roles().authorise(asked, interface, member, no_objects)
        except NotAuthorized:
            return False
        return True

    for interface in shipped_interfaces():
        for member in interface.of(Kind.METHOD):
            assert asyncio.run(allowed(interface, member, Verb.CALL)) == (member.access is Access.OPEN), (
                member
            )
        for member in interface.of(Kind.PROPERTY):
            assert asyncio.run(allowed(interface, member, Verb.GET))
            assert not asyncio.run(allowed(interface, member, Verb.SET))


def test_nobody_is_let_in_who_is_not_named(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        for message in (request("READ"), request("echo"), request("QUERY", "org.amqp.management")):
            assert code(await ask(console, message)) == 403

    with_agent(tmp_path, check, authority=roles({"authority": {"CN=console*": "operator"}}))


def test_roles_are_patterns_and_the_first_counts() -> None:
    found = roles({"authority": {"CN=bad": "none", "CN=*": "operator", "*": "read-only"}})
    assert [found.policy.role(name) for name in ("CN=bad", "CN=good", "anonymous")] == [
        "none",
        "operator",
        "read-only",
    ]
    assert Roles().policy.role("anonymous@broker.example") is None
    for number in range(5000):
        found.may_read(f"CN={number}", interface_of(Toy))
    assert len(found._said) <= 4096


def test_a_word_that_is_no_role_is_refused() -> None:
    with pytest.raises(Problem, match="expected one of none, guest, read-only, operator, got 'root'"):
        roles({"authority": {"*": "root"}})


# at a broker


def test_an_agent_at_a_broker_serves_its_address_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port), broker_agent(tmp_path, port) as agent:
            await eventually(lambda: [s.state for s in agent.connections.list()] == ["connected"])
            async with asking(port) as console:
                reply = await ask(console, request("READ", to=host_address(UUID)))
                assert value(reply)["level"] == 1
                refused = await ask(
                    console, request("READ", "org.matahariproject.Agent", to=host_address(UUID))
                )
                assert code(refused) == 404

    run(test())


def test_stopping_finishes_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running_broker() as (broker, port),
            asking(port) as console,
            broker_agent(tmp_path, port) as agent,
        ):
            slow = request("strike_slowly", to=host_address(UUID), ttl=20_000)
            out = asyncio.create_task(ask(console, slow, 15))
            await eventually(lambda: agent.toy.calls["strike_slowly"])
            agent.process.stop.set()
            agent.toy.gate.set()
            assert value(await out) == {"result": 1}
            await agent.task
            assert [status.state for status in agent.connections.list()] == ["closed"]
            console.post.standing[None].send(
                messages.encode(request("READ", to=host_address(UUID), reply_to="x"))
            )
            await eventually(lambda: any(queue.depth for queue in broker.states()))


def test_what_does_not_end_in_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)

    async def test() -> None:
        async with (
            running_broker() as (_, port),
            asking(port) as console,
            broker_agent(tmp_path, port) as agent,
        ):
            out = asyncio.create_task(ask(console, request("strike_slowly", to=host_address(UUID)), 15))
            await eventually(lambda: agent.toy.calls["strike_slowly"])
            agent.process.stop.set()
            assert (await out).text("mh:error") == "unavailable"

    run(test())


def test_an_address_has_only_the_interfaces_that_were_given(tmp_path: Path) -> None:
    async def test() -> None:
        addresses = {"mh.conductor": [TOY], "mh.report": list[str]()}
        async with (
            running_broker() as (_, port),
            broker_agent(tmp_path, port, addresses),
            asking(port) as console,
        ):
            assert code(await ask(console, request("READ", to="mh.conductor"))) == 200
            assert code(await ask(console, request("READ", to="mh.report"))) == 404

    run(test())


# anything at all


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.just("x" * 70_000)
    | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def encodable(tree: Any) -> bytes:
    try:
        return codec.any_value(tree)
    except UnicodeEncodeError:
        return codec.NULL


def plainly(text: str) -> str:
    """As a message shows it: at most so long, on one line."""
    return str(InvalidArguments("", argument=text).details["argument"])[:250]


def test_any_arguments_at_any_member_are_answered(tmp_path: Path) -> None:
    """Every member that is declared, with whatever: refused with the argument's name, or by the provider."""
    bound = everything()
    members = [
        member
        for each in bound.values()
        for member in each.interface.members.values()
        if member.kind is not Kind.EVENT
    ]

    async def test() -> None:
        async with (
            direct_agent(tmp_path, bound, EVERYBODY) as agent,
            asking(agent.listener.port) as console,
        ):

            async def check(number: int, body: Any, as_update: bool) -> None:
                member = members[number]
                names = {argument.name for argument in member.arguments}
                asked = request("UPDATE" if as_update else member.name, member.interface)
                given = {member.name: body} if as_update else body
                reply = await ask(console, replace(asked, value=encodable(given)))
                if code(reply) == 400:
                    problem = status.problem_of(reply)
                    assert problem is not None
                    keys = list(given) if isinstance(given, dict) else []
                    known = (*names, *map(plainly, keys), member.name, "body")
                    assert problem.details["argument"].startswith(known), problem
                else:
                    assert code(reply) in (200, 404, 500)

            loop = asyncio.get_running_loop()

            @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
            @given(st.integers(0, len(members) - 1), TREES, st.booleans())
            def each(number: int, body: Any, as_update: bool) -> None:
                asyncio.run_coroutine_threadsafe(check(number, body, as_update), loop).result(10)

            await asyncio.to_thread(each)
            assert code(await ask(console, request("ping", "org.matahariproject.Agent"))) == 500

    run(test(), 120)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8) | st.sampled_from(["operation", "type", "name"]), TREES, max_size=5)
)
def test_any_envelope_is_answered_or_refused(properties: dict[str, Any]) -> None:
    async def test() -> None:
        from libmh.call import Bound
        from libmh.context import Context
        from libmh.dispatch import Dispatcher
        from mh_amqp.management import Management

        dispatcher = Dispatcher({TOY: Bound(interface_of(Toy), CountingToy())}, Context(), EVERYBODY)
        node = Management(dispatcher, SOURCE.host)
        message = Message(message_id=codec.ulong(1), properties=properties)
        node.reads(message)
        node.idempotent(message)
        key_of(message, "x")
        node.answer_now(message, "anonymous")
        answer = await node.answer(message, Caller("amqp", "anonymous"))
        assert code(messages.decode(answer.reply("to", b""))) in (200, 400, 404, 500)

    asyncio.run(test())


# somebody else's client


def test_a_client_that_pairs_two_links_gets_its_reply(tmp_path: Path) -> None:
    """As Azure's clients do: both links name the node, and the reply goes to the receiver's own address."""

    async def check(agent: Any, console: Asker) -> None:
        came: list[Message] = []
        connection = console.connection
        receiver = await connection.receiver(
            MANAGEMENT, lambda delivery: came.append(messages.decode(delivery.raw)), credit=10
        )
        sender = await connection.sender(MANAGEMENT)
        sender.send(messages.encode(request("level", reply_to=receiver.name)))
        await eventually(lambda: came)
        assert value(came[0]) == {"level": 1}
        receiver.close()
        await eventually(lambda: not receiver.open)
        sender.send(messages.encode(request("level", reply_to=receiver.name)))
        await eventually(lambda: agent.served.intake.counters.unsent == 1)

    with_agent(tmp_path, check)


def test_what_is_not_here_cannot_be_attached(tmp_path: Path) -> None:
    async def check(agent: Any, console: Asker) -> None:
        for address in ("mh.report", "elsewhere", "mh.reply.of-another"):
            with pytest.raises(NotFound):
                await console.connection.sender(address)
            with pytest.raises(NotFound):
                await console.connection.receiver(address, lambda _delivery: None)
        assert code(await ask(console, request("READ"))) == 200

    with_agent(tmp_path, check)


def test_protons_own_client_drives_the_node(tmp_path: Path) -> None:
    with command("mh_amqp.main", "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (_, line):
        connection = BlockingConnection(f"{HOST}:{port_of(line)}", timeout=10)
        try:
            client = cast("Any", SyncRequestResponse(connection, MANAGEMENT))
            node = {"type": "org.amqp.management", "name": "self"}
            types_ = client.call(Foreign(properties={"operation": "GET-TYPES", **node}, body={}))
            assert types_.properties["statusCode"] == 200
            assert "org.matahariproject.Host" in types_.body
            rows = client.call(
                Foreign(
                    properties={"operation": "QUERY", "entityType": "org.matahariproject.Host", **node},
                    body={"attributeNames": ["hostname", "cpu_count"]},
                )
            )
            assert rows.body["attributeNames"] == ["hostname", "cpu_count"]
            asked = {"operation": "READ", "type": "org.matahariproject.Host", "name": "self"}
            host = client.call(Foreign(properties=asked, body=None))
            assert rows.body["results"] == [[host.body["hostname"], host.body["cpu_count"]]]
            assert host.body["memory"] > 0
            refused = client.call(Foreign(properties={**asked, "operation": "reboot"}, body={}))
            assert (refused.properties["statusCode"], refused.properties["mh:error"]) == (
                403,
                "not-authorized",
            )
        finally:
            connection.close()
