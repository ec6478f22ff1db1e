"""Network links as the kernel tells of them: RTM_GETLINK of rtnetlink(7), with what /sys and the driver add
for those that it does not tell all of."""

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from libmh.api.network import Address, Link, LinkCounters
from libmh.errors import NotFound
from libmh.linux.net import netlink
from libmh.linux.net.ethtool import Ethtool
from libmh.linux.net.netlink import RTM_GETLINK, RTM_NEWLINK, Attributes, Message

HEADER = struct.Struct("=BxHiII")  # family, hardware type, index, flags, changed flags
IFF_UP = 0x1
# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_STATS64, IFLA_EXT_MASK, IFLA_CARRIER = 16, 18, 23, 29, 33
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_TUN_TYPE = 1, 2, 3
IFF_TAP = 2
RTEXT_FILTER_SKIP_STATS = 1 << 3
BRIEF = frozenset({IFLA_IFNAME, IFLA_MTU, IFLA_OPERSTATE, IFLA_CARRIER})
FULL = BRIEF | {IFLA_ADDRESS, IFLA_MASTER, IFLA_LINKINFO, IFLA_STATS64}
INFO = frozenset({IFLA_INFO_KIND, IFLA_INFO_DATA})
STATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
COUNTERS = struct.Struct("=8Q")  # packets before bytes, received before sent
NO_COUNTERS = LinkCounters(0, 0, 0, 0, 0, 0, 0, 0)
KINDS = {"ipoib": "infiniband"}  # where ours differs from the kernel's


DeviceKind = Callable[[str, str | None], str]
"""The kind of a link that is a device, by its name and its driver."""


@dataclass(frozen=True, slots=True)
class Told:
    """A link as a message of the kernel tells of it."""

    index: int
    name: str
    hardware: int
    up: bool
    carrier: bool
    operational_state: str
    mtu: int
    attributes: Attributes = field(default_factory=dict)

    @property
    def master(self) -> int:
        """The index of what it belongs to; 0 is nothing."""
        return netlink.number(self.attributes, IFLA_MASTER) or 0


@dataclass(slots=True)
class _Drivers:
    """All links of one virtual kind have one driver: it is asked for once."""

    ethtool: Ethtool
    by_kind: dict[str, str | None] = field(default_factory=dict)
    kinds: dict[bytes, str] = field(default_factory=dict)

    def virtual_kind(self, link: Attributes) -> str:
        """What a virtual link was made as; empty for a device, whose kind /sys tells."""
        info = link.get(IFLA_LINKINFO)
        if info is None:
            return ""
        if info not in self.kinds:
            self.kinds[info] = _virtual_kind(info)
        return self.kinds[info]

    def of(self, link: str, kind: str) -> str | None:
        if not kind:
            return self.ethtool.driver(link)
        if kind not in self.by_kind:
            self.by_kind[kind] = self.ethtool.driver(link)
        return self.by_kind[kind]


def told(*, counted: bool) -> list[Told]:
    """All links, in the kernel's order; their traffic where it is `counted`. Raises as `netlink.dump`."""
    mask = 0 if counted else RTEXT_FILTER_SKIP_STATS
    request = HEADER.pack(0, 0, 0, 0, 0) + netlink.attribute(IFLA_EXT_MASK, netlink.NUMBER.pack(mask))
    return list(known(netlink.dump(RTM_GETLINK, request), FULL if counted else BRIEF))


def one(name: str) -> Told:
    """One link; `not-found` when none has this very name."""
    asked = name.encode("utf-8", "replace")
    if not 0 < len(asked) < 16 or b"\0" in asked:
        raise missing(name)
    request = HEADER.pack(0, 0, 0, 0, 0) + netlink.attribute(IFLA_IFNAME, asked + b"\0")
    try:
        found = next(known([netlink.ask(RTM_GETLINK, request)], FULL), None)
    except NotFound:
        raise missing(name) from None
    if found is None or found.name != name:  # the kernel takes other names that a link has, too
        raise missing(name)
    return found


