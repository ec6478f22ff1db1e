"""The same cases over every transport: no answer or failure tells a caller how a host is reached."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trees
from libmh.api.agent import Agent
from libmh.api.aggregates import Aggregates, Reports
from libmh.api.host import Host
from libmh.api.network import Network
from libmh.call import Request, Verb, restore
from libmh.errors import PROBLEMS, InvalidArguments, NotFound, Problem
from libmh.events import Event
from libmh.providers import shipped_interfaces
from libmh.spec import Interface, Kind, Member, interface_of
from probe import OUTER, Colour, Probe
from transports import TRANSPORTS, Reached, Transport, of_the_fleet, plug_in
from waiting import wait_for

HOST = interface_of(Host).name
PROBE = interface_of(Probe).name
AGENT = interface_of(Agent).name
GIVEN = (True, 255, 65535, 2**32 - 1, 2**64 - 1, -1, -1, -(2**63), 0.5, "t", b"r\0", 8)
LONG = "x" * 65_536
ELSEWHERE = {"Aggregates", "Broker", "Conductor", "Reports", "Sinks"}
SERVED = [*(each for each in shipped_interfaces() if each.short not in ELSEWHERE), interface_of(Probe)]


@pytest.fixture(scope="module", params=TRANSPORTS, ids=lambda transport: transport.__name__)
def reached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    transport: Transport = request.param
    plugins = tmp_path_factory.mktemp("plugins")
    environment = plug_in(plugins)
    sys.path.insert(0, str(plugins))
    importlib.invalidate_caches()
    try:
        with transport(Path(tmp_path_factory.mktemp("state")), environment) as made:
            yield made
    finally:
        sys.path.remove(str(plugins))


def lives_on(reached: Reached) -> bool:
    return reached.connection.proxy(Agent).ping("still there") == "still there"


REFUSED: list[tuple[str, Request, type[Problem], str]] = [
    ("wrong type", Request(HOST, "get_uuid", arguments=[5]), InvalidArguments, "lifetime: expected string"),
    (
        "bool for text",
        Request(HOST, "get_uuid", arguments=[True]),
        InvalidArguments,
        "lifetime: expected string",
    ),
    ("missing", Request(HOST, "set_uuid", arguments=["Custom"]), InvalidArguments, "uuid: is missing"),
    ("extra", Request(HOST, "set_uuid", arguments=["a", "b", "c"]), InvalidArguments, "set_uuid: takes 2"),
    (
        "unknown name",
        Request(HOST, "get_uuid", arguments={"time": "a"}),
        InvalidArguments,
        "argument 'time'",
    ),
    (
        "too long",
        Request(HOST, "get_uuid", arguments=[LONG]),
        InvalidArguments,
        "lifetime: expected a string of",
    ),
    ("NUL", Request(HOST, "get_uuid", arguments=["a\0b"]), InvalidArguments, "lifetime: .* without NUL"),
    ("too big", Request(PROBE, "blob", arguments=[2**32]), InvalidArguments, "kib: expected u32"),
    ("below zero", Request(PROBE, "blob", arguments=[-1]), InvalidArguments, "kib: expected u32"),
    ("bool for a number", Request(PROBE, "blob", arguments=[True]), InvalidArguments, "kib: expected u32"),
    ("no such member", Request(HOST, "explode"), NotFound, "explode"),
    ("no such property", Request(HOST, "explode", Verb.GET), NotFound, "explode"),
    ("a method read", Request(HOST, "reboot", Verb.GET), NotFound, "reboot"),
    ("an event called", Request(HOST, "heartbeat"), NotFound, "heartbeat"),
    ("no such interface", Request("org.example.Nothing", "x"), NotFound, "org.example.Nothing"),
    ("nothing of it", Request("org.example.Nothing", verb=Verb.GET_ALL), NotFound, "org.example.Nothing"),
    ("read-only", Request(HOST, "memory", Verb.SET, [5]), InvalidArguments, "read-only"),
    (
        "set: too big",
        Request(HOST, "update_interval", Verb.SET, [2**32]),
        InvalidArguments,
        "update_interval",
    ),
    ("set: bool", Request(HOST, "update_interval", Verb.SET, [True]), InvalidArguments, "update_interval"),
    ("set: text", Request(HOST, "update_interval", Verb.SET, ["5"]), InvalidArguments, "update_interval"),
    ("set: nothing", Request(HOST, "update_interval", Verb.SET, []), InvalidArguments, "update_interval"),
]


@pytest.mark.parametrize(
    ("request_", "error", "says"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_bad_input_has_one_answer(
    reached: Reached, request_: Request, error: type[Problem], says: str
) -> None:
    with pytest.raises(Problem, match=says) as met:
        reached.connection.request(request_)
    assert type(met.value) is error
    assert lives_on(reached)


RAW: list[tuple[str, str, list[Any], str, str]] = [
    (HOST, "get_uuid", [5], "invalid-arguments", "lifetime"),
    (HOST, "get_uuid", [True], "invalid-arguments", "lifetime"),
    (HOST, "get_uuid", [["a"]], "invalid-arguments", "lifetime"),
    (HOST, "get_uuid", [LONG], "invalid-arguments", "lifetime"),
    (HOST, "set_uuid", ["Custom"], "invalid-arguments", "uuid"),
    (HOST, "set_uuid", ["Custom", "a", "b"], "invalid-arguments", "set_uuid"),
    (HOST, "set_uuid", ["Custom", {"a": 1}], "invalid-arguments", "uuid"),
    (PROBE, "blob", [True], "invalid-arguments", "kib"),
    (PROBE, "blob", ["5"], "invalid-arguments", "kib"),
    (PROBE, "blob", [2**32], "invalid-arguments", "kib"),
    (HOST, "explode", [], "not-found", "explode"),
    (HOST, "heartbeat", [], "not-found", "heartbeat"),
]


@pytest.mark.parametrize(
    ("interface", "member", "arguments", "word", "names"), RAW, ids=lambda each: str(each)[:20]
)
def test_bad_input_that_no_client_has_looked_at(
    reached: Reached, interface: str, member: str, arguments: list[Any], word: str, names: str
) -> None:
    problem = reached.problem(interface, member, arguments)
    assert problem is not None
    assert (problem.word, names in problem.message) == (word, True), problem.message
    assert lives_on(reached)


def methods() -> list[Member]:
    return [member for declared in SERVED for member in declared.of(Kind.METHOD)]


@st.composite
def bad_call(draw: st.DrawFn, member: Member) -> tuple[dict[str, Any], str]:
    """Arguments of which one does not fit, is missing, or is one too many; and which one that is."""
    arguments = {
        argument.name: trees.dumped(argument.type, draw(trees.values(argument.type)))
        for argument in member.arguments
    }
    required = [argument.name for argument in member.arguments if argument.required]
    kind = draw(st.sampled_from(["wrong"] * 3 * bool(arguments) + ["missing"] * bool(required) + ["extra"]))
    if kind == "extra":
        return arguments | {"one_too_many": 1}, "one_too_many"
    name: str = draw(st.sampled_from(required if kind == "missing" else list(arguments)))
    if kind == "missing":
        return {key: value for key, value in arguments.items() if key != name}, name
    declared = next(argument.type for argument in member.arguments if argument.name == name)
    return arguments | {name: draw(trees.wrong(declared))}, name


@pytest.mark.parametrize("member", methods(), ids=lambda member: member.action)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_does_not_fit_is_refused_by_name(
    reached: Reached, member: Member, data: st.DataObject
) -> None:
    arguments, name = data.draw(bad_call(member))
    with pytest.raises(InvalidArguments) as met:
        reached.connection.request(Request(member.interface, member.name, arguments=arguments))
    assert name in met.value.message


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    with of_the_fleet(tmp_path_factory.mktemp("fleet"), {}) as made:
        yield made


FLEET = [member for each in (Aggregates, Reports) for member in interface_of(each).of(Kind.METHOD)]


@pytest.mark.parametrize("member", FLEET, ids=lambda member: member.action)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_conductor_refuses_by_name_too(fleet: Reached, member: Member, data: st.DataObject) -> None:
    arguments, name = data.draw(bad_call(member))
    with pytest.raises(InvalidArguments) as met:
        fleet.connection.request(Request(member.interface, member.name, arguments=arguments))
    assert name in met.value.message
    assert fleet.connection.proxy(Aggregates).list_aggregates() == []


def test_after_all_that_it_lives_on(reached: Reached) -> None:
    assert lives_on(reached)
    assert reached.connection.proxy(Agent).calls().stuck == 0


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.word)
def test_a_failure_keeps_its_word(reached: Reached, problem: type[Problem]) -> None:
    with pytest.raises(problem) as met:
        reached.connection.proxy(Probe).fail(problem.word)
    assert met.value.message == f"as asked: {problem.word}"


def test_a_bug_is_internal_and_says_no_more(reached: Reached) -> None:
    with pytest.raises(Problem, match=r"internal error [0-9a-f]{12}") as met:
        reached.connection.proxy(Probe).fail("boom")
    assert met.value.word == "internal"
    assert "boom" not in met.value.message


def test_every_type_arrives_as_it_was_sent(reached: Reached) -> None:
    probe = reached.connection.proxy(Probe)
    assert probe.scalars(*GIVEN) == GIVEN
    anything = {"k": [1, "two", b"\0", 2.5, True, {"deep": [[]]}], "n": 2**63}
    given_ = (["a", ""], {"b": -1}, OUTER, Colour.RED, 5, anything)
    assert probe.shapes(*given_) == given_
    assert probe.outer() == OUTER


@pytest.mark.parametrize("declared", SERVED, ids=lambda declared: declared.short)
def test_all_properties_are_what_they_are_declared_to_be(reached: Reached, declared: Interface) -> None:
    values = reached.connection.request(Request(declared.name, verb=Verb.GET_ALL))
    assert isinstance(values, dict)
    assert set(values) <= {member.name for member in declared.of(Kind.PROPERTY)}
    for name, value in values.items():
        restore(declared.members[name], value)
    constants = [
        member.name for member in declared.of(Kind.PROPERTY) if member.constant and member.name in values
    ]
    for name in constants:
        assert reached.connection.request(Request(declared.name, name, Verb.GET)) == values[name]


def test_an_absent_value_is_none(reached: Reached) -> None:
    probe = reached.connection.proxy(Probe)
    probe.set_maybe(None)
    assert probe.maybe() is None
    probe.set_maybe("there")
    assert probe.maybe() == "there"


def test_an_optional_argument_may_be_left_out(reached: Reached) -> None:
    reached.connection.proxy(Probe).release()
    assert reached.connection.proxy(Probe).wait("a") is True


def test_records_of_this_machine_arrive(reached: Reached) -> None:
    loopback_link = reached.connection.proxy(Network).link("lo")
    assert (loopback_link.name, loopback_link.kind) == ("lo", "loopback")
    with pytest.raises(NotFound):
        reached.connection.proxy(Network).link("no-such-link")


def first(reached: Reached, interface: str, member: str, cause: Callable[[], object]) -> Event:
    """The first event that comes; caused until one does, for nobody says when a subscription has begun."""
    seen: list[Event] = []
    events = reached.connection.events(interface, timeout=20)

    def listen() -> None:
        seen.append(next(event for event in events if event.member == member))

    listener = threading.Thread(target=listen)
    listener.start()

    def has_come() -> bool:
        cause()
        return bool(seen)

    wait_for(has_come, 20)
    listener.join(5)
    return seen[0]


def test_events_arrive_with_their_fields(reached: Reached) -> None:
    probe = reached.connection.proxy(Probe)
    event = first(reached, PROBE, "announced", lambda: probe.announce(OUTER, None))
    assert event.name == f"{PROBE}.announced"
    assert event.fields["count"] == 1
    assert event.fields.get("maybe") is None
    outer = event.fields["outer"]
    assert isinstance(outer, dict)
    assert outer["by_name"] == {"n": -1}
    assert (event.sequence > 0, event.time > 10**18) == (True, True)


def test_a_change_of_a_property_is_told(reached: Reached) -> None:
    numbers = iter(range(100, 10_000))
    probe = reached.connection.proxy(Probe)
    event = first(reached, PROBE, "", lambda: probe.set_number(next(numbers)))
    assert isinstance(event.fields["number"], int)
    assert event.fields["number"] >= 100
