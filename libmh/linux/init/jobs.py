"""Jobs of systemd: asked for, waited for, and what became of them (org.freedesktop.systemd1(5))."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from libmh.api.services import Action, JobResult
from libmh.bus import Bus
from libmh.caller import stoppable
from libmh.errors import NotFound, Problem, Timeout, Unavailable
from libmh.linux.daemons import SYSTEMD
from libmh.linux.init.line import UNIT, Line
from libmh.linux.init.unitnames import instance, is_template, template, unit_path

JOB = "org.freedesktop.systemd1.Job"
MEMBERS: Mapping[Action, str] = {
    Action.START: "StartUnit",
    Action.STOP: "StopUnit",
    Action.RESTART: "RestartUnit",
    Action.RELOAD: "ReloadUnit",
    Action.TRY_RESTART: "TryRestartUnit",
    Action.RELOAD_OR_RESTART: "ReloadOrRestartUnit",
}
RESULTS: Mapping[str, JobResult] = {
    "done": JobResult.DONE,
    "canceled": JobResult.CANCELLED,
    "collected": JobResult.CANCELLED,
    "timeout": JobResult.TIMEOUT,
    "dependency": JobResult.DEPENDENCY,
    "skipped": JobResult.SKIPPED,
}
"""Any other is a failure: failed, invalid, assert, unsupported, once, frozen."""
MAX_KNOWN = 1024
MAX_WAITING = 1024
REPLACE = "replace"
POLL_SECONDS = 0.5
HOLD_SECONDS = 5.0
QUEUED = "waiting"
LOST = "lost"
NO_SUCH = (".NoSuchUnit", ".UnknownObject", ".LoadFailed", ".InvalidArgs", ".InvalidName")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: its result, and systemd's word for it, or ours: `lost` when nobody heard it."""

    result: JobResult
    word: str


class Jobs:
    """Who waits for which job. It is told of every job that goes, also before anybody waits for it: a job
    may have ended before the call that asked for it is answered."""

    def __init__(self) -> None:
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._waiting: dict[str, set[asyncio.Future[str]]] = {}

    def removed(self, body: Sequence[Any]) -> None:
        """JobRemoved: id, path, unit, result."""
        path, word = str(body[1]), str(body[3])
        self._ended[path] = word
        if len(self._ended) > MAX_KNOWN:
            self._ended.popitem(last=False)
        for future in self._waiting.get(path, ()):
            if not future.done():
                future.set_result(word)

    async def run(self, line: Line, action: Action, unit: str, seconds: float) -> Ended:
        """Have systemd do something, and wait at most so long for its end. Raises what systemd refuses."""
        bus = await line.bus()
        (path,) = await line.call(MEMBERS[action], "ss", unit, REPLACE, seconds=max(seconds, 1.0))
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} jobs are waited for, try again later")
        word = self._ended.get(path)
        if word is None:
            loop, cancelling = asyncio.get_running_loop(), list[asyncio.Task[None]]()

            def cancel() -> None:
                cancelling.append(loop.create_task(_cancel(line, path)))

            with stoppable(lambda: loop.call_soon_threadsafe(cancel)):
                word = await self._wait(line, bus.closed, path, seconds)
        return Ended(RESULTS.get(word, JobResult.FAILED), word)

    async def _wait(self, line: Line, lost: "asyncio.Future[str]", path: str, seconds: float) -> str:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(path, set()).add(ended)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():  # systemd or the bus has gone: it is asked until the job is no more
                    await self._gone(line, path)
                    return LOST
            return ended.result()
        except TimeoutError:
            await _withdraw(line, path)
            return "timeout"
        finally:
            self._waiting[path].discard(ended)
            if not self._waiting[path]:
                del self._waiting[path]

    async def _gone(self, line: Line, path: str) -> None:
        while True:
            try:
                (state,) = await line.get([(path, JOB, "State")])
            except Problem:  # there is no bus yet
                state = None
            if isinstance(state, Problem) and not isinstance(state, Unavailable | Timeout):
                return
            await asyncio.sleep(POLL_SECONDS)


async def _cancel(line: Line, path: str) -> None:
    """What the job has begun goes on, as after `systemctl cancel`: the outcome tells the unit's state."""
    with suppress(Problem):  # it has ended just now
        bus = await line.bus()
        await bus.call(SYSTEMD.name, path, JOB, "Cancel")


async def _withdraw(line: Line, path: str) -> None:
    """Take a job back that systemd has not begun: nothing is to happen after the caller was told that it did
    not. One that it has begun has its own time limit."""
    try:
        (state,) = await line.get([(path, JOB, "State")])
        if state == QUEUED:
            bus = await line.bus()
            await bus.call(SYSTEMD.name, path, JOB, "Cancel")
    except Problem:  # it has ended just now
        return


@asynccontextmanager
async def held(line: Line, path: str) -> AsyncIterator[None]:
    """Keep a unit loaded, so that what is read of it belongs to what was done: systemd forgets at once a
    unit that has ended. Before version 232 it does not let us; then what it still knows has to do."""
    bus = await line.bus()
    holding = asyncio.ensure_future(_hold(bus, path, "Ref"))
    await asyncio.sleep(0)  # it is sent before what follows, and answered meanwhile
    try:
        yield
    finally:
        if await holding:
            await _hold(bus, path, "Unref")


async def _hold(bus: Bus, path: str, member: str) -> bool:
    try:
        await bus.call(SYSTEMD.name, path, UNIT, member, timeout=HOLD_SECONDS)
    except Problem:  # it cannot be held, or the connection has ended, and what it held with it
        return False
    return True


async def resolve(line: Line, name: str) -> tuple[str, str]:
    """Object path and own name of a unit; `not-found` where there is none of that name."""
    (path,) = await line.call("LoadUnit", "s", name)
    own, load = await line.get([(path, UNIT, "Id"), (path, UNIT, "LoadState")])
    for answer in (own, load):
        if isinstance(answer, Problem):
            raise answer
    if load == "not-found":
        raise no_unit(name)
    return path, str(own)


async def own_name(line: Line, name: str) -> str:
    """The name that systemd has for a unit, a template or an instance that may be asked for by an alias; of
    what there is not here, the name itself. Raises when systemd cannot be asked."""
    asked = instance(name) if is_template(name) else name  # a template is no unit, its instances are
    (own,) = await line.get([(unit_path(asked), UNIT, "Id")])
    if isinstance(own, Problem):
        if isinstance(own, NotFound) or str(own.details.get("dbus_error", "")).endswith(NO_SUCH):
            return name
        raise own
    return template(str(own)) if asked != name else str(own)


def no_unit(name: str) -> NotFound:
    """The problem that a name is which no unit has."""
    return NotFound(f"there is no unit '{name}' here", name=name)
