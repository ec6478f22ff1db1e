"""The one way in: look up, parse, authorise, run under a deadline, convert.

`Dispatcher.call` answers a plain tree or raises a `Problem`. What a provider raises that is not a `Problem`
becomes `internal` for the caller, with an id, and a traceback under the same id for the journal.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from libmh import audit
from libmh.api.agent import CallCounts
from libmh.call import (
    Bound,
    Call,
    Naming,
    Request,
    Verb,
    internal,
    look_up,
    prepare,
    run,
    unknown_value,
)
from libmh.caller import Stop
from libmh.context import Context
from libmh.errors import NotAuthorized, NotFound, Problem, Timeout, Unavailable
from libmh.events import Event
from libmh.guard import PATIENT, SHARED, Guard
from libmh.journal import Journal
from libmh.readings import Readings
from libmh.spec import DEFAULT_DEADLINE, Access, Effect, Interface, Kind, Member, Plain

log = logging.getLogger("libmh.dispatch")
MAX_OUTSTANDING = 1024
NAMING_SECONDS = 10.0
MAX_SHOWN = 100
T = TypeVar("T")

Objects = Callable[[], Awaitable[Mapping[str, str]]]
"""Asks what a request acts on: values by argument, as the host itself calls them. Only who looks at them
asks, for it may take a round trip; it raises what keeps the host from telling."""


class Authority(Protocol):
    """Who may do what. Raises `NotAuthorized`; `member` is None when all properties are read."""

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None: ...


async def no_objects() -> Mapping[str, str]:
    """What a request that names nothing acts on."""
    return {}


class Everybody:
    """Allows everything: for a caller that is this process itself, and for tests."""

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stands for a provider in another process: what is asked of it is handed on as it is, under a deadline
    that `hand_on` keeps, and nothing of it is held here. That process tells what has changed."""

    hand_on: Callable[[Request], Awaitable[Plain]]


