"""The network of a host: its links, addresses and routes, and changes that undo themselves."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.spec import U8, U32, U64, Effect, Time, event, interface, method, prop

IFACE = "a link's name"
CONFIRM = "seconds in which `confirm` must be called, or it is rolled back; 0 keeps it at once; at most 3600"
CHANGE_DEADLINE = 120.0  # to activate a connection; a rollback has a time of its own
CHANGED = ("iface",)


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of a link."""

    family: Annotated[str, "ipv4 or ipv6"]
    address: Annotated[str, "in its usual notation, without the prefix length"]
    prefix_length: Annotated[U8, "bits of the network part"]
    broadcast: Annotated[str | None, "IPv4 broadcast address"] = None


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Since the link came to be (/sys/class/net/LINK/statistics)."""

    rx_bytes: Annotated[U64, "received"]
    tx_bytes: Annotated[U64, "sent"]
    rx_packets: Annotated[U64, "received"]
    tx_packets: Annotated[U64, "sent"]
    rx_errors: Annotated[U64, "received in error"]
    tx_errors: Annotated[U64, "failed to send"]
    rx_dropped: Annotated[U64, "received, then dropped"]
    tx_dropped: Annotated[U64, "dropped before sending"]


@dataclass(frozen=True, slots=True)
class Link:
    """A network link."""

    name: Annotated[str, "eth0, lo"]
    index: Annotated[U32, "the kernel's interface index"]
    kind: Annotated[
        str, "loopback, ethernet, wireless, bridge, bond, vlan, veth, tun, tap, vxlan ... or unknown"
    ]
    up: Annotated[bool, "administratively up (IFF_UP)"]
    operational_state: Annotated[
        str, "RFC 2863: up, down, dormant, lowerlayerdown, notpresent, testing, unknown"
    ]
    mtu: Annotated[U32, "bytes"]
    addresses: Annotated[list[Address], "IPv4 and IPv6"]
    counters: Annotated[LinkCounters, "traffic"]
    carrier: Annotated[bool | None, "absent while the link is down"] = None
    speed: Annotated[U32 | None, "Mbit/s; absent where the link does not know"] = None
    duplex: Annotated[str | None, "full or half"] = None
    driver: Annotated[str | None, "kernel driver of the device"] = None
    mac_address: Annotated[str | None, "upper case, joined by colons"] = None
    master: Annotated[str | None, "the bridge or bond that it belongs to"] = None


class Keeper(StrEnum):
    """Who manages a link, and so makes its changes."""

    NETWORK_MANAGER = "NetworkManager"
    NETWORKD = "networkd"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An IP address, with the link that has it."""

    link: Annotated[str, "its name"]
    family: Annotated[str, "ipv4 or ipv6"]
    address: Annotated[str, "in its usual notation, without the prefix length"]
    prefix_length: Annotated[U8, "bits of the network part"]
    scope: Annotated[str, "global, site, link, host"]
    dynamic: Annotated[bool, "it came by DHCP or a router advertisement, and ends unless it is renewed"]
    deprecated: Annotated[bool, "no new connections are made from it"]
    tentative: Annotated[bool, "it is still being looked whether another host has it"]
    broadcast: Annotated[str | None, "IPv4 broadcast address"] = None
    label: Annotated[str | None, "eth0:1, of an IPv4 address that has one"] = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the kernel (rtnetlink(7))."""

    family: Annotated[str, "ipv4 or ipv6"]
    destination: Annotated[str, "192.0.2.0/24; 0.0.0.0/0 and ::/0 are the default routes"]
    kind: Annotated[str, "unicast, blackhole, unreachable, prohibit, local, broadcast, multicast ..."]
    table: Annotated[U32, "254 is main, 255 local"]
    protocol: Annotated[str, "who made it: kernel, boot, static, dhcp, ra, or a number"]
    scope: Annotated[str, "global, site, link, host, nowhere"]
    metric: Annotated[U32, "the lowest wins"]
    gateway: Annotated[str | None, "absent where the destination is on the link"] = None
    link: Annotated[str | None, "that it goes out of"] = None
    source: Annotated[str | None, "the address preferred for what is sent along it"] = None


@dataclass(frozen=True, slots=True)
class Dns:
    """Where names are looked up."""

    source: Annotated[
        str, "systemd-resolved, NetworkManager or /etc/resolv.conf, with a word where that names a stub"
    ]
    servers: Annotated[list[str], "addresses, in the order in which they are asked"]
    search: Annotated[list[str], "domains that are tried after a short name"]
    link: Annotated[str | None, "that these are for; absent where they are for all"] = None


class ChangeState(StrEnum):
    """Where a change to the network stands."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """A change to the network, how it stands, and what came of it."""

    id: Annotated[str, "for `confirm` and `roll_back`"]
    link: Annotated[str, "that was changed"]
    keeper: Annotated[Keeper, "who manages the link, and made the change"]
    what: Annotated[str, "in words: addresses 192.0.2.7/24"]
    state: Annotated[ChangeState, "failed: it could not be made, and what was before is back"]
    time: Annotated[Time, "when it was made"]
    by: Annotated[str, "who asked for it"]
    persistent: Annotated[bool, "it outlives a restart of the host once it is confirmed"]
    confirm_by: Annotated[Time | None, "of a pending one: when it is rolled back"] = None
    reason: Annotated[str | None, "why it failed or was rolled back"] = None


@interface("org.matahariproject.Network", version="1.0")
class Network(Protocol):
    """The network of a host. What changes it is made by whoever manages the link (NetworkManager, networkd,
    or else the kernel), and is rolled back unless it is confirmed in time, whatever happens to the agent or
    to the connection meanwhile. A link has one pending change at most; a second is a `conflict`."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @method(returns="iface_map", name="list")
    def list_links(self) -> list[str]:
        """Names of all links, those that are down included."""
        ...

    @method(objects=("iface",), returns="status")
    def status(self, iface: Annotated[str, "a link's name"]) -> U32:
        """0 when the link is administratively up, 1 when it is down or unknown."""
        ...

    @method(objects=("iface",), returns="ip")
    def get_ip_address(self, iface: Annotated[str, "a link's name"]) -> str:
        """The primary IPv4 address, `0.0.0.0` when it has none, empty when there is no such link."""
        ...

    @method(objects=("iface",), returns="mac")
    def get_mac_address(self, iface: Annotated[str, "a link's name"]) -> str:
        """The hardware address, upper case and joined by colons; `00:00:00:00:00:00` for loopback, empty
        when there is no such link."""
        ...

    @method(returns="links")
    def links(self) -> list[Link]:
        """All links in full, by index."""
        ...

    @method(objects=("iface",), returns="link")
    def link(self, iface: Annotated[str, "a link's name"]) -> Link:
        """One link in full; `not-found` when there is no such link."""
        ...

    @method(effect=Effect.CHANGES, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="status")
    def start(self, iface: Annotated[str, IFACE]) -> U32:
        """Bring a link up, unless it is, and answer as `status` once that has ended."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="status")
    def stop(self, iface: Annotated[str, IFACE]) -> U32:
        """Take a link down, unless it is, and answer as `status` once that has ended. Nothing brings it up
        again by itself: `down` does."""
        ...

    @method(returns="addresses")
    def addresses(
        self, iface: Annotated[str, "a link's name; empty is all links"] = ""
    ) -> list[LinkAddress]:
        """IP addresses by link, the primary one first."""
        ...

    @method(returns="routes")
    def routes(
        self,
        iface: Annotated[str, "routes out of this link alone; empty is all"] = "",
        table: Annotated[U32, "a routing table; 0 is all but local"] = 0,
    ) -> list[Route]:
        """The routes, by family, table, destination and metric; at most 10,000."""
        ...

    @method(returns="dns")
    def dns(self) -> list[Dns]:
        """Where names are looked up, as whoever keeps it says."""
        ...

    @method(objects=("iface",), returns="keeper")
    def keeper(self, iface: Annotated[str, IFACE]) -> Keeper:
        """Who manages a link: NetworkManager and networkd where they say so, else the kernel alone."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def set_addresses(
        self,
        iface: Annotated[str, IFACE],
        addresses: Annotated[
            list[str], "192.0.2.7/24, 2001:db8::7/64; the words dhcp and auto (router advertisements)"
        ],
        gateway: Annotated[
            str, "of the default routes: one a family, joined by a comma; empty is none"
        ] = "",
        confirm: Annotated[U32, CONFIRM] = 60,
    ) -> NetworkChange:
        """Give a link these addresses and no others (IPv6 link-local ones stay). Fails, with what was before
        back, when it cannot be made: an address that another host has, DHCP that never answers."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def set_mtu(
        self,
        iface: Annotated[str, IFACE],
        mtu: Annotated[U32, "bytes; what the link can is known to the kernel"],
        confirm: Annotated[U32, CONFIRM] = 60,
    ) -> NetworkChange:
        """Set the largest packet of a link."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def add_route(
        self,
        iface: Annotated[str, IFACE],
        destination: Annotated[str, "198.51.100.0/24; default, or default6"],
        gateway: Annotated[str, "an address on the link; empty where the destination is on the link"] = "",
        metric: Annotated[U32, "the lowest wins; 0 is the manager's own choice"] = 0,
        confirm: Annotated[U32, CONFIRM] = 60,
    ) -> NetworkChange:
        """Add a route out of a link, in table main. `conflict` when it is there."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def remove_route(
        self,
        iface: Annotated[str, IFACE],
        destination: Annotated[str, "as in `add_route`"],
        gateway: Annotated[str, "its gateway; empty matches any"] = "",
        confirm: Annotated[U32, CONFIRM] = 60,
    ) -> NetworkChange:
        """Remove routes of table main out of a link. `not-found` when there is none such."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def restart(self, iface: Annotated[str, IFACE], confirm: Annotated[U32, CONFIRM] = 60) -> NetworkChange:
        """Take a link down and bring it up again with its configuration."""
        ...

    @method(effect=Effect.CHANGES, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def up(self, iface: Annotated[str, IFACE], confirm: Annotated[U32, CONFIRM] = 60) -> NetworkChange:
        """Bring a link up; it is taken down again unless that is confirmed."""
        ...

    @method(effect=Effect.DISRUPTS, objects=CHANGED, deadline=CHANGE_DEADLINE, returns="change")
    def down(self, iface: Annotated[str, IFACE], confirm: Annotated[U32, CONFIRM] = 60) -> NetworkChange:
        """Take a link down; it is brought up again as it was unless that is confirmed."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("id",), deadline=60.0, returns="change")
    def confirm(self, id: Annotated[str, "of a change"]) -> NetworkChange:  # noqa: A002 - its wire name
        """Keep a pending change for good. `conflict` when it was rolled back already."""
        ...

    @method(
        effect=Effect.DISRUPTS, idempotent=True, objects=("id",), deadline=CHANGE_DEADLINE, returns="change"
    )
    def roll_back(self, id: Annotated[str, "of a change"]) -> NetworkChange:  # noqa: A002 - its wire name
        """Undo a pending change now. `conflict` when it was confirmed already."""
        ...

    @method(returns="changes")
    def changes(self) -> list[NetworkChange]:
        """Pending changes, and the last hundred that ended; the newest first."""
        ...

    @event()
    def link_changed(
        self,
        iface: Annotated[str, "the link's name"],
        change: Annotated[str, "added, removed, or changed"],
        up: Annotated[bool, "administratively up"],
        carrier: Annotated[bool, "the other end is there"],
        operational_state: Annotated[str, "RFC 2863, as in `links`"],
        mtu: Annotated[U32, "bytes"],
        addresses: Annotated[list[str], "with their prefix lengths"],
    ) -> None:
        """A link came, went, or changed its state, size or addresses. At most five a second for each; the
        last state is always told."""
        return

    @event()
    def network_changed(
        self,
        change: Annotated[NetworkChange, "how it stands now"],
    ) -> None:
        """A change to the network was made, confirmed or rolled back."""
        return
