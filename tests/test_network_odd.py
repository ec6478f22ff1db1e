"""Links by each who may manage them, that are turned about under a pending change."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from libmh.api.network import ChangeState, Network
from network_stage import KEEPERS, LINKS, NETWORKD, Stage, place, settled, stage
from waiting import wait_for

LONG = 60
MANY = """[Match]
Name=d0
[Link]
RequiredForOnline=no
[Network]
Description=of many sections
DNS=192.0.2.53
[Network]
Domains=example.org
IPv6AcceptRA=no
[Address]
Address=10.9.1.1/24
Label=d0:one
[Address]
Address=10.9.1.4/24
[Route]
Destination=203.0.111.0/24
Gateway=10.9.1.2
[Route]
Destination=203.0.113.0/24
Gateway=10.9.1.2
Metric=77
[RoutingPolicyRule]
From=10.9.1.4
Table=77
"""


@pytest.fixture(scope="module")
def staged() -> Iterator[Stage]:
    with stage("odd") as found:
        yield found


@pytest.fixture(scope="module")
def network(staged: Stage) -> Network:
    return staged.network()


@pytest.fixture(params=LINKS, ids=list(KEEPERS.values()))
def link(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def armed(staged: Stage) -> str:
    return staged.host.run("systemctl", "list-units", "--all", "--no-legend", "matahari-*").stdout


def test_a_gateway_of_its_own_takes_no_other_away(staged: Stage, network: Network, link: str) -> None:
    other = next(each for each in LINKS if each != link)
    base = network.set_addresses(other, [f"10.9.{place(other)}.1/24"], f"10.9.{place(other)}.9", LONG)
    before = {each: staged.seen(each) for each in LINKS}
    change = network.set_addresses(link, [f"10.9.{place(link)}.1/24"], f"10.9.{place(link)}.9", LONG)
    assert change.state is ChangeState.PENDING
    assert staged.seen(other) == before[other]
    network.roll_back(change.id)
    assert {each: staged.seen(each) for each in LINKS} == before
    network.roll_back(base.id)


def test_ipv6_with_a_gateway(staged: Stage, network: Network, link: str) -> None:
    number, before = place(link), staged.seen(link)
    wanted = [f"10.9.{number}.1/24", f"2001:db8:{number + 1}::7/64"]
    change = network.set_addresses(link, wanted, f"2001:db8:{number + 1}::1", LONG)
    assert change.state is ChangeState.PENDING, change.reason
    assert staged.seen(link).addresses == set(wanted)
    assert ("default", f"2001:db8:{number + 1}::1") in staged.seen(link).routes
    network.roll_back(change.id)
    assert staged.seen(link) == before


def test_many_sections_are_kept(staged: Stage, network: Network) -> None:
    host, name = staged.host, "/etc/systemd/network/20-many.network"
    host.run("sh", "-c", f"cat >{name} <<'END'\n{MANY}END\nnetworkctl reload; networkctl reconfigure d0")

    def applied() -> bool:
        return "10.9.1.4/24" in staged.seen(NETWORKD).addresses and len(staged.seen(NETWORKD).routes) == 2

    wait_for(applied, 10)
    before, rules = staged.seen(NETWORKD), host.run("ip", "rule").stdout
    change = network.set_mtu(NETWORKD, 1400, LONG)
    assert staged.seen(NETWORKD) == replace(before, mtu=1400)
    assert host.run("ip", "rule").stdout == rules
    told = json.loads(host.run("networkctl", "--json=short", "status", "d0", check=False).stdout or "{}")
    assert told.get("AdministrativeState", "configured") == "configured"
    network.roll_back(change.id)
    assert staged.seen(NETWORKD) == before
    assert host.run("ip", "rule").stdout == rules
    host.run("sh", "-c", f"rm {name}; networkctl reload; networkctl reconfigure d0")
    settled(staged)


@pytest.mark.parametrize("confirmed", [True, False])
def test_networkd_is_restarted_under_a_change(staged: Stage, network: Network, confirmed: bool) -> None:
    before = staged.seen(NETWORKD)
    change = network.set_mtu(NETWORKD, 1410, LONG)
    staged.host.run("systemctl", "restart", "systemd-networkd")
    wait_for(lambda: staged.seen(NETWORKD) == replace(before, mtu=1410), 10)
    if confirmed:
        assert network.confirm(change.id).state is ChangeState.CONFIRMED
        assert network.set_mtu(NETWORKD, 1500, 0).state is ChangeState.CONFIRMED
    else:
        assert network.roll_back(change.id).state is ChangeState.ROLLED_BACK
    assert staged.seen(NETWORKD) == before
    assert staged.host.run("sh", "-c", "ls /run/systemd/network/*matahari* || true").stdout == ""


def test_a_link_that_vanishes_leaves_nothing(staged: Stage, network: Network, link: str) -> None:
    change = network.set_mtu(link, 1400, LONG)
    staged.host.run("ip", "link", "del", link)
    done = network.roll_back(change.id)
    assert done.state is ChangeState.ROLLED_BACK
    assert f"no link '{link}'" in (done.reason or "").replace("network link", "link")
    assert not [line for line in armed(staged).splitlines() if change.id in line]
    assert staged.host.run("sh", "-c", "ls /run/systemd/network/*matahari* || true").stdout == ""
    profiles = staged.host.run("nmcli", "--fields", "NAME", "--terse", "connection").stdout
    assert "matahari" not in profiles
