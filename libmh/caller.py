"""Who asks, for how long he waits, and whether he still wants it, for whoever answers."""

import threading
import time
from collections.abc import Callable, Iterator
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


class Stop:
    """The way to stop one call. Whoever does its work may be `stoppable`; anybody may pull it, from any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acts: list[Callable[[], object]] = []
        self.pulled = False

    def pull(self) -> bool:
        """Stop what can be stopped, now; whether anything could. Not a promise that it has ended."""
        with self._lock:
            acts, self._acts = self._acts, []
            self.pulled = self.pulled or bool(acts)
        for act in acts:
            act()
        return self.pulled

    @contextmanager
    def by(self, act: Callable[[], object]) -> Iterator[None]:
        """Stop by this, once, while the block runs. It must not block nor raise."""
        with self._lock:
            self._acts.append(act)
        try:
            yield
        finally:
            with self._lock:
                if act in self._acts:
                    self._acts.remove(act)


LOCAL = Caller("local", "local")
_asking: ContextVar[Caller] = ContextVar("asking", default=LOCAL)
_ends: ContextVar[float] = ContextVar("ends", default=inf)
_stop: ContextVar[Stop | None] = ContextVar("stop", default=None)


def asking() -> Caller:
    """Who asked for what a provider answers in this thread right now; `LOCAL` outside of a call."""
    return _asking.get()


def time_left() -> float:
    """Seconds for which whoever asks still waits, 0 when he has given up; infinite outside of a call."""
    return max(0.0, _ends.get() - time.monotonic())


@contextmanager
def stoppable(act: Callable[[], object]) -> Iterator[Stop]:
    """While the block runs, whoever asked for it can stop it by `act`, which is called in another thread and
    must not block nor raise. `pulled` of what is given tells whether he did."""
    stop = _stop.get() or Stop()
    with stop.by(act):
        yield stop


@contextmanager
def answering(caller: Caller, ends: float = inf, stop: Stop | None = None) -> Iterator[None]:
    """Let a provider know who asks, until when by the monotonic clock, and how he would stop it, until the
    block ends."""
    before, ended, stopped = _asking.set(caller), _ends.set(ends), _stop.set(stop)
    try:
        yield
    finally:
        _asking.reset(before)
        _ends.reset(ended)
        _stop.reset(stopped)
