"""Who was refused what, for the audit: a flood writes no flood of lines.

The first few refusals of a peer are told one by one; those that follow within the minute are counted, and
told in one line when it is over. Of more peers than are remembered, the rest are counted together.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from libmh import audit

WINDOW_SECONDS = 60.0
MOST_LINES = 5
"""For each host within a window."""
MOST_HOSTS = 200
ELSEWHERE = "elsewhere"
TRANSPORT = "amqp"


Line = Callable[[str, int], None]
"""Writes of somebody, who is named, how often he was refused."""


@dataclass(slots=True)
class Told:
    """What was said of one host or identity within this window; `last` is what came last of the `more`."""

    last: Line
    lines: int = 0
    more: int = 0


@dataclass(slots=True)
class Refusals:
    """Of one listener. `count` is of all."""

    count: int = 0
    _told: dict[tuple[str, str], Told] = field(default_factory=dict)
    _ends: asyncio.TimerHandle | None = None

    def entry(self, peer: str, why: str) -> None:
        """Somebody did not come in; `peer` is its address with its port, or a path."""

        def line(who: str, times: int) -> None:
            audit.refused_entry(TRANSPORT, who, why, times)

        self._tell("entry", host_of(peer), peer, line)

    def use(self, identity: str, use: str, peer: str, why: str) -> None:
        """Somebody who is known may not do something, as `send mh.host.1`."""

        def line(who: str, times: int) -> None:
            audit.refused_use(TRANSPORT, who, use, peer, why, times)

        self._tell("use", identity, identity, line)

    def _tell(self, kind: str, group: str, who: str, line: Line) -> None:
        self.count += 1
        if self._ends is None:
            self._ends = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self.flush)
        if (kind, group) not in self._told and len(self._told) >= MOST_HOSTS:
            group = ELSEWHERE
        told = self._told.setdefault((kind, group), Told(line))
        if told.lines < MOST_LINES and group != ELSEWHERE:
            told.lines += 1
            line(who, 1)
        else:
            told.more += 1
            told.last = line

    def flush(self) -> None:
        """The window is over: tell what was counted."""
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        over, self._told = self._told, {}
        for (_, group), told in over.items():
            if told.more:
                told.last(group, told.more)


def host_of(peer: str) -> str:
    """An address without its port; whatever else it is, as it is."""
    return peer.rpartition(":")[0] or peer
