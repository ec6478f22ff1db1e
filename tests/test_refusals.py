"""Every member of every interface that we ship, asked for by those who may not: they are refused, nothing
happens, and what is open to them is answered."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import ask, asking, code, direct_agent, request
from dbus_serving import serving
from libmh.call import Bound, Verb
from libmh.errors import Failed
from libmh.providers import shipped_interfaces
from libmh.spec import (
    Access,
    Effect,
    Interface,
    Kind,
    ListOf,
    MapOf,
    Member,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)
from mh_amqp.authority import roles
from source_tree import ROOT
from testbed.callers import run_python_as
from testbed.polkit import polkit_bus

ELSEWHERE = ("Aggregates", "Conductor", "Reports", "Sinks")
"""The conductor's: nobody serves them on D-Bus."""
MAY: dict[str, Callable[[Member], bool]] = {
    "guest": lambda member: member.access is Access.OPEN,
    "read-only": lambda member: (
        member.effect is Effect.READS or (member.access is Access.OPEN and member.effect is Effect.CHANGES)
    ),
    "none": lambda _member: False,
}
AS_NOBODY = """
import json, sys
from libmh.call import Request, Verb
from libmh.client import connect
from libmh.errors import Problem

with connect(sys.argv[1]) as there:
    for interface, member, verb, arguments in json.loads(sys.argv[2]):
        try:
            there.request(Request(interface, member, Verb(verb), arguments))
        except Problem as problem:
            print(interface, member, problem.word)
"""


class Done:
    """What providers have been asked for, by interface and member."""

    def __init__(self) -> None:
        self.members: list[tuple[str, str]] = []

    def provider(self, declared: Interface) -> type:
        """A provider that does nothing but remember, and fails."""
        body: dict[str, Any] = {"__init__": lambda _self, _context=None: None}
        for member in declared.members.values():
            for name in (member.attribute, member.setter):
                if member.kind is not Kind.EVENT and name:
                    body[name] = self._remembering(member)
        return type(f"Remembering{declared.short}", (declared.protocol,), body)

    def _remembering(self, member: Member) -> Callable[..., None]:
        def remember(*_given: object) -> None:
            self.members.append((member.interface, member.name))
            raise Failed("nothing is done in a test")

        return remember


def sample(of: Type) -> Plain:
    """A plain value that fits the type of an argument."""
    match of:
        case Scalar(Word.BOOL):
            return True
        case Scalar(Word.STRING):
            return "x"
        case Scalar():
            return 1
        case ListOf():
            return []
        case MapOf():
            return {}
        case OptionalOf(item):
            return sample(item)
        case Words(choices):
            return str(next(iter(choices)))
        case RecordOf():
            return {field.name: sample(field.type) for field in of.fields if field.required}
    return None


def members(interfaces: Sequence[Interface], *kinds: Kind) -> list[Member]:
    return [member for each in interfaces for kind in kinds for member in each.of(kind)]


def by_position(member: Member) -> list[Plain]:
    return [sample(argument.type) for argument in member.arguments]


def by_name(member: Member) -> dict[str, Plain]:
    return {argument.name: sample(argument.type) for argument in member.arguments}


def test_what_changes_is_open_to_nobody() -> None:
    of_ours = [each for each in shipped_interfaces() if each.short not in ELSEWHERE]
    both = members(of_ours, Kind.METHOD, Kind.PROPERTY)
    harmless = {each.action for each in both if each.access is Access.OPEN and each.kind is Kind.METHOD}
    assert harmless == {
        "org.matahariproject.Agent.ping",
        "org.matahariproject.Broker.waiting",
        "org.matahariproject.Host.facts",
    }
    assert all(
        each.access is Access.ADMIN for each in both if each.effect is not Effect.READS or each.setter
    )


def test_an_unprivileged_user_is_refused_every_member_that_needs_leave() -> None:
    interfaces = [each for each in shipped_interfaces() if each.short not in ELSEWHERE]
    done = Done()
    methods = members(interfaces, Kind.METHOD)
    written = [each for each in members(interfaces, Kind.PROPERTY) if each.setter]
    asked = [(each, Verb.CALL, by_position(each)) for each in methods]
    asked += [(each, Verb.SET, [sample(each.type)]) for each in written]
    listed = json.dumps([(each.interface, each.name, verb, given) for each, verb, given in asked])
    with (
        polkit_bus(ROOT / "packaging/polkit-1/actions") as polkit,
        serving(polkit.address, *(done.provider(each) for each in interfaces)),
    ):
        said = run_python_as(AS_NOBODY, polkit.address, listed, seconds=60)
    assert not said.returncode, said.stderr
    open_to_all = [each for each in methods if each.access is Access.OPEN]
    assert said.stdout.splitlines() == [
        f"{each.interface} {each.name} {'failed' if each in open_to_all else 'not-authorized'}"
        for each, _, _ in asked
    ]
    assert done.members == [(each.interface, each.name) for each in open_to_all]


@pytest.mark.parametrize("role", MAY)
def test_a_role_is_refused_every_member_that_it_has_not(role: str, tmp_path: Path) -> None:
    interfaces = shipped_interfaces()
    done = Done()
    bound = {each.name: Bound(each, done.provider(each)()) for each in interfaces}
    methods = members(interfaces, Kind.METHOD)

    async def test() -> None:
        rules = roles({"authority": {"*": role}})
        async with direct_agent(tmp_path, bound, rules) as agent, asking(agent.listener.port) as console:
            for each in methods:
                reply = await ask(console, request(each.name, each.interface, by_name(each)))
                word = "failed" if MAY[role](each) else "not-authorized"
                assert (each.action, reply.text("mh:error")) == (each.action, word)
            for each in members(interfaces, Kind.PROPERTY):
                if each.setter:
                    body = {each.name: sample(each.type)}
                    reply = await ask(console, request("UPDATE", each.interface, body))
                    assert (code(reply), reply.text("mh:error")) == (403, "not-authorized")

    async def in_time() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(in_time())
    assert done.members == [(each.interface, each.name) for each in methods if MAY[role](each)]
