"""What is asked of a link, checked before anything is touched."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from libmh.errors import InvalidArguments

IP = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network
MAX_ADDRESSES = 64
MAX_WORD = 100
MAX_METRIC = 2**32 - 1
DHCP, AUTO = "dhcp", "auto"
DEFAULTS = {"default": "0.0.0.0/0", "default6": "::/0"}
POINT_TO_POINT = 31  # from this length on, IPv4 has no network and broadcast addresses (RFC 3021)


@dataclass(frozen=True, slots=True)
class SetAddresses:
    """`gateways` has at most one of each family."""

    addresses: tuple[IPInterface, ...]
    gateways: tuple[IP, ...] = ()
    dhcp: bool = False
    auto: bool = False

    def of(self, version: int) -> list[IPInterface]:
        return [each for each in self.addresses if each.version == version]

    def gateway(self, version: int) -> IP | None:
        return next((each for each in self.gateways if each.version == version), None)


@dataclass(frozen=True, slots=True)
class SetMtu:
    mtu: int


@dataclass(frozen=True, slots=True)
class AddRoute:
    """A metric of 0 is whatever the manager takes."""

    destination: IPNetwork
    gateway: IP | None
    metric: int


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Without a gateway it is any."""

    destination: IPNetwork
    gateway: IP | None


class Turn(StrEnum):
    """Wishes without arguments."""

    UP = "up"
    DOWN = "down"
    RESTART = "restart"


Wish = SetAddresses | SetMtu | AddRoute | RemoveRoute | Turn


def described(wish: Wish) -> str:
    """In words, for a record."""
    match wish:
        case SetAddresses():
            words = [*(DHCP for _ in "1" if wish.dhcp), *(AUTO for _ in "1" if wish.auto)]
            listed = ", ".join([*map(str, wish.addresses), *words]) or "none"
            via = ", ".join(map(str, wish.gateways))
            return f"addresses {listed}{f' via {via}' if via else ''}"
        case SetMtu():
            return f"mtu {wish.mtu}"
        case AddRoute():
            metric = f" metric {wish.metric}" if wish.metric else ""
            return f"add route {wish.destination}{_via(wish.gateway)}{metric}"
        case RemoveRoute():
            return f"remove route {wish.destination}{_via(wish.gateway)}"
    return str(wish)


def _via(gateway: IP | None) -> str:
    return f" via {gateway}" if gateway is not None else ""


def addresses(given: Sequence[str], gateway: str) -> SetAddresses:
    """Raises `invalid-arguments`, which names the argument and what was expected."""
    if len(given) > MAX_ADDRESSES:
        raise InvalidArguments(
            f"addresses: expected at most {MAX_ADDRESSES}, got {len(given)}", argument="addresses"
        )
    found = [_interface(each) for each in given if each not in (DHCP, AUTO)]
    for index, each in enumerate(found):
        if each.ip in [other.ip for other in found[:index]]:
            raise InvalidArguments(f"addresses: '{each.ip}' is there twice", argument="addresses")
    gateways = [_address(part.strip(), "gateway") for part in gateway.split(",")] if gateway.strip() else []
    if len({each.version for each in gateways}) < len(gateways):
        raise InvalidArguments("gateway: expected at most one of each family", argument="gateway")
    for each_gateway in gateways:
        check_on_link(each_gateway, found, "gateway")
    return SetAddresses(tuple(found), tuple(gateways), DHCP in given, AUTO in given)


def add_route(destination: str, gateway: str, metric: int) -> AddRoute:
    found = _destination(destination)
    return AddRoute(found, _route_gateway(found, gateway), min(metric, MAX_METRIC))


def remove_route(destination: str, gateway: str) -> RemoveRoute:
    found = _destination(destination)
    return RemoveRoute(found, _route_gateway(found, gateway))


def check_on_link(gateway: IP, own: Sequence[IPInterface], argument: str) -> None:
    """A gateway must be another host in the network of one of a link's addresses."""
    same = [each for each in own if each.version == gateway.version]
    if any(gateway == each.ip for each in same):
        raise InvalidArguments(f"{argument}: '{gateway}' is the link's own address", argument=argument)
    if gateway.version == 6 and gateway.is_link_local:
        return
    if not any(gateway in each.network for each in same):
        known = ", ".join(str(each.network) for each in same) or f"no IPv{gateway.version} address"
        raise InvalidArguments(
            f"{argument}: '{gateway}' is not on the link, which has {known}", argument=argument
        )


def _interface(text: str) -> IPInterface:
    problem = InvalidArguments(
        f"addresses: expected an address with its prefix length, dhcp or auto, got '{text[:MAX_WORD]}'",
        argument="addresses",
    )
    address, slash, length = text[:MAX_WORD].partition("/")
    if not slash or "%" in address or not (length.isascii() and length.isdecimal()):
        raise problem
    try:
        found = ipaddress.ip_interface(f"{address}/{length}")
    except ValueError as error:
        raise problem from error
    _check_host(found.ip, "addresses")
    if isinstance(found, IPv4Interface) and found.network.prefixlen < POINT_TO_POINT:
        if found.ip in (found.network.network_address, found.network.broadcast_address):
            raise InvalidArguments(
                f"addresses: '{found.ip}' is no host of {found.network}", argument="addresses"
            )
    elif found.version == 6 and found.is_link_local:
        raise InvalidArguments(
            f"addresses: '{found.ip}' is link-local, which the kernel makes by itself", argument="addresses"
        )
    return found


def _address(text: str, argument: str) -> IP:
    try:
        found = ipaddress.ip_address(text[:MAX_WORD])
    except ValueError as error:
        raise InvalidArguments(
            f"{argument}: expected an IP address, got '{text[:MAX_WORD]}'", argument=argument
        ) from error
    if "%" in text:
        raise InvalidArguments(f"{argument}: expected no zone in '{text[:MAX_WORD]}'", argument=argument)
    _check_host(found, argument)
    return found


def _check_host(found: IP, argument: str) -> None:
    this_network = found.version == 4 and int(found) >> 24 == 0
    reserved = found.version == 4 and int(found) >> 28 == 15
    if found.is_multicast or found.is_loopback or found.is_unspecified or this_network or reserved:
        raise InvalidArguments(f"{argument}: '{found}' is not an address of a host", argument=argument)


def _destination(text: str) -> IPNetwork:
    try:
        found = ipaddress.ip_network(DEFAULTS.get(text, text[:MAX_WORD]))
    except ValueError as error:
        raise InvalidArguments(
            f"destination: expected a network, as 198.51.100.0/24, default or default6, "
            f"got '{text[:MAX_WORD]}': {error}",
            argument="destination",
        ) from error
    if "%" in text or (found.prefixlen and (found.is_multicast or found.is_loopback)):
        raise InvalidArguments(
            f"destination: '{text[:MAX_WORD]}' is no network of hosts", argument="destination"
        )
    return found


def _route_gateway(destination: IPNetwork, text: str) -> IP | None:
    if not text:
        return None
    found = _address(text, "gateway")
    if found.version != destination.version:
        raise InvalidArguments(
            f"gateway: '{found}' is not of the family of '{destination}'", argument="gateway"
        )
    return found
