"""Actions on units of systemd, and what became of them in one answer."""

import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libmh.api.services import Action, JobResult, Outcome, Whom
from libmh.errors import BackendFailed, InvalidArguments, NotFound, Problem
from libmh.linux.init import jobs
from libmh.linux.init.jobs import Ended, Jobs
from libmh.linux.init.line import SERVICE, UNIT, Asked, Line
from libmh.linux.init.unitnames import unit_path

RUNTIME = False
FORCE = False
RELOAD_SECONDS = 60.0
LINES = 10
MAX_SIGNAL = 64
DONE, FAILED_STATE, ACTIVE, IDLE = "done", "failed", ("active", "reloading"), ("inactive", "failed")
KILLED = ("signal", "core-dump")
SUCCESS = "success"
NO_SUCH_UNIT = ".NoSuchUnit"
NOT_FOUND = "not-found"
BRIEFLY = tuple((UNIT, name) for name in ("Id", "Description", "LoadState", "ActiveState", "SubState"))
AFTERWARDS = (
    *BRIEFLY,
    (UNIT, "ConditionResult"),
    (UNIT, "ConditionTimestampMonotonic"),
    *((SERVICE, name) for name in ("Result", "ExecMainCode", "ExecMainStatus")),
)


@dataclass(frozen=True, slots=True)
class States:
    """What a unit is like after an action."""

    own: str
    load: str
    active: str
    sub: str
    result: str | None = None
    status: int | None = None
    condition: bool = True


@dataclass(slots=True)
class Actions:
    """Does things to the units of one systemd. Everything is a coroutine of the bus's loop."""

    line: Line
    jobs: Jobs
    get: Callable[[Sequence[Asked]], Awaitable[list[Any]]]

    async def act(self, name: str, verb: Action, seconds: float) -> Outcome:
        """One job. Raises `not-found`; what systemd refuses otherwise is an outcome, too."""
        async with jobs.held(self.line, unit_path(name)):
            return await self._act(name, verb, seconds)

    async def _act(self, name: str, verb: Action, seconds: float) -> Outcome:
        started = time.monotonic()
        path = unit_path(name)
        refused = ""
        try:
            ended = await self.jobs.run(self.line, verb, name, seconds)
        except BackendFailed as problem:
            if str(problem.details.get("dbus_error", "")).endswith(NO_SUCH_UNIT):
                raise jobs.no_unit(name) from problem
            ended, refused = Ended(JobResult.FAILED, "refused"), words(problem)
        # what went well needs but few words, and each of them costs time
        states = await self._states(path, name, BRIEFLY)
        if states.load == NOT_FOUND and states.active in IDLE:
            raise jobs.no_unit(name)
        wanted = ("inactive",) if verb is Action.STOP else ACTIVE
        if ended.result is not JobResult.DONE or states.active not in wanted:
            states = await self._states(path, name)
        result = _result(verb, ended, states)
        took = time.monotonic() - started
        own = states.own
        reason = None if result is JobResult.DONE else refused or _reason(own, verb, result, ended, states)
        return _outcome(own, verb, result, took, states, reason)

    async def mask(self, name: str) -> Outcome:
        return await self._files(name, "mask", "MaskUnitFiles", "asbb", RUNTIME, FORCE)

    async def unmask(self, name: str) -> Outcome:
        return await self._files(name, "unmask", "UnmaskUnitFiles", "asb", RUNTIME)

    async def reset_failed(self, name: str) -> Outcome:
        return await self._simple(name, "reset-failed", "ResetFailedUnit", "s")

    async def kill(self, name: str, number: int, whom: Whom) -> Outcome:
        return await self._simple(name, "kill", "KillUnit", "ssi", str(whom), number)

    async def _files(self, name: str, verb: str, member: str, signature: str, *flags: bool) -> Outcome:
        started = time.monotonic()
        path, own = await jobs.resolve(self.line, name)
        result, reason = JobResult.DONE, None
        try:
            await self.line.call(member, signature, [own], *flags)
        except BackendFailed as problem:
            result, reason = JobResult.FAILED, words(problem)
        else:
            reason = await self._reloaded(f"to {verb} '{own}'")
        return await self._told(path, own, verb, started, result, reason)

    async def _reloaded(self, what: str) -> str | None:
        """Have systemd read its files again; why it has not, after a change of them that is made."""
        try:
            await self.line.call("Reload", seconds=RELOAD_SECONDS)
        except Problem as problem:  # refused, too often, or it takes its time
            return f"{what} is done on the disk, but systemd has not read its files again: {words(problem)}"
        return None

    async def _simple(self, name: str, verb: str, member: str, signature: str, *rest: Any) -> Outcome:
        started = time.monotonic()
        path, own = await jobs.resolve(self.line, name)
        result, reason = JobResult.DONE, None
        try:
            await self.line.call(member, signature, own, *rest)
        except (BackendFailed, NotFound) as problem:
            result, reason = JobResult.FAILED, words(problem)
        return await self._told(path, own, verb, started, result, reason)

    async def _told(
        self, path: str, own: str, verb: str, started: float, result: JobResult, reason: str | None
    ) -> Outcome:
        states = await self._states(path, own)
        return _outcome(own, verb, result, time.monotonic() - started, states, reason)

    async def _states(self, path: str, name: str, wanted: Sequence[tuple[str, str]] = ()) -> "States":
        service = name.endswith(".service")
        asked = [each for each in wanted or AFTERWARDS if each[0] == UNIT or service]
        answers = await self.get([(path, interface, each) for interface, each in asked])
        told = {
            each: answer
            for (_, each), answer in zip(asked, answers, strict=True)
            if not isinstance(answer, Problem)
        }
        return states_of(name, told)


