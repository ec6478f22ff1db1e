"""A link's state as the kernel has it, and changes of it by rtnetlink(7), through pyroute2.

It is imported at the first use: it costs 25 MB, and an agent that changes no network needs none of it.
"""

import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Self

from libmh.context import Root
from libmh.errors import BackendFailed, NotAuthorized, NotFound, NotImplementedHere, Problem
from libmh.linux import sysfs
from libmh.linux.net.netwish import IP, AddRoute, IPInterface, IPNetwork, RemoveRoute, SetAddresses

log = logging.getLogger("libmh.linux.net.kernelnet")
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
MAIN, LOCAL = 254, 255
KERNEL, STATIC, RA, DHCP = 2, 4, 9, 16  # rtm_protocol
UNICAST = 1
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
PERMANENT, TENTATIVE, DAD_FAILED = 0x80, 0x40, 0x08
KEPT_FLAGS = 0x02 | 0x200 | 0x400 | 0x100  # nodad, noprefixroute, mcautojoin, mngtmpaddr
FOREVER = 2**32 - 1
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
ONLINK = 4
ODD_WAYS = ("RTA_NH_ID", "RTA_VIA", "RTA_ENCAP")
SETTLE_TRIES, SETTLE_STEP = (
    10,
    0.25,
)  # an IPv6 address is looked after for a second before it can be a source
NTF_USE = 1
ANSWERED = 0x02 | 0x04 | 0x08 | 0x10  # reachable, stale, delay, probe
ACCEPT_RA = "/proc/sys/net/ipv6/conf/{}/accept_ra"


@dataclass(frozen=True, slots=True)
class Held:
    """An address that a link has. `peer` is the other end's, where it is one to one."""

    address: str
    prefix_length: int
    broadcast: str | None
    label: str | None
    scope: int
    flags: int
    valid: int
    preferred: int
    peer: str | None = None

    @property
    def interface(self) -> IPInterface:
        return ip_interface(f"{self.address}/{self.prefix_length}")

    @property
    def link_local(self) -> bool:
        return self.scope == SCOPE_LINK and ":" in self.address

    @property
    def dynamic(self) -> bool:
        return not self.flags & PERMANENT


@dataclass(frozen=True, slots=True)
class Path:
    """A route out of a link. `metrics` are RTA_METRICS, `plain` is that its way is one gateway or the link
    itself: others are left as they are."""

    destination: str
    gateway: str | None
    table: int
    protocol: int
    scope: int
    kind: int
    flags: int
    metric: int
    source: str | None
    metrics: Mapping[str, int] = field(default_factory=dict)
    plain: bool = True

    @property
    def network(self) -> IPNetwork:
        return ip_network(self.destination)

    @property
    def made(self) -> bool:
        """Somebody made it: it did not come with an address, nor from a router."""
        by_itself = self.protocol in (KERNEL, RA)
        return self.plain and not by_itself and self.table != LOCAL and self.kind == UNICAST

    @property
    def default(self) -> bool:
        return self.table == MAIN and self.network.prefixlen == 0


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is needed to bring a link back to where it was. `accept_ra` is None where there is no IPv6."""

    up: bool
    carrier: bool
    loopback: bool
    mtu: int
    min_mtu: int
    max_mtu: int
    addresses: tuple[Held, ...]
    paths: tuple[Path, ...]
    accept_ra: str | None = None
    index: int = 0

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Of what `plain` gave. Raises KeyError, TypeError."""
        lists = {
            "addresses": tuple(Held(**each) for each in plain["addresses"]),
            "paths": tuple(Path(**each) for each in plain["paths"]),
        }
        return cls(**{**plain, **lists})

    @property
    def interfaces(self) -> list[IPInterface]:
        return [each.interface for each in self.addresses]


def state(root: Root, link: str) -> LinkState:
    """Raises `not-found`, `backend-failed`, `not-implemented` without pyroute2."""
    with kernel(root, link) as found:
        return found.state()


