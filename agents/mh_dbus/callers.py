"""Who calls: the uid behind a unique name, and how much each caller may have under way."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from libmh.bus import Bus
from libmh.errors import Unavailable

MAX_KNOWN = 1024
MAX_PER_SENDER = 64
MAX_PER_USER = 256
MAX_OUTSTANDING = 1024


class Callers:
    """Uids by unique name. A bus never gives a unique name twice, so what is known stays true as long as
    the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._uids: OrderedDict[str, int] = OrderedDict()
        self._outstanding: Counter[str] = Counter()
        self._by_user: Counter[int] = Counter()

    @property
    def outstanding(self) -> int:
        return self._outstanding.total()

    async def uid(self, name: str) -> int:
        """The uid of a connection, as the bus daemon authenticated it. Raises what `Bus.call` does, when it
        is gone."""
        known = self._uids.get(name)
        if known is not None:
            self._uids.move_to_end(name)
            return known
        (uid,) = await self._bus.ask("GetConnectionUnixUser", "s", name)
        self._uids[name] = int(uid)
        if len(self._uids) > MAX_KNOWN:
            self._uids.popitem(last=False)
        return int(uid)

    def begin(self, name: str) -> None:
        """Count a call that waits; `Unavailable` when its sender, or everybody together, has too many."""
        if self._outstanding[name] >= MAX_PER_SENDER:
            raise Unavailable(f"{MAX_PER_SENDER} of your calls are outstanding, wait for an answer")
        if self.outstanding >= MAX_OUTSTANDING:
            raise Unavailable(f"{MAX_OUTSTANDING} calls are outstanding, try again later")
        self._outstanding[name] += 1

    def end(self, name: str) -> None:
        """A call that was begun has been answered."""
        self._outstanding[name] -= 1
        if self._outstanding[name] <= 0:
            del self._outstanding[name]

    @contextmanager
    def share(self, uid: int) -> Iterator[None]:
        """Keep one user, however many connections he opens, from taking every place. Root has no such
        limit."""
        if uid and self._by_user[uid] >= MAX_PER_USER:
            raise Unavailable(f"{MAX_PER_USER} calls of uid {uid} are outstanding, wait for an answer")
        self._by_user[uid] += 1
        try:
            yield
        finally:
            self._by_user[uid] -= 1
            if self._by_user[uid] <= 0:
                del self._by_user[uid]
