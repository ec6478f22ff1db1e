"""Who asks, for whoever answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `identity` is what the transport authenticated: a bus name, `CN=...`, `anonymous` ..."""

    transport: str
    identity: str
    uid: int | None = None

    @property
    def described(self) -> str:
        """For a record: `dbus uid 1000`, `amqp anonymous`. A name on a bus says nothing once it has gone."""
        return f"{self.transport} {self.identity if self.uid is None else f'uid {self.uid}'}"


LOCAL = Caller("local", "local")
_asking: ContextVar[Caller] = ContextVar("asking", default=LOCAL)


def asking() -> Caller:
    """Who asked for what a provider answers in this thread right now; `LOCAL` outside of a call."""
    return _asking.get()


@contextmanager
def answering(caller: Caller) -> Iterator[None]:
    """Let a provider know who asks, until the block ends."""
    before = _asking.set(caller)
    try:
        yield
    finally:
        _asking.reset(before)
