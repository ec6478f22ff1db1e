"""Routes: RTM_GETROUTE of rtnetlink(7)."""

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator

from libmh.api.network import Route
from libmh.errors import NotFound
from libmh.linux.net import netlink, rtlinks
from libmh.linux.net.addresses import FAMILIES, SCOPES, SIZES
from libmh.linux.net.netlink import RTM_GETROUTE, RTM_NEWROUTE, Attributes

# family, lengths of destination and source, service, table, protocol, scope, kind, flags
HEADER = struct.Struct("=BBBBBBBBI")
NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, link
RTM_F_CLONED = 0x200  # learned by the way, not a route of the table
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH = 1, 4, 5, 6, 7, 9
RTA_TABLE, RTA_VIA = 15, 18
WANTED = frozenset(
    {RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH, RTA_TABLE, RTA_VIA}
)
LOCAL = 255
ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - the default route
KINDS = (
    *("unspecified", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable"),
    *("prohibit", "throw", "nat", "xresolve"),
)
# linux/rtnetlink.h, and what iproute2 has beside it
PROTOCOLS = {
    0: "unspecified",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    17: "mrouted",
    18: "keepalived",
    42: "babel",
    84: "ovn",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}
MAX_ROUTES = 10_000
MAX_READ = 100_000  # a router of the Internet has a million

Name = Callable[[int], str | None]


def read(link: int = 0, table: int = 0) -> list[Route]:
    """Routes by family, table, destination and metric. `link` is an index, 0 is all; of the tables 0 is all
    but local. One of several next hops is a route of its own. Raises as `netlink.dump`."""
    names: dict[int, str | None] = {}

    def name(index: int) -> str | None:
        if index not in names:
            names[index] = rtlinks.name_of(index)
        return names[index]

    wanted = b"".join(
        netlink.attribute(kind, netlink.NUMBER.pack(value))
        for kind, value in ((RTA_OIF, link), (RTA_TABLE, table))
        if value
    )
    found: list[Route] = []
    for family, word in FAMILIES.items():
        request = HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + wanted
        for payload in _told(request):
            each = parse(payload, name)
            found += [route for index, route in each if link in (0, index) and route.family == word]
    chosen = [route for route in found if (route.table == table if table else route.table != LOCAL)]
    return sorted(chosen, key=_order)[:MAX_ROUTES]


def _told(request: bytes) -> list[bytes]:
    try:
        answers = netlink.dump(RTM_GETROUTE, request, MAX_READ)
    except NotFound:  # the table, or the link meanwhile: nothing goes there
        return []
    return [payload for kind, payload in answers if kind == RTM_NEWROUTE]


def parse(payload: bytes, name: Name) -> Iterator[tuple[int, Route]]:
    """The routes that a message tells of, each with the index of its link; 0 is none."""
    if len(payload) < HEADER.size:
        return
    family, length, _, _, table, protocol, scope, kind, flags = HEADER.unpack_from(payload)
    if family not in FAMILIES or flags & RTM_F_CLONED:
        return
    told = netlink.attributes(payload, HEADER.size, WANTED)
    destination = _address(family, told.get(RTA_DST, b"")) or ANYWHERE[family]
    wide = netlink.number(told, RTA_TABLE)
    for index, gateway in _hops(family, told):
        route = Route(
            family=FAMILIES[family],
            destination=f"{destination}/{length}",
            kind=KINDS[kind] if kind < len(KINDS) else str(kind),
            table=table if wide is None else wide,
            protocol=PROTOCOLS.get(protocol, str(protocol)),
            scope=SCOPES.get(scope, str(scope)),
            metric=netlink.number(told, RTA_PRIORITY) or 0,
            gateway=gateway,
            link=name(index) if index else None,
            source=_address(family, told.get(RTA_PREFSRC, b"")),
        )
        yield index, route


def _hops(family: int, told: Attributes) -> Iterator[tuple[int, str | None]]:
    """Link and gateway of each next hop."""
    several = told.get(RTA_MULTIPATH)
    if several is None:
        yield netlink.number(told, RTA_OIF) or 0, _gateway(family, told)
        return
    at = 0
    while at + NEXT_HOP.size <= len(several):
        length, _, _, index = NEXT_HOP.unpack_from(several, at)
        if length < NEXT_HOP.size or at + length > len(several):
            return
        hop = netlink.attributes(several[at : at + length], NEXT_HOP.size, WANTED)
        yield max(index, 0), _gateway(family, hop)
        at += (length + 3) & ~3


def _gateway(family: int, told: Attributes) -> str | None:
    """RTA_VIA is one of another family: IPv6 to reach IPv4."""
    via = told.get(RTA_VIA)
    if via is not None and len(via) > 2:
        return _address(struct.unpack_from("=H", via)[0], via[2:])
    return _address(family, told.get(RTA_GATEWAY, b""))


def _address(family: int, packed: bytes) -> str | None:
    return socket.inet_ntop(family, packed) if SIZES.get(family) == len(packed) else None


def _order(route: Route) -> tuple[str, int, int, int, int]:
    address, _, length = route.destination.partition("/")
    return route.family, route.table, int(ipaddress.ip_address(address)), int(length), route.metric
