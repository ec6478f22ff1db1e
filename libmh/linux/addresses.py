"""IP addresses of links: getifaddrs(3), by psutil. The kernel keeps no file that tells the IPv4 ones."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from libmh.api.network import Address
from libmh.context import Root

FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}


class Told(Protocol):
    """An entry of psutil's net_if_addrs."""

    @property
    def family(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def netmask(self) -> str | None: ...
    @property
    def broadcast(self) -> str | None: ...


def read(root: Root) -> dict[str, list[Address]]:
    """Addresses by link, the primary one first. A captured machine has none."""
    if str(root.base) != "/":
        return {}
    import psutil

    return by_link(psutil.net_if_addrs())


def by_link(told: Mapping[str, Sequence[Told]]) -> dict[str, list[Address]]:
    """An address with a label (`eth0:1`) belongs to its link."""
    found: dict[str, list[Address]] = {}
    for name, entries in told.items():
        addresses = [address(each) for each in entries if each.family in FAMILIES and each.address]
        found.setdefault(name.partition(":")[0], []).extend(addresses)
    return found


def address(told: Told) -> Address:
    """An IPv6 address without its scope; a missing mask is that of a single host."""
    family = socket.AddressFamily(told.family)
    plain = told.address.partition("%")[0]
    whole = ipaddress.ip_address(plain).max_prefixlen
    return Address(
        family=FAMILIES[family],
        address=plain,
        prefix_length=int(ipaddress.ip_address(told.netmask)).bit_count() if told.netmask else whole,
        broadcast=told.broadcast if family is socket.AF_INET else None,
    )
