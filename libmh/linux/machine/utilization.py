"""How busy the processors are: the ticks that /proc/stat counts since the kernel started, compared."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from libmh.context import Root
from libmh.errors import BackendFailed

STAT = "/proc/stat"
MAX_STAT = 1 << 24  # one number per interrupt line, and large machines have thousands
LEAST_SECONDS = 1.0
"""Between two readings that are compared: ticks are too coarse for less."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of all processors, since the kernel started (or since they were counted anew)."""

    busy: int
    total: int


def parse_ticks(stat: str) -> Ticks:
    """The line `cpu USER NICE SYSTEM IDLE [IOWAIT IRQ SOFTIRQ STEAL ...]` of /proc/stat (proc(5)). What
    guests use is in USER already."""
    found = re.search(r"^cpu +([0-9]{1,20}(?: [0-9]{1,20}){3,9})$", stat, re.MULTILINE)
    if found is None:
        raise BackendFailed(f"'{STAT}' has no line 'cpu' of at least four numbers", source=STAT)
    counted = [int(word) for word in found[1].split()[:8]]
    total = sum(counted)
    return Ticks(total - sum(counted[3:5]), total)


class Utilization:
    """The share of their time for which the processors did something, since the reading before."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._turn = threading.Lock()
        self._last = Ticks(0, 0)
        self._when: float | None = None
        self._share = 0.0

    def share(self) -> float:
        """0 to 1: since the last time that this was asked, but for a second at least; the first time since
        the kernel started. Raises what `Root.read` raises, and `BackendFailed`."""
        with self._turn:
            now = self._clock()
            if self._when is not None and now - self._when < LEAST_SECONDS:
                return self._share
            ticks = parse_ticks(self._root.read(STAT, MAX_STAT))
            spent = ticks.total - self._last.total
            if spent > 0:
                self._share = min(1.0, max(0.0, (ticks.busy - self._last.busy) / spent))
            self._last, self._when = ticks, now
            return self._share
