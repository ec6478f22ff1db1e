"""Running what may never come back: a bounded pool of daemon threads with deadlines.

`concurrent.futures` joins its threads when the interpreter exits, so one read from a dead mount would keep a
process from ending: these threads are daemons. Calls under one key run one after the other. A call past its
deadline leaves its thread behind, marked stuck under its key; while it is, calls under that key are refused
at once. So a source holds at most one thread, however many ask for it.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from libmh.errors import Timeout, Unavailable

T = TypeVar("T")
MAX_THREADS = 16
MAX_WAITING = 1024
MAX_KEY = 1000
IDLE_SECONDS = 30.0
CEILING = 4
"""Threads at most, as a multiple of those that may run: these are stuck, or wait for another call."""


@dataclass(slots=True, eq=False)
class _Job:
    key: str
    function: Callable[[], Any]
    future: "Future[Any]"
    expires: float
    thread: int = 0
    stuck_since: float = 0.0


class Guard:
    """At most `max_threads` calls run, not counting the stuck ones; of these there may be `max_stuck`."""

    def __init__(
        self, max_threads: int = MAX_THREADS, max_waiting: int = MAX_WAITING, max_stuck: int | None = None
    ) -> None:
        self._max_threads = max_threads
        self._max_waiting = max_waiting
        self._max_stuck = max_threads if max_stuck is None else max_stuck
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = self._idle = self._nested = 0
        self._ready = 0  # on their way to a thread
        self._waiting = 0  # those, and all who stand in a line
        self._holders: dict[str, _Job] = {}
        self._lines: dict[str, deque[_Job]] = {}
        self._running: dict[int, _Job] = {}
        self._stuck: set[_Job] = set()

    @property
    def stuck(self) -> int:
        """Calls past their deadline whose work has not come back."""
        return len(self._stuck)

    def submit(self, key: str, function: Callable[[], T], deadline: float | None = None) -> "Future[T]":
        """Run in a thread, after the calls under the same key. Raises `Timeout` while an earlier one is
        stuck or has run for longer than its own `deadline` seconds, `Unavailable` when all is full."""
        key = key[:MAX_KEY]
        now = time.monotonic()
        job = _Job(key, function, Future(), inf if deadline is None else now + deadline)
        refused: list[_Job] = []
        with self._lock:
            holder = self._holders.get(key)
            if holder is not None and holder.thread and now > holder.expires:
                refused = self._mark_stuck(holder, now)
            if holder is None or not holder.stuck_since:
                self._enter(job, holder)
        _refuse(refused)
        if holder is not None and holder.stuck_since:
            raise Timeout(f"'{key}' has not come back for {now - holder.stuck_since:.0f} s", source=key)
        return job.future

    def abandon(self, key: str, future: "Future[Any]") -> None:
        """Give up waiting: work that has begun is stuck until it comes back, other work never begins."""
        if future.cancel() or future.done():
            return
        refused: list[_Job] = []
        with self._lock:
            holder = self._holders.get(key[:MAX_KEY])
            if holder is not None and holder.future is future and not holder.stuck_since:
                refused = self._mark_stuck(holder, time.monotonic())
        _refuse(refused)

    def call(self, key: str, function: Callable[[], T], deadline: float) -> T:
        """Run and wait at most `deadline` seconds; `Timeout` past that."""
        future = self.submit(key, function, deadline)
        try:
            with self.aside():
                return future.result(timeout=deadline)
        except TimeoutError:
            if future.done() and not future.cancelled():  # the function's own, or an answer just in time
                return future.result()
            self.abandon(key, future)
            raise Timeout(f"'{key[:MAX_KEY]}' did not answer within {deadline:g} s", source=key) from None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around a wait for what runs elsewhere: a thread of ours that only waits takes nobody's place."""
        inside = threading.get_ident() in self._running
        if inside:
            self._step_aside(1)
        try:
            yield
        finally:
            if inside:
                self._step_aside(-1)

    def _enter(self, job: _Job, holder: _Job | None) -> None:
        if self._waiting >= self._max_waiting or len(self._stuck) >= self._max_stuck:
            raise Unavailable(f"too many calls are outstanding ({self._waiting}), try again later")
        self._waiting += 1
        if holder is not None:
            self._lines.setdefault(job.key, deque()).append(job)
            return
        self._holders[job.key] = job
        self._start(job)

    def _start(self, job: _Job) -> None:
        self._ready += 1
        self._jobs.put(job)
        self._grow()

    def _grow(self) -> None:
        busy = self._threads - len(self._stuck) - self._nested
        ceiling = max(self._max_threads, self._max_stuck) * CEILING
        allowed = busy < self._max_threads and self._threads < ceiling
        if self._idle < self._ready and allowed:
            self._threads += 1
            threading.Thread(target=self._work, name="guard", daemon=True).start()

    def _step_aside(self, by: int) -> None:
        with self._lock:
            self._nested += by
            self._grow()

    def _mark_stuck(self, job: _Job, now: float) -> list[_Job]:
        """Those who stood in its line: they are to be refused outside the lock."""
        job.stuck_since = now
        self._stuck.add(job)
        line = list(self._lines.pop(job.key, ()))
        self._waiting -= len(line)
        self._grow()
        return line

    def _work(self) -> None:
        while (job := self._take()) is not None:
            _run(job)
            with self._lock:
                del self._running[job.thread]
                self._stuck.discard(job)
                self._leave(job.key)

    def _take(self) -> _Job | None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    self._idle -= 1
                    if self._idle >= self._ready:  # else a job is on its way to this idle thread
                        self._threads -= 1
                        return None
                continue
            with self._lock:
                self._idle -= 1
                self._ready -= 1
                self._waiting -= 1
                job.thread = threading.get_ident()
                self._running[job.thread] = job
            return job

    def _leave(self, key: str) -> None:
        line = self._lines.get(key)
        if not line:
            self._lines.pop(key, None)
            del self._holders[key]
            return
        self._holders[key] = line.popleft()
        self._start(self._holders[key])


def _run(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.function()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


def _refuse(line: list[_Job]) -> None:
    for job in line:
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(Timeout(f"'{job.key}' has not come back in time", source=job.key))


SHARED = Guard()
"""The process's own: providers guard what they read with it."""

PATIENT = Guard(max_threads=96)
"""For work that may take minutes: however much of it there is, what is quick does not wait behind it."""
