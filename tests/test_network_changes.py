"""Changes of links, by each who may manage them, on a booted machine: made, confirmed, rolled back by call
and by time, whoever dies meanwhile."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from libmh.api.network import ChangeState, Keeper, Network, NetworkChange
from libmh.errors import (
    Conflict,
    InvalidArguments,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)
from network_stage import HERE, KEEPERS, KERNEL, LINKS, MANAGER, NETWORKD, Stage, place, stage
from waiting import wait_for

LONG = 60
SHORT = 2


@pytest.fixture(scope="module")
def staged() -> Iterator[Stage]:
    with stage("changes") as found:
        yield found


@pytest.fixture(scope="module")
def network(staged: Stage) -> Network:
    return staged.network()


@pytest.fixture(params=LINKS, ids=list(KEEPERS.values()))
def link(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def standing(network: Network, change: NetworkChange) -> NetworkChange:
    return next(each for each in network.changes() if each.id == change.id)


def test_each_link_has_its_keeper(network: Network, link: str) -> None:
    assert network.keeper(link) is Keeper(KEEPERS[link])


def test_addresses_are_set_and_rolled_back(staged: Stage, network: Network, link: str) -> None:
    number, before = place(link), staged.seen(link)
    wanted = [f"10.9.{number}.5/24", f"2001:db8:{number + 1}::5/64"]
    change = network.set_addresses(link, wanted, f"10.9.{number}.9", LONG)
    assert (change.state, change.keeper) == (ChangeState.PENDING, KEEPERS[link])
    assert change.persistent is (link != KERNEL)
    seen = staged.seen(link)
    assert seen.addresses == set(wanted)
    assert seen.routes == before.routes | {("default", f"10.9.{number}.9")}
    done = network.roll_back(change.id)
    assert done.state is ChangeState.ROLLED_BACK
    assert "asked for it" in (done.reason or "")
    assert staged.seen(link) == before
    assert network.roll_back(change.id).state is ChangeState.ROLLED_BACK
    with pytest.raises(Conflict, match="not kept"):
        network.confirm(change.id)


def test_what_nobody_confirms_is_rolled_back_in_time(staged: Stage, network: Network, link: str) -> None:
    before = staged.seen(link)
    change = network.set_mtu(link, 1400, SHORT)
    assert staged.seen(link) == replace(before, mtu=1400)
    wait_for(lambda: standing(network, change).state is ChangeState.ROLLED_BACK, 10)
    assert staged.seen(link) == before
    assert standing(network, change).reason == "it was not confirmed in time"


def test_routes_come_and_go(staged: Stage, network: Network, link: str) -> None:
    number, before = place(link), staged.seen(link)
    gateway = f"10.9.{number}.9"
    change = network.add_route(link, "198.51.100.0/24", gateway, 0, LONG)
    with_it = replace(before, routes=before.routes | {("198.51.100.0/24", gateway)})
    assert staged.seen(link) == with_it
    assert network.confirm(change.id).state is ChangeState.CONFIRMED
    assert network.confirm(change.id).state is ChangeState.CONFIRMED
    with pytest.raises(Conflict, match="was confirmed"):
        network.roll_back(change.id)
    with pytest.raises(Conflict, match="there is a route"):
        network.add_route(link, "198.51.100.0/24", gateway)
    pending = network.remove_route(link, "198.51.100.0/24", "", LONG)
    assert staged.seen(link) == before
    network.roll_back(pending.id)
    assert staged.seen(link) == with_it
    assert network.remove_route(link, "198.51.100.0/24", gateway, 0).state is ChangeState.CONFIRMED
    assert staged.seen(link) == before
    with pytest.raises(NotFound, match="no route"):
        network.remove_route(link, "198.51.100.0/24")


def test_links_go_down_and_up(staged: Stage, network: Network, link: str) -> None:
    before = staged.seen(link)
    change = network.down(link, LONG)
    assert not staged.seen(link).up
    assert network.roll_back(change.id).state is ChangeState.ROLLED_BACK
    assert staged.seen(link) == before
    assert network.up(link, 0).state is ChangeState.CONFIRMED
    assert staged.seen(link) == before
    assert network.restart(link, 0).state is ChangeState.CONFIRMED
    wait_for(lambda: staged.seen(link) == before)


def test_start_and_stop_answer_when_it_has_ended(staged: Stage, network: Network) -> None:
    for link in (NETWORKD, MANAGER):
        before = staged.seen(link)
        assert network.stop(link) == 1
        assert not staged.seen(link).up
        assert network.stop(link) == 1
        assert network.start(link) == 0
        assert network.start(link) == 0
        wait_for(lambda: staged.seen(link) == before, 10)  # noqa: B023 - called at once


def test_it_is_rolled_back_though_the_agent_is_killed(staged: Stage, network: Network) -> None:
    """All three at once: their times run side by side."""
    before = {link: staged.seen(link) for link in LINKS}
    changes = {link: network.set_addresses(link, [f"10.9.{place(link)}.77/24"], "", SHORT) for link in LINKS}
    staged.kill_agent()
    for link in LINKS:
        wait_for(lambda: staged.seen(link) == before[link], 10)  # noqa: B023 - called at once
    staged.agent("start")
    ended = {link: standing(network, changes[link]) for link in LINKS}
    assert {each.state for each in ended.values()} == {ChangeState.ROLLED_BACK}


DIES = """
link, where = sys.argv[1:]
kind = {"k0": bykernel.ByKernel, "d0": networkd.ByNetworkd, "m0": networkmanager.ByNetworkManager}[link]
make = kind.make
def die(self, wish, saved):
    if where == "after":
        make(self, wish, saved)
    os.kill(os.getpid(), signal.SIGKILL)
