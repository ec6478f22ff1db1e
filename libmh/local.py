"""`local:`: this host in this process, through the same steps as over a bus, without a bus or a loop."""

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

from libmh.call import Bound, Request, Verb, look_up, prepare, run, unknown_value
from libmh.client import proxy
from libmh.context import Context, Settings, default_state
from libmh.errors import Problem, Timeout
from libmh.events import Event
from libmh.guard import SHARED
from libmh.providers import load
from libmh.spec import Kind, Plain

P = TypeVar("P")


class LocalConnection:
    """`libmh.client.Connection` to the providers of this process; each is loaded when first asked."""

    def __init__(self, context: Context | None = None) -> None:
        settings = Path(default_state()) / "settings.json"
        self._context = context or Context(settings=Settings(settings))
        self._bound: dict[str, Bound] = {}

    def request(self, request: Request) -> Plain:
        if request.interface not in self._bound:
            self._bound.update(load(self._context, (request.interface,)).bound)
        bound = look_up(self._bound, request)
        if request.verb is Verb.GET_ALL:
            return self._read_all(bound)
        answer = self._answer(bound, request)
        if answer is None and request.verb is Verb.GET:
            raise unknown_value(bound.interface.members[request.member])
        return answer

    def _answer(self, bound: Bound, request: Request) -> Plain:
        call = prepare(bound, request)
        if call.member.inline:
            return run(call)
        asked = call.member.deadline if request.deadline is None else max(0.001, request.deadline)
        return SHARED.call(call.source, lambda: run(call), min(asked, call.member.deadline))

    def _read_all(self, bound: Bound) -> Plain:
        values: dict[str, Plain] = {}
        for member in bound.interface.of(Kind.PROPERTY):
            try:
                value = self._answer(bound, Request(bound.interface.name, member.name, Verb.GET))
            except Problem:
                continue  # as on a bus: what cannot be read is left out, `Host.facts` says why
            if value is not None:
                values[member.name] = value
        return values

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
