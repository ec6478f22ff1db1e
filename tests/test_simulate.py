"""The fleet that does not exist: it is asked, counted and reported like one that does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fleet
from libmh.api.host import Fact, Host
from libmh.client import connect
from libmh.client import fleet as fleet_at
from libmh.context import Context
from libmh.errors import NotAuthorized, NotImplementedHere
from libmh.outcomes import State
from libmh.testing import conforming, unanswered
from libmh.testing.invented import Identity, InventedHost, Kinds, hostname_of, uuid_of
from processes import agent, ready_line
from test_conductor_killed import hosts_in
from testbed.child import child
from waiting import wait_for

HOSTS = 40


@contextmanager
def simulated(url: str, state: Path, *options: str) -> Iterator[str]:
    """So many hosts at a broker, all connected; what they say when they are."""
    words = ("--broker", url, "--hosts", str(HOSTS), "--state", str(state), "--log-level", "warning")
    simulate = [sys.executable, "-m", "libmh.testing.simulate", *words, *options]
    with child(simulate, stdout=subprocess.PIPE) as process:
        yield ready_line(process)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker")) as running:
        yield running.url


@pytest.mark.parametrize("options", [(), ("--connections", "3")], ids=["own", "shared"])
def test_all_of_them_answer(broker: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    with simulated(broker, tmp_path / "hosts", *options) as said, fleet_at(broker) as hosts:
        assert said == f"ready: simulate {HOSTS} hosts via {broker}"
        account = hosts.call(Host.uuid)
        assert account.counts() == {State.ANSWERED: HOSTS}
        names = {hostname_of(number) for number in range(HOSTS)}
        assert {host.hostname for host in account.expected.values()} == names
        chosen = hosts.call(Host.hostname, where=["arch=aarch64"])
        assert chosen.counts() == {State.ANSWERED: sum(number % 24 % 8 == 0 for number in range(HOSTS))}


@pytest.mark.parametrize("everybody", [True, False])
def test_policy_holds_unless_it_is_open(broker: str, tmp_path: Path, *, everybody: bool) -> None:
    options = ("--open",) if everybody else ()
    with (
        simulated(broker, tmp_path / "hosts", *options),
        connect(f"{broker}/{uuid_of(7)}") as one,
    ):
        host = one.proxy(Host)
        assert host.hostname() == hostname_of(7)
        with pytest.raises(NotImplementedHere if everybody else NotAuthorized):
            host.reboot()


def test_they_report(broker: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(fleet.RULES)
    options = ("--broker", broker, "--state", str(tmp_path), "--rules", str(rules))
    with (
        agent("mh-conductor", *options),
        simulated(broker, tmp_path / "hosts", "--report-interval", "2"),
    ):
        wait_for(lambda: hosts_in(tmp_path) == HOSTS, 20)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--broker: expected"),
        (("--broker", "http://x"), "is not the URL of a broker"),
        (("--broker", "amqp://127.0.0.1", "--hosts", "0"), "--hosts: expected"),
        (("--broker", "amqp://127.0.0.1", "--rate", "0"), "--rate"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "libmh.testing.simulate", "--state", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_an_invented_host_is_a_host() -> None:
    host = InventedHost(Identity(3), Kinds(), Context())
    assert unanswered(type(host)) == []
    plain = conforming(host)
    assert plain["hostname"] == "sim00003"
    facts = host.facts()
    assert all(isinstance(fact, Fact) for fact in facts.values())
    assert facts["uuid"].value == uuid_of(3)


def test_the_same_number_makes_the_same_host() -> None:
    first, again = (InventedHost(Identity(5), Kinds(), Context()).facts() for _ in range(2))
    assert first == again
    assert uuid_of(5) != uuid_of(5, seed=1)