kind.make = die
Changes(context, Limits(make=1.0, spare=0.5)).make(link, SetMtu(1300), 30)
"""


@pytest.mark.parametrize("where", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_the_agent_is_killed_while_it_makes_a_change(staged: Stage, network: Network, where: str) -> None:
    before = {link: staged.seen(link) for link in LINKS}
    for link in LINKS:
        staged.script(DIES, link, where, check=False)
    for link in LINKS:
        wait_for(lambda: network.changes()[0].state is ChangeState.FAILED, 10)
        wait_for(lambda: staged.seen(link) == before[link], 10)  # noqa: B023 - called at once
    wait_for(lambda: {each.state for each in network.changes()[:3]} == {ChangeState.FAILED}, 10)
    assert {each.reason for each in network.changes()[:3]} == {"it was not made to its end"}


def test_an_agent_that_starts_finishes_what_was_left(staged: Stage, network: Network) -> None:
    before = staged.seen(NETWORKD)
    staged.agent("stop")
    staged.script(DIES.replace("make=1.0", "make=300.0"), NETWORKD, "after", check=False)
    assert staged.seen(NETWORKD) != before
    staged.agent("start")
    wait_for(lambda: network.changes()[0].state is ChangeState.FAILED, 10)
    assert staged.seen(NETWORKD) == before


def test_an_agent_that_was_restarted_knows_what_is_pending(staged: Stage, network: Network) -> None:
    before = staged.seen(KERNEL)
    kept, lost = network.set_mtu(KERNEL, 1450, LONG), network.set_mtu(NETWORKD, 1450, SHORT)
    staged.kill_agent()
    staged.agent("start")
    assert standing(network, kept).state is ChangeState.PENDING
    with pytest.raises(Conflict, match=kept.id):
        network.stop(KERNEL)
    assert network.confirm(kept.id).state is ChangeState.CONFIRMED
    assert network.set_mtu(KERNEL, before.mtu, 0).state is ChangeState.CONFIRMED
    wait_for(lambda: standing(network, lost).state is ChangeState.ROLLED_BACK, 10)


LEASE = """
change = Changes(context, Limits(lease=1.5)).make(sys.argv[1], addresses(["dhcp"], ""), 30)
print(change.state, change.reason)
"""


def test_dhcp_that_never_answers_fails_and_all_is_back(staged: Stage) -> None:
    for link in (NETWORKD, MANAGER):
        before = staged.seen(link)
        told = staged.script(LEASE, link)
        assert told.startswith("failed 'addresses dhcp' did not come true: DHCP did not answer")
        assert staged.seen(link) == before


def test_dhcp_that_answers_gives_an_address(staged: Stage, network: Network) -> None:
    for link in (NETWORKD, MANAGER):
        number, before = place(link), staged.seen(link)
        far = ("ip", "netns", "exec", "far", "unshare", "--mount", "/usr/local/bin/leases", str(number))
        staged.host.run("systemd-run", "--quiet", f"--unit=leases-{link}", *far, f"{link[0]}1")
        served = ("ip", "netns", "exec", "far", "ss", "-Hlun", "sport = :67")
        wait_for(lambda: f"%{link[0]}1:67" in staged.host.run(*served).stdout, seconds=20)  # noqa: B023
        change = network.set_addresses(link, ["dhcp", f"10.99.{number}.1/24"], "", LONG)
        assert change.state is ChangeState.PENDING, change
        leased, lasting = sorted(
            staged.seen(link).addresses, key=lambda each: each == f"10.99.{number}.1/24"
        )
        assert leased.startswith(f"10.9.{number}.1")
        assert lasting == f"10.99.{number}.1/24"
        network.roll_back(change.id)
        assert staged.seen(link) == before
        staged.host.run("systemctl", "stop", f"leases-{link}")


KEPT = {
    NETWORKD: "/etc/systemd/network/1-matahari-d0.network",
    MANAGER: "/etc/NetworkManager/system-connections/wired.nmconnection",
}
DIES_CONFIRMING = """
link, where = sys.argv[1:]
kind = {"d0": networkd.ByNetworkd, "m0": networkmanager.ByNetworkManager}[link]
keep = kind.keep
def die(self, saved):
    if where == "after":
        keep(self, saved)
    os.kill(os.getpid(), signal.SIGKILL)
