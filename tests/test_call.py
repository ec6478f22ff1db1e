"""The plain steps of a call: look up, prepare, run, convert."""

from typing import Any

import pytest

from libmh.call import (
    Bound,
    BrokenProvider,
    Call,
    Request,
    Verb,
    compatible,
    convert,
    look_up,
    prepare,
    restore,
    run,
)
from libmh.caller import LOCAL, Caller, asking
from libmh.errors import Failed, InvalidArguments, NotFound, NotImplementedHere
from libmh.spec import Plain, interface_of
from probe import Probe, ProbeHost

NAME = "org.example.Probe"
PROBE = interface_of(Probe)
BOUND = Bound(PROBE, ProbeHost())


class Lazy(Probe):
    """Implements nothing."""


LAZY: Any = Lazy


class Broken(ProbeHost):
    """Answers what it does not declare."""

    def gauge(self) -> int:
        return -1

    def guarded(self, *given: Any) -> Any:
        return None if given else ""

    def scalars(self, *given: Any) -> Any:
        return given[:-1]


def answered(member: str, arguments: Any = (), verb: Verb = Verb.CALL, provider: object = None) -> Plain:
    return run(prepare(Bound(PROBE, provider or BOUND.provider), Request(NAME, member, verb, arguments)))


def test_only_what_is_served_is_found() -> None:
    assert look_up({NAME: BOUND}, Request(NAME)) is BOUND
    with pytest.raises(NotFound, match=r"no interface 'org\.example\.Other' is served here"):
        look_up({NAME: BOUND}, Request("org.example.Other"))
    with pytest.raises(NotImplementedHere, match=r"served in version 1\.0, not in 2\.0"):
        look_up({NAME: BOUND}, Request(NAME, version="2.0"))


@pytest.mark.parametrize(
    ("ours", "asked", "fits"),
    [
        ("1.3", "1.0", True),
        ("1.3", "1.3", True),
        ("1.3", "1.4", False),
        ("1.3", "2.0", False),
        ("1.3", "1", False),
        ("1.3", "", False),
        ("1.3", "1.x", False),
        ("1.3", "1.٣", False),
        ("1.3", "1." + "9" * 5000, False),
        ("1.3", "1.-1", False),
    ],
)
def test_a_version_fits_when_ours_has_all_that_is_asked(ours: str, asked: str, *, fits: bool) -> None:
    assert compatible(ours, asked) is fits


@pytest.mark.parametrize(
    ("member", "verb"),
    [
        ("gauge", Verb.CALL),
        ("wait", Verb.GET),
        ("wait", Verb.SET),
        ("announced", Verb.CALL),
        ("announced", Verb.GET),
        ("set_number", Verb.CALL),
        ("__init__", Verb.CALL),
        ("_context", Verb.GET),
        ("__class__", Verb.GET),
        ("", Verb.CALL),
        ("x" * 100_000, Verb.CALL),
    ],
)
def test_nothing_but_what_is_declared_can_be_reached(member: str, verb: Verb) -> None:
    with pytest.raises(NotFound, match=r"there is no (property|method) ") as refused:
        prepare(BOUND, Request(NAME, member, verb, (1,)))
    assert len(refused.value.details["member"]) < 400


