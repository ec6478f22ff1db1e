"""Every property of a provider as a fact: the value with its source, time and status, so that nothing is
just absent."""

import logging
import time
from concurrent.futures import Future
from dataclasses import replace

from libmh.api.host import Fact, FactStatus
from libmh.call import Bound, Call, Request, Verb, run
from libmh.errors import NotAuthorized, NotImplementedHere, Problem, Timeout
from libmh.guard import Guard
from libmh.spec import Kind, Member, Plain, interface_of

log = logging.getLogger("libmh.facts")
MAX_REASON = 1000
GRACE = 0.1  # a property that guards itself with the same deadline may still say which part is missing

READERS = Guard(max_threads=8)
"""Threads of their own: whoever waits for facts may hold one of `guard.SHARED`'s."""


class Facts:
    """The facts of one provider, and the last good value of each."""

    def __init__(self, provider: object, guard: Guard = READERS) -> None:
        self._bound = Bound(interface_of(type(provider)), provider)
        self._guard = guard
        self._good: dict[str, Fact] = {}

    def collect(self) -> dict[str, Fact]:
        """Read all properties side by side, by wire name. It takes at most the longest of their deadlines,
        and raises nothing: a property that cannot be read says so. A constant that was read once is not read
        again."""
        started = time.monotonic()
        reads = [(member, self._start(member)) for member in self._bound.interface.of(Kind.PROPERTY)]
        return {member.name: self._finish(member, read, started) for member, read in reads}

    def _start(self, member: Member) -> "Future[Plain] | Fact":
        good = self._good.get(member.name)
        if good is not None and member.constant:
            return good
        call = Call(
            Request(self._bound.interface.name, member.name, Verb.GET, id=""), self._bound, member, (), {}
        )
        try:
            return self._guard.submit(member.action, lambda: run(call), member.deadline)
        except Problem as problem:
            return self._failure(member, problem)

    def _finish(self, member: Member, read: "Future[Plain] | Fact", started: float) -> Fact:
        if isinstance(read, Fact):
            return read
        left = started + member.deadline + GRACE - time.monotonic()
        try:
            error = read.exception(max(0.0, left))
        except TimeoutError:
            self._guard.abandon(member.action, read)
            return self._failure(member, Timeout(f"did not answer within {member.deadline:g} s"))
        return self._failure(member, error) if error else self._success(member, read.result())

    def _success(self, member: Member, value: Plain) -> Fact:
        if value is None:
            return self._failure(member, NotImplementedHere("this host does not tell"))
        fact = Fact(FactStatus.OK, member.source, time.time_ns(), value)
        self._good[member.name] = fact
        return fact

    def _failure(self, member: Member, error: BaseException) -> Fact:
        now = time.time_ns()
        if not isinstance(error, Problem):
            log.error("%s cannot be read", member.action, exc_info=error)
            reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
            return Fact(FactStatus.FAILED, member.source, now, reason=reason)
        good = self._good.get(member.name)
        if isinstance(error, Timeout) and good is not None:
            return replace(good, status=FactStatus.STALE, reason=error.message)
        return Fact(_status(error), member.source, now, reason=error.message)


def _status(problem: Problem) -> FactStatus:
    match problem:
        case NotImplementedHere():
            return FactStatus.UNSUPPORTED
        case NotAuthorized():
            return FactStatus.DENIED
        case Timeout():
            return FactStatus.TIMEOUT
        case _:
            return FactStatus.FAILED


def collect(provider: object) -> dict[str, Fact]:
    """The facts of a provider, once, with no memory of earlier values."""
    return Facts(provider).collect()