kind.keep = die
changes = Changes(context)
changes.confirm(changes.make(link, SetMtu(1350), 2).id)
"""


@pytest.mark.parametrize("where", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_the_agent_is_killed_while_it_confirms(staged: Stage, network: Network, where: str) -> None:
    """That it is kept was decided."""
    before = {link: staged.seen(link) for link in KEPT}
    for link in KEPT:
        staged.script(DIES_CONFIRMING, link, where, check=False)
    for link, path in KEPT.items():
        text = "MTUBytes=1350" if link == NETWORKD else "mtu=1350"
        wait_for(lambda: text in staged.host.run("cat", path, check=False).stdout, 10)  # noqa: B023 - called at once
        assert staged.seen(link) == replace(before[link], mtu=1350)
        wait_for(lambda: is_free(network, link), 10)  # noqa: B023 - called at once
        network.set_mtu(link, before[link].mtu, 0)
    ended = [each.state for each in network.changes()[:6] if each.what == "mtu 1350"]
    assert ended == [ChangeState.CONFIRMED] * 2


def is_free(network: Network, link: str) -> bool:
    """Whether nothing of a link is left to be finished."""
    try:
        network.roll_back(network.set_mtu(link, 1351, LONG).id)
    except Conflict:
        return False
    return True


def test_nobody_asks_by_dhcp_for_the_kernel(network: Network) -> None:
    with pytest.raises(NotImplementedHere, match="DHCP"):
        network.set_addresses(KERNEL, ["dhcp"])
    assert [each for each in network.changes() if each.state is ChangeState.PENDING] == []


def test_an_address_of_another_host_is_not_taken(staged: Stage, network: Network, link: str) -> None:
    number, before = place(link), staged.seen(link)
    change = network.set_addresses(link, [f"10.9.{number}.2/24"], "", LONG)
    assert (change.state, change.reason) == (
        ChangeState.FAILED,
        f"another host has the address '10.9.{number}.2'",
    )
    assert staged.seen(link) == before


def test_of_two_at_once_one_meets_a_conflict(staged: Stage, network: Network, link: str) -> None:
    before = staged.seen(link)
    met: list[NetworkChange | Problem] = []

    def ask(one: Network, mtu: int) -> None:
        try:
            met.append(one.set_mtu(link, mtu, LONG))
        except Problem as problem:
            met.append(problem)

    threads = [threading.Thread(target=ask, args=(staged.network(), mtu)) for mtu in (1300, 1301)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    (made,) = [each for each in met if isinstance(each, NetworkChange)]
    (refused,) = [each for each in met if isinstance(each, Problem)]
    assert isinstance(refused, Conflict)
    assert made.id in refused.message
    network.roll_back(made.id)
    assert staged.seen(link) == before


@pytest.mark.parametrize("name", ["", "no-such", "../k0", "k0/../d0", "k0\n", "k" * 300, "0-matahari*"])
def test_what_is_no_link_is_not_found(network: Network, name: str) -> None:
    with pytest.raises(NotFound):
        network.set_mtu(name, 1400)
    with pytest.raises(NotFound):
        network.start(name)
    with pytest.raises(NotFound):
        network.keeper(name)


def test_what_does_not_fit_a_link_is_refused(network: Network) -> None:
    with pytest.raises(InvalidArguments, match="loopback"):
        network.set_mtu("lo", 1400)
    with pytest.raises(InvalidArguments, match="loopback"):
        network.stop("lo")
    for mtu in (0, 67, 65_536):
        with pytest.raises(InvalidArguments, match="68 to 65535"):
            network.set_mtu(KERNEL, mtu)
    with pytest.raises(InvalidArguments, match="not on the link"):
        network.add_route(KERNEL, "198.51.100.0/24", "192.0.2.1")
    with pytest.raises(InvalidArguments, match="own address"):
        network.add_route(KERNEL, "198.51.100.0/24", "10.9.0.1")
    with pytest.raises(InvalidArguments, match="belongs to an address"):
        network.remove_route(KERNEL, "10.9.0.0/24")
    with pytest.raises(InvalidArguments, match="at most 3600"):
        network.set_mtu(KERNEL, 1400, 3601)
    with pytest.raises(NotFound):
        network.confirm("../../etc/passwd")


@pytest.mark.slow
@pytest.mark.parametrize(("link", "unit"), [(NETWORKD, "systemd-networkd"), (MANAGER, "NetworkManager")])
def test_a_manager_that_hangs_is_one_answer(staged: Stage, network: Network, link: str, unit: str) -> None:
    before, known = staged.seen(link), network.changes()
    staged.host.run("systemctl", "kill", "-s", "STOP", unit)
    try:
        with pytest.raises(Timeout):
            network.set_mtu(link, 1400)
        assert (staged.seen(link), network.changes()) == (before, known)
    finally:
        staged.host.run("systemctl", "kill", "-s", "CONT", unit)


STRUCK = """
link, wanted, seconds = sys.argv[1:]
signal.setitimer(signal.ITIMER_REAL, float(seconds))  # nobody handles it: it ends the process at once
Changes(context, Limits(make=1.5, spare=0.3)).make(link, addresses([wanted], ""), 1)
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4 + 0.05 * step for step in range(24)])
def test_whenever_the_agent_dies_all_is_back(staged: Stage, network: Network, seconds: float) -> None:
    before = {link: staged.seen(link) for link in LINKS}
    for link in LINKS:
        wanted = f"10.9.{place(link)}.44/24"
        staged.script(STRUCK, link, wanted, str(seconds), check=False)

    def ended() -> bool:
        return not [each for each in network.changes() if each.state is ChangeState.PENDING]

    wait_for(ended, 15)
    wait_for(lambda: {link: staged.seen(link) for link in LINKS} == before, 5)


