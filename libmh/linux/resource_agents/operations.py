"""Operations on resources: once, or again and again until they are cancelled.

Everything that recurs belongs to the runner's thread: it is changed there and nowhere else. Callers wait for
futures that are resolved there.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from libmh.api.resources import Operation
from libmh.caller import stoppable
from libmh.errors import BackendFailed, Conflict, NotFound, Problem, Timeout, Unavailable
from libmh.guard import SHARED
from libmh.linux.descendants import kill_marked
from libmh.linux.resource_agents.opstore import MAX_OPERATIONS, Memo, Store, kept
from libmh.linux.runner import CANCELLED, MISSING, Calling, Command, Ending, Run, Runner, Timer, Work

log = logging.getLogger("libmh.linux.resource_agents.operations")
T = TypeVar("T")
MAX_U32 = 2**32 - 1
LEAST_PAUSE = 0.05  # seconds between two runs, however short the interval
LEAST_BETWEEN = 0.2  # seconds between two events of one operation
GRACE = 20.0  # for what waits for its turn, and for the end of what it replaces
ANSWER_SECONDS = 10.0
RESUMED_AFTER = 1.0
MAX_CALLERS = 40
CALLER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Action:
    """What to do with a resource. `interval` and `timeout` are milliseconds."""

    name: str
    standard: str
    provider: str
    agent: str
    action: str
    interval: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    timeout: int = 0
    expected: int = 0
    userdata: str = ""

    @property
    def id(self) -> str:
        """`web_monitor_10000`: the ancestor's. Two may have the same: `a_b` of `c`, `b` of `c_a`."""
        return f"{self.name}_{self.action}_{self.interval}"

    @property
    def key(self) -> "Key":
        return self.name, self.action, self.interval


SHAPE = asdict(Action("", "", "", "", ""))
Key = tuple[str, str, int]
"""Name, action, interval: which operation it is."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, its number, and when: nanoseconds since the epoch."""

    action: Action
    ending: Ending
    sequence: int
    time: int


@dataclass(slots=True, eq=False)
class Recurring:
    """An operation that recurs."""

    action: Action
    work: Work
    slot: int
    first: "Future[Result] | None" = None
    run: Run | None = None
    next: Timer | None = None
    waits: bool = False  # for the end of what it replaces
    cancelled: bool = False
    gone: "list[Callable[[], None]]" = field(default_factory=list)
    told_at: float = 0.0
    telling: bool = False
    kept: str = ""

    def __post_init__(self) -> None:
        self.kept = kept(self.slot, asdict(self.action))


Planner = Callable[[Action], Work]
Teller = Callable[[Action, Memo], None]


