"""What may be asked of a link, and the files and profiles that come of it."""

from ipaddress import ip_address, ip_interface

import pytest

from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound
from libmh.linux.net import netwish, networkfile, nmprofile
from libmh.linux.net.kernelnet import FOREVER, Held, LinkState, Path
from libmh.linux.net.netproof import came_back, check, true
from libmh.linux.net.netwish import AddRoute, RemoveRoute, SetAddresses, SetMtu, Turn, described

HELD = Held("192.0.2.1", 24, "192.0.2.255", "eth0", 0, 0x80, FOREVER, FOREVER)
LINK_LOCAL = Held("fe80::1", 64, None, None, 253, 0x80, FOREVER, FOREVER)
LEASED = Held("192.0.2.200", 24, "192.0.2.255", "eth0", 0, 0, 3600, 1800)
ROUTE = Path("198.51.100.0/24", "192.0.2.9", 254, 4, 0, 1, 0, 0, None)
ON_LINK = Path("192.0.2.0/24", None, 254, 2, 253, 1, 0, 0, "192.0.2.1")


def link(
    *, addresses: tuple[Held, ...] = (HELD, LINK_LOCAL), paths: tuple[Path, ...] = (ROUTE, ON_LINK)
) -> LinkState:
    return LinkState(
        up=True,
        carrier=True,
        loopback=False,
        mtu=1500,
        min_mtu=68,
        max_mtu=9000,
        addresses=addresses,
        paths=paths,
        accept_ra="1",
    )


@pytest.mark.parametrize(
    "given",
    [
        *("", "192.0.2.1", "192.0.2.1/", "192.0.2.1/33", "192.0.2.1/-1", "192.0.2.1/255.255.255.0", "/24"),
        *("192.0.2.0/24", "192.0.2.255/24", "0.0.0.0/0", "127.0.0.1/8", "224.0.0.1/4", "255.255.255.255/32"),
        *("240.0.0.1/8", "0.1.2.3/8", "fe80::1/64", "::1/128", "ff02::1/64", "2001:db8::1%eth0/64", "::/0"),
        *("192.0.2.1/24 ", "DHCP", "dhcp6", "192.0.2.1/2٤", "1" * 5000, "192.0.2.1/24\nGateway=10.0.0.1"),
    ],
)
def test_what_is_no_address_of_a_host_is_refused(given: str) -> None:
    with pytest.raises(InvalidArguments, match="addresses"):
        netwish.addresses([given], "")


@pytest.mark.parametrize(
    ("given", "gateway"),
    [
        (["192.0.2.1/24"], "198.51.100.1"),
        (["192.0.2.1/24"], "192.0.2.1"),
        (["192.0.2.1/24"], "2001:db8::1"),
        (["192.0.2.1/24"], "192.0.2.2,192.0.2.3"),
        (["192.0.2.1/24"], "192.0.2.2,"),
        (["192.0.2.1/24"], "gateway"),
        (["192.0.2.1/24"], "192.0.2.2\nDHCP=yes"),
        (["192.0.2.1/24"], "fe80::1%eth0"),
        (["dhcp"], "192.0.2.1"),
        ([], "192.0.2.1"),
    ],
)
def test_a_gateway_is_another_host_on_the_link(given: list[str], gateway: str) -> None:
    with pytest.raises(InvalidArguments, match="gateway"):
        netwish.addresses(given, gateway)


def test_an_address_is_given_once_and_not_too_many() -> None:
    with pytest.raises(InvalidArguments, match="twice"):
        netwish.addresses(["192.0.2.1/24", "192.0.2.1/25"], "")
    with pytest.raises(InvalidArguments, match="at most 64"):
        netwish.addresses([f"192.0.2.{number}/32" for number in range(1, 66)], "")


def test_what_is_asked_is_told_in_words() -> None:
    wish = netwish.addresses(["192.0.2.1/24", "dhcp", "auto", "2001:db8::1/64"], "192.0.2.9, fe80::9")
    assert (wish.dhcp, wish.auto) == (True, True)
    assert described(wish) == "addresses 192.0.2.1/24, 2001:db8::1/64, dhcp, auto via 192.0.2.9, fe80::9"
    assert described(netwish.addresses([], "")) == "addresses none"
    assert described(netwish.addresses(["10.0.0.0/31", "192.0.2.1/32"], "10.0.0.1")) == (
        "addresses 10.0.0.0/31, 192.0.2.1/32 via 10.0.0.1"
    )
    assert described(netwish.add_route("default", "192.0.2.9", 5)) == (
        "add route 0.0.0.0/0 via 192.0.2.9 metric 5"
    )
    assert described(netwish.remove_route("default6", "")) == "remove route ::/0"
    assert [described(each) for each in (SetMtu(1400), *Turn)] == ["mtu 1400", "up", "down", "restart"]


