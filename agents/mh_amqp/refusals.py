"""Who was not let in, for the audit: a flood writes no flood of lines.

The first few refusals of a peer are told one by one; those that follow within the minute are counted, and
told in one line when it is over. Of more peers than are remembered, the rest are counted together.
"""

import asyncio
from dataclasses import dataclass, field

from libmh import audit

WINDOW_SECONDS = 60.0
MOST_LINES = 5
"""For each host within a window."""
MOST_HOSTS = 200
ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Told:
    """What was said of one host within this window; `more` came after that, the last of them `why`."""

    lines: int = 0
    more: int = 0
    why: str = ""


@dataclass(slots=True)
class Refusals:
    """Of one listener. `count` is of all."""

    transport: str = "amqp"
    count: int = 0
    _hosts: dict[str, Told] = field(default_factory=dict)
    _ends: asyncio.TimerHandle | None = None

    def tell(self, peer: str, why: str) -> None:
        """`peer` is its address with its port, or a path."""
        self.count += 1
        if self._ends is None:
            self._ends = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self.flush)
        host = host_of(peer)
        if host not in self._hosts and len(self._hosts) >= MOST_HOSTS:
            host = ELSEWHERE
        told = self._hosts.setdefault(host, Told())
        if told.lines < MOST_LINES and host != ELSEWHERE:
            told.lines += 1
            audit.refused_entry(self.transport, peer, why)
        else:
            told.more += 1
            told.why = why

    def flush(self) -> None:
        """The window is over: tell what was counted."""
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        hosts, self._hosts = self._hosts, {}
        for host, told in hosts.items():
            if told.more:
                audit.refused_entry(self.transport, host, told.why, told.more)


def host_of(peer: str) -> str:
    """An address without its port; whatever else it is, as it is."""
    return peer.rpartition(":")[0] or peer
