"""Many hosts at once for plain Python: `with fleet(url) as hosts: hosts.call(Services.restart, "nginx")`."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from libmh.call import Request
from libmh.client import FLEETS, request_for
from libmh.errors import InvalidArguments, NotFound, Problem, Unavailable, not_installed
from libmh.fleet import Line, fan_out
from libmh.loops import CLOSE_SECONDS, LoopThread
from libmh.outcomes import Account, Host, Plan, Result, share
from libmh.selection import Where
from libmh.selection import where as requirements
from libmh.spec import member_of

CONNECT_SECONDS = 10.0
STOP_SECONDS = 5.0


class Running:
    """A fan-out under way: iterating it gives the results as they come, `account` is right at any time."""

    def __init__(self, thread: LoopThread, line: Line, request: Request, plan: Plan) -> None:
        self.account = Account()
        self._thread = thread
        self._came: asyncio.Queue[Result | None] = asyncio.Queue()
        self._task = thread.run(self._start(line, request, plan), CONNECT_SECONDS)

    async def _start(self, line: Line, request: Request, plan: Plan) -> "asyncio.Task[Account]":
        work = fan_out(line, request, plan, self._came.put_nowait, self.account)
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _done: self._came.put_nowait(None))
        return task

    def __iter__(self) -> Iterator[Result]:
        while (result := self._thread.run(self._came.get(), None)) is not None:
            yield result
        self._thread.run(self._ended(), STOP_SECONDS)

    def stop(self) -> Account:
        """Ask no further hosts, and wait no longer for those that were asked."""
        self.account.interrupted = self._thread.run(self._cancelled(), STOP_SECONDS)
        return self.account

    async def _cancelled(self) -> bool:
        running = not self._task.done()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_SECONDS / 2)
        return running

    async def _ended(self) -> None:
        if not self._task.cancelled():
            self._task.result()


class Fleet:
    """The hosts at a broker. Each call blocks its own thread."""

    def __init__(self, url: str) -> None:
        self._thread = LoopThread()
        try:
            self._line = self._thread.run(open_line(url), CONNECT_SECONDS)
        except BaseException:
            self._thread.stop()
            raise

    def start(self, request: Request, plan: Plan) -> Running:
        """Ask, and have the results as they come."""
        return Running(self._thread, self._line, request, plan)

    def stream(self, declared: Callable[..., Any], /, *given: Any, **named: Any) -> Running:
        """As `call`, with the results as they come."""
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        request = request_for(member_of(declared), declared.__name__, given, named)
        return self.start(timed(request, options.pop("deadline", None)), plan_of(**options))

    def call(self, declared: Callable[..., Any], /, *given: Any, **named: Any) -> Account:
        """Call a member at all hosts that are meant, and account for each of them.

        Beside the member's own arguments it takes `where` (`fact=requirement`, all of which have to hold),
        `batch` and `stop_on_fail` (a number of hosts, or `10%`), `canary`, `group`, and `deadline` in
        seconds for each host. Raises `NotFound` where no host is meant.
        """
        running = self.stream(declared, *given, **named)
        for _ in running:
            pass
        return running.account

    def leave(
        self, request: Request, where: Where, seconds: float, uuids: Sequence[str] | None = None
    ) -> list[tuple[Host, Problem | None]]:
        """Leave a request at the broker for so long, for hosts that may be off: those that the conductor
        knows, or `uuids`. For each what kept it from being left. Raises `Unavailable` where hosts have to be
        known and no conductor answers, `NotFound` where none is meant."""
        return self._thread.run(self._leave(request, where, seconds, uuids), None)

    async def _leave(
        self, request: Request, where: Where, seconds: float, uuids: Sequence[str] | None
    ) -> list[tuple[Host, Problem | None]]:
        found = await self._line.select(where) if uuids is None else [Host(uuid) for uuid in uuids]
        if found is None:
            raise Unavailable("no conductor answers, and nobody else knows of hosts that are off")
        if not found:
            raise NotFound("no host that is known fulfils what is asked for")
        told = await self._line.leave(request, [host.uuid for host in found], where, seconds)
        return [(host, told[host.uuid]) for host in found]

    def close(self) -> None:
        if not self._thread.closed:
            try:
                self._thread.run(self._line.close(), CLOSE_SECONDS)
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


OPTIONS = ("where", "batch", "canary", "stop_on_fail", "group", "deadline")


def plan_of(
    where: Iterable[str] = (),
    batch: str | int | None = None,
    canary: int = 0,
    stop_on_fail: str | int | None = None,
    group: str = "",
) -> Plan:
    """A plan as it is written. Raises `InvalidArguments`."""
    return Plan(
        requirements([where] if isinstance(where, str) else where),
        None if batch is None else share(batch, "batch"),
        canary,
        None if stop_on_fail is None else share(stop_on_fail, "stop_on_fail"),
        group,
    )


def timed(request: Request, deadline: float | None) -> Request:
    """The request with the seconds that each host has for it."""
    return request if deadline is None else replace(request, deadline=deadline)


async def open_line(url: str) -> Line:
    """The line to the hosts at the broker of a URL."""
    scheme = url.partition(":")[0]
    if scheme not in FLEETS:
        raise InvalidArguments(
            f"'{url}' leads to one host: many are asked through a broker, amqp://host:port", argument="url"
        )
    try:
        module = import_module(FLEETS[scheme])
    except ImportError as error:
        raise not_installed(scheme, error) from error
    line: Line = await module.connect(url)
    return line