@pytest.mark.parametrize(
    ("destination", "gateway"),
    [
        ("198.51.100.1/24", ""),
        ("", ""),
        ("everything", ""),
        ("224.0.0.0/4", ""),
        ("127.0.0.0/8", ""),
        ("198.51.100.0/24", "2001:db8::1"),
        ("2001:db8::/32", "192.0.2.1"),
        ("default6", "192.0.2.1"),
        ("198.51.100.0/24", "0.0.0.0"),
        ("198.51.100.0/24", "nobody"),
        ("fe80::%eth0/64", ""),
    ],
)
def test_what_is_no_route_is_refused(destination: str, gateway: str) -> None:
    with pytest.raises(InvalidArguments):
        netwish.add_route(destination, gateway, 0)


def test_a_wish_must_fit_its_link() -> None:
    with pytest.raises(InvalidArguments, match="68 to 9000"):
        check("eth0", SetMtu(9001), link())
    with pytest.raises(Conflict):
        check("eth0", netwish.add_route("198.51.100.0/24", "192.0.2.9", 0), link())
    check("eth0", netwish.add_route("198.51.100.0/24", "192.0.2.9", 7), link())
    with pytest.raises(NotFound):
        check("eth0", netwish.remove_route("198.51.100.0/24", "192.0.2.8"), link())
    check("eth0", netwish.remove_route("198.51.100.0/24", ""), link())


def test_the_kernel_says_when_addresses_have_come_true() -> None:
    wish = netwish.addresses(["192.0.2.1/24"], "")
    assert true(wish, link(), link())
    assert not true(netwish.addresses(["192.0.2.1/24"], "192.0.2.9"), link(), link())
    assert not true(netwish.addresses([], ""), link(), link())
    assert not true(wish, link(), link(addresses=(HELD, LEASED)))
    assert true(netwish.addresses(["192.0.2.1/24", "dhcp"], ""), link(), link(addresses=(HELD, LEASED)))
    tentative = Held("2001:db8::1", 64, None, None, 0, 0xC0, FOREVER, FOREVER)
    six = netwish.addresses(["2001:db8::1/64"], "")
    assert not true(six, link(), link(addresses=(tentative,)))
    taken = Held("2001:db8::1", 64, None, None, 0, 0xC8, FOREVER, FOREVER)
    with pytest.raises(BackendFailed, match="another host has"):
        true(six, link(), link(addresses=(taken,)))


def test_what_was_is_back_when_addresses_and_routes_are() -> None:
    before = link(addresses=(HELD, LEASED, LINK_LOCAL))
    assert came_back(before, link())  # a lease takes its time
    assert not came_back(before, link(addresses=(LEASED,)))
    assert not came_back(before, link(paths=(ON_LINK,)))


def test_a_state_is_written_and_read() -> None:
    assert LinkState.of(link().plain()) == link()


BASE = """
# a comment
[Match]
Name=eth* \\
  en*
; another
[Network]
DNS=192.0.2.53
Address=192.0.2.1/24
Gateway=192.0.2.9
DHCP=yes
[Address]
Address=192.0.2.2/24
[Route]
Destination=198.51.100.0/24
Gateway=192.0.2.9
[Route]
Gateway=_dhcp4
[DHCPv4]
UseDNS=no
[Link]
MTUBytes=1450
"""


def file_with(sections: list[networkfile.Section]) -> str:
    return networkfile.written(networkfile.matching_only(sections, "eth0"), "ours")


def test_a_network_file_keeps_all_but_what_is_changed() -> None:
    base = networkfile.parse(BASE)
    assert base[0].get("Name") == "eth*  en*"
    wish = netwish.addresses(["192.0.2.7/24", "2001:db8::7/64"], "192.0.2.9")
    assert file_with(networkfile.with_addresses(base, wish)) == (
        "# ours\n\n[Match]\nName=eth0\n\n[Network]\nDNS=192.0.2.53\n"
        "\n[Route]\nDestination=198.51.100.0/24\nGateway=192.0.2.9\n"
        "\n[DHCPv4]\nUseDNS=no\n\n[Link]\nMTUBytes=1450\n"
        "\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nAddress=192.0.2.7/24\nAddress=2001:db8::7/64\nGateway=192.0.2.9\n"
    )
    assert "MTUBytes=1400" in file_with(networkfile.with_mtu(base, 1400))
    assert "1450" not in file_with(networkfile.with_mtu(base, 1400))
    assert networkfile.parse(file_with(base))[1:] == base[1:]


