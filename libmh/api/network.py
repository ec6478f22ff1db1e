"""Network links: what there is and how it does."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U8, U32, U64, interface, method, prop


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


@interface("org.matahariproject.Network", version="1.0")
class Network(Protocol):
    """The network links of a host."""

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