class Dispatcher:
    """Answers requests for a set of interfaces. Belongs to one event loop."""

    def __init__(
        self,
        interfaces: Mapping[str, Bound],
        context: Context,
        authority: Authority | None = None,
        guard: Guard = SHARED,
        patient: Guard = PATIENT,
    ) -> None:
        self.interfaces = interfaces
        self.context = context
        self.authority: Authority = authority or Everybody()
        self.journal = Journal()
        self._guard = guard
        self._patient = patient
        self._readings = Readings(self._run)
        self._reading_all: dict[tuple[str, int], asyncio.Task[dict[str, Plain]]] = {}
        self._stops: dict[str, list[Stop]] = {}
        self._outstanding = 0
        self._answered = self._failed = self._denied = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        context.events.subscribe(self._forget)

    def counts(self) -> CallCounts:
        """What has been answered so far."""
        stuck = self._guard.stuck + self._patient.stuck
        return CallCounts(self._answered, self._failed, self._denied, self._outstanding, stuck)

    async def call(self, request: Request) -> Plain:
        """Answer one request: None, the value, or a list of the named results; for GET_ALL a map."""
        if self._draining:
            raise Unavailable("this agent is shutting down")
        if self._outstanding >= MAX_OUTSTANDING:
            raise Unavailable(f"{MAX_OUTSTANDING} calls are outstanding, try again later")
        self._outstanding += 1
        self._idle.clear()
        try:
            answer = await self._answer(request)
        except Problem as problem:
            self._count(problem)
            raise
        except Exception as error:  # the border: anything else is a bug, of ours or of a provider
            self._failed += 1
            raise internal(request, error) from error
        else:
            self._answered += 1
            return answer
        finally:
            self._outstanding -= 1
            if not self._outstanding:
                self._idle.set()

    def answer_now(self, request: Request) -> Plain:
        """The answer of a property read that memory holds; raises `LookupError` when `call` has to be
        awaited. It asks nobody for leave: for transports on which reading is open."""
        bound = self.interfaces[request.interface]
        if self._draining or request.version is not None:
            raise LookupError(request.interface)
        value: Plain
        if request.verb is Verb.GET:
            value = self._held(bound, bound.interface.members[request.member])
        elif request.verb is Verb.GET_ALL:
            value, missing = self._readings.all_now(bound)
            if missing:
                raise LookupError(request.interface)
        else:
            raise LookupError(request.verb)
        self._answered += 1
        return value

    def _held(self, bound: Bound, member: Member) -> Plain:
        if member.kind is not Kind.PROPERTY:
            raise LookupError(member.name)  # nothing but a property may be run without leave
        try:
            value = self._readings.now(bound, member)
        except Problem as problem:
            raise LookupError(member.name) from problem  # `call` meets it again, and counts it
        if value is None:
            raise LookupError(member.name)
        return value

    def stop(self, number: str) -> bool:
        """Stop a request that changes something, by its id; whether it is one that can be stopped. Callers
        choose the ids: of more that have the same, each. `not-found` when no such request runs."""
        found = self._stops.get(number)
        if found is None:
            raise NotFound(f"no operation '{number[:MAX_SHOWN]}' runs here", id=number[:MAX_SHOWN])
        stopped = [stop.pull() for stop in found]
        return any(stopped)

    async def authorise(self, call: Call) -> None:
        """Ask the authority about a call that is prepared. Raises `NotAuthorized`, which is written down."""

        async def objects() -> Mapping[str, str]:
            return await self._named(call)

        try:
            await self.authority.authorise(call.request, call.bound.interface, call.member, objects)
        except NotAuthorized as problem:
            _audit(call, problem.word)
            raise

    async def _named(self, call: Call) -> Mapping[str, str]:
        provider = call.bound.provider
        if not call.objects or not isinstance(provider, Naming):
            return call.objects
        named = provider.canonical
        source, seconds = f"names of {call.source}", min(call.deadline, NAMING_SECONDS)
        future = self._guard.submit(source, lambda: named(call.member.name, call.objects), seconds)
        return await _waited(self._guard, source, source, future, seconds)

    async def drain(self, grace: float) -> bool:
        """Refuse what comes now, wait at most `grace` seconds for what runs; whether all of it ended."""
        self._draining = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _answer(self, request: Request) -> Plain:
        bound = look_up(self.interfaces, request)
        if request.verb is Verb.GET_ALL:
            try:
                await self.authority.authorise(request, bound.interface, None, no_objects)
            except NotAuthorized as problem:
                action = f"{bound.interface.name}.*"
                audit.record(request.verb, action, {}, request.caller, problem.word, request.id)
                raise
            if isinstance(bound.provider, Elsewhere):
                return await bound.provider.hand_on(request)
            return await self._read_all(bound, request.deadline)
        call = prepare(bound, request)
        if request.verb is Verb.GET:
            await self.authorise(call)
            return await self._get(call)
        await self.authorise(call)
        outcome = "failed"
        try:
            answer = await self._journalled(call)
            outcome = "done"
        except Problem as problem:
            outcome = problem.word
            raise
        finally:
            if call.member.effect is not Effect.READS:
                _audit(call, outcome)
        if request.verb is Verb.SET and not isinstance(bound.provider, Elsewhere):
            self.context.events.changed(bound.interface, **{call.member.name: call.values[0]})
        return answer

    async def _journalled(self, call: Call) -> Plain:
        """Run it; what only some may have changed can be looked up later."""
        request, member = call.request, call.member
        if member.access is Access.OPEN or (request.verb is Verb.CALL and member.effect is Effect.READS):
            return await self._run(call)
        self.journal.begin(request.id, call.member.action, call.objects, request.caller.described)
        stop = Stop()
        self._stops.setdefault(request.id, []).append(stop)
        try:
            answer = await self._run(call, stop)
        except BaseException as error:
            self.journal.end(request.id, problem=error)
            raise
        finally:
            self._stops[request.id].remove(stop)
            if not self._stops[request.id]:
                del self._stops[request.id]
        self.journal.end(request.id, answer)
        return answer

    async def _get(self, call: Call) -> Plain:
        if isinstance(call.bound.provider, Elsewhere):
            return await call.bound.provider.hand_on(call.request)
        value = await self._readings.get(call.bound, call.member, call.request.deadline)
        if value is None:
            raise unknown_value(call.member)
        return value

    async def _read_all(self, bound: Bound, deadline: float | None) -> Plain:
        longest = max((member.deadline for member in bound.interface.of(Kind.PROPERTY)), default=0.0)
        if deadline is not None and deadline < longest:
            return await self._read_missing(bound, deadline)
        # one round for all who ask meanwhile, unless something has changed since it began
        key = (bound.interface.name, self._readings.forgotten)
        reading = self._reading_all.get(key)
        if reading is None:
            reading = asyncio.ensure_future(self._read_missing(bound, None))
            self._reading_all[key] = reading
            reading.add_done_callback(lambda _done: self._reading_all.pop(key, None))
        return dict(await asyncio.shield(reading))

    async def _read_missing(self, bound: Bound, deadline: float | None) -> dict[str, Plain]:
        held, missing = self._readings.all_now(bound)
        answer = dict(held)
        values = await asyncio.gather(
            *(self._readings.get(bound, member, deadline) for member in missing), return_exceptions=True
        )
        for member, value in zip(missing, values, strict=True):
            if isinstance(value, Problem):
                log.debug("%s: %s; left out", member.action, value)
            elif isinstance(value, BaseException):
                internal(Request(bound.interface.name, member.name, Verb.GET), value)
            elif value is not None:
                answer[member.name] = value
        return answer

    def _forget(self, event: Event) -> None:
        if event.member or event.interface not in self.interfaces:
            return
        members = self.interfaces[event.interface].interface.members
        for name in event.fields:
            self._readings.forget(members[name])

    async def _run(self, call: Call, stop: Stop | None = None) -> Plain:
        if isinstance(call.bound.provider, Elsewhere):
            return await call.bound.provider.hand_on(call.request)
        member = call.member
        ends = time.monotonic() + call.deadline
        if member.inline:
            return run(call, ends)
        guard = self._guard if member.deadline <= DEFAULT_DEADLINE else self._patient
        # what reads takes turns, so that a source that hangs costs one thread; what changes something has an
        # order of its own, which its provider knows
        key = call.source if member.effect is Effect.READS else f"{call.source} {call.request.id}"
        future = guard.submit(key, lambda: run(call, ends, stop), call.deadline)
        return await _waited(guard, key, call.source, future, call.deadline)

    def _count(self, problem: Problem) -> None:
        if isinstance(problem, NotAuthorized):
            self._denied += 1
        else:
            self._failed += 1


async def _waited(guard: Guard, key: str, source: str, future: "Future[T]", deadline: float) -> T:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), deadline)
    except TimeoutError:
        if future.done() and not future.cancelled():  # the provider's own, or an answer just in time
            return future.result()
        guard.abandon(key, future)
        raise Timeout(f"'{source}' did not answer within {deadline:g} s", source=source) from None


def _audit(call: Call, outcome: str) -> None:
    request = call.request
    audit.record(request.verb, call.member.action, call.objects, request.caller, outcome, request.id)
