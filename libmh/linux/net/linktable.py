"""The links of this machine and their addresses, kept as the kernel tells of changes (rtnetlink(7))."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from libmh.linux.net import addresses as ip
from libmh.linux.net import netlink, rtlinks
from libmh.linux.net.netlink import RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK

MAX_LINKS = 65_536
MAX_ADDRESSES = 65_536  # of one link


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is told of a link. `index` is another where one went and another came of the same name."""

    index: int
    up: bool
    carrier: bool
    operational_state: str
    mtu: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tables:
    """All that the kernel has."""

    links: list[rtlinks.Told]
    addresses: list[ip.Told]


@dataclass(slots=True)
class _Kept:
    link: rtlinks.Told
    addresses: dict[ip.Key, ip.Told] = field(default_factory=dict)


def read() -> Tables:
    """Raises as `netlink.dump`."""
    return Tables(rtlinks.told(counted=False), ip.read())


class LinkTable:
    """Links by index, to be asked for by name."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._indexes: dict[str, int] = {}

    def state(self, name: str) -> LinkState | None:
        """None where no link has the name. IPv4 addresses come first."""
        kept = self._kept.get(self._indexes.get(name, 0))
        if kept is None:
            return None
        link = kept.link
        ordered = sorted(kept.addresses.values(), key=lambda each: each.family)
        own = dict.fromkeys(f"{each.address}/{each.prefix_length}" for each in ordered)
        return LinkState(
            link.index, link.up, link.up and link.carrier, link.operational_state, link.mtu, tuple(own)
        )

    def fill(self, tables: Tables) -> set[str]:
        """Take all anew; answers the names of what was and of what is."""
        touched = set(self._indexes)
        self._kept.clear()
        self._indexes.clear()
        for link in tables.links:
            self._add(link)
        for address in tables.addresses:
            self._give(address)
        return touched | set(self._indexes)

    def heard(self, data: bytes) -> set[str]:
        """Take what the kernel said; answers the names of the links that it said it of. What is none of its
        messages changes nothing."""
        return {name for kind, _, payload in netlink.messages(data) for name in self._take(kind, payload)}

    def _take(self, kind: int, payload: bytes) -> Iterable[str]:
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            link = rtlinks.parse(payload)
            if link is not None:
                return self._add(link) if kind == RTM_NEWLINK else self._drop(link.index)
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            address = ip.parse(payload)
            if address is not None:
                return self._give(address) if kind == RTM_NEWADDR else self._take_away(address)
        return ()

    def _add(self, link: rtlinks.Told) -> Iterable[str]:
        kept = self._kept.get(link.index)
        if kept is None:
            if len(self._kept) >= MAX_LINKS:
                return ()
            self._kept[link.index] = _Kept(link)
            self._indexes[link.name] = link.index
            return (link.name,)
        before, kept.link = kept.link.name, link
        if before != link.name:
            self._forget(before, link.index)
            self._indexes[link.name] = link.index
        return before, link.name

    def _drop(self, index: int) -> Iterable[str]:
        kept = self._kept.pop(index, None)
        if kept is None:
            return ()
        self._forget(kept.link.name, index)
        return (kept.link.name,)

    def _forget(self, name: str, index: int) -> None:
        """Unless another link has taken the name meanwhile."""
        if self._indexes.get(name) == index:
            del self._indexes[name]

    def _give(self, address: ip.Told) -> Iterable[str]:
        kept = self._kept.get(address.index)
        if kept is None or len(kept.addresses) >= MAX_ADDRESSES:
            return ()
        kept.addresses[address.key] = address
        return (kept.link.name,)

    def _take_away(self, address: ip.Told) -> Iterable[str]:
        kept = self._kept.get(address.index)
        if kept is None or kept.addresses.pop(address.key, None) is None:
            return ()
        return (kept.link.name,)
