"""`local:`: this host in this process, through the same steps as over a bus, without a bus or a loop."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

from libmh.call import Bound, Call, Request, Verb, internal, look_up, prepare, run, unknown_value
from libmh.client import proxy
from libmh.context import Context, Settings, default_state
from libmh.errors import Problem, Timeout
from libmh.events import Event
from libmh.guard import SHARED, Guard
from libmh.providers import load
from libmh.spec import Kind, Plain

P = TypeVar("P")
MAX_STUCK = 16


class LocalConnection:
    """`libmh.client.Connection` to the providers of this process; each is loaded when first asked."""

    def __init__(self, context: Context | None = None) -> None:
        settings = Path(default_state()) / "settings.json"
        self._context = context or Context(settings=Settings(settings))
        self._bound: dict[str, Bound] = {}
        self._reader = Guard(max_threads=1, max_stuck=MAX_STUCK)

    def request(self, request: Request) -> Plain:
        if request.interface not in self._bound:
            self._bound.update(load(self._context, (request.interface,)).bound)
        bound = look_up(self._bound, request)
        if request.verb is Verb.GET_ALL:
            return self._read_all(bound)
        call = prepare(bound, request)
        answer = self._finish(call, SHARED, self._begin(call, SHARED))
        if answer is None and request.verb is Verb.GET:
            raise unknown_value(call.member)
        return answer

    def _read_all(self, bound: Bound) -> Plain:
        values: dict[str, Plain] = {}
        requests = (
            Request(bound.interface.name, m.name, Verb.GET, id="") for m in bound.interface.of(Kind.PROPERTY)
        )
        calls = [prepare(bound, request) for request in requests]
        # all are handed over before the first is waited for: to and fro for each costs more than reading
        begun = [(call, self._begin(call, self._reader)) for call in calls]
        for call, reading in begun:
            try:
                value = self._finish(call, self._reader, reading)
            except Problem:
                continue  # as on a bus: what cannot be read is left out, `Host.facts` says why
            if value is not None:
                values[call.member.name] = value
        return values

    @staticmethod
    def _begin(call: Call, guard: Guard) -> "Future[Plain] | Problem":
        try:
            return guard.submit(call.source, lambda: run(call))
        except Problem as problem:  # an earlier one still hangs
            return problem

    @staticmethod
    def _finish(call: Call, guard: Guard, reading: "Future[Plain] | Problem") -> Plain:
        if isinstance(reading, Problem):
            raise reading
        try:
            error = reading.exception(call.deadline)
        except TimeoutError:
            guard.abandon(call.source, reading)
            raise Timeout(
                f"'{call.source}' did not answer within {call.deadline:g} s", source=call.source
            ) from None
        if error is None:
            return reading.result()
        raise error if isinstance(error, Problem) else internal(call.request, error) from error

    def proxy(self, protocol: Callable[..., P]) -> P:
        return proxy(protocol, self.request)

    def events(self, interface: str = "", member: str = "", timeout: float | None = None) -> Iterator[Event]:
        came: SimpleQueue[Event] = SimpleQueue()
        end = self._context.events.subscribe(came.put)
        try:
            while True:
                event = came.get(timeout=timeout)
                if interface in ("", event.interface) and member in ("", event.member):
                    yield event
        except Empty:
            raise Timeout(f"no event came for {timeout:g} s") from None
        finally:
            end()

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
