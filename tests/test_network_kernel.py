"""What the kernel cannot bring back by itself: routes and addresses that are less plain than others."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_network_namespace import Space, namespace

OTHER = """
ip link add w0 type veth peer name w1
ip addr add 203.0.113.1/24 dev w0
ip link set w0 up
ip link set w1 up
ip route add default via 203.0.113.9 dev w0
"""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    with namespace(tmp_path) as found:
        found.run("sh", "-ec", OTHER)
        yield found


def routes(space: Space) -> list[str]:
    told = space.run("ip", "-d", "route").splitlines()
    return sorted(" ".join(line.split()) for line in told)


def changed(space: Space, *changes: str) -> str:
    """Make each and roll it back, one after the other; the state in which all of them end."""
    told = space.python("\n".join(f"print('=', network.roll_back({each}.id).state)" for each in changes))
    (state,) = {line.removeprefix("= ") for line in told if line.startswith("=")}
    return state


def test_a_default_route_of_another_link_is_left_alone(space: Space) -> None:
    before = routes(space)
    assert changed(space, "network.set_addresses('v0', ['192.0.2.7/24'], '192.0.2.9')") == "rolled-back"
    assert routes(space) == before


def test_a_route_of_another_link_is_not_replaced(space: Space) -> None:
    before = routes(space)
    *_, told = space.python("print(network.add_route('v0', 'default', '192.0.2.9').reason)")
    assert told == "there is a route to '0.0.0.0/0' with that metric already, by another link"
    assert routes(space) == before


def test_what_a_route_has_beside_its_way_stays(space: Space) -> None:
    space.run("ip", "route", "add", "198.18.0.0/24", "via", "192.0.2.9", "mtu", "1300", "advmss", "1200")
    before = routes(space)
    assert changed(space, "network.set_mtu('v0', 1400)", "network.down('v0')") == "rolled-back"
    assert routes(space) == before


def test_a_route_over_several_links_is_left_alone(space: Space) -> None:
    hops = "nexthop via 192.0.2.9 dev v0 nexthop via 203.0.113.9 dev w0"
    space.run("ip", "route", "add", "198.18.0.0/24", *hops.split())
    before = routes(space)
    assert changed(space, "network.set_mtu('v0', 1400)") == "rolled-back"
    assert routes(space) == before


def test_one_of_several_ways_of_ipv6_comes_back(space: Space) -> None:
    for link, net in (("v0", 1), ("w0", 2)):
        space.run("ip", "addr", "add", f"2001:db8:{net}::1/64", "dev", link, "nodad")
        space.run("ip", "-6", "route", "append", "default", "via", f"2001:db8:{net}::9", "dev", link)
    before = space.run("ip", "-6", "route", "show", "default")
    assert before.count("nexthop") == 2
    changes = (
        "network.remove_route('v0', 'default6')",
        "network.set_addresses('v0', ['2001:db8:1::1/64'], '2001:db8:1::8')",
        "network.down('v0')",
    )
    assert changed(space, *changes) == "rolled-back"
    assert sorted(hops(space.run("ip", "-6", "route", "show", "default"))) == sorted(hops(before))


def hops(told: str) -> list[str]:
    return [f"{line.split()[2]} {line.split()[4]}" for line in told.splitlines() if "nexthop" in line]


def test_an_address_with_its_peer_comes_back(space: Space) -> None:
    space.run("ip", "addr", "add", "10.7.0.1", "peer", "10.7.0.2/32", "dev", "v0")
    before = space.run("ip", "-4", "addr", "show", "v0"), routes(space)
    assert changed(space, "network.set_addresses('v0', ['192.0.2.7/24'])") == "rolled-back"
    assert (space.run("ip", "-4", "addr", "show", "v0"), routes(space)) == before


def test_a_link_with_another_name_is_brought_back(space: Space) -> None:
    *_, told = space.python(
        """
import subprocess
change = network.set_mtu("v0", 1400)
subprocess.run("ip link set v0 down; ip link set v0 name other0; ip link set other0 up", shell=True)
done = network.roll_back(change.id)
print(done.state, done.reason)
"""
    )
    assert told == "rolled-back local local asked for it"
    (link,) = json.loads(space.run("ip", "-j", "link", "show", "other0"))
    assert link["mtu"] == 1500


def test_a_route_that_cannot_come_back_holds_up_nothing_else(space: Space) -> None:
    space.run("ip", "route", "add", "198.18.1.0/24", "dev", "w0")
    space.run("ip", "route", "add", "198.18.2.0/24", "via", "192.0.2.9", "dev", "v0", "proto", "static")
    *_, told = space.python(
        """