def states_of(name: str, told: Mapping[str, Any]) -> States:
    """From the properties that a unit answered; one that was unloaded meanwhile is inactive."""
    return States(
        own=str(told.get("Id") or name),
        load=str(told.get("LoadState", "not-found")),
        active=str(told.get("ActiveState", "inactive")),
        sub=str(told.get("SubState", "dead")),
        result=told.get("Result") or None,
        status=told.get("ExecMainStatus") if told.get("ExecMainCode") else None,
        # one that could not be held is loaded anew to be asked, and its conditions were not looked at
        condition=bool(told.get("ConditionResult", True)) or not told.get("ConditionTimestampMonotonic"),
    )


def _result(verb: Action, ended: Ended, states: States) -> JobResult:
    """A job's result, where the unit's state does not say more: a simple service has been started before its
    program fails, and a start that took longer than the unit allows is a failed job."""
    if ended.word == jobs.LOST:
        wanted = states.active not in ACTIVE if verb is Action.STOP else states.active in ACTIVE
        return JobResult.DONE if wanted else JobResult.FAILED
    if ended.result is JobResult.FAILED and states.result == "timeout":
        return JobResult.TIMEOUT
    if ended.result is not JobResult.DONE:
        return ended.result
    if states.active == FAILED_STATE and verb is not Action.STOP:
        return JobResult.TIMEOUT if states.result == "timeout" else JobResult.FAILED
    starting = verb in (Action.START, Action.RESTART)
    if starting and not states.condition and states.active not in ACTIVE:
        return JobResult.SKIPPED
    return JobResult.DONE


def _reason(own: str, verb: Action, result: JobResult, ended: Ended, states: States) -> str:
    match result:
        case JobResult.DEPENDENCY:
            return f"cannot {verb} '{own}': a unit that it depends on failed"
        case JobResult.CANCELLED:
            return f"to {verb} '{own}' was cancelled, by hand or by another job"
        case JobResult.SKIPPED if not states.condition:
            return f"'{own}' was not started: a condition of its unit file is not met"
        case JobResult.SKIPPED:
            return f"there was nothing to {verb}: '{own}' is {states.active}"
        case JobResult.TIMEOUT if ended.result is JobResult.TIMEOUT:
            return f"the time to {verb} '{own}' has passed: it is {states.active} ({states.sub})"
        case JobResult.TIMEOUT:
            return f"'{own}' took longer to {verb} than its unit file allows"
    return f"could not {verb} '{own}': {why(states.result, states.status, ended.word)}"


def why(result: str | None, status: int | None, word: str = "") -> str:
    """What the result of a service means."""
    match result:
        case "exit-code":
            return f"its process exited with status {status}" if status is not None else "a process failed"
        case "signal" | "core-dump":
            return f"its process was ended by {_signal(status)}"
        case "watchdog":
            return "it did not answer its watchdog"
        case "start-limit-hit":
            return "it was started too often in a short time"
        case "oom-kill":
            return "the system ran out of memory"
        case "timeout":
            return "it took longer than its unit file allows"
        case None | "success":
            return f"the job's result is '{word}'" if word and word != DONE else "it failed"
    return f"its result is '{result}'"


def _signal(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:  # a real-time signal, or none that is known
        return f"signal {number}" if number else "a signal"


def _outcome(
    own: str, verb: str, result: JobResult, seconds: float, states: States, reason: str | None
) -> Outcome:
    failing = reason is not None and states.result not in (None, SUCCESS)
    return Outcome(
        unit=own,
        verb=str(verb),
        result=result,
        seconds=seconds,
        load_state=states.load,
        active_state=states.active,
        sub_state=states.sub,
        reason=reason,
        service_result=states.result,
        exit_status=states.status if failing else None,
    )


def rc(outcome: Outcome) -> int:
    """The ancestor's code of an outcome."""
    match outcome.result:
        case JobResult.DONE | JobResult.SKIPPED:
            return 0
        case JobResult.TIMEOUT:
            return 198
        case JobResult.CANCELLED:
            return 197
        case JobResult.FAILED if outcome.service_result in KILLED:
            return 194
    return 1


def signal_number(text: str) -> int:
    """Of a signal's name, with or without SIG, or its number."""
    known = {each.name: int(each) for each in signal.Signals}
    upper = text.upper()
    number = known.get(upper) or known.get(f"SIG{upper}")
    if number is None and upper.isdecimal() and upper.isascii() and len(upper) < 3:
        number = int(upper)
    if number is None or not 0 < number <= MAX_SIGNAL:
        raise InvalidArguments(
            f"signal: expected a signal such as TERM or 15, got '{text}'", argument="signal"
        )
    return number


def signal_word(text: str) -> str:
    """The one name of a signal; what is none as it is."""
    try:
        number = signal_number(text)
        return signal.Signals(number).name.removeprefix("SIG")
    except InvalidArguments:
        return text
    except ValueError:  # a real-time signal
        return str(number)


def words(problem: Problem) -> str:
    """What systemd said, without the name of its error."""
    prefix = str(problem.details.get("dbus_error", ""))
    return problem.message.removeprefix(f"{prefix}: ")
