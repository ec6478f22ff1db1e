"""`mhctl network` against a network that is a fake in memory, and can be cut off."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from libmh.api.network import Address, ChangeState, Keeper, Link, LinkCounters, Network, NetworkChange
from libmh.cli import proving
from libmh.cli.main import mhctl
from libmh.cli.network import ChangeId, LinkName
from libmh.client import Connection
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotFound, Unavailable
from libmh.testing import loopback

QUICK = proving.Pace(answer=0.1, look=1.0, pause=0.02, afterwards=0.5)
URL = "unix:path=/nowhere"


@dataclass
class Cable:
    """The way to the fake host: how often it was connected to, and whether it can be, now."""

    context: Context = field(default_factory=Context)
    connections: int = 0
    cut: bool = False


class FakeNetwork(Network):
    """One link. What a change does to the way to the host is `effect`; `late` changes are made when it is
    set."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.mtu = 1500
        self.made: list[NetworkChange] = []
        self.asked: list[object] = []
        self.effect: Callable[[], None] = lambda: None
        self.late: threading.Event | None = None
        self.making: frozenset[str] = frozenset()

    def list_links(self) -> list[str]:
        return ["eth0", "lo"]

    def link(self, iface: str) -> Link:
        if iface != "eth0":
            raise NotFound(f"there is no link '{iface}'")
        return self.links()[0]

    def links(self) -> list[Link]:
        address = Address("ipv4", "192.0.2.5", 24)
        return [
            Link("eth0", 2, "veth", True, "up", self.mtu, [address], LinkCounters(*range(8))),
            Link("lo", 1, "loopback", True, "unknown", 65536, [], LinkCounters(*range(8))),
        ]

    def keeper(self, iface: str) -> Keeper:
        return Keeper.KERNEL if iface else Keeper.NETWORKD

    def set_addresses(
        self, iface: str, addresses: list[str], gateway: str = "", confirm: int = 60
    ) -> NetworkChange:
        self.asked.append((addresses, gateway))
        return self._make(iface, f"addresses {', '.join(addresses)}", confirm)

    def set_mtu(self, iface: str, mtu: int, confirm: int = 60) -> NetworkChange:
        if mtu > 9000:
            raise InvalidArguments(f"mtu: expected at most 9000, got {mtu}")
        return self._make(iface, f"mtu {mtu}", confirm)

    def add_route(
        self, iface: str, destination: str, gateway: str = "", metric: int = 0, confirm: int = 60
    ) -> NetworkChange:
        self.asked.append((destination, gateway, metric))
        return self._make(iface, f"route {destination}", confirm)

    def _make(self, iface: str, what: str, confirm: int) -> NetworkChange:
        if any(each.state is ChangeState.PENDING for each in self.made):
            raise Conflict(f"'{iface}' has a pending change", id=self.made[-1].id)
        change = NetworkChange(
            f"c{len(self.made)}",
            iface,
            Keeper.KERNEL,
            what,
            ChangeState.PENDING if confirm else ChangeState.CONFIRMED,
            10**18,
            "test \x1b[31mme",
            persistent=False,
            confirm_by=10**18 + confirm * 10**9 if confirm else None,
        )
        self.made.append(change)
        if self.late is not None:
            self.making |= {change.id}
            assert self.late.wait(5)
            self.making -= {change.id}
        self.effect()
        return change

    def confirm(self, id: str) -> NetworkChange:  # noqa: A002 - its wire name
        if id in self.making:
            if self.late is not None:
                self.late.set()
            raise Conflict(f"the change '{id}' is still being made")
        return self._end(id, ChangeState.CONFIRMED, "")

    def roll_back(self, id: str) -> NetworkChange:  # noqa: A002 - its wire name
        return self._end(id, ChangeState.ROLLED_BACK, "it was asked for")

    def _end(self, id: str, state: ChangeState, reason: str) -> NetworkChange:  # noqa: A002 - as above
        self.asked.append((id, state, self.cable.connections))
        for at, each in enumerate(self.made):
            if each.id == id:
                if each.state is not ChangeState.PENDING:
                    raise Conflict(f"the change '{id}' is {each.state}")
                self.made[at] = replace(each, state=state, reason=reason or None, confirm_by=None)
                return self.made[at]
        raise NotFound(f"there is no change '{id}'")

    def changes(self) -> list[NetworkChange]:
        return self.made[::-1]

    def time_is_up(self) -> None:
        """As the host does by itself."""
        self.made = [
            replace(each, state=ChangeState.ROLLED_BACK, reason="it was not confirmed in time")
            for each in self.made
        ]


