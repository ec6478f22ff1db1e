"""Where names are looked up: systemd-resolved's word where it runs, else NetworkManager's, else
/etc/resolv.conf (resolv.conf(5)).

None of them is started by the question. Where the bus is dead the file answers; a daemon that is there and
does not answer makes that one call fail.
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from libmh.api.network import Dns
from libmh.context import Root
from libmh.errors import NotFound, Unavailable
from libmh.linux.daemons import PROPERTIES, Daemon, Place, daemon
from libmh.linux.net import rtlinks
from libmh.linux.net.addresses import SIZES

BUS = Place("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
RESOLVED = Place("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")
NETWORK_MANAGER = Place(
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager/DnsManager",
    "org.freedesktop.NetworkManager.DnsManager",
)
RESOLV_CONF = "/etc/resolv.conf"
STUB = f"{RESOLV_CONF}, a stub of systemd-resolved"
STUBS = frozenset({"127.0.0.53", "127.0.0.54"})
ROUTE_ONLY = "~"  # a domain that chooses servers, and is not tried after a name
SECONDS = 5.0
MAX_FILE = 1 << 16
MAX_ENTRIES = 256
MAX_NAME = 255


def read(root: Root) -> list[Dns]:
    """Raises what asking the one that keeps it raises: `timeout`, `backend-failed`, `not-authorized`."""
    for place, answered in ((RESOLVED, resolved), (NETWORK_MANAGER, network_manager)):
        found = _asked(root, place)
        if told := answered(found) if found else []:
            return told
    written = resolv_conf(root.read_optional(RESOLV_CONF) or "")
    return [written] if written.servers or written.search else []


def _asked(root: Root, place: Place) -> Mapping[str, Any] | None:
    """All that a daemon tells; None where it, or the bus, is not there."""
    try:
        if not daemon(root, BUS).value(bool, "NameHasOwner", "s", place.name, timeout=SECONDS):
            return None
        (told,) = _all(daemon(root, place))
    except (Unavailable, NotFound):  # it has just left; a NetworkManager before 1.6
        return None
    return told if isinstance(told, dict) else None


def _all(keeper: Daemon) -> list[Any]:
    place = keeper.place
    answer = keeper.bus.call(
        place.name, place.path, PROPERTIES, "GetAll", "s", place.interface, timeout=SECONDS
    )
    return answer[:1] or [None]


def resolved(told: Mapping[str, Any]) -> list[Dns]:
    """By link, what is for all first; the servers of last resort where there are no others
    (org.freedesktop.resolve1(5))."""
    servers: dict[int, list[str]] = {}
    search: dict[int, list[str]] = {}
    listed = _entries(told.get("DNS"), 3) or _entries(told.get("FallbackDNS"), 3)
    for index, family, address in listed:
        text = _address(family, address)
        if text and isinstance(index, int):
            servers.setdefault(index, []).append(text)
    for index, domain, route_only in _entries(told.get("Domains"), 3):
        if isinstance(index, int) and isinstance(domain, str) and not route_only:
            search.setdefault(index, []).append(domain[:MAX_NAME])
    found = []
    for index in sorted(servers.keys() | search.keys()):
        link = rtlinks.name_of(index) if index > 0 else None
        if index <= 0 or link:  # a link that has gone since is left out
            found.append(Dns("systemd-resolved", servers.get(index, []), search.get(index, []), link))
    return found


def network_manager(told: Mapping[str, Any]) -> list[Dns]:
    """In the order of their priority, as it tells them."""
    found = []
    for each in _list(told.get("Configuration")):
        if isinstance(each, dict):
            servers, domains = _words(each.get("nameservers")), _words(each.get("domains"))
            search = [domain for domain in domains if not domain.startswith(ROUTE_ONLY)]
            link = each.get("interface")
            if servers or search:
                found.append(
                    Dns("NetworkManager", servers, search, link if isinstance(link, str) and link else None)
                )
    return found


def resolv_conf(text: str) -> Dns:
    """What the C library takes from it: all `nameserver` lines, the last of `search` and `domain`. An
    address that is none is left out, as are `options` and `sortlist`, which name neither servers nor
    domains."""
    servers: list[str] = []
    search: list[str] = []
    for line in text[:MAX_FILE].splitlines():
        words = line.split()
        match words:
            case ["nameserver", address, *_] if _is_address(address) and len(servers) < MAX_ENTRIES:
                servers.append(address)
            case ["search", *domains]:
                search = _words(domains)
            case ["domain", domain, *_]:
                search = _words([domain])
            case _:
                continue
    stub = any(server in STUBS for server in servers)
    return Dns(STUB if stub else RESOLV_CONF, servers, search)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def _address(family: object, packed: object) -> str | None:
    raw = bytes(packed) if isinstance(packed, bytes | bytearray) else b""
    if not isinstance(family, int) or SIZES.get(family) != len(raw):
        return None
    return socket.inet_ntop(family, raw)


def _list(told: object) -> list[Any]:
    return told[:MAX_ENTRIES] if isinstance(told, list) else []


def _entries(told: object, size: int) -> Iterable[Any]:
    return [each for each in _list(told) if isinstance(each, list | tuple) and len(each) == size]


def _words(told: object) -> list[str]:
    found = [word for word in _list(told) if isinstance(word, str)]
    return [word for word in found if 0 < len(word) <= MAX_NAME and word.isprintable()]
