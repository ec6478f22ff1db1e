"""Whatever a caller sends to any member of any interface: it is answered, with an error that names the
argument, or as it was meant; and the agent lives on."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dbus_golden import interfaces
from dbus_serving import raw, serving
from libmh.bus import variant
from libmh.errors import Internal, InvalidArguments, Problem
from libmh.spec import Effect, Interface, Kind, Member, interface_of
from libmh.systembus import SystemBus
from mh_dbus.signatures import arguments_signature, complete_types, property_type, signature_of
from probe import Probe, ProbeHost
from testbed.bus import private_bus
from testbed.child import child

PROPERTIES = "org.freedesktop.DBus.Properties"
PROBE = "org.example.Probe"
SPARED = frozenset({"wait", "fail", "blob"})  # of the probe: they do as they are told

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(),
    "s": TEXT | st.sampled_from(["../../etc", "-rf", "x" * 70_000, "\x01", "org.matahariproject.Host"]),
    "o": st.sampled_from(["/", "/a/b"]),
    "g": st.sampled_from(["", "a{sv}"]),
}
SHAPES = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: (
        inner.map("a{}".format)
        | inner.map("a{{s{}}}".format)
        | st.lists(inner, min_size=1, max_size=3).map(lambda each: f"({''.join(each)})")
    ),
    max_leaves=3,
)


def value_of(signature: str) -> st.SearchStrategy[Any]:
    """Values of one complete type."""
    if signature in BASIC:
        return BASIC[signature]
    if signature == "v":
        return SHAPES.flatmap(lambda inner: value_of(inner).map(lambda value: variant(inner, value)))
    if signature == "ay":
        return st.binary(max_size=8)
    if signature.startswith("a{"):
        key, value = signature[2], signature[3:-1]
        return st.dictionaries(BASIC[key], value_of(value), max_size=2)
    if signature.startswith("a"):
        return st.lists(value_of(signature[1:]), max_size=2)
    return st.tuples(*(value_of(each) for each in complete_types(signature[1:-1]))).map(list)


def body_of(types: list[str]) -> st.SearchStrategy[tuple[str, list[Any]]]:
    values = st.tuples(*(value_of(each) for each in types)).map(list)
    return values.map(lambda body: ("".join(types), body))


ANY_BODY = st.lists(SHAPES, max_size=4).flatmap(body_of)


def members(*kinds: Kind) -> dict[str, tuple[Interface, Member]]:
    """By action id, which is what a failing example shows."""
    served = (*interfaces(), interface_of(Probe))
    return {
        member.action: (interface, member)
        for interface in served
        for member in interface.members.values()
        if member.kind in kinds and member.name not in SPARED
    }


METHODS = members(Kind.METHOD)
READABLE = members(Kind.PROPERTY)


def harmless(interface: Interface, member: Member) -> bool:
    """Whether it may be called as it is meant: the tests run on somebody's machine."""
    return member.effect is Effect.READS or interface.name == PROBE


@pytest.fixture(scope="module", params=["dbus-fast", "dbus-next"])
def agents(request: pytest.FixtureRequest) -> Iterator[SystemBus]:
    """A caller of the command, run with each library, and of the probe."""
    env = {"MATAHARI_DBUS_LIBRARY": request.param}
    with tempfile.TemporaryDirectory() as state, private_bus() as address:
        command = [sys.executable, "-m", "mh_dbus.main", "--bus", address, "--state", state]
        with child([*command, "--log-level", "critical"], env=env, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with serving(address, ProbeHost), raw(address) as caller:
                yield caller
                assert process.poll() is None


def answered(
    caller: SystemBus, interface: Interface, place: str, member: str, signature: str, body: list[Any]
) -> Problem | list[Any]:
    """What a call comes to: any answer will do, but an internal error or none at all."""
    try:
        answer: Problem | list[Any] = caller.call(
            interface.bus, interface.path, place, member, signature, *body, timeout=15
        )
    except Problem as problem:
        answer = problem
    assert not isinstance(answer, Internal), (member, signature, body)
    return answer


QUICK = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(st.data())
def test_any_body_at_any_method(agents: SystemBus, data: st.DataObject) -> None:
    interface, member = METHODS[data.draw(st.sampled_from(sorted(METHODS)))]
    signature, body = data.draw(ANY_BODY)
    assume(harmless(interface, member) or signature != arguments_signature(member))
    answer = answered(agents, interface, interface.name, member.name, signature, body)
    if signature != arguments_signature(member):
        assert isinstance(answer, InvalidArguments)
        names = [argument.name for argument in member.arguments]
        assert answer.message.split(":")[0] in [*names, member.name]


@QUICK
@given(st.data())
def test_any_value_of_the_declared_types(agents: SystemBus, data: st.DataObject) -> None:
    reading = sorted(name for name, each in METHODS.items() if harmless(*each))
    interface, member = METHODS[data.draw(st.sampled_from(reading))]
    types = [signature_of(argument.type) for argument in member.arguments]
    signature, body = data.draw(body_of(types))
    answer = answered(agents, interface, interface.name, member.name, signature, body)
    if isinstance(answer, InvalidArguments) and interface.name == PROBE:
        first = answer.message.replace("[", ".").replace(":", ".").split(".")[0]
        assert first in [argument.name for argument in member.arguments]


@QUICK
@given(st.data())
def test_any_value_at_any_property(agents: SystemBus, data: st.DataObject) -> None:
    interface, member = READABLE[data.draw(st.sampled_from(sorted(READABLE)))]
    value = data.draw(value_of("v"))
    answer = answered(agents, interface, PROPERTIES, "Set", "ssv", [interface.name, member.name, value])
    if member.setter is None or value.signature != signature_of(property_type(member)):
        assert isinstance(answer, InvalidArguments)
        assert member.name in answer.message


@QUICK
@given(st.data())
def test_any_body_at_the_standard_interfaces(agents: SystemBus, data: st.DataObject) -> None:
    interface, _ = METHODS[data.draw(st.sampled_from(sorted(METHODS)))]
    place, member = data.draw(
        st.sampled_from(
            [
                *((PROPERTIES, word) for word in ("Get", "GetAll", "Set", "Nothing")),
                ("org.freedesktop.DBus.Introspectable", "Introspect"),
                ("org.freedesktop.DBus.Peer", "Ping"),
            ]
        )
    )
    signature, body = data.draw(ANY_BODY | body_of(["s"]) | body_of(["s", "s"]) | body_of(["s", "s", "v"]))
    answered(agents, interface, place, member, signature, body)


def test_it_still_answers(agents: SystemBus) -> None:
    for interface in (*interfaces(), interface_of(Probe)):
        (values,) = agents.call(interface.bus, interface.path, PROPERTIES, "GetAll", "s", interface.name)
        assert values
