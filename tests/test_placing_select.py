"""Where something fits: asked of a conductor, over hosts that reported and aggregates that people made."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

import fleet
from libmh.api.aggregates import Aggregates
from libmh.api.placement import Flavor, Selection
from libmh.context import Context
from libmh.errors import InvalidArguments, NotFound
from libmh.match import OPERATORS
from libmh.match.extra_specs import asked
from libmh.remote import BlockingConnection
from libmh.selection import where
from libmh.spec import Plain
from libmh.testing import loopback
from mh_conductor import registry
from mh_conductor.filters import FILTERS, WHERE, Question
from mh_conductor.intake import Intake
from mh_conductor.inventory import Group, Inventory, Known, Snapshot
from mh_conductor.placing import Placing, answer
from mh_conductor.policies import SHIPPED, policies
from mh_conductor.service import FleetAggregates
from mh_conductor.store import Store, open_store
from mh_conductor.tables import FLEET, HOSTS

SCOPE = "aggregate_instance_extra_specs:"


@dataclass
class Fleet:
    """A conductor in memory, with four hosts; node4 is small and has no avx512f."""

    url: str
    store: Store
    intake: Intake
    aggregates: Aggregates
    sequence: dict[int, int] = field(default_factory=dict)

    def report(
        self, number: int, traits: tuple[str, ...] = (), load: float | None = None, **told: object
    ) -> None:
        self.sequence[number] = self.sequence.get(number, 0) + 1
        made = fleet.report(number, self.sequence[number], traits=traits, **told)  # type: ignore[arg-type]
        metrics = None if load is None else {"load_1m": load, "cpu_utilization": load / 10}
        self.intake.take(replace(made, metrics=metrics))

    def aggregate(self, name: str, *numbers: int, zone: str = "", **metadata: str) -> None:
        self.aggregates.create(name, zone)
        self.aggregates.set_metadata(name, metadata)
        for number in numbers:
            self.aggregates.add_host(name, f"node{number}")

    def select(
        self, *requirements: str, specs: Mapping[str, str] | None = None, **asked_for: object
    ) -> Selection:
        if specs is not None:
            self.aggregates.create_flavor("asked", extra_specs=dict(specs))
            asked_for["flavor"] = "asked"
        try:
            return self.aggregates.select(list(requirements), **asked_for)  # type: ignore[arg-type]
        finally:
            if specs is not None:
                self.aggregates.delete_flavor("asked")


@pytest.fixture
def conductor(store_url: str) -> Iterator[Fleet]:
    store, rules, context = open_store(store_url), fleet.rules(), Context()
    connection: BlockingConnection = loopback(FleetAggregates(store, rules, context.events), context=context)
    with connection:
        made = Fleet(store_url, store, Intake(store, rules), connection.proxy(Aggregates))
        for number in (3, 1, 2):
            made.report(number, ("HW_CPU_X86_AVX512F",))
        made.report(4, ("HW_CPU_X86_AVX2",), cpu_flags=["aes"], cpu_count=2, memory=4_000_000)
        yield made
    store.close()


def names(selection: Selection) -> list[str]:
    return [host.hostname for host in selection.hosts]


def reasons(selection: Selection) -> dict[str, tuple[str, str]]:
    return {each.hostname: (each.filter, each.reason) for each in selection.rejected or ()}


def test_without_any_question_every_host_fits_by_name(conductor: Fleet) -> None:
    found = conductor.select()
    assert names(found) == ["node1", "node2", "node3", "node4"]
    assert (found.considered, found.policy, found.rejected) == (4, "default", None)
    assert found.generation == conductor.aggregates.generation()
    assert {host.zone for host in found.hosts} == {"nova"}


def test_the_tour(conductor: Fleet) -> None:
    conductor.aggregate("fast", 2, coolhardware="true")
    found = conductor.select(specs={f"{SCOPE}coolhardware": "true"}, rejected=True)
    assert names(found) == ["node2"]
    assert reasons(found)["node1"] == (
        "aggregates",
        "no aggregate of the host has the metadata 'coolhardware'",
    )
    assert found.warnings == []
    conductor.aggregates.add_host("fast", "node1")
    assert names(conductor.select(specs={f"{SCOPE}coolhardware": "true"})) == ["node1", "node2"]
    conductor.aggregates.remove_host("fast", "node2")
    assert names(conductor.select(specs={f"{SCOPE}coolhardware": "true"})) == ["node1"]
    conductor.aggregates.remove_host("fast", "node1")
    conductor.aggregates.delete("fast")
    assert names(conductor.select(specs={f"{SCOPE}coolhardware": "true"})) == []


ASKED: Sequence[tuple[list[str], dict[str, str], list[str], str]] = (
    (["cpu_flags=<in> avx512f"], {}, ["node1", "node2", "node3"], "where"),
    (["hostname=<or> node1 <or> node4"], {}, ["node1", "node4"], "where"),
    (["traits=<in> HW_CPU_X86_AVX2"], {}, ["node4"], "where"),
    ([f"uuid={fleet.uuid_of(3)}"], {}, ["node3"], "where"),
    ([], {"trait:HW_CPU_X86_AVX512F": "required"}, ["node1", "node2", "node3"], "traits"),
    ([], {"trait:HW_CPU_X86_AVX512F": "forbidden"}, ["node4"], "traits"),
    ([], {"capabilities:cpu_flags": "<in> avx512f"}, ["node1", "node2", "node3"], "capabilities"),
    ([], {"capabilities:cpu_info:arch": "aarch64"}, [], "capabilities"),
    (
        [],
        {f"{SCOPE}arch": "x86_64", f"{SCOPE}cpu_avx512": "true"},
        ["node1", "node2", "node3"],
        "aggregates",
    ),
    ([], {"capabilities:cpu_count": "<= 4"}, ["node4"], "capabilities"),
)


def test_what_is_asked(conductor: Fleet) -> None:
    for requirements, specs, fit, by in ASKED:
        found = conductor.select(*requirements, specs=specs, rejected=True)
        assert names(found) == fit, (requirements, specs)
        rejected = reasons(found)
        assert set(rejected) == {"node1", "node2", "node3", "node4"} - set(fit)
        assert {filter_ for filter_, _ in rejected.values()} == {by}
        assert all(reason for _, reason in rejected.values())


def test_zones_projects_and_sizes(conductor: Fleet) -> None:
    conductor.aggregate("one", 1, 4, zone="az1")
    conductor.aggregate("theirs", 1, filter_tenant_id="p1,p2")
    assert names(conductor.select(zone="az1", project="p1")) == ["node1", "node4"]
    assert names(conductor.select(zone="az1")) == ["node4"]
    assert names(conductor.select(zone="nova")) == ["node2", "node3"]
    assert reasons(conductor.select(project="p3", rejected=True))["node1"] == (
        "project",
        "the host is for 'p1', 'p2' only, and project 'p3' asks",
    )
    assert {host.hostname: host.zone for host in conductor.select(project="p1").hosts}["node4"] == "az1"
    conductor.aggregates.create_flavor("large", vcpus=4, ram=1024)
    assert reasons(conductor.select(flavor="large", project="p1", rejected=True)) == {
        "node4": ("size", "the host has 2 processors, 4 are asked for")
    }


def test_weights_put_the_best_first(conductor: Fleet) -> None:
    for number, load in ((1, 4.0), (2, 1.0), (3, 2.0)):
        conductor.report(number, ("HW_CPU_X86_AVX512F",), load=load)
    found = conductor.select("traits=<in> HW_CPU_X86_AVX512F")
    assert names(found) == ["node2", "node3", "node1"]
    assert names(conductor.select("traits=<in> HW_CPU_X86_AVX512F", policy="packed")) == [
        "node1",
        "node3",
        "node2",
    ]
    best = found.hosts[0]
    assert [(each.weigher, each.raw, each.normalized, each.multiplier) for each in best.weights or ()] == [
        ("cpu", 0.9, 1.0, 1.0),
        ("load", -1.0, 1.0, 1.0),
    ]
    assert best.weight == 2.0
    # a host that does not tell is the last, whichever way
    assert names(conductor.select())[-1] == "node4"
    assert names(conductor.select(policy="packed"))[-1] == "node4"
    assert names(conductor.select(limit=1)) == ["node2"]


def test_an_aggregate_changes_what_counts(conductor: Fleet) -> None:
    for number, load in ((1, 4.0), (2, 1.0), (3, 2.0)):
        conductor.report(number, ("HW_CPU_X86_AVX512F",), load=load)
    conductor.aggregate("favoured", 3, load_weight_multiplier="10")
    conductor.aggregate("less", 3, load_weight_multiplier="5.5")
    found = conductor.select("traits=<in> HW_CPU_X86_AVX512F")
    assert names(found)[0] == "node3"
    assert [each.multiplier for each in found.hosts[0].weights or ()] == [1.0, 5.5]


def test_hints(conductor: Fleet) -> None:
    conductor.aggregate("linux", 1, 2, os_type="linux,bsd")
    assert names(conductor.select(hints={"hosts": f"node1, {fleet.uuid_of(2)}"})) == ["node1", "node2"]
    assert names(conductor.select(hints={"not_hosts": "node1"})) == ["node2", "node3", "node4"]
    assert names(conductor.select(hints={"image": "os_type=windows,x=y"})) == ["node3", "node4"]
    with pytest.raises(InvalidArguments, match="does not understand 'host': did you mean 'hosts'"):
        conductor.select(hints={"host": "node1"})
    with pytest.raises(InvalidArguments, match="'inventory' does not understand 'image'"):
        conductor.select(hints={"image": "a=b"}, policy="inventory")


NOWHERE: Sequence[tuple[list[str], dict[str, str], dict[str, str], str]] = (
    ([], {f"{SCOPE}acrh": "x86_64"}, {}, "no aggregate has the metadata 'acrh': did you mean 'arch'?"),
    (
        [],
        {f"{SCOPE}arch": "x86-64"},
        {},
        f"no aggregate fulfils {SCOPE}arch = 'x86-64': did you mean 'x86_64'?; there is 'x86_64'",
    ),
    ([], {"trait:HW_CPU_X86_AVX512": "required"}, {}, "did you mean 'HW_CPU_X86_AVX512F'?"),
    ([], {f"{SCOPE}n": "= 8"}, {}, "write '>=', or '==' for equality"),
    ([], {"ssd": "true"}, {}, "has no scope"),
    ([], {}, {"zone": "az2"}, "no host is in a zone 'az2': did you mean 'az1'?"),
    (["cpu_falgs=<in> aes"], {}, {}, "no host reports 'cpu_falgs': did you mean 'cpu_flags'?"),
)


def test_what_is_nowhere_is_said(conductor: Fleet) -> None:
    conductor.aggregate("zoned", 1, zone="az1")
    for requirements, specs, asked_for, says in NOWHERE:
        found = conductor.select(*requirements, specs=specs, **asked_for)
        assert any(says in each for each in found.warnings), (says, found.warnings)


def test_any_number_may_ask_while_it_changes(conductor: Fleet) -> None:
    stop, seen = threading.Event(), []

    def ask() -> None:
        last, over = 0, False
        while not over:
            over = stop.is_set()
            found = conductor.select()
            seen.append(found.generation >= last and len(found.hosts) == found.considered)
            last = found.generation

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5, 25):
        conductor.report(number)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert len(seen) >= len(threads)
    assert all(seen)
    assert len(conductor.select().hosts) == 24


def test_what_is_not_there_is_refused(conductor: Fleet) -> None:
    with pytest.raises(NotFound, match="there is no policy 'defalt': did you mean 'default'"):
        conductor.select(policy="defalt")
    with pytest.raises(NotFound, match="Flavor x could not be found"):
        conductor.select(flavor="x")
    with pytest.raises(InvalidArguments, match="write '>='"):
        conductor.select("cpu_count== 8")


def test_policies_tell_what_they_understand(conductor: Fleet) -> None:
    known = {policy.name: policy for policy in conductor.aggregates.policies()}
    assert list(known) == ["default", "inventory", "packed"]
    assert known["default"].weighers == {"cpu": 1.0, "load": 1.0, "ram": 1.0}
    assert [hint.name for hint in known["default"].hints] == ["image", "hosts", "not_hosts"]


def test_policies_are_configured(conductor: Fleet) -> None:
    config = {
        "policy": {"loose": {"filters": ["zone"], "weighers": {"ram": 2}, "description": "d"}, "same": {}}
    }
    placing = Placing(conductor.store, policies(config))
    assert [policy.name for policy in placing.policies()] == [
        "default",
        "inventory",
        "loose",
        "packed",
        "same",
    ]
    loose = next(policy for policy in placing.policies() if policy.name == "loose")
    assert (loose.filters, loose.weighers, loose.description) == (["zone"], {"ram": 2.0}, "d")
    conductor.aggregates.create_flavor("huge", vcpus=1000)
    assert len(placing.select([], "huge", policy="loose").hosts) == 4
    assert [host.hostname for host in placing.select([], "huge", policy="same").hosts] == [
        "node1",
        "node2",
        "node3",
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (3, "expected tables"),
        ({"a": 3}, "expected tables"),
        ({"a": {"filter": []}}, "unknown key 'filter'"),
        ({"a": {"filters": ["trait"]}}, "there is no filter 'trait': did you mean 'traits'"),
        ({"a": {"filters": ["zone", "zone"]}}, "each once"),
        ({"a": {"filters": [[]]}}, "there is no filter"),
        ({"a": {"weighers": {"rum": 1}}}, "there is no weigher 'rum'"),
        ({"a": {"weighers": {"ram": "1"}}}, "expected a number, got '1'"),
        ({"a": {"weighers": {"ram": float("inf")}}}, "expected a number"),
        ({"a": {"weighers": {"ram": float("nan")}}}, "expected a number"),
        ({"a": {"weighers": {"ram": 1.7e308}}}, "expected a number"),
        ({"a": {"weighers": []}}, "expected multipliers"),
        ({"a": {"description": 3}}, "expected at most"),
        ({" a": {}}, "no blank at either end"),
        ({str(number): {} for number in range(101)}, "at most 100"),
    ],
)
def test_policies_that_cannot_be(table: object, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says):
        policies({"policy": table})


def test_silent_and_registered_hosts_are_not_chosen(conductor: Fleet) -> None:
    with conductor.store.write() as connection:
        connection.execute(update(HOSTS).where(HOSTS.c.hostname == "node2").values(state="silent"))
        registry.advance(connection, 1, hosts=[fleet.uuid_of(2)])
    found = conductor.select(rejected=True)
    assert names(found) == ["node1", "node3", "node4"]
    assert reasons(found) == {"node2": ("state", "the host's reports have stopped")}
    assert names(conductor.select(policy="inventory")) == ["node1", "node2", "node3", "node4"]


def test_what_another_process_writes_is_seen_at_once(conductor: Fleet) -> None:
    inventory = Inventory(conductor.store)
    before = inventory.current()
    assert inventory.current() is before
    other = open_store(conductor.url)
    try:
        assert Inventory(other).current() == before
        Intake(other, fleet.rules()).take(fleet.report(5, hostname="anode"))
        after = inventory.current()
        assert [host.hostname for host in after.hosts.values()] == [
            "anode",
            "node1",
            "node2",
            "node3",
            "node4",
        ]
        assert after.hosts[fleet.uuid_of(1)] is before.hosts[fleet.uuid_of(1)]
        # what tells nothing new has no generation, and is seen all the same
        told = replace(fleet.report(5, 2, hostname="anode"), metrics={"load_1m": 3.5})
        Intake(other, fleet.rules()).take(told)
        measured = inventory.current()
        assert measured.generation == after.generation
        assert measured.hosts[fleet.uuid_of(5)].raws == (None, None, -3.5)
        assert measured == Inventory(other).current()
    finally:
        other.close()


def test_an_answer_has_an_end(conductor: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_conductor.placing.MAX_ANSWER", 800)
    long = "x" * 900
    found = conductor.select(f"hostname={long}", f"{long}=1", rejected=True)
    assert [each.hostname for each in found.rejected or ()] == ["node1", "node2"]
    assert found.warnings[-1] == "4 hosts do not fit, and an answer has room for 2 of them"


def test_no_host_spoils_the_order_of_all(conductor: Fleet) -> None:
    """What is too large for sums is no measure, and no multiplier."""
    for number, load in ((1, 1.7e308), (2, -1.7e308), (3, 2.0), (4, 1.0)):
        conductor.report(number, load=load)
    most = {f"{name}_weight_multiplier": "1.7e308" for name in ("cpu", "load")}
    conductor.aggregate("all", 1, 2, 3, 4, **most)
    found = conductor.select().hosts
    assert [host.hostname for host in found] == ["node4", "node3", "node1", "node2"]
    assert all(isfinite(host.weight) for host in found)
    assert all(isfinite(each.raw * each.normalized) for host in found for each in host.weights or ())


def test_a_store_that_was_put_back_is_read_anew(conductor: Fleet) -> None:
    inventory = Inventory(conductor.store)
    before = inventory.current()
    with conductor.store.write() as connection:  # as it was, of an older generation
        connection.execute(update(HOSTS).values(stamp=1))
        connection.execute(update(HOSTS).where(HOSTS.c.hostname == "node2").values(hostname="was2"))
        connection.execute(update(FLEET).values(generation=before.generation - 1))
    after = inventory.current()
    assert [host.hostname for host in after.hosts.values()] == ["node1", "node3", "node4", "was2"]
    assert after == Inventory(conductor.store).current()


def test_what_is_measured_is_seen_although_the_clock_was_put_back(conductor: Fleet) -> None:
    inventory = Inventory(conductor.store)
    ahead = time.time_ns() + 3600 * 10**9
    with conductor.store.write() as connection:
        connection.execute(update(HOSTS).values(last_seen=ahead))
    inventory.current()
    with conductor.store.write() as connection:  # as who looks for silent hosts mends it
        connection.execute(update(HOSTS).values(last_seen=ahead - 3600 * 10**9))
        mine = update(HOSTS).where(HOSTS.c.uuid == fleet.uuid_of(1))
        connection.execute(mine.values(metrics='{"load_1m": 3.5}'))
    measured = inventory.current()
    assert measured.hosts[fleet.uuid_of(1)].raws == (None, None, -3.5)
    assert measured == Inventory(conductor.store).current()


def test_what_hosts_no_longer_report_is_forgotten(conductor: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_conductor.inventory.MAX_SHARED_TEXT", 100_000)
    inventory = Inventory(conductor.store)
    for number in range(8):
        conductor.report(1, blob=f"{number}" * 40_000, many=[f"{number}" * 20_000])
        assert inventory.current().hosts[fleet.uuid_of(1)].facts["blob"] == f"{number}" * 40_000
    assert sum(len(each) for each in inventory._shared if isinstance(each, str)) < 200_000


# the bulk and the single answer are the same

KEYS = ("ssd", "availability_zone", "filter_tenant_id", "trait:CUSTOM_A", "os_type")
VALUES = ("true", "false", "az1", "p1,p2", "required", "8", "a, b")
texts = st.sampled_from(VALUES) | st.builds(
    " ".join, st.lists(st.sampled_from((*OPERATORS, *VALUES)), min_size=1)
)
UUIDS = [fleet.uuid_of(number) for number in range(4)]
facts: "st.SearchStrategy[dict[str, Plain]]" = st.dictionaries(
    st.sampled_from(("cpu_count", "memory", "arch", "flags", "ssd")),
    st.sampled_from((8, 8.0, True, "8", "true", ["a", "b"], ["a"], 10**9, {"x": "8"})),
)
traits = st.frozensets(st.sampled_from(("CUSTOM_A", "CUSTOM_B")))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    hosts = {
        uuid: Known(
            uuid,
            f"node{at}",
            draw(st.sampled_from(("up", "silent"))),
            1,
            draw(facts),
            draw(traits),
            (None, None, None),
        )
        for at, uuid in enumerate(UUIDS)
    }
    groups = {
        number: Group(
            number,
            f"agg{number}",
            draw(st.dictionaries(st.sampled_from(KEYS), texts, max_size=3)),
            draw(st.frozensets(st.sampled_from(UUIDS))),
        )
        for number in range(draw(st.integers(0, 3)))
    }
    zones: dict[str, str] = {}
    for number, group in groups.items():
        zone = group.metadata.get("availability_zone")
        if zone and not zones.keys().isdisjoint(group.members):  # a host is in one zone only
            groups[number] = replace(group, metadata={})
        elif zone:
            zones |= dict.fromkeys(group.members, zone)
    return Snapshot(1, hosts, groups, zones)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    scopes = (SCOPE, "", "capabilities:", "trait:")
    keys = st.builds(
        lambda scope, key: scope + key,
        st.sampled_from(scopes),
        st.sampled_from(("ssd", "flags", "cpu_count", "flags:x", "CUSTOM_A", "cpu_info:arch", "none")),
    )
    specs = draw(st.dictionaries(keys, texts | st.just("forbidden"), max_size=3))
    flavor = Flavor(
        "f", "f", draw(st.sampled_from((1, 9))), draw(st.sampled_from((1, 2_000_000))), 0, specs, 0, 0, 1
    )
    requirements = draw(
        st.lists(st.sampled_from(("ssd=true", "cpu_count=>= 8", "traits=<in> CUSTOM_A", "flags=<in> a")))
    )
    return Question(
        where(requirements),
        draw(st.none() | st.just(flavor)),
        asked(specs),
        draw(st.sampled_from(("", "az1", "nova"))),
        draw(st.sampled_from((None, "p1", "p3"))),
        draw(
            st.sampled_from(
                ({}, {"hosts": ("node1", UUIDS[2])}, {"not_hosts": ("node1",), "image": ("os_type=8",)})
            )
        ),
    )


@given(snapshots(), questions())
def test_a_rejection_costs_one_requirement_whatever_else_is_asked(
    snapshot: Snapshot, question: Question
) -> None:
    """Of very many hosts and requirements, only the one that failed is put into words."""
    of = snapshot.aggregates()
    for each in (WHERE, *(FILTERS[name] for name in ("aggregates", "capabilities", "traits"))):
        for part in each.parts(question):
            for host in snapshot.hosts.values():
                assert len(each.fit(part, host, of.get(host.uuid, [])).findings) <= 1, each.name


@given(snapshots(), questions())
def test_a_filter_says_of_all_what_it_says_of_each(snapshot: Snapshot, question: Question) -> None:
    of: Mapping[str, Sequence[Mapping[str, str]]] = snapshot.aggregates()
    every = list(snapshot.hosts.values())
    for each in (WHERE, *FILTERS.values()):
        kept = each.keep(snapshot, question, every)
        single = [host for host in every if each.fit(question, host, of.get(host.uuid, []))]
        assert [host.hostname for host in kept] == [host.hostname for host in single], each.name
        left = every
        for part in each.parts(question):
            left = each.keep(snapshot, part, left)
        assert left == kept, each.name
    for policy in SHIPPED.values():
        found = answer(snapshot, question, policy, rejected=True)
        assert len(found.hosts) + len(found.rejected or ()) == found.considered == len(every)
