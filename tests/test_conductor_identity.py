"""Who may report for which host, and hosts that are known ahead of their first report."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import select

import fleet
from libmh.api.aggregates import CapabilityReport, FleetHost, HostState
from libmh.caller import LOCAL, Caller, answering
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotAuthorized, NotFound
from libmh.events import Event
from libmh.testing import conforming, unanswered
from mh_conductor import hosts, registration, registry
from mh_conductor.conductor_service import FleetConductor
from mh_conductor.identity import Senders, sender, senders
from mh_conductor.intake import Intake
from mh_conductor.reporting import ReportIntake
from mh_conductor.service import FleetAggregates
from mh_conductor.store import Store, open_store
from mh_conductor.tables import AGGREGATES, HISTORY, HOSTS, MEMBERS
from mh_conductor.workers import Tally, beat

ALICE, BOB = "CN=node1", "CN=node2"


@dataclass
class Fleet:
    """A conductor, called as its transports do."""

    store: Store
    conductor: FleetConductor
    aggregates: FleetAggregates
    tally: Tally
    events: list[Event] = field(default_factory=list)
    _context: Context = field(default_factory=Context)

    def report(
        self, report: CapabilityReport, who: str = "anonymous", allowed: Senders | None = None
    ) -> bool:
        taken = Intake(self.store, fleet.rules(), senders=allowed or Senders())
        with answering(Caller("amqp", who)):
            return ReportIntake(taken, self._context.events, self.tally).report(report).changed

    def host(self, uuid: str) -> FleetHost:
        return next(each for each in self.aggregates.hosts() if each.uuid == uuid)

    def members(self) -> list[tuple[str, str | None]]:
        with self.store.read() as connection:
            rows = connection.execute(select(MEMBERS.c.host, MEMBERS.c.owner).order_by(MEMBERS.c.host))
            return [(host, owner) for host, owner in rows]


@pytest.fixture
def conductor(store_url: str) -> Iterator[Fleet]:
    store, rules, context = open_store(store_url), fleet.rules(), Context()
    made = Fleet(
        store,
        FleetConductor(store, rules, context.events),
        FleetAggregates(store, rules, context.events),
        Tally(),
        _context=context,
    )
    context.events.subscribe(made.events.append)
    yield made
    store.close()


@pytest.mark.parametrize(
    ("caller", "known"),
    [
        (LOCAL, None),
        (Caller("dbus", ":1.7", 0), None),
        (Caller("amqp", "anonymous"), None),
        (Caller("amqp", "anonymous@10.0.0.7"), None),
        (Caller("amqp", "CN=node1"), "CN=node1"),
        (Caller("amqp", "anonymously"), "anonymously"),
        (Caller("amqp", "uid:0"), "uid:0"),
        (Caller("amqp", "key:node1"), "key:node1"),
    ],
)
def test_a_sender_is_who_the_broker_vouched_for(caller: Caller, known: str | None) -> None:
    assert sender(caller) == known


def test_long_names_stay_different() -> None:
    first, second = (sender(Caller("amqp", "x" * 300 + end)) for end in "ab")
    assert first != second
    assert first is not None
    assert len(first) <= 255


def test_the_first_identity_is_the_only_one(conductor: Fleet) -> None:
    conductor.report(fleet.report(1), ALICE)
    assert conductor.host(fleet.uuid_of(1)).identity == ALICE
    before = conductor.aggregates.generation()
    spoof = fleet.report(1, 2, memory_gib=64)
    for stranger in (BOB, "anonymous", "anonymous@10.0.0.9", "'; DROP TABLE hosts; --"):
        with pytest.raises(NotAuthorized, match="may not report for 'node1'") as caught:
            conductor.report(spoof, stranger)
        assert ALICE not in caught.value.message
        assert caught.value.details["action"] == "org.matahariproject.Reports.report"
    assert conductor.aggregates.generation() == before
    assert conductor.host(fleet.uuid_of(1)).sequence == 1
    assert (conductor.tally.refused, conductor.tally.reports) == (4, 5)
    assert "may not report" in (conductor.tally.last_error or "")
    assert conductor.report(spoof, ALICE)


def test_even_a_replay_is_refused_to_a_stranger(conductor: Fleet) -> None:
    conductor.report(fleet.report(1), ALICE)
    with pytest.raises(NotAuthorized):
        conductor.report(fleet.report(1), BOB)


def test_a_host_that_nobody_vouched_for_is_tied_when_somebody_does(conductor: Fleet) -> None:
    conductor.report(fleet.report(1))
    assert conductor.host(fleet.uuid_of(1)).identity is None
    assert conductor.report(fleet.report(1, 2), ALICE)
    assert not conductor.report(fleet.report(1, 3), ALICE)
    with pytest.raises(NotAuthorized):
        conductor.report(fleet.report(1, 4))


def test_one_sender_may_answer_for_many_hosts(conductor: Fleet) -> None:
    for number in (1, 2):
        conductor.report(fleet.report(number), ALICE)
    assert [each.identity for each in conductor.aggregates.hosts()] == [ALICE, ALICE]


def test_senders_may_have_to_be_called_as_their_hosts(conductor: Fleet) -> None:
    allowed = senders({"reports": {"identity": "CN={hostname}"}})
    conductor.report(fleet.report(1), ALICE, allowed)
    for number, who in ((2, ALICE), (2, "anonymous"), (2, "CN=node2.example.org")):
        with pytest.raises(NotAuthorized, match="which is for 'CN=node2' only"):
            conductor.report(fleet.report(number), who, allowed)
    by_uuid = senders({"reports": {"identity": "{uuid}"}})
    conductor.report(fleet.report(3), fleet.uuid_of(3), by_uuid)
    assert [each.hostname for each in conductor.aggregates.hosts()] == ["node1", "node3"]


@pytest.mark.parametrize(
    "table",
    [{"identity": "CN=node"}, {"identity": 7}, {"identity": ""}, {"identity": "{uuid}" * 99}, {"who": "x"}],
)
def test_a_configuration_that_says_nothing_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(InvalidArguments, match=r"\[reports\]"):
        senders({"reports": table})


def test_a_host_is_known_ahead_of_its_first_report(conductor: Fleet) -> None:
    made = conductor.conductor.register("node1")
    assert (made.hostname, made.state, made.first_seen) == ("node1", HostState.REGISTERED, 0)
    assert made.uuid == registration.made_up("NODE1")
    conductor.aggregates.create("mine")
    conductor.aggregates.add_host("mine", "node1")
    assert conductor.aggregates.show("mine").hosts == ["node1"]
    assert conductor.aggregates.report("node1").facts == {}
    conductor.report(fleet.report(1))
    (now,) = conductor.aggregates.hosts()
    assert (now.uuid, now.state) == (fleet.uuid_of(1), HostState.UP)
    assert now.first_seen > 0
    assert now.generation == made.generation + 1
    assert now.aggregates == ["arch-x86_64", "avx512", "mine"]
    assert conductor.aggregates.show("mine").hosts == ["node1"]
    assert {owner for _, owner in conductor.members()} == {None, "arch", "avx512"}
    assert not conductor.report(fleet.report(1))


def test_who_keeps_copies_reads_what_was_taken_over(conductor: Fleet) -> None:
    conductor.conductor.register("node1")
    conductor.aggregates.create("mine")
    mine = conductor.aggregates.add_host("mine", "node1")
    before = conductor.aggregates.generation()
    conductor.report(fleet.report(1))
    with conductor.store.read() as connection:
        assert (
            connection.execute(select(AGGREGATES.c.stamp).where(AGGREGATES.c.id == mine.id)).scalar_one()
            > before
        )
        assert connection.execute(select(HOSTS.c.stamp)).scalar_one() == registry.generation(connection)


def test_a_host_may_be_known_by_its_uuid(conductor: Fleet) -> None:
    conductor.conductor.register("node1", fleet.uuid_of(1))
    conductor.report(fleet.report(7, hostname="node1"))
    assert len(conductor.aggregates.hosts()) == 2
    conductor.report(fleet.report(1, memory_gib=64))
    registered = conductor.host(fleet.uuid_of(1))
    assert (registered.state, registered.sequence) == (HostState.UP, 1)
    assert registered.first_seen == registered.last_seen > 0


def test_only_the_identity_of_a_registration_may_take_it(conductor: Fleet) -> None:
    conductor.conductor.register("node1", identity=ALICE)
    for stranger in (BOB, "anonymous"):
        with pytest.raises(NotAuthorized):
            conductor.report(fleet.report(1), stranger)
    assert [each.state for each in conductor.aggregates.hosts()] == [HostState.REGISTERED]
    conductor.report(fleet.report(1), ALICE)
    assert conductor.host(fleet.uuid_of(1)).identity == ALICE


def test_an_identity_can_be_changed(conductor: Fleet) -> None:
    conductor.report(fleet.report(1), ALICE)
    changed = conductor.conductor.register("node1", identity="CN=new")
    assert (changed.identity, changed.state, changed.aggregates) == (
        "CN=new",
        HostState.UP,
        ["arch-x86_64", "avx512"],
    )
    with pytest.raises(NotAuthorized):
        conductor.report(fleet.report(1, 2), ALICE)
    assert not conductor.report(fleet.report(1, 2), "CN=new")


def test_what_is_known_is_not_registered_again(conductor: Fleet) -> None:
    conductor.report(fleet.report(1))
    conductor.conductor.register("node2")
    for hostname, uuid in (
        ("node1", ""),
        ("node1", fleet.uuid_of(1)),
        ("node1", fleet.uuid_of(9)),
        ("other", fleet.uuid_of(1)),
        ("node2", ""),
        ("node2", fleet.uuid_of(2)),
    ):
        with pytest.raises(Conflict, match=r"is known already|is that of host"):
            conductor.conductor.register(hostname, uuid)
    assert len(conductor.aggregates.hosts()) == 2


@pytest.mark.parametrize(
    ("hostname", "uuid", "identity", "says"),
    [
        ("", "", "", "hostname: expected a host name"),
        ("a b", "", "", "hostname"),
        ("'; DROP TABLE hosts; --", "", "", "hostname"),
        ("x" * 256, "", "", "hostname"),
        ("node1", "node1", "", "uuid: expected 32"),
        ("node1", "", "x" * 256, "identity"),
        ("node1", "", "a\x1b", "identity"),
    ],
)
def test_nonsense_is_not_registered(
    conductor: Fleet, hostname: str, uuid: str, identity: str, says: str
) -> None:
    with pytest.raises(InvalidArguments, match=says):
        conductor.conductor.register(hostname, uuid, identity)
    assert conductor.aggregates.hosts() == []


def test_a_forgotten_host_is_nowhere(conductor: Fleet) -> None:
    conductor.report(fleet.report(1), ALICE)
    conductor.report(fleet.report(2), BOB)
    conductor.aggregates.create("mine")
    conductor.aggregates.add_host("mine", "node1")
    before = conductor.aggregates.show("avx512")
    conductor.events.clear()
    assert conductor.conductor.forget("node1")
    after = conductor.aggregates.show("avx512")
    assert (after.hosts, after.generation) == (["node2"], before.generation + 1)
    assert conductor.aggregates.show("mine").hosts == []
    assert [each.fields.get("change") for each in conductor.events] == ["host-removed"] * 3 + [None]
    with pytest.raises(NotFound):
        conductor.conductor.forget("node1")
    with conductor.store.read() as connection:
        assert hosts.count(connection) == 1
        said = connection.execute(
            select(HISTORY.c.change, HISTORY.c.who).order_by(HISTORY.c.id.desc())
        ).first()
    assert said == ("forgotten", LOCAL.described)
    conductor.report(fleet.report(1), "CN=another")
    assert conductor.host(fleet.uuid_of(1)).generation == 1


def test_everything_declared_is_answered(conductor: Fleet) -> None:
    assert unanswered(FleetConductor) == []
    told = conforming(conductor.conductor)["status"]
    assert isinstance(told, dict)
    assert (told["hosts"], told["workers"]) == ({}, [])


def test_the_status_tells_hosts_and_workers(conductor: Fleet) -> None:
    conductor.report(fleet.report(1))
    conductor.conductor.register("node2")
    beat(conductor.store, conductor.tally)
    status = conductor.conductor.status()
    assert status.hosts == {"up": 1, "registered": 1}
    assert (status.aggregates, status.rules, status.held, status.queued) == (2, 3, 0, None)
    assert [each.reports for each in status.workers] == [1]
    assert status.generation == conductor.aggregates.generation()


def test_key_facts_are_told(conductor: Fleet) -> None:
    conductor.report(
        fleet.report(1, os_name="Debian", cpu_count=8, virtualization=["?"], os_version="x" * 999)
    )
    assert conductor.host(fleet.uuid_of(1)).summary == {
        "arch": "x86_64",
        "memory_gib": 16,
        "os_name": "Debian",
        "cpu_count": 8,
    }


def test_a_host_that_was_silent_is_up_again(conductor: Fleet) -> None:
    conductor.report(fleet.report(1))
    with conductor.store.write() as connection:
        connection.execute(HOSTS.update().values(state=HostState.GONE.value))
        connection.execute(MEMBERS.delete())
    conductor.events.clear()
    assert conductor.report(fleet.report(1, 2))
    assert conductor.host(fleet.uuid_of(1)).state is HostState.UP
    assert conductor.host(fleet.uuid_of(1)).aggregates == ["arch-x86_64", "avx512"]
    told = [each.fields for each in conductor.events if each.member == "host_silent"]
    assert [(each["hostname"], each["state"]) for each in told] == [("node1", "up")]


def test_the_inventory_comes_in_pages(conductor: Fleet) -> None:
    for number in range(7):
        conductor.report(fleet.report(number, hostname="twin" if number < 3 else ""))
    whole = conductor.aggregates.hosts()
    paged: list[FleetHost] = []
    while page := conductor.aggregates.hosts(paged[-1].uuid if paged else "", 2):
        assert len(page) <= 2
        paged += page
    assert paged == whole
    assert [each.hostname for each in whole] == ["node3", "node4", "node5", "node6", "twin", "twin", "twin"]
    with pytest.raises(NotFound, match="begin again"):
        conductor.aggregates.hosts("nobody")


SQL = "'; DROP TABLE hosts; --"


def test_text_is_never_code(conductor: Fleet) -> None:
    """Facts go into names, metadata, history and evidence."""
    odd = fleet.report(1, boot=SQL, arch=SQL, cpu_flags=["avx512f", SQL], os_name='%s %(x)s :host {0} \\ "')
    conductor.report(odd, SQL)
    (host,) = conductor.aggregates.hosts()
    assert (host.identity, host.boot_id) == (SQL, SQL)
    assert host.aggregates == [f"arch-{SQL}", "avx512"]
    assert conductor.aggregates.show(f"arch-{SQL}").metadata == {"arch": SQL}
    assert conductor.aggregates.report("node1").facts == odd.facts
    assert not conductor.report(odd, SQL)
    conductor.report(fleet.report(1, boot="after"), SQL)
    assert conductor.report(fleet.report(1, 7, boot=SQL), SQL) is False


@pytest.mark.parametrize("created", [0, 1, 2**63, 2**64 - 1])
def test_no_clock_decides(conductor: Fleet, created: int) -> None:
    """Reports from the future, and from the beginning of time, are put in order by boot and sequence."""
    seen = replace(fleet.fact("x86_64"), observed=created)
    first = replace(fleet.with_facts(fleet.report(1), arch=seen), created=created)
    conductor.report(first)
    conductor.report(fleet.report(1, 2, memory_gib=64))
    assert not conductor.report(replace(first, sequence=1))
    (host,) = conductor.aggregates.hosts()
    assert (host.sequence, "big" in host.aggregates) == (2, True)
    assert conductor.tally.lag >= 0


def test_a_sequence_beyond_all_counts_is_its_hosts_own_trouble(conductor: Fleet) -> None:
    conductor.report(fleet.report(1, 2**63 - 1))
    assert not conductor.report(fleet.report(1, 2, memory_gib=64))
    assert conductor.report(fleet.report(1, 1, boot="next", memory_gib=64))
    conductor.report(fleet.report(2))
    assert conductor.aggregates.show("big").hosts == ["node1"]
