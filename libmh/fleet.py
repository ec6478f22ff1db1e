"""One request to many hosts, and what became of it at each of them.

::

    with fleet("amqps://ops@broker.example") as hosts:
        account = hosts.call(Services.restart, "nginx", where=["cpu_flags=<in> avx2"], batch="10%", canary=2)
        print(account.summary())

Who has to answer is known before anything is asked: from the conductor's inventory, or where no conductor
answers from a roll call. So every host is accounted for at the end: it answered, failed, was not let, is too
slow, is not there, or was not asked any more.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from libmh.api.agent import Agent
from libmh.api.host import Host as HostInterface
from libmh.call import Request, Verb
from libmh.errors import NotAuthorized, NotFound, Problem, Timeout, Unavailable
from libmh.journal import DONE, RUNNING
from libmh.outcomes import Account, Host, Judge, Known, Plan, Result, State, judge_for, waves
from libmh.providers import find_interface
from libmh.selection import Where
from libmh.spec import DEFAULT_DEADLINE, Effect, Member, Plain, interface_of

log = logging.getLogger(__name__)
MARGIN = 1.0
"""Seconds that the way there and back may take beyond the deadline that a host keeps."""
QUIET_SECONDS = 2.0
"""When nobody was heard for so long, the silent are asked whether they are there."""
QUIET_PER_HOST = 0.001
PROBE_SECONDS = 2.0
ROLL_SECONDS = 5.0
ROLL_PAUSE = 1.0
"""The roll call is over when nobody has answered for so long."""
SPREAD_PER_HOST = 0.0001
"""Hosts put off their answers, by so much for each host that is asked."""
MOST_SPREAD = 1.0
LATE_SECONDS = 5.0
"""How much longer than it is waited for a request may still be run: clocks differ."""
AGENT = interface_of(Agent)


class Reply(Protocol):
    """A host's answer. Only its envelope has been read; `host` is its UUID."""

    @property
    def host(self) -> str: ...

    def problem(self) -> Problem | None:
        """What it refused or failed with, if it did."""
        ...

    def value(self) -> Plain:
        """The plain answer; raises the `Problem` of a body that cannot be read."""
        ...


