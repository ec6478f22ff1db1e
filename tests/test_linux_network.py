"""Network links: of captured machines, of this one, and of a namespace with links of many kinds."""

import json
import subprocess
import sys
import textwrap

import pytest

from captured import MACHINES, captured
from libmh.api.network import Address, LinkCounters
from libmh.errors import NotFound
from libmh.linux.network import LinuxNetwork
from testbed import needs

WRONG = [
    "",
    ".",
    "..",
    "../lo",
    "lo/../lo",
    "lo\0",
    "-a",
    "lo ",
    "no such link",
    "x" * 300,
    "bonding_masters",
]


def kinds(machine: str) -> dict[str, str]:
    return {link.name: link.kind for link in LinuxNetwork(captured(machine)).links()}


def test_kinds() -> None:
    server = {"lo": "loopback", "ens3": "ethernet", "br0": "bridge", "vnet0": "tap", "ens3.7": "vlan"}
    assert kinds("debian12-kvm") == server
    assert kinds("fedora-laptop") == {
        "lo": "loopback",
        "enp0s31f6": "ethernet",
        "wlp61s0": "wireless",
        "wg0": "wireguard",
    }


def test_a_link_in_full() -> None:
    link = LinuxNetwork(captured("arm64-pi")).link("eth0")
    assert (link.index, link.kind, link.up, link.operational_state, link.mtu) == (
        2,
        "ethernet",
        True,
        "up",
        1500,
    )
    assert (link.carrier, link.speed, link.duplex, link.driver) == (True, 1000, "full", "bcmgenet")
    assert (link.mac_address, link.master, link.addresses) == ("DC:A6:32:01:02:03", None, [])
    assert link.counters == LinkCounters(2000, 2001, 2002, 2003, 0, 0, 0, 0)


def test_what_a_link_does_not_know_is_absent() -> None:
    down = LinuxNetwork(captured("fedora-laptop")).link("enp0s31f6")
    assert (down.up, down.operational_state, down.carrier) == (True, "down", False)
    assert (down.speed, down.duplex) == (None, None)
    tunnel = LinuxNetwork(captured("fedora-laptop")).link("wg0")
    assert (tunnel.mac_address, tunnel.operational_state) == (None, "unknown")
    tap = LinuxNetwork(captured("debian12-kvm")).link("vnet0")
    assert (tap.up, tap.carrier, tap.master) == (False, None, "br0")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_has_a_loopback(machine: str) -> None:
    network = LinuxNetwork(captured(machine))
    assert "lo" in network.list_links()
    assert network.status("lo") == 0
    assert network.get_mac_address("lo") == "00:00:00:00:00:00"


def test_the_ancestors_answers() -> None:
    network = LinuxNetwork(captured("debian12-kvm"))
    assert network.status("vnet0") == 1
    assert network.get_mac_address("br0") == "52:54:00:AA:BB:CC"
    assert network.get_ip_address("br0") == "0.0.0.0"
    assert LinuxNetwork(captured("fedora-laptop")).get_mac_address("wg0") == "00:00:00:00:00:00"


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_is_none_is_unknown(name: str) -> None:
    for network in (LinuxNetwork(), LinuxNetwork(captured("debian12-kvm"))):
        assert network.status(name) == 1
        assert network.get_ip_address(name) == ""
        assert network.get_mac_address(name) == ""
        with pytest.raises(NotFound):
            network.link(name)


def test_this_machine_agrees_with_its_kernel() -> None:
    network = LinuxNetwork()
    loopback = network.link("lo")
    assert Address("ipv4", "127.0.0.1", 8) in loopback.addresses
    assert network.get_ip_address("lo") == "127.0.0.1"
    ip = needs.command("ip", "iproute2")
    told = json.loads(subprocess.check_output([ip, "-json", "address"], text=True, timeout=10))
    ours = {link.name: link for link in network.links()}
    for link in told:
        mine = ours[link["ifname"]]
        assert mine.mtu == link["mtu"]
        assert mine.up == ("UP" in link["flags"])
        expected = {(each["local"], each["prefixlen"]) for each in link["addr_info"]}
        assert {(each.address, each.prefix_length) for each in mine.addresses} == expected


NAMESPACE = """
    import json, subprocess
    from libmh.linux.network import LinuxNetwork

    def ip(line):
        return subprocess.run(["ip", *line.split()], capture_output=True).returncode == 0

    made = [name for name, line in {
        "v0": "link add v0 type veth peer name v1",
        "br9": "link add br9 type bridge",
        "tap9": "tuntap add tap9 mode tap",
        "tun9": "tuntap add tun9 mode tun",
        "mv9": "link add mv9 link v1 type macvlan",
    }.items() if ip(line)]
    ip("link set v0 master br9"), ip("link set v0 up"), ip("link set v1 up"), ip("link set br9 up")
    ip("address add 192.0.2.1/24 dev v1"), ip("address add 192.0.2.7/24 dev v1")
    ip("address add fd00::7/64 dev v1")
    network = LinuxNetwork()
    links = {link.name: link for link in network.links()}
    print(json.dumps({
        "made": made,
        "kinds": {name: link.kind for name, link in links.items()},
        "master": links["v0"].master,
        "carrier": links["v0"].carrier,
        "primary": network.get_ip_address("v1"),
        "count": len(links["v1"].addresses),
        "status": [network.status("v1"), network.status("lo")],
    }))
"""


def test_links_of_many_kinds() -> None:
    needs.root("make a network namespace")
    needs.command("ip", "iproute2")
    unshare = [
        needs.command("unshare", "util-linux"),
        "--net",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
    ]
    # sysfs shows the links of the namespace in which it was mounted
    command = [*unshare, 'mount -t sysfs sysfs /sys && exec "$@"', "-", sys.executable, "-c"]
    done = subprocess.run(
        [*command, textwrap.dedent(NAMESPACE)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    wanted = {"v0": "veth", "br9": "bridge", "tap9": "tap", "tun9": "tun", "mv9": "macvlan"}
    assert {name: told["kinds"][name] for name in told["made"]} == {
        name: wanted[name] for name in told["made"]
    }
    assert {"v0", "br9"} <= set(told["made"])
    assert told["kinds"]["lo"] == "loopback"
    assert (told["master"], told["carrier"], told["primary"]) == ("br9", True, "192.0.2.1")
    assert told["count"] >= 3
    assert told["status"] == [0, 1]  # a new namespace's loopback is down