import subprocess
from libmh.linux.net import kernelnet, rollback
kernelnet.SETTLE_TRIES, rollback.SETTLE_SECONDS = 2, 0.2
subprocess.run(["ip", "route", "add", "198.18.3.0/24", "via", "192.0.2.77", "src", "203.0.113.1"])
change = network.down("v0")
subprocess.run(["ip", "addr", "flush", "dev", "w0"])
print(network.roll_back(change.id).state)
"""
    )
    assert told == "rolled-back"
    assert any(line.startswith("unicast 198.18.2.0/24") for line in routes(space))
    assert not any("198.18.3.0/24" in line for line in routes(space))


FULL = """
import subprocess
from libmh.errors import BackendFailed
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", sys.argv[1]], check=True)
change = network.set_mtu("v0", 1400, SECONDS)
filling = open(sys.argv[1] + "/filling", "wb", buffering=0)
try:
    while filling.write(bytes(4096)):
        pass
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_hinders_no_rollback(space: Space) -> None:
    *_, full, refused = space.python(
        FULL.replace("SECONDS", "60")
        + """
try:
    network.roll_back(change.id)
except BackendFailed as problem:
    print(problem.message)
"""
    )
    assert full == "No space left on device"
    assert refused.endswith(f"cannot be kept in '{space.state}/network': No space left on device")
    assert space.mtu() == 1500


def test_what_a_full_disk_left_pending_is_not_confirmed_late(space: Space) -> None:
    *_, told = space.python(
        """
from libmh.linux.net.netchanges import Changes, Limits
network._changes = Changes(context, Limits(spare=0.2))
"""
        + FULL.replace("SECONDS", "1")
        + """
from libmh.errors import Conflict
from libmh.linux.net.netproof import wait_until
from libmh.linux.net.netrecord import clock
from libmh.linux.net.links import read_one
from libmh.context import Root
wait_until(lambda: read_one(Root(), "v0").mtu == 1500, 10, "it is rolled back")
back = clock()
wait_until(lambda: clock() > back + 0.3, 10, "it is late")
filling.truncate(0)
try:
    print(network.confirm(change.id).state)
except Conflict as problem:
    print(problem.message)
"""
    )
    assert told.endswith("was not kept: it was not confirmed in time")
    assert space.mtu() == 1500


def test_what_is_not_known_any_more_ends_too(space: Space) -> None:
    *_, told = space.python(
        """
import json
change = network.set_mtu("v0", 1400)
path = Path(sys.argv[1]) / "network" / f"{change.id}.json"
record = json.loads(path.read_text())
del record["saved"]["state"]["addresses"]
path.write_text(json.dumps(record))
done = network.roll_back(change.id)
print(done.state, done.reason)
"""
    )
    assert told == (
        "failed local local asked for it; what was before is not known: its record is damaged, and the link "
        "is as it was left"
    )


def test_what_is_refused_leaves_nothing_behind(space: Space) -> None:
    *_, told = space.python(
        """
from libmh.errors import NotImplementedHere
try:
    network.set_addresses("v0", ["dhcp"])
except NotImplementedHere:
    print(os.listdir(Path(sys.argv[1]) / "network"))
"""
    )
    assert told == "['lock']"


def test_a_size_that_takes_ipv6_away_is_refused(space: Space) -> None:
    space.run("ip", "addr", "add", "2001:db8::1/64", "dev", "v0")
    *_, told = space.python(
        """
from libmh.errors import InvalidArguments
try:
    network.set_mtu("v0", 1279)
except InvalidArguments as problem:
    print(problem.message)
"""
    )
    assert told == "mtu: 'v0' has IPv6 (2001:db8::1), which needs 1280 bytes, got 1279"
    space.run("ip", "addr", "del", "2001:db8::1/64", "dev", "v0")
    assert changed(space, "network.set_mtu('v0', 1279)") == "rolled-back"