@contextmanager
def kernel(root: Root, link: str) -> "Iterator[Kernel]":
    """A link in the kernel's hands; what the kernel refuses is a `Problem` in its words."""
    try:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError as error:
        raise NotImplementedHere(f"pyroute2 is not installed ({error})") from error
    try:
        with IPRoute() as netlink:
            found = netlink.link_lookup(ifname=link)
            if not found:
                raise NotFound(f"there is no network link '{link}'", link=link)
            yield Kernel(netlink, root, link, found[0])
    except NetlinkError as error:
        raise refused(link, error.code, str(error.args[-1])) from error
    except OSError as error:
        raise refused(link, error.errno or 0, error.strerror or str(error)) from error


def refused(link: str, code: int, words: str) -> Problem:
    """What the kernel's refusal is."""
    if code in (errno.EPERM, errno.EACCES):
        return NotAuthorized(f"the kernel does not let this process change '{link}'", link=link)
    if code == errno.ENODEV:
        return NotFound(f"there is no network link '{link}'", link=link)
    return BackendFailed(f"the kernel refused to change '{link}': {words}", link=link)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One link of the kernel's, while a netlink socket is open."""

    netlink: Any
    root: Root
    link: str
    index: int

    def state(self) -> LinkState:
        told = self.netlink.link("get", index=self.index)[0]
        flags = told["flags"]
        held = [_held(each) for each in self.netlink.get_addr(index=self.index)]
        paths = [
            _path(each, hop)
            for family in FAMILIES.values()
            for each in self.netlink.get_routes(family=family)
            if (hop := _hop(each, self.index)) is not None
        ]
        return LinkState(
            up=bool(flags & IFF_UP),
            carrier=bool(flags & IFF_LOWER_UP),
            loopback=bool(flags & IFF_LOOPBACK),
            mtu=told.get_attr("IFLA_MTU") or 0,
            min_mtu=told.get_attr("IFLA_MIN_MTU") or 0,
            max_mtu=told.get_attr("IFLA_MAX_MTU") or 0,
            addresses=tuple(held),
            paths=tuple(paths),
            accept_ra=sysfs.text(self.root, ACCEPT_RA.format(self.link)),
            index=self.index,
        )

    def set_up(self, *, up: bool) -> None:
        self.netlink.link("set", index=self.index, state="up" if up else "down")

    def set_mtu(self, mtu: int) -> None:
        self.netlink.link("set", index=self.index, mtu=mtu)

    def set_addresses(self, wish: SetAddresses) -> None:
        """These and no others; what else was routed out of the link stays so where it can."""
        before = self.state()
        self._accept_ra("1" if wish.auto else "0")
        self._hold(_new(each) for each in wish.addresses)
        for each in before.paths:
            if each.made and each.default:
                self._forget(each)
        for gateway in wish.gateways:
            self._reach(_new_path(ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0"), gateway, 0))
        own = {str(each.ip) for each in wish.addresses}
        others = [each for each in before.paths if each.made and not each.default]
        # one that led through an address that is no more is not among them again
        self._bring_back(each if each.source in own else replace(each, source=None) for each in others)

    def add_route(self, wish: AddRoute) -> None:
        """The one with its metric: what is out of another link would be replaced, and be lost."""
        self._reach(_new_path(wish.destination, wish.gateway, wish.metric), alone=True)

    def remove_routes(self, wish: RemoveRoute) -> None:
        for each in matching(self.state().paths, wish):
            if each.protocol != KERNEL:
                self._forget(each)

    def restore(self, saved: LinkState) -> None:
        """Bring everything back that was; what came from routers by itself is left to them."""
        if self.state().mtu != saved.mtu:
            self.set_mtu(saved.mtu)
        self.set_up(up=saved.up)
        if saved.accept_ra is not None:
            self._accept_ra(saved.accept_ra)
        self._hold(saved.addresses)
        wanted = [each for each in saved.paths if each.made]
        for each in self.state().paths:
            if each.made and each not in wanted:
                self._forget(each)
        if saved.up:  # the kernel has no routes out of a link that is down
            self._bring_back(wanted, SETTLE_TRIES)

    def answering(self, wanted: Iterable[IPInterface]) -> list[IP]:
        """Which addresses a neighbour on the link has, as the kernel knows from the last seconds."""
        asked = {str(each.ip) for each in wanted}
        return [
            ip_address(each.get_attr("NDA_DST"))
            for each in self.netlink.get_neighbours(ifindex=self.index)
            if each.get_attr("NDA_DST") in asked and each["state"] & ANSWERED
        ]

    def ask_neighbours(self, wanted: Iterable[IPInterface]) -> None:
        """Let the kernel look who has these addresses (ARP, neighbour discovery)."""
        for each in wanted:
            self.netlink.neigh("set", dst=str(each.ip), ifindex=self.index, state="probe", flags=NTF_USE)

    def forget_neighbours(self, wanted: Iterable[IPInterface]) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        for each in wanted:
            with suppress(NetlinkError):  # it is not known
                self.netlink.neigh("del", dst=str(each.ip), ifindex=self.index)

    def _hold(self, wanted: Iterable[Held]) -> None:
        wanted = list(wanted)
        self._drop([each for each in self._current() if not _among(each, wanted)])
        for version in FAMILIES:
            # the first of a network is its primary address: the order must be the same
            left = [each.interface for each in self._current() if each.interface.version == version]
            asked = [each.interface for each in wanted if each.interface.version == version]
            if left != asked[: len(left)]:
                self._drop([each for each in self._current() if each.interface in left])
        current = self._current()
        for each in wanted:
            if not _among(each, current):
                self._add(each)

    def _current(self) -> list[Held]:
        found = (_held(each) for each in self.netlink.get_addr(index=self.index))
        return [each for each in found if not each.link_local]

    def _drop(self, unwanted: Iterable[Held]) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        for each in unwanted:
            try:
                self.netlink.addr("del", index=self.index, prefixlen=each.prefix_length, **_ends(each))
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:  # it went with the primary one of its network
                    raise

    def _add(self, each: Held) -> None:
        if each.link_local:
            return
        more = {"broadcast": each.broadcast, "label": each.label}
        lifetime = {"preferred_lft": each.preferred, "valid_lft": each.valid}
        self.netlink.addr(
            "replace",
            index=self.index,
            prefixlen=each.prefix_length,
            scope=each.scope,
            flags=each.flags & KEPT_FLAGS,
            **{name: value for name, value in more.items() if value is not None},
            **({} if each.valid == FOREVER else lifetime),
            **_ends(each),
        )

    def _bring_back(self, wanted: Iterable[Path], tries: int = 1) -> None:
        """Routes that are missing; one that is there has more than is known here. What cannot be is told in
        the log, and holds up nothing else."""
        now, pause = self.state().paths, threading.Event()
        left = sorted(
            (each for each in wanted if each not in now), key=lambda each: each.gateway is not None
        )
        for attempt in range(tries):
            refused = [(each, problem) for each in left if (problem := self._cannot_reach(each))]
            left = [each for each, _ in refused]
            if left and attempt + 1 < tries:
                pause.wait(SETTLE_STEP)
        for _, problem in refused:
            log.warning("%s, ignoring", problem)

    def _cannot_reach(self, path: Path) -> Problem | None:
        try:
            self._reach(path)
        except BackendFailed as problem:
            return problem
        return None

    def _reach(self, path: Path, *, alone: bool = False) -> None:
        """Beside what leads to the same destination out of another link, unless it is to be `alone`."""
        from pyroute2.netlink.exceptions import NetlinkError

        metrics = {"metrics": dict(path.metrics)} if path.metrics else {}
        try:
            self.netlink.route("add" if alone else "append", **self._described(path), **metrics)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                if not alone:  # it is there
                    return
                raise BackendFailed(
                    f"there is a route to '{path.destination}' with that metric already, by another link",
                    link=self.link,
                ) from error
            raise BackendFailed(
                f"the kernel refused a route to '{path.destination}' out of '{self.link}': {error.args[-1]}",
                link=self.link,
            ) from error

    def _forget(self, path: Path) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        # several ways of IPv6 are told with the protocol of the first
        whoever = {"proto": 0} if path.network.version == 6 else {}
        try:
            self.netlink.route("del", **{**self._described(path), **whoever})
        except NetlinkError as error:
            if error.code != errno.ESRCH:  # it has gone
                raise

    def _described(self, path: Path) -> dict[str, Any]:
        more = {"gateway": path.gateway, "prefsrc": path.source, "priority": path.metric or None}
        return {
            "family": FAMILIES[path.network.version],
            "dst": path.destination,
            "oif": self.index,
            "table": path.table,
            "proto": path.protocol,
            "scope": path.scope,
            "type": path.kind,
            "flags": path.flags & ONLINK,
            **{name: value for name, value in more.items() if value is not None},
        }

    def _accept_ra(self, wanted: str) -> None:
        name = ACCEPT_RA.format(self.link)
        now = sysfs.text(self.root, name)
        if now is not None and now != wanted and not (wanted == "1" and now == "2"):
            self.root.path(name).write_text(wanted)


def matching(paths: Iterable[Path], wish: AddRoute | RemoveRoute) -> list[Path]:
    """Routes of table main to a destination, through a gateway where one is named."""
    return [
        each
        for each in paths
        if each.table == MAIN
        and each.network == wish.destination
        and (wish.gateway is None or each.gateway == str(wish.gateway))
    ]


def _among(each: Held, others: Iterable[Held]) -> bool:
    return any(
        each.interface == other.interface
        and each.peer == other.peer
        and (each.label == other.label or None in (each.label, other.label))
        for other in others
    )


def _ends(held: Held) -> dict[str, str]:
    """rtnetlink(7): without a peer both are the same."""
    return {"local": held.address, "address": held.peer or held.address}


def _new(wanted: IPInterface) -> Held:
    broadcast = label = None
    if wanted.version == 4 and wanted.network.prefixlen < 31:
        broadcast = str(wanted.network.broadcast_address)
    return Held(
        str(wanted.ip),
        wanted.network.prefixlen,
        broadcast,
        label,
        SCOPE_UNIVERSE,
        PERMANENT,
        FOREVER,
        FOREVER,
    )


def _new_path(destination: IPNetwork, gateway: IP | None, metric: int) -> Path:
    scope = SCOPE_LINK if gateway is None and destination.version == 4 else SCOPE_UNIVERSE
    via = str(gateway) if gateway is not None else None
    return Path(str(destination), via, MAIN, STATIC, scope, UNICAST, 0, metric, None)


def _held(told: Any) -> Held:
    own = told.get_attr("IFA_LOCAL") or told.get_attr("IFA_ADDRESS")
    other = told.get_attr("IFA_ADDRESS") or own
    times = told.get_attr("IFA_CACHEINFO") or {}
    return Held(
        address=str(ipaddress.ip_address(own)),
        prefix_length=told["prefixlen"],
        broadcast=told.get_attr("IFA_BROADCAST"),
        label=told.get_attr("IFA_LABEL"),
        scope=told["scope"],
        flags=told.get_attr("IFA_FLAGS") or told["flags"],
        valid=times.get("ifa_valid", FOREVER),
        preferred=times.get("ifa_preferred", FOREVER),
        peer=None if other == own else str(ipaddress.ip_address(other)),
    )


def _hop(told: Any, index: int) -> Any:
    """What leads out of a link: the route itself, or one of its next hops. None where nothing does."""
    hops = told.get_attr("RTA_MULTIPATH")
    if hops:
        return next((each for each in hops if each["oif"] == index), None)
    return told if told.get_attr("RTA_OIF") == index else None


def _path(told: Any, hop: Any) -> Path:
    """Next hops of IPv6 are routes of their own, which come and go alone; those of IPv4 are one."""
    version = 4 if told["family"] == socket.AF_INET else 6
    whole = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a destination
    return Path(
        destination=f"{told.get_attr('RTA_DST') or whole}/{told['dst_len']}",
        gateway=hop.get_attr("RTA_GATEWAY"),
        table=told.get_attr("RTA_TABLE") or told["table"],
        protocol=told["proto"],
        scope=told["scope"],
        kind=told["type"],
        flags=told["flags"] & ONLINK,
        metric=told.get_attr("RTA_PRIORITY") or 0,
        source=told.get_attr("RTA_PREFSRC"),
        metrics=_metrics(told.get_attr("RTA_METRICS")),
        plain=not any(told.get_attr(name) for name in ODD_WAYS) and (version == 6 or hop is told),
    )


def _metrics(told: Any) -> dict[str, int]:
    """RTAX_MTU and the like, by their names at pyroute2."""
    found = told["attrs"] if told else ()
    return {name.removeprefix("RTAX_").lower(): value for name, value in found if isinstance(value, int)}
