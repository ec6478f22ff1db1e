"""The one way in: look up, parse, authorise, run under a deadline, convert.

`Dispatcher.call` answers a plain tree or raises a `Problem`. What a provider raises that is not a `Problem`
becomes `internal` for the caller, with an id, and a traceback under the same id for the journal.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol

from libmh.api.agent import CallCounts
from libmh.call import Bound, Call, Request, Verb, look_up, prepare, run
from libmh.context import Context
from libmh.errors import Internal, NotAuthorized, NotFound, Problem, Timeout, Unavailable
from libmh.events import Event
from libmh.guard import SHARED, Guard
from libmh.spec import Effect, Interface, Kind, Member, Plain

log = logging.getLogger("libmh.dispatch")
audit = logging.getLogger("libmh.audit")
MAX_OUTSTANDING = 1024


class Authority(Protocol):
    """Who may do what. Raises `NotAuthorized`; `member` is None when all properties are read."""

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Mapping[str, str]
    ) -> None: ...


class Everybody:
    """Allows everything: for a caller that is this process itself, and for tests."""

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Mapping[str, str]
    ) -> None: ...


class Dispatcher:
    """Answers requests for a set of interfaces. Belongs to one event loop."""

    def __init__(
        self,
        interfaces: Mapping[str, Bound],
        context: Context,
        authority: Authority | None = None,
        guard: Guard = SHARED,
    ) -> None:
        self.interfaces = interfaces
        self.context = context
        self.authority: Authority = authority or Everybody()
        self._guard = guard
        self._cache: dict[Member, tuple[float, Plain]] = {}
        self._reading: dict[Member, asyncio.Task[Plain]] = {}
        self._outstanding = 0
        self._answered = self._failed = self._denied = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        context.events.subscribe(self._forget)

    def counts(self) -> CallCounts:
        """What has been answered so far."""
        return CallCounts(self._answered, self._failed, self._denied, self._outstanding, self._guard.stuck)

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
        except (
            Exception
        ) as error:  # the border: whatever else is raised in here is a bug of ours or of a provider
            self._failed += 1
            raise self._internal(request, error) from error
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
            value = {member.name: self._held(bound, member) for member in bound.interface.of(Kind.PROPERTY)}
        else:
            raise LookupError(request.verb)
        self._answered += 1
        return value

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
            await self.authority.authorise(request, bound.interface, None, {})
            return await self._read_all(bound)
        call = prepare(bound, request)
        await self.authority.authorise(request, bound.interface, call.member, call.objects)
        if request.verb is Verb.GET:
            return await self._get(call)
        try:
            answer = await self._run(call)
        except Problem as problem:
            self._audit(call, problem.word)
            raise
        self._audit(call, "done")
        if request.verb is Verb.SET:
            self.context.events.changed(bound.interface, **{call.member.name: call.values[0]})
        return answer

    async def _get(self, call: Call) -> Plain:
        value = await self._read(call.bound, call.member)
        if value is None:
            raise NotFound(f"'{call.member.action}' is not known on this host", member=call.member.action)
        return value

    async def _read_all(self, bound: Bound) -> Plain:
        members = bound.interface.of(Kind.PROPERTY)
        values = await asyncio.gather(
            *(self._read(bound, member) for member in members), return_exceptions=True
        )
        answer: dict[str, Plain] = {}
        for member, value in zip(members, values, strict=True):
            if isinstance(value, Problem):
                log.info("%s: %s; left out", member.action, value)
            elif isinstance(value, BaseException):
                self._internal(Request(bound.interface.name, member.name, Verb.GET), value)
            elif value is not None:
                answer[member.name] = value
        return answer

    async def _read(self, bound: Bound, member: Member) -> Plain:
        held = self._fresh(member)
        if held is not None:
            return held
        reading = self._reading.get(member)
        if reading is None:
            # one read at a time, shared by all who ask meanwhile
            reading = asyncio.ensure_future(self._read_now(bound, member))
            self._reading[member] = reading
            reading.add_done_callback(lambda done: self._read_done(member, done))
        return await asyncio.shield(reading)

    def _read_done(self, member: Member, done: "asyncio.Task[Plain]") -> None:
        self._reading.pop(member, None)
        if not done.cancelled():
            done.exception()  # seen: the callers get it

    async def _read_now(self, bound: Bound, member: Member) -> Plain:
        call = Call(Request(bound.interface.name, member.name, Verb.GET), bound, member, (), {})
        started = time.monotonic()
        value = await self._run(call)
        if member.constant or member.max_age:
            self._cache[member] = (started, value)
        return value

    def _fresh(self, member: Member) -> Plain:
        held = self._cache.get(member)
        if held is not None and (member.constant or time.monotonic() - held[0] <= member.max_age):
            return held[1]
        return None

    def _held(self, bound: Bound, member: Member) -> Plain:
        value = self._fresh(member)
        if value is None and member.inline:
            request = Request(bound.interface.name, member.name, Verb.GET, id="")
            try:
                value = run(Call(request, bound, member, (), {}))
            except Exception as error:
                raise LookupError(member.name) from error  # `call` meets it again, and tells it
        if value is None:
            raise LookupError(member.name)
        return value

    def _forget(self, event: Event) -> None:
        if event.member or event.interface not in self.interfaces:
            return
        members = self.interfaces[event.interface].interface.members
        for name in event.fields:
            self._cache.pop(members[name], None)

    async def _run(self, call: Call) -> Plain:
        member = call.member
        if member.inline:
            return run(call)
        asked = call.request.deadline
        deadline = member.deadline if asked is None else max(0.001, min(asked, member.deadline))
        key = ":".join((member.action, *call.objects.values()))
        future = self._guard.submit(key, lambda: run(call))
        return await self._wait(key, future, deadline)

    async def _wait(self, key: str, future: "Future[Plain]", deadline: float) -> Plain:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline)
        except TimeoutError:
            if future.done() and not future.cancelled():  # a TimeoutError of the provider's own
                raise
            self._guard.abandon(key, future)
            raise Timeout(f"'{key}' did not answer within {deadline:g} s", source=key) from None

    def _count(self, problem: Problem) -> None:
        if isinstance(problem, NotAuthorized):
            self._denied += 1
        else:
            self._failed += 1

    def _audit(self, call: Call, outcome: str) -> None:
        if call.member.effect is not Effect.READS:
            who, request = call.request.caller, call.request
            audit.info(
                "%s %s %s by %s %s (uid %s): %s, request %s",
                *(
                    request.verb,
                    call.member.action,
                    dict(call.objects),
                    who.transport,
                    who.identity,
                    who.uid,
                ),
                *(outcome, request.id),
            )

    @staticmethod
    def _internal(request: Request, error: BaseException) -> Internal:
        number = uuid.uuid4().hex[:12]
        log.error("internal error %s in %s.%s", number, request.interface, request.member, exc_info=error)
        return Internal(f"internal error {number}; the agent's journal has it under this id", id=number)
