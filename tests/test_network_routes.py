"""Addresses and routes of a namespace, as the kernel has them and as iproute2 shows them."""

import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from captured import captured
from libmh.errors import NotFound, NotImplementedHere, Timeout
from libmh.linux.net import addresses, netlink
from libmh.linux.network import LinuxNetwork
from namespaces import Namespace, namespace

LAID = """link add v0 type veth peer name v1
link add br0 type bridge
link set v1 up
link set v0 up
link set br0 up
address add 192.0.2.1/24 brd + dev v0
address add 192.0.2.7/24 dev v0 label v0:1
address add 198.51.100.1/32 peer 198.51.100.2 dev v0
address add 192.0.2.8/24 dev v0 valid_lft 1000 preferred_lft 0
address add fd00::1/64 dev v0 nodad
address add 10.0.0.1/24 dev br0
route add default via 192.0.2.254 metric 50
route add default via 192.0.2.253 metric 20 proto static
route add blackhole 203.0.113.0/25
route add 203.0.113.128/25 via inet6 fd00::9 dev v0 src 192.0.2.7
route add 198.18.0.0/15 nexthop via 192.0.2.9 nexthop via 192.0.2.10 weight 3
route add 172.16.0.0/12 via 192.0.2.9 table 1000
route add fd01::/48 via fd00::2
"""
ASK = """
import json
from dataclasses import asdict
from libmh.errors import Problem
from libmh.linux.network import LinuxNetwork
network = LinuxNetwork()
try:
    told = {call}
    print(json.dumps([asdict(each) for each in told]))
except Problem as problem:
    print(json.dumps([problem.word, problem.message]))
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Namespace]:
    with namespace() as made:
        made.batch(LAID.splitlines())
        yield made


def asked(net: Namespace, call: str) -> Any:
    return json.loads(net.python(ASK.replace("{call}", f"network.{call}")))


def by_address(net: Namespace, link: str) -> dict[str, Any]:
    return {each["address"]: each for each in asked(net, f"addresses('{link}')")}


def test_addresses_are_those_of_ip(net: Namespace) -> None:
    told = json.loads(net.run("ip", "-j", "address"))
    theirs = {
        (link["ifname"], each["local"], each["prefixlen"], each["scope"], each.get("broadcast"))
        for link in told
        for each in link["addr_info"]
    }
    fields = ("link", "address", "prefix_length", "scope", "broadcast")
    ours = asked(net, "addresses()")
    assert {tuple(each[field] for field in fields) for each in ours} == theirs
    assert [each["link"] for each in ours] == sorted(each["link"] for each in ours)[::-1]  # v0 came first


def test_what_addresses_are_worth(net: Namespace) -> None:
    own = by_address(net, "v0")
    assert next(iter(own)) == "192.0.2.1"
    words = ("dynamic", "deprecated", "tentative", "label", "family")
    assert [own["192.0.2.1"][word] for word in words] == [False, False, False, None, "ipv4"]
    assert [own["192.0.2.7"][word] for word in words] == [False, False, False, "v0:1", "ipv4"]
    assert [own["192.0.2.8"][word] for word in words] == [True, True, False, None, "ipv4"]
    assert [own["fd00::1"][word] for word in words] == [False, False, False, None, "ipv6"]
    assert own["198.51.100.1"]["prefix_length"] == 32
    assert set(by_address(net, "br0")) >= {"10.0.0.1"}


def test_an_address_that_is_looked_for() -> None:
    def with_flags(flags: int) -> addresses.Told | None:
        own = netlink.attribute(addresses.IFA_LOCAL, b"\x0a\0\0\x01")
        wide = netlink.attribute(addresses.IFA_FLAGS, netlink.NUMBER.pack(flags))
        return addresses.parse(addresses.HEADER.pack(socket.AF_INET, 8, 0, 200, 3) + own + wide)

    told = with_flags(addresses.IFA_F_TENTATIVE | addresses.IFA_F_PERMANENT)
    assert told is not None
    whole = addresses.of_link(told, "v0")
    assert (whole.tentative, whole.dynamic, whole.scope) == (True, False, "site")


def shown(routes: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {
        (r["destination"], r["kind"], r["gateway"], r["link"], r["metric"], r["protocol"]) for r in routes
    }


def test_routes(net: Namespace) -> None:
    found = asked(net, "routes()")
    assert shown(found) >= {
        ("0.0.0.0/0", "unicast", "192.0.2.254", "v0", 50, "boot"),
        ("0.0.0.0/0", "unicast", "192.0.2.253", "v0", 20, "static"),
        ("203.0.113.0/25", "blackhole", None, None, 0, "boot"),
        ("203.0.113.128/25", "unicast", "fd00::9", "v0", 0, "boot"),
        ("198.18.0.0/15", "unicast", "192.0.2.9", "v0", 0, "boot"),
        ("198.18.0.0/15", "unicast", "192.0.2.10", "v0", 0, "boot"),
        ("192.0.2.0/24", "unicast", None, "v0", 0, "kernel"),
        ("172.16.0.0/12", "unicast", "192.0.2.9", "v0", 0, "boot"),
        ("fd01::/48", "unicast", "fd00::2", "v0", 1024, "boot"),
    }
    assert {each["table"] for each in found} == {254, 1000}
    assert next(each["source"] for each in found if each["destination"] == "203.0.113.128/25") == "192.0.2.7"
    order = [
        (each["family"], each["table"], int(ipaddress.ip_network(each["destination"]).network_address))
        for each in found
    ]
    assert order == sorted(order)
    assert [each["metric"] for each in found if each["destination"] == "0.0.0.0/0"] == [20, 50]


def test_routes_are_those_of_ip(net: Namespace) -> None:
    told = json.loads(net.run("ip", "-4", "-j", "route", "show", "table", "all"))
    theirs = {each["dst"] for each in told if each.get("table") != "local"}
    ours = {each["destination"] for each in asked(net, "routes()") if each["family"] == "ipv4"}
    assert {"default" if each == "0.0.0.0/0" else each.removesuffix("/32") for each in ours} == theirs


def test_some_routes(net: Namespace) -> None:
    (only,) = asked(net, "routes('', 1000)")
    assert (only["destination"], only["table"]) == ("172.16.0.0/12", 1000)
    assert {each["kind"] for each in asked(net, "routes('', 255)")} >= {"local", "broadcast"}
    assert asked(net, "routes('', 4711)") == []
    assert {each["link"] for each in asked(net, "routes('br0')")} == {"br0"}
    assert len([r for r in asked(net, "routes('v0')") if r["destination"] == "198.18.0.0/15"]) == 2


@pytest.mark.parametrize(
    "call", ["addresses('no')", "routes('no')", "routes('v0\\0')", "addresses('../v0')"]
)
def test_a_link_that_is_none(net: Namespace, call: str) -> None:
    assert asked(net, call)[0] == "not-found"


def test_a_name_beside_its_own_is_none(net: Namespace) -> None:
    """The kernel knows a link by its other names, too; we have one for each."""
    net.ip("link property add dev br0 altname other-bridge")
    assert asked(net, "links()")[-1]["name"] == "br0"
    assert asked(net, "routes('other-bridge')")[0] == "not-found"
    assert json.loads(net.python(ASK.replace("{call}", "[network.link('other-b')]")))[0] == "not-found"


def test_links_are_those_of_sys(net: Namespace) -> None:
    """The two ways to read a link answer alike."""
    script = """
from dataclasses import replace
from libmh.context import Root
from libmh.linux.net import links
for each in links.read_all(Root()):
    other = links.read(Root(), each.name, each.addresses)
    assert replace(other, counters=each.counters) == each, (other, each)
    assert links.read_one(Root(), each.name).mac_address == each.mac_address
print("alike")
"""
    assert net.python(script).strip() == "alike"


def test_a_captured_machine_has_no_kernel() -> None:
    network = LinuxNetwork(captured("container"))
    for call in (network.addresses, network.routes):
        with pytest.raises(NotImplementedHere, match="is not the machine"):
            call()


def test_a_kernel_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, _ = pair = socket.socketpair()
    silent.settimeout(0.01)
    monkeypatch.setattr(netlink, "_opened", lambda: silent)
    with pytest.raises(Timeout, match="told nothing"):
        addresses.read()
    pair[1].close()


def test_a_refusal_is_a_problem() -> None:
    with pytest.raises(NotFound):
        netlink.ask(netlink.RTM_GETLINK, b"\0\0\0\0" + b"\xff\xff\xff\x7f" + b"\0" * 8)
