"""A booted machine with a link for each who may manage it, and other hosts at the far ends."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from libmh.api.network import Network
from libmh.client import connect
from source_tree import ROOT
from testbed.machine import Host, booted_host, with_packages
from waiting import wait_for

KERNEL, NETWORKD, MANAGER = "k0", "d0", "m0"
LINKS = (KERNEL, NETWORKD, MANAGER)
KEEPERS = {KERNEL: "kernel", NETWORKD: "networkd", MANAGER: "NetworkManager"}
STATE = "/var/lib/matahari"

NETWORK_FILE = """[Match]
Name=d*
[Network]
Address=10.9.1.1/24
IPv6AcceptRA=no
DNS=192.0.2.53
[Route]
Destination=203.0.111.0/24
Gateway=10.9.1.2
"""
PROFILE = """[connection]
id=wired
uuid=11111111-2222-3333-4444-555555555555
type=ethernet
interface-name=m0
[ipv4]
method=manual
address1=10.9.2.1/24
route1=203.0.112.0/24,10.9.2.2
dns=192.0.2.53;
[ipv6]
method=link-local
"""
MANAGER_CONF = """[main]
plugins=keyfile
no-auto-default=*
dns=none
[keyfile]
unmanaged-devices=interface-name:k0,interface-name:d0
"""
LAY = """#!/bin/sh
set -e
for each in all default; do echo 0 >/proc/sys/net/ipv6/conf/$each/accept_dad; done
ip netns add far
number=0
for link in k d m; do
    ip link add ${link}0 type veth peer name ${link}1 netns far
    for host in 2 9; do ip -n far addr add 10.9.$number.$host/24 dev ${link}1; done
    ip -n far link set ${link}1 up
    number=$((number + 1))