def name_of(index: int) -> str | None:
    """The name of a link; None where it has gone, or has none that could be told."""
    try:
        found = socket.if_indextoname(index)
    except OSError:
        return None
    return found if found.isprintable() else None


def missing(name: str) -> NotFound:
    return NotFound(f"there is no network link '{name[:60]}'", link=name[:60])


def known(messages: Iterable[Message], wanted: frozenset[int]) -> Iterator[Told]:
    """Those messages that tell of a link whose name can be told."""
    for kind, payload in messages:
        if kind == RTM_NEWLINK and (found := parse(payload, wanted)):
            yield found


def parse(payload: bytes, wanted: frozenset[int] = BRIEF) -> Told | None:
    """None for what is no link, or one whose name is no text."""
    if len(payload) < HEADER.size:
        return None
    family, hardware, index, flags, _ = HEADER.unpack_from(payload)
    attributes = netlink.attributes(payload, HEADER.size, wanted)
    name = netlink.text(attributes, IFLA_IFNAME)
    if family or not name or index <= 0:  # a bridge tells of its ports, too, in messages of its family
        return None
    state = netlink.byte(attributes, IFLA_OPERSTATE) or 0
    return Told(
        index,
        name,
        hardware,
        up=bool(flags & IFF_UP),
        carrier=netlink.byte(attributes, IFLA_CARRIER) == 1,
        operational_state=STATES[state] if state < len(STATES) else STATES[0],
        mtu=netlink.number(attributes, IFLA_MTU) or 0,
        attributes=attributes,
    )


def in_full(
    links: Iterable[Told],
    names: Mapping[int, str | None],
    own: Mapping[int, Sequence[Address]],
    device_kind: DeviceKind,
) -> list[Link]:
    """With their addresses, and what the driver says. `names` are of what they may belong to."""
    with Ethtool() as ethtool:
        drivers = _Drivers(ethtool)
        return [_link(each, names, own.get(each.index, ()), drivers, device_kind) for each in links]


def _link(
    link: Told,
    names: Mapping[int, str | None],
    own: Sequence[Address],
    drivers: _Drivers,
    device_kind: DeviceKind,
) -> Link:
    virtual = drivers.virtual_kind(link.attributes)
    driver = drivers.of(link.name, virtual)
    speed, duplex = drivers.ethtool.speed(link.name) if link.up else (None, None)
    address = link.attributes.get(IFLA_ADDRESS)
    return Link(
        name=link.name,
        index=link.index,
        kind=virtual or device_kind(link.name, driver),
        up=link.up,
        operational_state=link.operational_state,
        mtu=link.mtu,
        addresses=list(own),
        counters=_counters(link.attributes),
        carrier=link.carrier if link.up else None,
        speed=speed,
        duplex=duplex,
        driver=driver,
        mac_address=address.hex(":").upper() if address else None,
        master=names.get(link.master),
    )


def _virtual_kind(info: bytes) -> str:
    told = netlink.attributes(info, 0, INFO)
    kind = netlink.text(told, IFLA_INFO_KIND) or ""
    if kind == "tun":
        data = netlink.attributes(told.get(IFLA_INFO_DATA, b""), 0, (IFLA_TUN_TYPE,))
        return "tap" if netlink.byte(data, IFLA_TUN_TYPE) == IFF_TAP else "tun"
    return KINDS.get(kind, kind)


def _counters(link: Attributes) -> LinkCounters:
    told = link.get(IFLA_STATS64, b"")
    if len(told) < COUNTERS.size:
        return NO_COUNTERS
    (
        rx_packets,
        tx_packets,
        rx_bytes,
        tx_bytes,
        rx_errors,
        tx_errors,
        rx_dropped,
        tx_dropped,
    ) = COUNTERS.unpack_from(told)
    return LinkCounters(
        rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped
    )