@pytest.fixture
def cable() -> Cable:
    return Cable()


@pytest.fixture
def fake(cable: Cable) -> FakeNetwork:
    # what a fake need not know, the dispatcher says it does not
    type.__setattr__(FakeNetwork, "__abstractmethods__", frozenset())
    made: FakeNetwork = cast("Any", FakeNetwork)(cable)
    return made


@pytest.fixture(autouse=True)
def wired(cable: Cable, fake: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[Connection] = []

    def connect(url: str, seconds: float | None = None) -> Connection:
        assert (url, seconds) != ("", 0)
        if cable.cut:
            raise Unavailable("nobody answers there")
        cable.connections += 1
        opened.append(loopback(fake, context=cable.context))
        return opened[-1]

    monkeypatch.setattr("libmh.cli.session.connect", connect)
    monkeypatch.setattr(proving, "Pace", lambda: QUICK)
    yield
    for each in opened:
        each.close()


def run(*words: str) -> Result:
    return CliRunner().invoke(mhctl, ["--on", URL, *words])


def test_links_are_a_table_of_those_that_match() -> None:
    lines = run("network", "list", "eth*").stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["eth0", "veth", "up", "1500", "192.0.2.5/24"]
    assert [each["name"] for each in json.loads(run("--json", "network", "list").stdout)] == ["eth0", "lo"]
    assert "statistics" not in run("network", "show", "eth0").stdout
    assert json.loads(run("--json", "network", "show", "eth0").stdout)["mtu"] == 1500
    assert run("network", "show", "eth1").exit_code == 1


def test_a_change_is_confirmed_over_a_connection_of_its_own(fake: FakeNetwork) -> None:
    result = run("network", "set-addresses", "eth0", "192.0.2.7/24,dhcp", "2001:db8::7/64", "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "eth0: addresses 192.0.2.7/24, dhcp, 2001:db8::7/64: confirmed, and kept, until the host restarts\n"
    )
    assert "then      192.0.2.7/24, dhcp, 2001:db8::7/64" in result.stderr
    assert "now       up (up), mtu 1500, 192.0.2.5/24" in result.stderr
    assert fake.asked == [
        (["192.0.2.7/24", "dhcp", "2001:db8::7/64"], ""),
        ("c0", ChangeState.CONFIRMED, 2),
    ]


def test_the_outcome_as_json_has_the_keys_of_a_change() -> None:
    result = run("--json", "network", "set-mtu", "eth0", "1400", "-y")
    change = json.loads(result.stdout)
    assert (change["id"], change["state"], change["link"]) == ("c0", "confirmed", "eth0")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("url", "seconds"), [(URL, 60), ("amqp://h:1", 60), ("amqp://h:1/UUID", 180), ("amqps://h/UUID", 180)]
)
def test_through_a_broker_there_is_more_time(fake: FakeNetwork, url: str, seconds: int) -> None:
    words = ["--on", url, "network", "set-mtu", "eth0", "1400", "-y"]
    result = CliRunner().invoke(mhctl, words)
    assert result.exit_code == 0, result.output
    assert f"over a new connection within {seconds} s" in result.stderr
    assert fake.made[0].state is ChangeState.CONFIRMED


def test_who_cannot_be_asked_has_to_say_yes(fake: FakeNetwork) -> None:
    result = run("network", "set-mtu", "eth0", "1400")
    assert result.exit_code == 2
    assert "say --yes where nobody can be asked" in result.stderr
    assert fake.made == []