def test_routes_of_a_network_file_come_and_go() -> None:
    base = networkfile.parse(BASE)
    wish = netwish.add_route("203.0.113.0/24", "192.0.2.9", 7)
    added = networkfile.with_route(base, wish)
    assert file_with(added).endswith("[Route]\nDestination=203.0.113.0/24\nGateway=192.0.2.9\nMetric=7\n")
    assert networkfile.without_route(added, netwish.remove_route("203.0.113.0/24", "")) == base
    assert networkfile.without_route(base, netwish.remove_route("203.0.113.0/24", "")) is None
    assert networkfile.without_route(base, netwish.remove_route("198.51.100.0/24", "192.0.2.8")) is None
    left = networkfile.without_route(base, netwish.remove_route("default", "192.0.2.9"))
    assert left is not None
    assert "Gateway=192.0.2.9\n[" not in file_with(left)
    assert [each.get("Gateway") for each in left if each.name == "Network"] == [None]


def profile() -> nmprofile.Profile:
    from libmh.bus import variant

    return {
        "connection": {"type": variant("s", "802-3-ethernet"), "uuid": variant("s", "u")},
        "802-3-ethernet": {"mac-address-blacklist": variant("as", []), "mtu": variant("u", 1450)},
        "ipv4": {
            "method": variant("s", "auto"),
            "addresses": variant("aau", []),
            "dns": variant("au", [889323712]),
            "gateway": variant("s", "192.0.2.9"),
            "route-data": variant(
                "aa{sv}",
                [
                    {"dest": variant("s", "198.51.100.0"), "prefix": variant("u", 24)},
                    {"dest": variant("s", "0.0.0.0"), "prefix": variant("u", 0)},
                ],
            ),
        },
        "ipv6": {"method": variant("s", "disabled")},
        "802-1x": {"ca-cert": variant("ay", b"\x00\xff")},
    }


def test_a_profile_keeps_all_but_what_is_changed() -> None:
    before = profile()
    wish = netwish.addresses(["192.0.2.7/24"], "192.0.2.9")
    changed = nmprofile.plain(nmprofile.with_addresses(before, wish))
    assert changed["ipv4"] == {
        "method": "manual",
        "address-data": [{"address": "192.0.2.7", "prefix": 24}],
        "gateway": "192.0.2.9",
        "dns": [889323712],
        "route-data": [{"dest": "198.51.100.0", "prefix": 24}],
    }
    assert changed["ipv6"]["method"] == "disabled"
    assert changed["802-1x"] == {"ca-cert": b"\x00\xff"}
    none = nmprofile.plain(nmprofile.with_addresses(before, netwish.addresses(["auto"], "")))
    assert (none["ipv4"]["method"], none["ipv6"]["method"]) == ("disabled", "auto")
    assert nmprofile.plain(nmprofile.with_mtu(before, 1400))["802-3-ethernet"]["mtu"] == 1400


def test_routes_of_a_profile_come_and_go() -> None:
    before = profile()
    added = nmprofile.with_route(before, netwish.add_route("203.0.113.0/24", "192.0.2.9", 7))
    routes = nmprofile.plain(added)["ipv4"]["route-data"]
    assert routes[-1] == {"dest": "203.0.113.0", "prefix": 24, "next-hop": "192.0.2.9", "metric": 7}
    left = nmprofile.without_route(added, netwish.remove_route("203.0.113.0/24", ""))
    assert left is not None
    assert nmprofile.same(left, before)
    assert not nmprofile.same(added, before)
    assert nmprofile.without_route(before, netwish.remove_route("203.0.113.0/24", "")) is None
    gone = nmprofile.without_route(before, netwish.remove_route("default", "192.0.2.9"))
    assert gone is not None
    assert "gateway" not in gone["ipv4"]


def test_a_profile_is_written_down_with_its_types() -> None:
    before = profile()
    again = nmprofile.read(nmprofile.written(before))
    assert nmprofile.plain(again) == nmprofile.plain(before)
    assert nmprofile.written(again) == nmprofile.written(before)
    with pytest.raises(BackendFailed, match="damaged"):
        nmprofile.read({"what": "this"})


def test_wishes_are_values() -> None:
    found = netwish.addresses(["192.0.2.1/24"], "192.0.2.9")
    assert found == SetAddresses((ip_interface("192.0.2.1/24"),), (ip_address("192.0.2.9"),))
    assert isinstance(netwish.add_route("default", "", 2**40), AddRoute)
    assert isinstance(netwish.remove_route("default", ""), RemoveRoute)
