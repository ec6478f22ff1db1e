"""Who asks, and for how long he waits, for whoever answers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf


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
_ends: ContextVar[float] = ContextVar("ends", default=inf)


def asking() -> Caller:
    """Who asked for what a provider answers in this thread right now; `LOCAL` outside of a call."""
    return _asking.get()


def time_left() -> float:
    """Seconds for which whoever asks still waits, 0 when he has given up; infinite outside of a call."""
    return max(0.0, _ends.get() - time.monotonic())


@contextmanager
def answering(caller: Caller, ends: float = inf) -> Iterator[None]:
    """Let a provider know who asks, and until when by the monotonic clock, until the block ends."""
    before, ended = _asking.set(caller), _ends.set(ends)
    try:
        yield
    finally:
        _asking.reset(before)
        _ends.reset(ended)
