"""A request, and the plain steps that answer it: look up, parse, run, convert. No threads, no loop."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Protocol, runtime_checkable

from libmh.caller import LOCAL, Caller, Stop, answering
from libmh.errors import Failed, Internal, InvalidArguments, NotFound, NotImplementedHere, Problem
from libmh.spec import Interface, Kind, Member, OptionalOf, Plain
from libmh.wire import dump, parse

log = logging.getLogger("libmh.call")
MAX_ID = 256
SHORTEST = 0.001
ESCAPES = (StopIteration, StopAsyncIteration, CancelledError)
"""With all that is no `Exception` (SystemExit, asyncio's CancelledError ...) what has a meaning to a loop
that a provider cannot have meant: it would end the agent, or leave its caller without an answer."""


@runtime_checkable
class Naming(Protocol):
    """A provider that knows one thing under several names."""

    def canonical(self, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
        """The values that name what a member acts on, by argument, as the host itself calls them: aliases
        resolved, defaults filled in. What is not known here keeps the caller's name, brought to its usual
        form; it raises only when the host cannot be asked, and the call is refused then."""
        ...


class Verb(StrEnum):
    """What is asked of a member; `GET_ALL` is asked of an interface."""

    CALL = "call"
    GET = "get"
    SET = "set"
    GET_ALL = "get-all"


@dataclass(frozen=True, slots=True)
class Request:
    """`arguments` are plain trees, by position or by wire name; `deadline` is seconds from now, the member's
    own when None; `version` is the interface version that the caller was written for."""

    interface: str
    member: str = ""
    verb: Verb = Verb.CALL
    arguments: Sequence[Plain] | Mapping[str, Plain] = ()
    caller: Caller = LOCAL
    deadline: float | None = None
    version: str | None = None
    id: str = field(default_factory=lambda: os.urandom(16).hex())


_answered: ContextVar[Request | None] = ContextVar("answered", default=None)


def answered() -> Request | None:
    """The request that a provider answers in this thread right now, as it came; None outside of a call."""
    return _answered.get()


@dataclass(frozen=True, slots=True)
class Bound:
    """An interface with the object that answers for it."""

    interface: Interface
    provider: object


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been looked up and parsed: `values` are typed, `objects` name what is acted on."""

    request: Request
    bound: Bound
    member: Member
    values: tuple[Any, ...]
    objects: Mapping[str, str]

    @property
    def source(self) -> str:
        """What answers: while it is stuck, nothing else is asked of it."""
        return ":".join((self.member.action, *self.objects.values()))

    @property
    def deadline(self) -> float:
        """Seconds that it may take: what the caller asked for, at most what its member declares."""
        asked = self.request.deadline
        declared = self.member.deadline
        return declared if asked is None else max(SHORTEST, min(asked, declared))


def look_up(interfaces: Mapping[str, Bound], request: Request) -> Bound:
    """The interface asked for, its version compatible; `not-found` or `not-implemented` otherwise."""
    bound = interfaces.get(request.interface)
    if bound is None:
        raise NotFound(
            f"no interface '{request.interface[:MAX_ID]}' is served here",
            interface=request.interface[:MAX_ID],
        )
    if request.version is not None and not compatible(bound.interface.version, request.version):
        raise NotImplementedHere(
            f"{bound.interface.name} is served in version {bound.interface.version}, "
            f"not in {request.version[:MAX_ID]}"
        )
    return bound


def compatible(ours: str, asked: str) -> bool:
    """Same major, and a minor that is not above ours."""
    major, _, minor = asked.partition(".")
    own_major, _, own_minor = ours.partition(".")
    return major == own_major and minor.isascii() and minor.isdigit() and int(minor[:9]) <= int(own_minor)


def prepare(bound: Bound, request: Request) -> Call:
    """Find the member and parse the arguments. Only what is declared can be reached."""
    member = bound.interface.members.get(request.member)
    wanted = Kind.METHOD if request.verb is Verb.CALL else Kind.PROPERTY
    if member is None or member.kind is not wanted:
        name = f"{bound.interface.name}.{request.member[:MAX_ID]}"
        raise NotFound(f"there is no {wanted} '{name}'", member=name)
    if request.verb is Verb.CALL:
        values = _arguments(member, request.arguments)
    elif request.verb is Verb.SET:
        values = (_written(member, request.arguments),)
    else:
        values = ()
    return Call(request, bound, member, values, _objects(member, values))


def _written(member: Member, arguments: Sequence[Plain] | Mapping[str, Plain]) -> Any:
    if member.setter is None:
        raise InvalidArguments(f"the property '{member.action}' is read-only", argument=member.name)
    given = list(arguments.values()) if isinstance(arguments, Mapping) else list(arguments)
    if len(given) != 1:
        raise InvalidArguments(f"{member.name}: expected one value, got {len(given)}", argument=member.name)
    return parse(member.type, given[0], member.name)


def _arguments(member: Member, given: Sequence[Plain] | Mapping[str, Plain]) -> tuple[Any, ...]:
    if not isinstance(given, Mapping):
        if len(given) > len(member.arguments):
            raise InvalidArguments(
                f"{member.name}: takes {len(member.arguments)} arguments, got {len(given)}",
                argument=member.name,
            )
        given = {argument.name: value for argument, value in zip(member.arguments, given, strict=False)}
    known = {argument.name for argument in member.arguments}
    for name in given:
        if name not in known:
            raise InvalidArguments(
                f"{member.name}: there is no argument '{str(name)[:MAX_ID]}'", argument=str(name)[:MAX_ID]
            )
    values = []
    for argument in member.arguments:
        if argument.name in given:
            values.append(parse(argument.type, given[argument.name], argument.name))
        elif argument.required:
            raise InvalidArguments(f"{argument.name}: is missing", argument=argument.name)
        else:
            values.append(argument.default)
    return tuple(values)


def _objects(member: Member, values: tuple[Any, ...]) -> Mapping[str, str]:
    if not member.objects:
        return {}
    by_name = zip((argument.name for argument in member.arguments), values, strict=True)
    return {name: str(value) for name, value in by_name if name in member.objects and value is not None}


def run(call: Call, ends: float = inf, stop: Stop | None = None) -> Plain:
    """Let the provider answer, and convert what it answered: its declaration binds it too. `ends`: when
    whoever asks gives up, by the monotonic clock; `stop`: how he would end it before."""
    member = call.member
    name = member.setter if call.request.verb is Verb.SET and member.setter else member.attribute
    implementation = getattr(call.bound.provider, name)
    if getattr(type(call.bound.provider), name, None) is getattr(call.bound.interface.protocol, name):
        raise NotImplementedHere(f"'{member.action}' is not implemented on this host")
    before = _answered.set(call.request)
    try:
        with answering(call.request.caller, ends, stop):
            result = implementation(*call.values)
        return None if call.request.verb is Verb.SET else convert(member, result)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, ESCAPES):
            raise
        raise BrokenProvider(f"{member.action} raised {type(error).__name__}: {error}") from error
    finally:
        _answered.reset(before)