HANGS = """
kind = bykernel.ByKernel
make = kind.make
def hang(self, wish, saved):
    make(self, wish, saved)
    os.kill(os.getpid(), signal.SIGSTOP)
kind.make = hang
Changes(context, Limits(make=1.0, spare=0.5)).make("k0", SetMtu(1300), 30)
"""


@pytest.mark.slow
def test_an_agent_that_hangs_in_a_change_is_not_waited_for(staged: Stage, network: Network) -> None:
    before = staged.seen(KERNEL)
    hangs = ("systemd-run", "--quiet", "--collect", "--unit=hangs", sys.executable, "-c", HERE + HANGS)
    staged.host.run(*hangs)
    wait_for(lambda: staged.seen(KERNEL).mtu == 1300)
    wait_for(lambda: network.changes()[0].state is ChangeState.FAILED, 30)
    assert staged.seen(KERNEL) == before
    staged.host.run("systemctl", "kill", "-s", "CONT", "hangs")
    wait_for(lambda: staged.host.run("systemctl", "is-active", "hangs", check=False).returncode != 0)
    assert network.changes()[0].state is ChangeState.FAILED
    assert staged.seen(KERNEL) == before


def is_kept(network: Network, link: str) -> bool:
    try:
        return network.keeper(link) in Keeper
    except Unavailable:  # its manager is starting
        return False


def test_a_manager_that_was_restarted_is_brought_back_too(staged: Stage, network: Network) -> None:
    """Its checkpoints die with it."""
    before = staged.seen(MANAGER)
    change = network.set_mtu(MANAGER, 1300, LONG)
    staged.host.run("systemctl", "kill", "-s", "KILL", "NetworkManager")
    staged.host.run("systemctl", "restart", "NetworkManager")
    wait_for(lambda: is_kept(network, MANAGER))
    assert network.roll_back(change.id).state is ChangeState.ROLLED_BACK
    assert staged.seen(MANAGER) == before
    assert network.keeper(MANAGER) is Keeper.NETWORK_MANAGER


def test_a_restart_of_the_host_is_a_rollback_too(staged: Stage, network: Network) -> None:
    """What was confirmed stays, what was pending does not."""
    for link in (NETWORKD, MANAGER):
        assert network.set_mtu(link, 1450, 0).state is ChangeState.CONFIRMED
    before = {link: staged.seen(link) for link in (NETWORKD, MANAGER)}
    for link in LINKS:
        network.set_addresses(link, [f"10.9.{place(link)}.66/24"], "", 3600)
    staged.close()
    staged.host.reboot()
    for link in (NETWORKD, MANAGER):
        wait_for(lambda: staged.seen(link) == before[link], 20)  # noqa: B023 - called at once
    staged.agent("start")
    again = staged.network()
    wait_for(lambda: {each.state for each in again.changes()[:3]} == {ChangeState.ROLLED_BACK})
    assert {each.reason for each in again.changes()[:3]} == {
        "the host was restarted before it was confirmed"
    }
