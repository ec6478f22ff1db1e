"""The values of properties: each is read once for all who ask meanwhile, and held as long as its declaration
allows."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from math import inf
from typing import Any

from libmh.call import Bound, BrokenProvider, Call, Request, Verb, convert, run
from libmh.errors import Problem, Timeout
from libmh.spec import Kind, Member, Plain

FAILURE_SECONDS = 1.0
"""How long it is remembered that a value could not be read; never longer than the value would be held."""


@dataclass(frozen=True, slots=True)
class _Held:
    until: float
    value: Plain
    problem: Problem | None


@dataclass(slots=True)
class _Inline:
    """A property that answers from memory: while it answers the same object, one that cannot change, its
    plain value is the same."""

    call: Call
    answered: object
    value: Plain

    def ask(self) -> Plain:
        answered = _inline(self.call, _ask)
        if answered is not self.answered or not isinstance(answered, int | float | str):
            self.answered, self.value = answered, convert(self.call.member, answered)
        return self.value


@dataclass(slots=True)
class _Whole:
    """All values of an interface until the first of them is old; inline ones are asked again each time."""

    until: float
    values: dict[str, Plain]
    inline: tuple[_Inline, ...]

    def refresh(self) -> bool:
        """Ask the inline properties again; False where one has nothing to say this time. Values that were
        given out stay as they are."""
        for each in self.inline:
            try:
                value = each.ask()
            except (Problem, LookupError, BrokenProvider):  # asked again in the long way, it is told there
                return False
            if value is None:
                return False
            name = each.call.member.name
            if value is not self.values[name]:
                self.values = {**self.values, name: value}
        return True


class Readings:
    """Belongs to one event loop; `forget` may be called from any thread."""

    def __init__(self, carry_out: Callable[[Call], Coroutine[Any, Any, Plain]]) -> None:
        self._carry_out = carry_out
        self._held: dict[Member, _Held] = {}
        self._under_way: dict[Member, asyncio.Task[Plain]] = {}
        self._whole: dict[str, _Whole] = {}
        self.forgotten = 0

    def all_now(self, bound: Bound) -> tuple[dict[str, Plain], list[Member]]:
        """What memory holds of all properties, and what has to be read; the unknown and the failed are left
        out. While nothing has changed it is the same map for all who ask, and nobody may change it."""
        whole = self._whole.get(bound.interface.name)
        if whole is not None and whole.until >= time.monotonic() and whole.refresh():
            return whole.values, []
        forgotten = self.forgotten
        values: dict[str, Plain] = {}
        missing: list[Member] = []
        for member in bound.interface.of(Kind.PROPERTY):
            try:
                value = self.now(bound, member)
            except LookupError:
                missing.append(member)
            except Problem:
                continue
            else:
                if value is not None:
                    values[member.name] = value
        if not missing:
            self._keep_whole(bound, values, forgotten)
        return values, missing

    def _keep_whole(self, bound: Bound, values: dict[str, Plain], forgotten: int) -> None:
        members = bound.interface.of(Kind.PROPERTY)
        held = [self._held.get(member) for member in members if not member.inline]
        until = min((each.until if each else 0.0 for each in held), default=inf)
        inline = [member for member in members if member.inline]
        if any(member.name not in values for member in inline):
            return
        asked = tuple(_Inline(_reading(bound, member), None, None) for member in inline)
        self._whole[bound.interface.name] = _Whole(until, values, asked)
        if forgotten != self.forgotten:  # meanwhile, by another thread
            self._whole.pop(bound.interface.name, None)

    def now(self, bound: Bound, member: Member) -> Plain:
        """The value that memory holds, None where the host does not tell one. Raises the `Problem` met
        moments ago, or `LookupError` when the value has to be read."""
        if member.inline:
            value: Plain = _inline(_reading(bound, member))
            return value
        held = self._held.get(member)
        if held is None or held.until < time.monotonic():
            raise LookupError(member.name)
        if held.problem is not None:
            # a new one each time: every raise lengthens the traceback of an old one
            raise type(held.problem)(held.problem.message, **held.problem.details)
        return held.value

    async def get(self, bound: Bound, member: Member, deadline: float | None = None) -> Plain:
        """The value, read unless it is held; `Timeout` past `deadline` seconds or the member's own."""
        try:
            return self.now(bound, member)
        except LookupError:
            reading = self._under_way.get(member) or self._begin(bound, member)
        try:
            return await asyncio.wait_for(asyncio.shield(reading), deadline)
        except TimeoutError:
            if reading.done():
                return reading.result()
            raise Timeout(f"'{member.action}' did not answer within {deadline:g} s") from None

    def forget(self, member: Member) -> None:
        """The value has changed: what is held, or being read now, is old."""
        self.forgotten += 1
        self._whole.pop(member.interface, None)
        self._held.pop(member, None)
        self._under_way.pop(member, None)

    def _begin(self, bound: Bound, member: Member) -> "asyncio.Task[Plain]":
        reading = asyncio.ensure_future(self._read(bound, member))
        self._under_way[member] = reading
        reading.add_done_callback(lambda done: self._done(member, done))
        return reading

    async def _read(self, bound: Bound, member: Member) -> Plain:
        started = time.monotonic()
        try:
            value = await self._carry_out(_reading(bound, member))
        except Problem as problem:
            self._keep(member, started, None, problem)
            raise
        self._keep(member, started, value, None)
        return value

    def _keep(self, member: Member, started: float, value: Plain, problem: Problem | None) -> None:
        age = inf if member.constant else member.max_age
        if value is None:
            age = min(age, FAILURE_SECONDS)
        if age and self._under_way.get(member) is asyncio.current_task():  # else forgotten meanwhile
            self._held[member] = _Held(started + age, value, problem)

    def _done(self, member: Member, done: "asyncio.Task[Plain]") -> None:
        if self._under_way.get(member) is done:
            del self._under_way[member]
        if not done.cancelled():
            done.exception()  # seen: the callers get it


def _reading(bound: Bound, member: Member) -> Call:
    return Call(Request(bound.interface.name, member.name, Verb.GET, id=""), bound, member, (), {})


def _ask(call: Call) -> Any:
    return getattr(call.bound.provider, call.member.attribute)()


def _inline(call: Call, function: Callable[[Call], Any] = run) -> Any:
    try:
        return function(call)
    except Problem:
        raise
    except Exception as error:
        raise LookupError(call.member.name) from error  # read for good, it fails again where bugs are told
