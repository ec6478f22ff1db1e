"""Who receives from the broker's multicast and topic addresses: a subscription is a private queue with a
pattern."""

import asyncio
from collections import deque
from collections.abc import Callable

from mh_amqp.addresses import has_wildcards, matches
from mh_amqp.limits import MIB
from mh_amqp.queues import Queue, Stored

SLICE = 200
MOST_CACHED = 4096
MOST_JOBS = 1000
MOST_JOB_BYTES = 64 * MIB


class Topics:
    """Copies each message to all that match, in slices of `SLICE` so that a fan-out to thousands stops
    nobody else.

    What a subscriber cannot take is told by `on_overflow(queue)`; the others are not held up.
    """

    def __init__(self, on_overflow: Callable[[Queue], None]) -> None:
        self._exact: dict[str, list[Queue]] = {}
        self._patterns: dict[str, list[Queue]] = {}
        self._found: dict[str, tuple[Queue, ...]] = {}
        self._jobs: deque[tuple[bytes, float | None, bool, tuple[Queue, ...]]] = deque()
        self._job_bytes = 0
        self._on_overflow = on_overflow

    def subscribe(self, address: str, queue: Queue) -> None:
        table = self._patterns if has_wildcards(address) else self._exact
        table.setdefault(address, []).append(queue)
        self._found.clear()

    def unsubscribe(self, address: str, queue: Queue) -> None:
        table = self._patterns if has_wildcards(address) else self._exact
        queues = table.get(address, [])
        if queue in queues:
            queues.remove(queue)
        if not queues:
            table.pop(address, None)
        self._found.clear()

    def publish(self, address: str, raw: bytes, expires: float | None, *, settled: bool) -> bool:
        """Give it to every subscriber, now or in slices; False when too many fan-outs are under way
        already."""
        queues = self.receivers(address)
        if not self._jobs and len(queues) <= SLICE:
            self._copy(raw, expires, queues, settled=settled)
            return True
        if len(self._jobs) >= MOST_JOBS or self._job_bytes + len(raw) > MOST_JOB_BYTES:
            return False
        if not self._jobs:
            asyncio.get_running_loop().call_soon(self._slice)
        self._jobs.append((raw, expires, settled, queues))
        self._job_bytes += len(raw)
        return True

    def receivers(self, address: str) -> tuple[Queue, ...]:
        found = self._found.get(address)
        if found is None:
            by_pattern = [
                queue
                for pattern, queues in self._patterns.items()
                if matches(pattern, address)
                for queue in queues
            ]
            found = (*self._exact.get(address, ()), *by_pattern)
            if len(self._found) >= MOST_CACHED:
                self._found.clear()
            self._found[address] = found
        return found

    def _slice(self) -> None:
        raw, expires, settled, queues = self._jobs.popleft()
        self._job_bytes -= len(raw)
        self._copy(raw, expires, queues[:SLICE], settled=settled)
        if queues[SLICE:]:
            self._jobs.appendleft((raw, expires, settled, queues[SLICE:]))
            self._job_bytes += len(raw)
        if self._jobs:
            asyncio.get_running_loop().call_soon(self._slice)

    def _copy(self, raw: bytes, expires: float | None, queues: tuple[Queue, ...], *, settled: bool) -> None:
        for queue in queues:
            if queue.consumers and not queue.put(Stored(raw, expires, settled=settled)):
                self._on_overflow(queue)
