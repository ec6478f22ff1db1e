"""IP addresses of links: RTM_GETADDR of rtnetlink(7). The kernel keeps no file that tells the IPv4 ones."""

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from libmh.api.network import Address, LinkAddress
from libmh.linux.net import netlink, rtlinks
from libmh.linux.net.netlink import RTM_GETADDR, RTM_NEWADDR, Message

HEADER = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
SIZES: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 3, 4, 8
BRIEF = frozenset({IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST})
WANTED = BRIEF | {IFA_LABEL, IFA_FLAGS}
IFA_F_DEPRECATED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x20, 0x40, 0x80


Key = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class Told:
    """An address as the kernel tells of it; `index` is its link's, `other` the far end of one that has
    two."""

    index: int
    family: str
    address: str
    prefix_length: int
    scope: int
    flags: int
    broadcast: str | None
    label: str | None
    other: bytes = b""

    @property
    def key(self) -> Key:
        """What the kernel tells a link's addresses apart by."""
        return self.address, self.prefix_length, self.other


def read(index: int = 0) -> list[Told]:
    """Addresses of this machine, those of a link primary first; `index` is of one link, 0 is all. Raises as
    `netlink.dump`."""
    request = HEADER.pack(0, 0, 0, 0, index)
    return list(known(netlink.dump(RTM_GETADDR, request), index))


def known(messages: Iterable[Message], index: int = 0) -> Iterable[Told]:
    """Those messages that tell of an address."""
    for kind, payload in messages:
        if kind == RTM_NEWADDR and (found := parse(payload)) and index in (0, found.index):
            yield found


def parse(payload: bytes) -> Told | None:
    """None for what is no IP address."""
    if len(payload) < HEADER.size:
        return None
    family, prefix_length, flags, scope, index = HEADER.unpack_from(payload)
    if family not in FAMILIES:
        return None
    told = netlink.attributes(payload, HEADER.size, WANTED)
    # of a link with two ends IFA_ADDRESS is the other one
    own = _text(family, told.get(IFA_LOCAL) or told.get(IFA_ADDRESS))
    if own is None:
        return None
    wide = netlink.number(told, IFA_FLAGS)
    return Told(
        index,
        FAMILIES[family],
        own,
        prefix_length,
        scope,
        flags if wide is None else wide,
        _text(family, told.get(IFA_BROADCAST)),
        netlink.text(told, IFA_LABEL),
        told.get(IFA_ADDRESS, b""),
    )


def _text(family: int, packed: bytes | None) -> str | None:
    """None for what is no address of the family."""
    if packed is None or SIZES.get(family) != len(packed):
        return None
    return socket.inet_ntop(family, packed)


def by_link(index: int = 0) -> dict[int, list[Address]]:
    """Addresses by index of their link, the primary one first, without what they are worth: of hundreds
    that takes half the time. Raises as `read`."""
    found: dict[int, list[Address]] = {}
    for kind, payload in netlink.dump(RTM_GETADDR, HEADER.pack(0, 0, 0, 0, index)):
        if kind != RTM_NEWADDR or len(payload) < HEADER.size:
            continue
        family, prefix_length, _, _, link = HEADER.unpack_from(payload)
        told = netlink.attributes(payload, HEADER.size, BRIEF)
        address = _text(family, told.get(IFA_LOCAL) or told.get(IFA_ADDRESS))
        if address and index in (0, link):
            plain = Address(FAMILIES[family], address, prefix_length, _text(family, told.get(IFA_BROADCAST)))
            found.setdefault(link, []).append(plain)
    return found


def read_all(index: int = 0) -> list[LinkAddress]:
    """Addresses by link, with what they are worth. Raises as `read`."""
    found = sorted(read(index), key=lambda told: told.index)
    names = {each: rtlinks.name_of(each) for each in {told.index for told in found}}
    return [of_link(told, name) for told in found if (name := names[told.index])]


def primary(index: int) -> str | None:
    """The first IPv4 address of a link; None where it has none. Raises as `read`."""
    return next((told.address for told in read(index) if told.family == "ipv4"), None)


def of_link(told: Told, link: str) -> LinkAddress:
    """With what it is worth. A label that is but the link's name is none."""
    return LinkAddress(
        link=link,
        family=told.family,
        address=told.address,
        prefix_length=told.prefix_length,
        scope=SCOPES.get(told.scope, str(told.scope)),
        dynamic=not told.flags & IFA_F_PERMANENT,
        deprecated=bool(told.flags & IFA_F_DEPRECATED),
        tentative=bool(told.flags & IFA_F_TENTATIVE),
        broadcast=told.broadcast,
        label=told.label if told.label != link else None,
    )