@pytest.mark.parametrize(
    ("arguments", "says", "argument"),
    [
        ((), "unit: is missing", "unit"),
        (("a", "b"), "value: is missing", "value"),
        (("a", "b", "c", "d"), "guarded: takes 3 arguments, got 4", "guarded"),
        (("a", 5, "c"), "key: expected string, got 5", "key"),
        ({"unit": "a", "key": "b"}, "value: is missing", "value"),
        ({"unit": "a", "key": "b", "value": "c", "more": 1}, "there is no argument 'more'", "more"),
        ({"unit": "a\0", "key": "b", "value": "c"}, "unit: expected a string without NUL", "unit"),
        ({"unit": True, "key": "b", "value": "c"}, "unit: expected string, got True", "unit"),
        ({"unit": "a", "key": "b", "value": "x" * 65_536}, "value: expected a string of at most", "value"),
        ({"m" * 5000: 1}, "there is no argument 'm+'", "m" * 256),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: Any, says: str, argument: str) -> None:
    with pytest.raises(InvalidArguments, match=says) as refused:
        prepare(BOUND, Request(NAME, "guarded", Verb.CALL, arguments))
    assert refused.value.details["argument"] == argument


def test_arguments_come_by_position_or_by_name() -> None:
    by_position = prepare(BOUND, Request(NAME, "guarded", arguments=("u", "k", "v")))
    by_name = prepare(BOUND, Request(NAME, "guarded", arguments={"value": "v", "key": "k", "unit": "u"}))
    assert by_position.values == by_name.values == ("u", "k", "v")
    assert by_position.objects == {"unit": "u", "key": "k"}
    assert by_position.source == f"{NAME}.guarded:u:k"


def test_a_default_stands_for_what_is_left_out() -> None:
    assert prepare(BOUND, Request(NAME, "wait", arguments=("a",))).values == ("a", 5.0)


@pytest.mark.parametrize(
    ("member", "arguments", "says"),
    [
        ("outer", (1,), "the property .* is read-only"),
        ("number", (), "number: expected one value, got 0"),
        ("number", (1, 2), "number: expected one value, got 2"),
        ("number", (-1,), "number: expected u32"),
        ("number", {"value": True}, "number: expected u32, got True"),
    ],
)
def test_a_property_takes_one_value_of_its_type(member: str, arguments: Any, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says) as refused:
        prepare(BOUND, Request(NAME, member, Verb.SET, arguments))
    assert refused.value.details["argument"] == member


def test_a_call_is_carried_out() -> None:
    provider = ProbeHost()
    assert answered("guarded", ("a", "b", "c")) == "a b c"
    assert answered("release") is None
    assert answered("number", {"value": 9}, Verb.SET, provider) is None
    assert answered("number", (), Verb.GET, provider) == 9
    given = [True, 1, 2, 3, 4, -5, -6, -7, 0.5, "t", b"r", 8]
    assert answered("scalars", given) == given


def test_what_a_provider_leaves_out_is_not_implemented() -> None:
    with pytest.raises(NotImplementedHere, match=f"'{NAME}.gauge' is not implemented on this host"):
        answered("gauge", (), Verb.GET, LAZY())
    with pytest.raises(NotImplementedHere):
        answered("number", (1,), Verb.SET, LAZY())


@pytest.mark.parametrize(
    ("member", "arguments", "verb"),
    [
        ("gauge", (), Verb.GET),
        ("guarded", ("a", "b", "c"), Verb.CALL),
        ("scalars", (True, 1, 2, 3, 4, -5, -6, -7, 0.5, "t", b"r", 8), Verb.CALL),
    ],
)
def test_an_answer_that_is_not_declared_is_the_providers_bug(
    member: str, arguments: Any, verb: Verb
) -> None:
    with pytest.raises(BrokenProvider, match=f"{NAME}.{member} answered what it does not declare"):
        answered(member, arguments, verb, Broken())


def test_an_answer_is_restored_where_it_arrives() -> None:
    member = PROBE.members["outer"]
    outer = ProbeHost().outer()
    assert restore(member, convert(member, outer)) == outer
    assert restore(PROBE.members["release"], "whatever") is None


@pytest.mark.parametrize(
    ("member", "plain"),
    [
        ("gauge", "a"),
        ("outer", {}),
        ("scalars", [1]),
        ("scalars", None),
        ("shapes", [[], {}, {}, "blue", 1, 1]),
    ],
)
def test_an_answer_that_does_not_fit_is_the_peers_failure(member: str, plain: Plain) -> None:
    with pytest.raises(Failed, match=f"'{NAME}.{member}' was answered with what it does not declare"):
        restore(PROBE.members[member], plain)


def test_requests_are_told_apart() -> None:
    assert Request(NAME).id != Request(NAME).id
    assert Request(NAME).caller is LOCAL


def test_an_absent_object_is_not_acted_on() -> None:
    call = Call(Request(NAME), BOUND, PROBE.members["wait"], (), {})
    assert call.source == f"{NAME}.wait"


def test_a_provider_can_ask_who_calls() -> None:
    class Curious(ProbeHost):
        def gauge(self) -> int:
            seen.append(asking())
            return 1

    seen: list[Caller] = []
    caller = Caller("dbus", ":1.7", 1000)
    run(prepare(Bound(PROBE, Curious()), Request(NAME, "gauge", Verb.GET, caller=caller)))
    assert seen == [caller]
    assert asking() is LOCAL
    assert caller.described == "dbus uid 1000"
    assert Caller("amqp", "CN=console").described == "amqp CN=console"
