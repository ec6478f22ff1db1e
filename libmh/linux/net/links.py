"""Network links: as the kernel tells of them where we run on it, else from /sys/class/net
(Documentation/ABI/testing/sysfs-class-net)."""

import os
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from libmh.api.network import Address, Link, LinkCounters
from libmh.context import Root
from libmh.linux import sysfs
from libmh.linux.net import addresses, rtlinks

NET = "/sys/class/net"
IFF_UP = 0x1
MAX_U32 = 2**32 - 1
NO_MAC = "00:00:00:00:00:00"
COUNTERS = tuple(field.name for field in fields(LinkCounters))
OPERATIONAL = frozenset({"up", "down", "dormant", "lowerlayerdown", "notpresent", "testing"})

# linux/if_arp.h
HARDWARE = {
    1: "ethernet",
    24: "ieee1394",
    32: "infiniband",
    280: "can",
    512: "ppp",
    768: "ipip",
    769: "ip6tnl",
    772: "loopback",
    776: "sit",
    778: "gre",
    801: "wireless",
    802: "wireless",
    803: "wireless",
    823: "ip6gre",
}
DEVICE_TYPES = {"wlan": "wireless", "bluetooth": "bluetooth", "wwan": "wwan"}
IFF_TUN, IFF_TAP = 0x1, 0x2


def names(root: Root) -> list[str]:
    """All links, by name. A captured or real machine without the directory has none."""
    return sysfs.children(root, NET)


def known(root: Root, name: str) -> bool:
    """Whether this names a link: nothing but a name that is listed is ever put into a path."""
    try:
        with os.scandir(root.path(NET)) as entries:
            listed = {entry.name for entry in entries}
    except OSError:
        return False
    # of hundreds of links only this one is looked at
    return name in listed and name.isprintable() and sysfs.exists(root, f"{NET}/{name}/ifindex")


def index(root: Root, name: str) -> int:
    """The kernel's number of a link; `not-found` when there is no such link."""
    found = sysfs.positive(root, f"{NET}/{name}/ifindex") if known(root, name) else None
    if found is None:
        raise rtlinks.missing(name)
    return found


def read_all(root: Root) -> list[Link]:
    """All links by index; one that goes while it is read is left out."""
    if str(root.base) == "/":
        told = sorted(rtlinks.told(counted=True), key=lambda link: link.index)
        by_index = {link.index: link.name for link in told}
        return rtlinks.in_full(told, by_index, addresses.by_link(), partial(kind, root))
    found = [read(root, name, ()) for name in names(root)]
    return sorted((link for link in found if link.index), key=lambda link: link.index)


def read_one(root: Root, name: str) -> Link:
    """`not-found` when there is no such link."""
    if str(root.base) == "/":
        told = rtlinks.one(name)
        master = {told.master: rtlinks.name_of(told.master)} if told.master else {}
        (link,) = rtlinks.in_full([told], master, addresses.by_link(told.index), partial(kind, root))
        return link
    if not known(root, name):
        raise rtlinks.missing(name)
    return read(root, name, ())


def read(root: Root, name: str, own: Sequence[Address]) -> Link:
    place = f"{NET}/{name}"
    up = is_up(root, name)
    speed = sysfs.positive(root, f"{place}/speed")
    duplex = sysfs.text(root, f"{place}/duplex")
    state = sysfs.text(root, f"{place}/operstate") or ""
    carrier = sysfs.number(root, f"{place}/carrier") if up else None
    driver = sysfs.link(root, f"{place}/device/driver") or _asked_driver(root, name)
    return Link(
        name=name,
        index=sysfs.positive(root, f"{place}/ifindex") or 0,
        kind=kind(root, name, driver),
        up=up,
        operational_state=state if state in OPERATIONAL else "unknown",
        mtu=sysfs.positive(root, f"{place}/mtu") or 0,
        addresses=list(own),
        counters=counters(root, name),
        carrier=None if carrier is None else carrier == 1,
        speed=speed if speed and speed < MAX_U32 else None,
        duplex=duplex if duplex in ("full", "half") else None,
        driver=driver,
        mac_address=mac(root, name),
        master=sysfs.link(root, f"{place}/master"),
    )


def is_up(root: Root, name: str) -> bool:
    """IFF_UP: the administrator wants it up, whether or not it has a carrier."""
    flags = sysfs.text(root, f"{NET}/{name}/flags") or ""
    try:
        return bool(int(flags, 16) & IFF_UP)
    except ValueError:
        return False


def mac(root: Root, name: str) -> str | None:
    """Upper case; None for a link that has none, as a tunnel."""
    found = sysfs.text(root, f"{NET}/{name}/address")
    return found.upper() if found else None


def counters(root: Root, name: str) -> LinkCounters:
    place = f"{NET}/{name}/statistics"
    return LinkCounters(*(sysfs.positive(root, f"{place}/{counter}") or 0 for counter in COUNTERS))


def kind(root: Root, name: str, driver: str | None) -> str:
    """What kind of link it is, from what the kernel shows of it; `unknown` rather than a guess."""
    place = f"{NET}/{name}"
    told = _device_type(root, place)
    if told:
        return told
    for directory, word in (("wireless", "wireless"), ("bridge", "bridge"), ("bonding", "bond")):
        if sysfs.exists(root, f"{place}/{directory}"):
            return word
    tun = sysfs.text(root, f"{place}/tun_flags")
    if tun:
        return "tap" if _hexadecimal(tun) & IFF_TAP else "tun"
    word = HARDWARE.get(sysfs.number(root, f"{place}/type") or 0, "unknown")
    # a virtual link without a device goes by its driver: veth, dummy, ifb
    virtual = word in ("ethernet", "unknown") and not sysfs.exists(root, f"{place}/device")
    return driver if virtual and driver else word


def _device_type(root: Root, place: str) -> str | None:
    """DEVTYPE of the uevent: vlan, vxlan, bridge, bond, macvlan, wireguard ..."""
    for line in (sysfs.text(root, f"{place}/uevent") or "").splitlines():
        if line.startswith("DEVTYPE="):
            told = line.removeprefix("DEVTYPE=")
            return DEVICE_TYPES.get(told, told) or None
    return None


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _asked_driver(root: Root, name: str) -> str | None:
    if str(root.base) != "/":
        return None
    from libmh.linux.net import ethtool

    return ethtool.driver(name)