class Operations:
    """The operations of a state directory. `plan` says what an action is as a script, `tell` raises the
    event; it is called in the runner's thread."""

    def __init__(self, runner: Runner, store: Store, plan: Planner, tell: Teller) -> None:
        self._runner, self._store, self._plan, self._tell = runner, store, plan, tell
        self._table: dict[Key, Recurring] = {}
        self._once: dict[Key, set[Run]] = {}
        self._sequence = itertools.count(1)
        self._resuming = threading.Lock()
        self._callers = threading.BoundedSemaphore(MAX_CALLERS)
        self._closing = False

    def run(self, action: Action) -> Result:
        """Run an action, and answer how its first run ended. `conflict` when it recurs and the operations
        of this state directory are run by another process, `unavailable` when too many callers wait."""
        work = self._plan(action)
        first: Future[Result] = Future()
        started: list[Run] = []
        # each caller holds a thread, and others ask this agent for other things
        if not self._callers.acquire(timeout=CALLER_SECONDS):
            raise Unavailable(f"{MAX_CALLERS} callers wait for the end of actions, try again later")
        try:
            if action.interval:
                self.resume()
                self._runner.post(lambda: self._add(action, work, first))
            else:
                self._runner.post(lambda: self._start_once(action, work, first, started))
            with stoppable(lambda: self._runner.post(lambda: self._stop(action, first, started))):
                return _wait(first, work.seconds + GRACE)
        except Timeout:  # its turn has not come, and is not to come once the caller was told so
            for run in started:
                self._runner.stop(run)
            raise
        finally:
            self._callers.release()

    def _stop(self, action: Action, first: "Future[Result]", runs: list[Run]) -> None:
        """What recurs does not go on when whoever asked for it has it stopped before its first run ended."""
        each = self._table.get(action.key)
        if each is not None and each.first is first:
            self._cancel(action.key, Future())
        for run in runs:
            self._runner.stop(run)

    def watch(self) -> None:
        """Go on with what is on the disk, if anything is: who has nothing there need not own it. Raises as
        `run`."""
        if not self._store.owned and self._store.definitions():
            self.resume()

    def resume(self) -> None:
        """Own the state directory and go on with what it has, once. Raises as `run`."""
        with self._resuming:
            if self._store.owned:
                return
            found = [(slot, _action(each), memo) for slot, each, memo in self._store.definitions()]
            if not self._store.own():
                raise Conflict(
                    f"recurring operations are run by process {self._store.owner()}, "
                    "another agent with the same state directory: ask that one"
                )
            done: Future[None] = Future()
            self._runner.post(lambda: self._resume(found, done))
            _wait(done, ANSWER_SECONDS)

    def cancel(self, name: str, action: str, interval: int, seconds: float) -> None:
        """End an operation; a run that is under way is killed, and has ended. `not-found` when there is
        none, `timeout` when it does not end."""
        if interval:
            self.watch()
        done: Future[None] = Future()
        self._runner.post(lambda: self._cancel((name, action, interval), done))
        _wait(done, seconds)

    def fail(self, name: str, rc: int) -> None:
        """Tell a code for each recurring operation of a resource. `not-found` when it has none."""
        self.watch()
        done: Future[None] = Future()
        self._runner.post(lambda: self._fail(name, rc, done))
        _wait(done, ANSWER_SECONDS)

    def listed(self) -> list[Operation]:
        """The recurring ones, by id; of another process those that it has written down."""
        if self._store.owned:
            here = list(self._table.copy().values())
            found = [_described(each.action, self._store.memo(each.slot)) for each in here]
        else:
            found = [_described(_action(each), memo) for _, each, memo in self._store.definitions()]
        return sorted(found, key=lambda operation: operation.id)

    def close(self) -> None:
        """Kill what runs; it counts as not run, not as interrupted."""
        self._closing = True
        self._runner.close()
        for each in self._table.values():
            self._store.remember(each.slot, replace(self._store.memo(each.slot), running=False))
        self._store.release()

    def _number(self) -> int:
        return next(self._sequence) & MAX_U32

    def _start_once(self, action: Action, work: Work, first: "Future[Result]", started: list[Run]) -> None:
        runs = self._once.setdefault(action.key, set())

        def done(ending: Ending) -> None:
            runs.difference_update(started)
            if not runs:
                self._once.pop(action.key, None)
            first.set_result(Result(action, ending, self._number(), time.time_ns()))

        try:
            started.append(self._runner.start(work, done))
        except Problem as problem:
            first.set_exception(problem)
        else:
            runs.update(started)

    def _add(self, action: Action, work: Work, first: "Future[Result]") -> None:
        old = self._table.get(action.key)
        slot = old.slot if old else self._free_slot()
        if slot is None:
            first.set_exception(Unavailable(f"{MAX_OPERATIONS} operations recur already"))
            return
        new = Recurring(action, self._marked(action, work), slot, first)
        self._table[action.key] = new
        if not self._defined(first):
            self._restore(action.key, old)
            return
        self._store.remember(slot, Memo())
        if old is None:
            self._begin(new)
        else:
            new.waits = True
            self._end(old, lambda: self._begin(new))

    def _restore(self, key: Key, old: Recurring | None) -> None:
        if old is None:
            del self._table[key]
        else:
            self._table[key] = old

    def _free_slot(self) -> int | None:
        taken = {each.slot for each in self._table.values()}
        return next((slot for slot in range(MAX_OPERATIONS) if slot not in taken), None)

    def _defined(self, waiting: "Future[Result] | Future[None]") -> bool:
        try:
            self._store.define(each.kept for each in self._table.values())
        except BackendFailed as problem:
            waiting.set_exception(problem)
            return False
        return True

    def _resume(self, found: "Sequence[tuple[int, Action, Memo]]", done: "Future[None]") -> None:
        now = time.time_ns()
        left = {self._mark(action) for _, action, memo in found if memo.running}
        if left:
            kill_marked(left)  # else it would run beside its successor
        for at, (slot, action, memo) in enumerate(found):
            if memo.running:
                log.warning("operation '%s': an agent died in the middle of it", action.id)
            interrupted = now if memo.running else memo.interrupted
            self._store.remember(slot, replace(memo, running=False, interrupted=interrupted))
            each = Recurring(action, self._marked(action, self._planned(action)), slot)
            self._table[action.key] = each
            # when the transports have come up, and spread, so that they do not all begin at once
            pause = RESUMED_AFTER + action.interval / 1000 * at / len(found)
            each.next = self._runner.later(pause, partial(self._begin, each))
        done.set_result(None)

    def _mark(self, action: Action) -> str:
        return f"{self._store.place}:{action.interval}:{action.action}:{action.name}"

    def _marked(self, action: Action, work: Work) -> Work:
        return replace(work, mark=self._mark(action)) if isinstance(work, Command) else work

    def _planned(self, action: Action) -> Work:
        try:
            return self._plan(action)
        except Problem as problem:
            log.warning("operation '%s' cannot be run: %s", action.id, problem)
            return Calling(action.id, lambda _: MISSING, 1.0)

    def _begin(self, each: Recurring) -> None:
        each.waits = False
        if each.cancelled:
            self._over(each, Ending(CANCELLED))
            return
        try:
            each.run = self._runner.start(each.work, partial(self._ended, each))
        except Problem as problem:  # too much waits: it has its turn later
            log.warning("operation '%s': %s", each.action.id, problem)
            self._again(each)
        else:
            self._store.running(each.slot)

    def _again(self, each: Recurring) -> None:
        pause = max(each.action.interval / 1000, LEAST_PAUSE)
        each.next = self._runner.later(pause, partial(self._begin, each))

    def _ended(self, each: Recurring, ending: Ending) -> None:
        each.run = None
        before = self._store.memo(each.slot)
        if each.cancelled or (self._closing and ending.rc == CANCELLED):
            self._over(each, ending)
            return
        memo = replace(
            before, running=False, known=True, rc=ending.rc, sequence=self._number(), time=time.time_ns()
        )
        self._store.remember(each.slot, memo)
        answered = self._resolve(each, Result(each.action, ending, memo.sequence, memo.time))
        changed = not before.known or ending.rc != before.rc
        if not answered and (changed or ending.rc != each.action.expected):
            self._report(each)
        self._again(each)

    def _over(self, each: Recurring, ending: Ending) -> None:
        """What is cancelled has ended: its first caller and those who wait for its end go on."""
        self._resolve(
            each, Result(each.action, ending, self._store.memo(each.slot).sequence, time.time_ns())
        )
        waiting, each.gone = each.gone, []
        for gone in waiting:
            gone()

    def _resolve(self, each: Recurring, result: Result) -> bool:
        first, each.first = each.first, None
        if first is not None:
            first.set_result(result)
        return first is not None

    def _report(self, each: Recurring) -> None:
        wait = each.told_at + LEAST_BETWEEN - time.monotonic()
        if wait <= 0:
            self._say(each)
        elif not each.telling:
            each.telling = True
            self._runner.later(wait, partial(self._say, each))

    def _say(self, each: Recurring) -> None:
        each.telling = False
        if not each.cancelled:
            each.told_at = time.monotonic()
            self._tell(each.action, self._store.memo(each.slot))

    def _cancel(self, key: Key, done: "Future[None]") -> None:
        each = self._table.pop(key, None)
        if each is not None:
            if self._defined(done):
                self._end(each, lambda: done.set_result(None))
            else:
                self._table[key] = each
        elif key in self._once:
            self._cancel_once(self._once[key], done)
        else:
            name, action, interval = key
            done.set_exception(NotFound(f"there is no operation '{name}_{action}_{interval}'", name=name))

    def _cancel_once(self, runs: set[Run], done: "Future[None]") -> None:
        for run in runs:
            self._runner.stop(run)

        def look() -> None:
            if runs:
                self._runner.later(LEAST_PAUSE, look)
            else:
                done.set_result(None)

        look()

    def _end(self, each: Recurring, gone: Callable[[], None]) -> None:
        each.cancelled = True
        each.gone.append(gone)
        if each.run is not None:
            self._runner.stop(each.run)
        elif not each.waits:
            if each.next is not None:
                self._runner.forget(each.next)
            self._over(each, Ending(CANCELLED))

    def _fail(self, name: str, rc: int, done: "Future[None]") -> None:
        hit = [each for each in self._table.values() if each.action.name == name]
        if not hit:
            done.set_exception(NotFound(f"no operation of resource '{name}' recurs", name=name))
            return
        for each in hit:
            memo = self._store.memo(each.slot)
            self._store.remember(each.slot, replace(memo, known=True, rc=rc, time=time.time_ns()))
            self._say(each)
        done.set_result(None)