done
ip addr add 10.9.0.1/24 dev k0
ip link set k0 up
ip route add 203.0.110.0/24 via 10.9.0.2
chmod 600 /etc/NetworkManager/system-connections/*
rm -f /etc/NetworkManager/dispatcher.d/01-ifupdown
"""
LEASES = """#!/bin/sh
# a networkd of its own at the far end, which gives out 10.9.NUMBER.100 and up: leases NUMBER LINK
set -e
mkdir -p /run/systemd/network
for hidden in /run/systemd/netif /run/systemd/network /run/dbus /etc/systemd/network; do
    mount -t tmpfs -o mode=755 tmpfs $hidden
done
mount -o remount,ro /sys # read-only says: do not wait for udev
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
ip addr flush dev $2
chown -R systemd-network:systemd-network /run/systemd/netif
{
    printf '[Match]\\nName=%s\\n[Network]\\nDHCPServer=yes\\nIPv6AcceptRA=no\\n' $2
    printf 'Address=10.9.%s.2/24\\nAddress=10.9.%s.9/24\\n' $1 $1
    printf '[DHCPServer]\\nPoolOffset=100\\nPoolSize=50\\nEmitDNS=no\\nDefaultLeaseTimeSec=3600\\n'
} >/run/systemd/network/10-leases.network
exec /lib/systemd/systemd-networkd
"""
LAY_UNIT = """[Unit]
DefaultDependencies=no
After=local-fs.target
Before=systemd-networkd.service NetworkManager.service sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/lay
[Install]
WantedBy=sysinit.target
"""
AGENT_UNIT = f"""[Service]
Group=root
Restart=no
ExecStart=
ExecStart={sys.prefix}/bin/mh-dbus --state {STATE} --only Network
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A link as the kernel shows it; IPv6 link-local addresses and what comes with an address left out."""

    up: bool
    mtu: int
    addresses: frozenset[str]
    routes: frozenset[tuple[str, str | None]]


@dataclass(slots=True)
class Stage:
    """The machine, and its agent as a console on its bus sees it."""

    host: Host
    ends: list[Callable[[], None]] = field(default_factory=list)

    def network(self) -> Network:
        """A connection of its own to the agent of this boot."""
        connection = connect(self.host.bus_address())
        self.ends.append(connection.close)
        return connection.proxy(Network)

    def seen(self, link: str) -> Seen:
        show = f"ip -j addr show dev {link}; ip -j route show dev {link}; ip -j -6 route show dev {link}"
        lines = self.host.run("sh", "-c", show).stdout.splitlines()
        (told,), *routes = (json.loads(line) for line in lines if line)
        return Seen(
            up="UP" in told["flags"],
            mtu=told["mtu"],
            addresses=frozenset(_addresses(told)),
            routes=frozenset(
                (each["dst"], each.get("gateway"))
                for family in routes
                for each in family
                if each.get("protocol") != "kernel"
            ),
        )

    def agent(self, verb: str) -> None:
        self.host.run("systemctl", verb, "mh-dbus.service")

    def kill_agent(self) -> None:
        """SIGKILL, and nobody starts it again."""
        self.host.run("systemctl", "kill", "-s", "KILL", "mh-dbus.service")
        self.host.run("systemctl", "reset-failed", "mh-dbus.service", check=False)

    def script(self, text: str, *arguments: str, check: bool = True) -> str:
        """What a program says that is run inside, with `network` at hand."""
        return self.host.python("-c", HERE + text, *arguments, check=check, seconds=60).stdout

    def close(self) -> None:
        while self.ends:
            self.ends.pop()()


HERE = f"""
import os, signal, sys
from pathlib import Path
from libmh.context import Context, Root, Settings
from libmh.errors import Problem
from libmh.linux.net import bykernel, netchanges, networkd, networkmanager
from libmh.linux.net.netchanges import Changes, Limits
from libmh.linux.net.netwish import SetMtu, addresses
context = Context(Root(), Settings(Path("{STATE}/settings.json")))
"""


def _addresses(told: Any) -> Iterator[str]:
    for each in told["addr_info"]:
        address = ip_interface(f"{each['local']}/{each['prefixlen']}")
        if not address.is_link_local:
            yield str(address)


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Up, with the three links configured and the agent at work."""
    layer = with_packages("network-manager")
    files = {
        "/usr/local/bin/lay": LAY,
        "/usr/local/bin/leases": LEASES,
        "/etc/systemd/system/lay.service": LAY_UNIT,
        "/etc/systemd/network/50-wired.network": NETWORK_FILE,
        "/etc/NetworkManager/conf.d/90-stage.conf": MANAGER_CONF,
        "/etc/NetworkManager/system-connections/wired.nmconnection": PROFILE,
        "/etc/systemd/system/mh-dbus.service.d/test.conf": AGENT_UNIT,
    }
    for pattern, target in (
        ("dbus-1/system.d/*.conf", "/usr/share"),
        ("polkit-1/actions/*.policy", "/usr/share"),
        ("systemd/mh-dbus.service", "/etc"),
    ):
        for path in (ROOT / "packaging").glob(pattern):
            place = path.relative_to(ROOT / "packaging")
            inside = f"/etc/systemd/system/{path.name}" if target == "/etc" else f"{target}/{place}"
            files[inside] = path.read_text("utf-8")
    with booted_host(name, files=files, layers=[layer]) as host:
        host.run("systemctl", "enable", "--now", "lay.service")
        host.run("systemctl", "enable", "systemd-networkd.service")
        host.run("systemctl", "restart", "systemd-networkd.service", "NetworkManager.service")
        staged = Stage(host)
        staged.agent("start")
        try:
            settled(staged)
            yield staged
        finally:
            staged.close()


def settled(staged: Stage) -> None:
    """Wait until all links have what is configured."""
    for number, link in enumerate(LINKS):
        address = f"10.9.{number}.1/24"
        route = (f"203.0.11{number}.0/24", f"10.9.{number}.2")
        wait_for(lambda: _has(staged.seen(link), address, route), 20, f"{link} came up")  # noqa: B023 - called at once


def _has(seen: Seen, address: str, route: tuple[str, str]) -> bool:
    return address in seen.addresses and route in seen.routes


def place(link: str) -> int:
    """The number of a link: its network is 10.9.NUMBER.0/24."""
    return LINKS.index(link)
