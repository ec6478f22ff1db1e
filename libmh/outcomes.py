"""What becomes of a request to many hosts: the plan of who is asked when, and the account of all of them."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from libmh.errors import InvalidArguments, Problem
from libmh.selection import EVERY_HOST, Where
from libmh.spec import Member, Plain

SHARE = re.compile(r"([0-9]{1,9})(%?)")
PERCENT = 100
RC = "rc"


class State(StrEnum):
    """How it ended at one host. OFFLINE: expected, and silent even when asked whether it is there.
    NOT_ASKED: the plan was stopped before its turn. UNKNOWN: it was asked, and not waited for."""

    ANSWERED = "answered"
    FAILED = "failed"
    DENIED = "denied"
    TIMED_OUT = "timed-out"
    OFFLINE = "offline"
    NOT_ASKED = "not-asked"
    UNKNOWN = "unknown"


BAD = (State.FAILED, State.DENIED, State.TIMED_OUT, State.OFFLINE)


class Known(StrEnum):
    """Who told which hosts there are."""

    CONDUCTOR = "conductor"
    ROLL_CALL = "roll-call"


@dataclass(frozen=True, slots=True)
class Host:
    """One that is expected to answer; `last_seen` in ns since the epoch, by the conductor's clock."""

    uuid: str
    hostname: str = ""
    last_seen: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of it at one host: `word` and `message` of what went wrong, `seconds` since its wave was
    asked."""

    uuid: str
    hostname: str
    state: State
    word: str = ""
    message: str = ""
    seconds: float = 0.0
    body: Callable[[], Plain] | None = None

    def value(self) -> Plain:
        """The plain answer, read when it is first asked for; None where there is none."""
        return None if self.body is None else self.body()


@dataclass(frozen=True, slots=True)
class Share:
    """A number of hosts, or a percentage of them."""

    number: int
    percent: bool = False

    def of(self, total: int) -> int:
        """How many that are; of some at least one."""
        return max(1, math.ceil(total * self.number / PERCENT)) if self.percent else self.number

    def exceeded(self, bad: int, total: int) -> bool:
        """Whether more than that went wrong."""
        return bad * PERCENT > self.number * total if self.percent else bad > self.number

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)


def share(text: str | int, what: str) -> Share:
    """Read `10%` or `25`. Raises `InvalidArguments`."""
    found = SHARE.fullmatch(str(text).strip())
    if found is None or (found[2] and int(found[1]) > PERCENT):
        raise InvalidArguments(
            f"{what}: expected a number of hosts or a percentage, such as 10%, got '{str(text)[:60]}'",
            argument=what,
        )
    return Share(int(found[1]), bool(found[2]))


Judge = Callable[[Callable[[], Plain]], str]
"""Given what reads an answer: why it counts as a failure; empty when it does not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked, and when: `canary` hosts first, then `batch` at a time, then no more once `stop_on_fail`
    is exceeded (by one failed canary where it is not said). `judge` decides what is a failure, where
    the member's declaration does not."""

    where: Where = EVERY_HOST
    batch: Share | None = None
    canary: int = 0
    stop_on_fail: Share | None = None
    group: str = ""
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch.number < 1:
            raise InvalidArguments("batch: expected at least 1 host, or 1%", argument="batch")
        if self.canary < 0:
            raise InvalidArguments(f"canary: expected 0 or more hosts, got {self.canary}", argument="canary")


def waves(hosts: Sequence[Host], plan: Plan) -> Iterator[Sequence[Host]]:
    """The hosts in the order and the groups in which they are asked."""
    size = plan.batch.of(len(hosts)) if plan.batch else len(hosts)
    at = min(plan.canary, len(hosts))
    if at:
        yield hosts[:at]
    while at < len(hosts):
        yield hosts[at : at + size]
        at += size


def judge_for(member: Member | None) -> Judge | None:
    """What tells failures among the answers of a member: the first of its results is `rc`, and not 0."""
    if member is None or not member.results or member.results[0].name != RC:
        return None
    several = len(member.results) > 1

    def judge(read: Callable[[], Plain]) -> str:
        try:
            told = read()
        except Problem as problem:
            return problem.message
        code = told[0] if several and isinstance(told, list) and told else told
        return "" if code == 0 else f"{member.name} answered {RC} {code!r}"

    return judge


@dataclass(slots=True)
class Account:
    """Every host that was expected, with its result once there is one. `unexpected` answered although
    nobody knew of them, and are expected since; `repeated` are answers that came twice; `stopped` says why
    not all were asked."""

    known: Known = Known.CONDUCTOR
    expected: dict[str, Host] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    unexpected: int = 0
    repeated: int = 0
    stopped: str = ""
    interrupted: bool = False

    def expect(self, hosts: Sequence[Host]) -> None:
        self.expected |= {host.uuid: host for host in hosts}

    def host(self, uuid: str) -> Host:
        """One that answers is expected from then on."""
        if uuid not in self.expected:
            self.unexpected += 1
            self.expected[uuid] = Host(uuid)
        return self.expected[uuid]

    def settled(self, uuid: str) -> bool:
        """Whether a host has answered already; who was given up may still."""
        held = self.results.get(uuid)
        return held is not None and held.state not in (State.TIMED_OUT, State.OFFLINE)

    def add(self, result: Result) -> None:
        self.results[result.uuid] = result

    def without_result(self) -> list[Host]:
        return [host for uuid, host in self.expected.items() if uuid not in self.results]

    def counts(self) -> Counter[State]:
        """How many came to which end."""
        return Counter(result.state for result in self.results.values())

    @property
    def good(self) -> bool:
        """Whether every host that was expected answered, and well."""
        return self.counts()[State.ANSWERED] == len(self.expected)

    def too_many(self, plan: Plan, *, canary: bool) -> str:
        """Why no further hosts are asked; empty to go on."""
        if not self.without_result():
            return ""
        counts = self.counts()
        bad, total = sum(counts[state] for state in BAD), len(self.results)
        limit = plan.stop_on_fail or (Share(0) if canary else None)
        if limit is None or not limit.exceeded(bad, total):
            return ""
        which = "canaries" if canary else "hosts"
        return f"{bad} of the first {total} {which} did not do it, at most {limit} may fail"

    def summary(self) -> str:
        """One line: `38 of 40 answered, 1 failed, 1 offline`."""
        counts = self.counts()
        said = [f"{counts[State.ANSWERED]} of {len(self.expected)} answered"]
        others = [state for state in State if state is not State.ANSWERED and counts[state]]
        said += [f"{counts[state]} {state.replace('-', ' ')}" for state in others]
        return ", ".join(said)