def _wait(future: "Future[T]", seconds: float) -> T:
    try:
        with SHARED.aside():
            return future.result(seconds)
    except NotInTime:
        raise Timeout(f"it has not ended within {seconds:g} s") from None


def _action(definition: Mapping[str, Any]) -> Action:
    try:
        action = Action(**definition)
    except TypeError as error:  # a newer version wrote it
        raise BackendFailed(f"a recurring operation cannot be read: {error}") from error
    if not _sound(action):
        raise BackendFailed(f"the recurring operation '{action.id}' cannot be read: its fields are damaged")
    return action


def _sound(action: Action) -> bool:
    """Whether it is what this program can have written."""
    numbers = (action.interval, action.timeout, action.expected)
    return (
        all(type(getattr(action, name)) is type(value) for name, value in SHAPE.items())
        and all(isinstance(value, str) for value in action.parameters.values())
        and all(0 <= number <= MAX_U32 for number in numbers)
    )


def _described(action: Action, memo: Memo) -> Operation:
    return Operation(
        id=action.id,
        name=action.name,
        standard=action.standard,
        provider=action.provider,
        agent=action.agent,
        action=action.action,
        interval=action.interval,
        timeout=action.timeout,
        expected=action.expected,
        userdata=action.userdata,
        sequence=memo.sequence,
        running=memo.running,
        last_rc=memo.rc if memo.known else None,
        last_time=memo.time if memo.known else None,
        interrupted=memo.interrupted or None,
    )
