"""Who did not come in over HTTP, for the audit: of a flood the first few, and how many more.

Requests of one address beyond `MOST_LINES` are counted, and told in one line when the minute is over; of
more addresses than are remembered, the rest are counted together.
"""

import asyncio
from dataclasses import dataclass, field

from libmh import audit

TRANSPORT = "http"
WINDOW_SECONDS = 60.0
MOST_LINES = 5
MOST_PEERS = 200
ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Told:
    """What was said of an address within this minute; `why` is of the last of the `more`."""

    lines: int = 0
    more: int = 0
    why: str = ""


@dataclass(slots=True)
class Refusals:
    """Of one listener; belongs to its loop."""

    window: float = WINDOW_SECONDS
    _told: dict[str, Told] = field(default_factory=dict)
    _ends: asyncio.TimerHandle | None = None

    def entry(self, peer: str, why: str) -> None:
        """Somebody did not come in."""
        if self._ends is None:
            self._ends = asyncio.get_running_loop().call_later(self.window, self.flush)
        if peer not in self._told and len(self._told) >= MOST_PEERS:
            peer = ELSEWHERE
        told = self._told.setdefault(peer, Told())
        if told.lines < MOST_LINES and peer != ELSEWHERE:
            told.lines += 1
            audit.refused_entry(TRANSPORT, peer, why)
        else:
            told.more += 1
            told.why = why

    def flush(self) -> None:
        """The minute is over: tell what was counted."""
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        over, self._told = self._told, {}
        for peer, told in over.items():
            if told.more:
                audit.refused_entry(TRANSPORT, peer, told.why, told.more)