def convert(member: Member, answered: Any) -> Plain:
    """What a provider answered as a plain tree: nothing, one value, or a list of the named results."""
    try:
        if not member.results:
            return None
        if len(member.results) == 1:
            return dump(member.results[0].type, answered, member.action)
        return [
            dump(result.type, value, f"{member.action}.{result.name}")
            for result, value in zip(member.results, answered, strict=True)
        ]
    except (InvalidArguments, ValueError, TypeError) as error:
        raise BrokenProvider(f"{member.action} answered what it does not declare: {error}") from error


class BrokenProvider(Exception):
    """A provider answered what its declaration does not allow: never the caller's fault."""


def internal(request: Request, error: BaseException) -> Internal:
    """The reply to what nobody expected; the log has the error itself under the same id."""
    number = os.urandom(6).hex()
    log.error("internal error %s in %s.%s", number, request.interface, request.member, exc_info=error)
    return Internal(f"internal error {number}; the agent's journal has it under this id", id=number)


def unknown_value(member: Member) -> NotFound:
    """What reading an optional property meets where it has no value: no bus can carry that it is absent."""
    return NotFound(f"'{member.action}' is not known on this host", member=member.action)


def is_unknown_value(member: Member, problem: Problem) -> bool:
    """Whether a peer says that, of an optional property: here it is None again."""
    optional = member.kind is Kind.PROPERTY and isinstance(member.type, OptionalOf)
    return optional and isinstance(problem, NotFound) and problem.message == unknown_value(member).message


def restore(member: Member, plain: Plain) -> Any:
    """The typed value of an answer, in the caller's process: the reverse of `convert`. `failed` when the
    peer answered what its declaration does not allow."""
    try:
        return _restored(member, plain)
    except (InvalidArguments, ValueError) as error:
        raise Failed(f"'{member.action}' was answered with what it does not declare: {error}") from error


def _restored(member: Member, plain: Plain) -> Any:
    if not member.results:
        return None
    if len(member.results) == 1:
        return parse(member.results[0].type, plain, member.results[0].name)
    values = plain if isinstance(plain, list) else []
    return tuple(
        parse(result.type, value, result.name) for result, value in zip(member.results, values, strict=True)
    )
