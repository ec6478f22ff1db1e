"""One request on its way through the API: what an operation gets, and what it answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from libmh.api.aggregates import Aggregates
from libmh.call import Request
from libmh.caller import Caller
from libmh.dispatch import Dispatcher
from libmh.spec import interface_of

AGGREGATES = interface_of(Aggregates).name
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Calls of `Aggregates` by whoever asks: policy, audit and deadlines are the dispatcher's."""

    dispatcher: Dispatcher
    caller: Caller
    id: str = ""

    async def ask(self, member: str, **arguments: Any) -> Any:
        """The plain tree of the answer. Raises `Problem`."""
        return await self.dispatcher.call(
            Request(
                AGGREGATES,
                member,
                arguments=arguments,
                caller=self.caller,
                deadline=SECONDS,
                id=f"{self.id}/{member}",  # for whoever looks a client's request up in the audit
            )
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """`version`: the minor microversion; `path`: the words at the names of the path; `query`: the values of
    each parameter; `body`: the JSON that was sent; `base`: URL of the API, without a slash at its end."""

    fleet: Fleet
    version: int
    base: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Any = None

    def last(self, name: str) -> str | None:
        """The value of a parameter; of several, the last."""
        values = self.query.get(name, ())
        return values[-1] if values else None


Schema = Mapping[str, Any]
Run = Callable[[Exchange], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Since:
    """A schema, and the minor version from which it is in force."""

    first: int
    schema: Schema


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method does to a path. `run` gives the JSON of the answer; `versions`: the minor ones that have
    it; `query` and `body` are the schemas of what is sent, the newest first."""

    method: str
    path: str
    run: Run
    status: int = 200
    query: Sequence[Since] = ()
    body: Sequence[Since] = ()
    versions: tuple[int, int] = (0, 10_000)
