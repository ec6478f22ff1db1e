"""Running what may never come back: a bounded pool of daemon threads with deadlines.

`concurrent.futures` joins its threads when the interpreter exits, so one read from a dead mount would keep a
process from ending: these threads are daemons. A call past its deadline leaves its thread behind, marked
stuck under its key; while it is, calls under the same key are refused at once, so a source can hold at most
one thread.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from libmh.errors import Timeout, Unavailable

T = TypeVar("T")
MAX_THREADS = 16
MAX_WAITING = 1024
IDLE_SECONDS = 30.0


@dataclass(slots=True)
class _Job:
    key: str
    function: Callable[[], Any]
    future: "Future[Any]"


class Guard:
    """At most `max_threads` calls run, not counting stuck ones; as many more may be stuck."""

    def __init__(self, max_threads: int = MAX_THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._max_threads = max_threads
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._waiting = 0
        self._running: dict[int, _Job] = {}
        self._stuck: dict[int, tuple[str, float]] = {}

    @property
    def stuck(self) -> int:
        """Calls past their deadline whose work has not come back."""
        return len(self._stuck)

    def submit(self, key: str, function: Callable[[], T]) -> "Future[T]":
        """Run in a thread. Raises `Timeout` while an earlier call under `key` is stuck, `Unavailable` when
        full."""
        job = _Job(key, function, Future())
        with self._lock:
            for held, since in self._stuck.values():
                if held == key:
                    raise Timeout(
                        f"'{key}' has not come back for {time.monotonic() - since:.0f} s", source=key
                    )
            if self._waiting >= self._max_waiting or len(self._stuck) >= self._max_threads:
                raise Unavailable(f"too many calls are outstanding ({self._waiting}), try again later")
            self._waiting += 1
            if self._idle < self._waiting and self._threads - len(self._stuck) < self._max_threads:
                self._threads += 1
                threading.Thread(target=self._work, name="guard", daemon=True).start()
        self._jobs.put(job)
        return job.future

    def abandon(self, key: str, future: "Future[Any]") -> None:
        """Give up waiting: work that has begun is stuck until it comes back, other work never begins."""
        if future.cancel() or future.done():
            return
        with self._lock:
            for thread, job in self._running.items():
                if job.future is future:
                    self._stuck[thread] = (key, time.monotonic())

    def call(self, key: str, function: Callable[[], T], deadline: float) -> T:
        """Run and wait at most `deadline` seconds; `Timeout` past that."""
        future = self.submit(key, function)
        try:
            return future.result(timeout=deadline)
        except TimeoutError:
            if future.done():  # the function's own TimeoutError
                raise
            self.abandon(key, future)
            raise Timeout(f"'{key}' did not answer within {deadline:g} s", source=key) from None

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    self._idle -= 1
                    if self._idle or not self._waiting:  # else a job is on its way to this last idle thread
                        self._threads -= 1
                        return
                continue
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
                self._running[me] = job
            self._run(job)
            with self._lock:
                del self._running[me]
                self._stuck.pop(me, None)

    @staticmethod
    def _run(job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            result = job.function()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            job.future.set_exception(error)
        else:
            job.future.set_result(result)


SHARED = Guard()
"""The process's own: providers guard what they read with it."""