def test_an_answer_that_says_no_ends_it(fake: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmh.cli.members.sys.stdin.isatty", lambda: True, raising=False)
    answered: list[str] = []
    monkeypatch.setattr("libmh.cli.network.agree", answered.append)
    assert run("network", "set-mtu", "eth0", "1400").exit_code == 0
    assert answered == [f"'set_mtu' of 'eth0' may cut {URL} off"]
    assert len(fake.made) == 1


def test_a_refusal_is_told_as_it_is(fake: FakeNetwork) -> None:
    result = run("network", "set-mtu", "eth0", "9999", "-y")
    assert result.exit_code == 2
    assert "expected at most 9000, got 9999 (invalid-arguments)" in result.stderr
    assert run("network", "set-mtu", "eth7", "1400", "-y").exit_code == 1
    assert fake.made == []


def test_a_pending_change_is_in_the_way_until_it_is_ended(fake: FakeNetwork) -> None:
    run("network", "set-mtu", "eth0", "1400", "-y", "--no-confirm")
    result = run("network", "set-mtu", "eth0", "1300", "-y")
    assert result.exit_code == 1
    assert f"hint: 'mhctl --on {URL} network confirm c0' keeps the other change" in result.stderr


def test_a_lost_answer_is_looked_up_over_a_new_connection(fake: FakeNetwork) -> None:
    def lose() -> None:
        raise Unavailable("the connection was lost")

    fake.effect = lose
    result = run("network", "set-mtu", "eth0", "1400", "-y")
    assert result.exit_code == 0, result.output
    assert fake.made[0].state is ChangeState.CONFIRMED


def test_a_host_that_comes_back_late_is_confirmed(fake: FakeNetwork, cable: Cable) -> None:
    def cut() -> None:
        cable.cut = True
        threading.Timer(0.4, setattr, (cable, "cut", False)).start()

    fake.effect = cut
    result = run("network", "set-mtu", "eth0", "1400", "-y")
    assert result.exit_code == 0, result.output
    assert cable.connections == 2


def test_a_host_that_does_not_come_back_is_not_confirmed(fake: FakeNetwork, cable: Cable) -> None:
    fake.effect = lambda: setattr(cable, "cut", True)
    result = run("network", "set-mtu", "eth0", "1400", "-y", "--confirm", "1")
    assert result.exit_code == 1
    assert "eth0: mtu 1400: rolled back at" in result.stdout
    assert "not reached over a new connection: nobody answers there" in result.stdout
    assert fake.made[0].state is ChangeState.PENDING


def test_a_host_that_took_it_back_says_so(fake: FakeNetwork, cable: Cable) -> None:
    def heal() -> None:
        fake.time_is_up()
        cable.cut = False

    def cut() -> None:
        cable.cut = True
        threading.Timer(0.3, heal).start()

    fake.effect = cut
    result = run("network", "set-mtu", "eth0", "1400", "-y")
    assert result.exit_code == 1
    assert "eth0: mtu 1400: rolled back: it was not confirmed in time" in result.stdout


def test_what_is_still_being_made_is_not_confirmed(fake: FakeNetwork) -> None:
    fake.late = threading.Event()
    result = run("network", "set-mtu", "eth0", "1400", "-y")
    assert result.exit_code == 0, result.output
    assert fake.late.is_set()  # which a refused confirmation has done
    assert fake.made[0].state is ChangeState.CONFIRMED


def test_a_change_of_somebody_else_is_left_alone(fake: FakeNetwork) -> None:
    def lose() -> None:
        fake.made += [replace(fake.made[0], id="other"), replace(fake.made[0], id="another")]
        raise Unavailable("the connection was lost")

    fake.effect = lose
    result = run("network", "set-mtu", "eth0", "1400", "-y", "--confirm", "1")
    assert result.exit_code == 1
    assert "the host did not say what came of the change (the connection was lost)" in result.stderr
    assert {each.state for each in fake.made} == {ChangeState.PENDING}


def test_no_confirm_says_how_to(fake: FakeNetwork) -> None:
    result = run(
        "network", "add-route", "eth0", "default", "192.0.2.1", "--metric", "5", "--no-confirm", "-y"
    )
    assert result.exit_code == 0
    assert f"unless 'mhctl --on {URL} network confirm c0' comes before" in result.stdout
    assert fake.made[0].state is ChangeState.PENDING
    assert "c0" in run("network", "changes", "--pending").stdout
    assert run("network", "confirm", "c0").exit_code == 0
    assert "c0" not in run("network", "changes", "--pending").stdout
    assert run("network", "confirm", "c0").exit_code == 1
    assert fake.asked[0] == ("default", "192.0.2.1", 5)


def test_a_change_can_be_taken_back(fake: FakeNetwork) -> None:
    run("network", "set-mtu", "eth0", "1400", "-y", "--no-confirm")
    assert run("network", "roll-back", "c0").exit_code == 2
    assert "eth0: mtu 1400: rolled back: it was asked for" in run("network", "roll_back", "c0", "-y").stdout


def test_no_time_to_confirm_keeps_it_at_once(fake: FakeNetwork, cable: Cable) -> None:
    fake.effect = lambda: setattr(cable, "cut", True)
    result = run("network", "set-mtu", "eth0", "1400", "-y", "--confirm", "0")
    assert result.exit_code == 0
    assert "kept      at once, whether the host can be reached or not" in result.stderr


def test_an_interrupted_wait_leaves_it_to_be_rolled_back(
    fake: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("libmh.cli.network.prove", interrupted)
    result = run("network", "set-mtu", "eth0", "1400", "-y")
    assert result.exit_code == 1
    assert "eth0: left as it is: the host rolls it back 60 s after it was made" in result.stderr
    assert all(each.state is ChangeState.PENDING for each in fake.made)


def test_a_list_of_words_needs_no_json(fake: FakeNetwork) -> None:
    assert run("call", "Network.set_addresses", "eth0", "192.0.2.7/24,dhcp").exit_code == 0
    assert run("call", "Network.set_addresses", "lo", '["auto"]').exit_code == 1
    assert fake.asked == [(["192.0.2.7/24", "dhcp"], ""), (["auto"], "")]


def test_names_and_ids_are_completed_from_the_host_asked(fake: FakeNetwork) -> None:
    run("network", "set-mtu", "eth0", "1400", "-y")
    run("network", "set-mtu", "eth0", "1300", "-y", "--no-confirm")
    with mhctl.make_context("mhctl", ["--on", URL, "network"], resilient_parsing=True) as context:
        parameter = context.command.params[0]
        links = LinkName().shell_complete(context, parameter, "e")
        pending = ChangeId().shell_complete(context, parameter, "")
    assert [each.value for each in links] == ["eth0"]
    assert [(each.value, each.help) for each in pending] == [("c1", "eth0: mtu 1300")]


def test_watch_shows_links_and_changes(fake: FakeNetwork, cable: Cable) -> None:
    change = NetworkChange(
        "c", "eth0", Keeper.KERNEL, "mtu 1400", ChangeState.CONFIRMED, 1, "x\x1b[0m", persistent=False
    )

    def happen() -> None:
        for name in ("lo", "eth0"):
            cable.context.events.emit(
                Network.link_changed,
                iface=name,
                change="changed",
                up=True,
                carrier=False,
                operational_state="down",
                mtu=1400,
                addresses=["192.0.2.5/24"],
            )
        cable.context.events.emit(Network.network_changed, change=change)

    seen = threading.Event()

    def again() -> None:
        while not seen.wait(0.1):
            happen()

    ticking = threading.Thread(target=again, daemon=True)
    ticking.start()
    shown = run("--timeout", "5", "network", "watch", "eth*", "--count", "2")
    seen.set()
    ticking.join()
    assert shown.exit_code == 0, shown.output
    assert "eth0  changed  up (down), no carrier, mtu 1400, 192.0.2.5/24\n" in shown.stdout
    assert "eth0  mtu 1400  confirmed (by x\\x1b[0m)\n" in shown.stdout