Hear = Callable[[Reply], None]
Refused = Callable[[str, Problem], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How a request travels: `fleet` hosts are asked at once, who are meant by `where`, and nobody runs it
    when it comes later than after `lifetime` seconds."""

    lifetime: float
    fleet: int = 0
    where: Where = field(default_factory=Where)
    group: str = ""


class Line(Protocol):
    """What carries a request to many hosts, under one id. Errors are `Problem`s."""

    async def select(self, where: Where) -> list[Host] | None:
        """The hosts that the conductor knows; None where there is no conductor."""
        ...

    async def cast(self, request: Request, way: Way, hear: Hear) -> None:
        """Send to all who are meant, at once."""
        ...

    async def send(
        self, request: Request, hosts: Sequence[str], way: Way, hear: Hear, refused: Refused
    ) -> None:
        """Send to each of these; `refused` tells for which of them it was not taken."""
        ...

    async def leave(
        self, request: Request, hosts: Sequence[str], where: Where, seconds: float
    ) -> dict[str, Problem | None]:
        """Leave it for each of these at the broker, which keeps it for so long; what kept it from being
        left, by host. Nobody is answered."""
        ...

    def forget(self, request: Request) -> None:
        """Nobody hears the answers any more."""

    async def close(self) -> None: ...


async def fan_out(
    line: Line,
    request: Request,
    plan: Plan,
    tell: Callable[[Result], None] = lambda _result: None,
    account: Account | None = None,
) -> Account:
    """Ask all hosts that a plan means; `tell` hears of each result as it comes. Raises `NotFound` where no
    host is meant, and what keeps the request from being sent at all; cancel it to ask no further hosts."""
    work = _FanOut(line, request, plan, tell, Account() if account is None else account)
    try:
        await work.run()
    finally:
        line.forget(request)
        work.end()
    return work.account


class _FanOut:
    def __init__(
        self, line: Line, request: Request, plan: Plan, tell: Callable[[Result], None], account: Account
    ) -> None:
        self.line = line
        self.request = request
        self.plan = plan
        self.account = account
        self._tell = tell
        self._member = member_of_request(request)
        self._judge: Judge | None = plan.judge or judge_for(self._member)
        self._seconds = deadline_of(request, self._member)
        self._waiting: set[str] = set()
        self._there: set[str] = set()
        self._gone: set[str] = set()
        self._done = asyncio.Event()
        self._began = self._last = 0.0

    async def run(self) -> None:
        hosts = await self._expected()
        if not hosts:
            raise NotFound("no host that is known fulfils what is asked for")
        self.account.expect(hosts)
        planned = list(waves(hosts, self.plan))
        for number, wave in enumerate(planned):
            await self._wave(wave, everybody=len(planned) == 1)
            self.account.stopped = self.account.too_many(
                self.plan, canary=number == 0 and self.plan.canary > 0
            )
            if self.account.stopped:
                return

    def end(self) -> None:
        """Who was not asked is accounted for too."""
        for uuid in self._waiting:
            self._settle(uuid, State.UNKNOWN, message="it was asked, and not waited for")
        self._waiting.clear()
        for host in self.account.without_result():
            self._settle(host.uuid, State.NOT_ASKED)

    # who is expected

    async def _expected(self) -> list[Host]:
        found = None
        if not self.plan.group:
            found = await self.line.select(self.plan.where)
        if found:
            self.account.known = Known.CONDUCTOR
            return found
        self.account.known = Known.ROLL_CALL
        return await self._roll_call()

    async def _roll_call(self) -> list[Host]:
        """Who answers when asked for a name, which every host may be asked for."""
        found: dict[str, Host] = {}
        heard = asyncio.Event()

        def came(reply: Reply) -> None:
            name = ""
            with contextlib.suppress(Problem):
                told = reply.value() if reply.problem() is None else ""
                name = told if isinstance(told, str) else ""
            found[reply.host] = Host(reply.host, name)
            heard.set()

        asked = Request(interface_of(HostInterface).name, "hostname", Verb.GET, deadline=ROLL_SECONDS)
        way = Way(ROLL_SECONDS, 0, self.plan.where, self.plan.group)
        try:
            async with asyncio.timeout(ROLL_SECONDS):
                await self.line.cast(asked, way, came)
                while True:
                    heard.clear()
                    await asyncio.wait_for(heard.wait(), ROLL_PAUSE)
        except TimeoutError:  # nobody else, for now
            return sorted(found.values(), key=lambda host: (host.hostname, host.uuid))
        finally:
            self.line.forget(asked)

    # one wave

    async def _wave(self, hosts: Sequence[Host], *, everybody: bool) -> None:
        loop = asyncio.get_running_loop()
        spread = min(len(hosts) * SPREAD_PER_HOST, MOST_SPREAD)
        way = Way(self._seconds + MARGIN + spread, len(hosts), self.plan.where, self.plan.group)
        self._waiting = {host.uuid for host in hosts}
        self._done.clear()
        self._began = loop.time()
        if everybody:
            await self.line.cast(self.request, way, self._heard)
        else:
            await self._send(way)
        end = self._began + way.lifetime
        self._last = self._began + QUIET_PER_HOST * len(hosts)
        for pause, step in ((QUIET_SECONDS + spread, self._ask_again), (PROBE_SECONDS, self._give_up)):
            await self._until_silence(pause, end)
            if self._done.is_set() or loop.time() >= end:
                break
            self._last = loop.time()
            await step(way)
        await self._until(end)
        await self._look_up()
        self._close_wave(end + LATE_SECONDS)

    async def _until(self, when: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(when):
                await self._done.wait()

    async def _until_silence(self, seconds: float, end: float) -> None:
        """Until nobody was heard for so long, or all were, or `end`."""
        loop = asyncio.get_running_loop()
        while not self._done.is_set() and loop.time() < min(self._last + seconds, end):
            await self._until(min(self._last + seconds, end))

    async def _ask_again(self, way: Way) -> None:
        """Ask the silent whether they are there. What may be run twice is sent to them again, under its id,
        for they may have been without a connection just then."""
        ping = Request(AGENT.name, "ping", deadline=PROBE_SECONDS)
        silent = sorted(self._waiting)
        probe = Way(PROBE_SECONDS, len(silent), Where())
        try:
            await self.line.send(ping, silent, probe, self._alive, self._refused)
            if repeatable(self._member, self.request):
                await self._send(way)
        except (Unavailable, Timeout) as problem:
            log.warning("the silent hosts cannot be asked again: %s", problem)

    async def _send(self, way: Way) -> None:
        await self.line.send(self.request, sorted(self._waiting), way, self._heard, self._refused)

    async def _give_up(self, _way: Way) -> None:
        """Wait no longer for who is not there."""
        self._gone = self._waiting - self._there
        self._look_done()

    async def _look_up(self) -> None:
        """Ask those that are there what came of it: only the answer may have been lost, or be late."""
        there = self._waiting & self._there
        if not there or reads(self._member, self.request):
            return
        asked = Request(AGENT.name, "job", Verb.CALL, {"id": self.request.id}, deadline=PROBE_SECONDS)
        heard = asyncio.Event()

        def came(reply: Reply) -> None:
            there.discard(reply.host)
            if reply.host in self._waiting and reply.problem() is None:
                self._take_job(reply)
            if not there:
                heard.set()

        try:
            async with asyncio.timeout(PROBE_SECONDS):
                way = Way(PROBE_SECONDS, len(there))
                await self.line.send(asked, sorted(there), way, came, lambda _uuid, _problem: None)
                await heard.wait()
        except (Unavailable, Timeout, TimeoutError) as problem:
            log.info("what came of it cannot be looked up everywhere: %s", problem)
        finally:
            self.line.forget(asked)

    def _take_job(self, reply: Reply) -> None:
        told = reply.value()
        job: Mapping[str, Plain] = told if isinstance(told, dict) else {}
        outcome, message = str(job.get("outcome")), str(job.get("message") or "")
        if outcome == RUNNING:
            message = f"it still runs: see job {self.request.id} of that host"
            self._settle(reply.host, State.TIMED_OUT, message=message)
        elif outcome == DONE:
            self._settle_answer(reply.host, lambda: job.get("result"))
        else:
            self._settle(reply.host, State.FAILED, outcome, message)
        self._waiting.discard(reply.host)

    def _close_wave(self, until: float) -> None:
        left = max(0.0, until - asyncio.get_running_loop().time())
        may = "" if reads(self._member, self.request) else f"; it may still do it within {left:.0f} s"
        for uuid in sorted(self._waiting):
            if uuid in self._there:
                self._settle(uuid, State.TIMED_OUT, message=f"it did not answer within {self._seconds:g} s")
            else:
                self._settle(uuid, State.OFFLINE, message=f"it does not say that it is there{may}")
        self._waiting.clear()

    # what comes

    def _heard(self, reply: Reply) -> None:
        uuid = reply.host
        self._last = asyncio.get_running_loop().time()
        if uuid not in self._waiting and self.account.settled(uuid):
            self.account.repeated += 1
            return
        problem = reply.problem()
        if problem is not None:
            state = State.DENIED if isinstance(problem, NotAuthorized) else State.FAILED
            self._settle(uuid, state, problem.word, problem.message)
        else:
            self._settle_answer(uuid, reply.value)
        self._waiting.discard(uuid)
        self._look_done()

    def _settle_answer(self, uuid: str, read: Callable[[], Plain]) -> None:
        said = self._judge(read) if self._judge is not None else ""
        state = State.FAILED if said else State.ANSWERED
        self._settle(uuid, state, "failed" if said else "", said, read)

    def _alive(self, reply: Reply) -> None:
        self._there.add(reply.host)
        self._last = asyncio.get_running_loop().time()

    def _refused(self, uuid: str, problem: Problem) -> None:
        if uuid in self._waiting:
            self._settle(uuid, State.OFFLINE, problem.word, problem.message)
            self._waiting.discard(uuid)
            self._look_done()

    def _look_done(self) -> None:
        if self._waiting <= self._gone:
            self._done.set()

    def _settle(
        self,
        uuid: str,
        state: State,
        word: str = "",
        message: str = "",
        value: Callable[[], Plain] | None = None,
    ) -> None:
        seconds = 0.0 if state is State.NOT_ASKED else asyncio.get_running_loop().time() - self._began
        host = self.account.host(uuid)
        result = Result(uuid, host.hostname, state, word, message, seconds, value)
        self.account.add(result)
        self._tell(result)


def member_of_request(request: Request) -> Member | None:
    """The declaration of what is asked, as far as this process knows it."""
    interface = find_interface(request.interface)
    return interface.members.get(request.member) if interface else None


def deadline_of(request: Request, member: Member | None) -> float:
    """Seconds for which a host may be waited for."""
    if request.deadline is not None:
        return request.deadline
    return max(member.deadline if member else 0.0, DEFAULT_DEADLINE)


def reads(member: Member | None, request: Request) -> bool:
    """Whether a request changes nothing."""
    if request.verb is Verb.CALL:
        return member is not None and member.effect is Effect.READS
    return request.verb is not Verb.SET


def repeatable(member: Member | None, request: Request) -> bool:
    """Whether it does no harm to run a request twice."""
    return reads(member, request) or (member is not None and member.idempotent)
