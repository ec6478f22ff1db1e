"""The conductor's interfaces as callers meet them: through dispatch, in memory."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

import fleet
from libmh.api.aggregates import Aggregates, Reports, Zone
from libmh.call import Request
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotFound, Problem
from libmh.events import Event
from libmh.remote import BlockingConnection
from libmh.spec import Plain, interface_of
from libmh.testing import conforming, loopback, unanswered
from libmh.wire import dump
from mh_conductor import hosts
from mh_conductor.governing import tell
from mh_conductor.intake import Intake
from mh_conductor.records import REPORT
from mh_conductor.reporting import ReportIntake
from mh_conductor.service import FleetAggregates
from mh_conductor.store import Store, open_store
from mh_conductor.tables import AGGREGATES, MEMBERS, VALUES


@dataclass
class Fleet:
    """A conductor in memory: what callers call, and the events that it raised."""

    store: Store
    intake: Intake
    connection: BlockingConnection
    aggregates: Aggregates
    reports: Reports
    events: list[Event] = field(default_factory=list)


@pytest.fixture
def conductor(store_url: str) -> Iterator[Fleet]:
    store, rules, context = open_store(store_url), fleet.rules(), Context()
    intake = Intake(store, rules)
    connection = loopback(
        ReportIntake(intake, context.events),
        FleetAggregates(store, rules, context.events),
        context=context,
    )
    with connection:
        made = Fleet(
            store,
            intake,
            connection,
            connection.proxy(Aggregates),
            connection.proxy(Reports),
        )
        context.events.subscribe(made.events.append)
        yield made
    store.close()


def test_everything_declared_is_answered(conductor: Fleet) -> None:
    assert unanswered(ReportIntake) == []
    assert unanswered(FleetAggregates) == []
    assert conforming(FleetAggregates(conductor.store, fleet.rules())) == {"generation": 0}


def test_a_report_makes_aggregates(conductor: Fleet) -> None:
    accepted = conductor.reports.report(fleet.report(memory_gib=64))
    assert (accepted.generation, accepted.changed) == (1, True)
    assert accepted.aggregates == ["arch-x86_64", "avx512", "big"]
    found = {each.name: each for each in conductor.aggregates.list_aggregates()}
    assert found["arch-x86_64"].metadata == {"arch": "x86_64"}
    assert found["avx512"].owner == "avx512"
    assert [each.hosts for each in found.values()] == [["node1"]] * 3
    assert conductor.aggregates.generation() == 1 + 3 + 3 + 2


def test_an_aggregate_is_found_by_name_id_or_uuid(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    by_name = conductor.aggregates.show("avx512")
    assert conductor.aggregates.show(by_name.uuid) == by_name
    assert conductor.aggregates.show(str(by_name.id)) == by_name
    assert (by_name.created, by_name.generation) == (by_name.updated, 3)


@pytest.mark.parametrize("name", ["", "nope", "0", "-1", "9" * 30, "²", "'; DROP TABLE hosts; --"])
def test_an_unknown_aggregate_is_not_found(conductor: Fleet, name: str) -> None:
    conductor.reports.report(fleet.report())
    with pytest.raises(NotFound, match=r"Aggregate .* could not be found"):
        conductor.aggregates.show(name)


def test_the_inventory_tells_hosts(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report(2))
    conductor.reports.report(fleet.report(1, traits=("HW_CPU_X86_AVX2",)))
    first, second = conductor.aggregates.hosts()
    assert (first.hostname, second.hostname) == ("node1", "node2")
    assert (first.uuid, first.facts, first.traits, first.sequence) == (fleet.uuid_of(1), 3, 1, 1)
    assert first.aggregates == ["arch-x86_64", "avx512"]
    assert first.first_seen == first.last_seen


@pytest.mark.parametrize("host", ["node1", fleet.uuid_of(1)])
def test_the_last_report_is_kept_whole(conductor: Fleet, host: str) -> None:
    conductor.reports.report(fleet.report())
    last = fleet.report(sequence=2, extra={"a": [1, 2.5, None, {"b": "ü"}]}, nothing=None)
    conductor.reports.report(last)
    assert conductor.aggregates.report(host) == last


def test_a_name_of_two_hosts_is_ambiguous(conductor: Fleet) -> None:
    for number in (1, 2):
        conductor.reports.report(fleet.report(number, hostname="twin"))
    with pytest.raises(InvalidArguments, match=f"{fleet.uuid_of(1)}, {fleet.uuid_of(2)}"):
        conductor.aggregates.report("twin")
    assert conductor.aggregates.report(fleet.uuid_of(2)).hostname == "twin"
    with pytest.raises(NotFound, match="no host 'nope' has reported"):
        conductor.aggregates.why("nope", "")


def why(conductor: Fleet, name: str) -> list[tuple[str, str, bool]]:
    shown = conductor.aggregates.why("node1", name)
    return [(each.fact, each.requirement, each.matched) for each in shown]


def test_why_a_host_is_a_member(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    (shown,) = conductor.aggregates.why("node1", "avx512")
    assert shown.reason == "cpu_flags has 'avx512f', seen 2023-11-14 22:13:20 UTC"
    assert (shown.seen, shown.source, shown.observed) == (["aes", "avx512f"], "source", fleet.SEEN)
    assert why(conductor, "") == [("arch", "x86_64", True), ("cpu_flags", "<in> avx512f", True)]


def test_evidence_is_of_the_last_change(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    conductor.reports.report(fleet.report(sequence=2, cpu_flags=["avx512f"]))
    (shown,) = conductor.aggregates.why("node1", "avx512")
    assert shown.seen == ["avx512f"]


def test_why_a_host_is_no_member(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report(2, memory_gib=64, arch="aarch64"))
    conductor.reports.report(fleet.report(1))
    assert why(conductor, "big") == [("memory_gib", ">= 64", False)]
    assert why(conductor, "arch-aarch64") == [("arch", "aarch64", False)]
    (shown,) = conductor.aggregates.why("node1", "arch-aarch64")
    assert shown.reason.startswith("arch is 'x86_64', not 'aarch64', seen")


def test_why_nobody_is_a_member_yet(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    assert why(conductor, "big") == [("memory_gib", ">= 64", False)]
    with pytest.raises(NotFound, match="Aggregate arch-vax could not be found"):
        conductor.aggregates.why("node1", "arch-vax")


def by_hand(store: Store, name: str, zone: str = "") -> None:
    """What a person makes: nothing of it carries a rule's mark."""
    with store.write() as connection:
        row = {"uuid": name, "name": name, "binding": "{}", "created": 1, "updated": 1, "generation": 1}
        made = connection.execute(insert(AGGREGATES).returning(AGGREGATES.c.id), row).scalar_one()
        connection.execute(
            insert(MEMBERS), {"aggregate": made, "host": fleet.uuid_of(1), "owner": None, "evidence": "[]"}
        )
        if zone:
            value = {"aggregate": made, "key": "availability_zone", "value": zone, "owner": None}
            connection.execute(insert(VALUES), value)


def test_what_was_made_by_hand_is_shown_as_such(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    conductor.reports.report(fleet.report(2))
    by_hand(conductor.store, "mine", zone="az1")
    shown = conductor.aggregates.show("mine")
    assert (shown.owner, shown.availability_zone, shown.hosts) == (None, "az1", ["node1"])
    assert conductor.aggregates.why("node1", "mine")[0].reason == "the host was added by hand to 'mine'"
    assert "was made by hand" in conductor.aggregates.why("node2", "mine")[0].reason
    conductor.reports.report(fleet.report(1, 2, cpu_flags=[], arch="aarch64"))
    assert conductor.aggregates.show("mine") == shown


NEAR = '[[rule]]\nname = "near"\naggregate = "near"\nrequirements = { arch = "x86_64" }\nzone = "az1"\n'


def test_a_refusal_is_told_by_why(tmp_path: Path) -> None:
    store, rules = fleet.new_store(tmp_path), fleet.rules(NEAR)
    intake, aggregates = Intake(store, rules), FleetAggregates(store, rules)
    intake.take(fleet.report(1, arch="none yet"))
    intake.take(fleet.report(2))
    by_hand(store, "mine", zone="az9")
    assert intake.take(fleet.report(1, 2)).accepted.aggregates == ["mine"]
    requirement, refusal = aggregates.why("node1", "near")
    assert requirement.matched
    assert not refusal.matched
    assert refusal.reason == "the host is in zone 'az9' already, not in 'az1'"


def test_events_tell_what_changed_once(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    changes = [
        (event.member, event.fields.get("change"), event.fields.get("aggregate"))
        for event in conductor.events
    ]
    assert changes == [
        ("host_changed", None, None),
        ("aggregate_changed", "created", "arch-x86_64"),
        ("aggregate_changed", "metadata", "arch-x86_64"),
        ("aggregate_changed", "host-added", "arch-x86_64"),
        ("aggregate_changed", "created", "avx512"),
        ("aggregate_changed", "metadata", "avx512"),
        ("aggregate_changed", "host-added", "avx512"),
    ]
    assert conductor.events[3].fields["host"] == "node1"
    assert "because arch is 'x86_64'" in str(conductor.events[3].fields["why"])
    conductor.events.clear()
    conductor.reports.report(fleet.report())
    conductor.reports.report(fleet.report(sequence=2))
    assert conductor.events == []


def test_new_rules_are_announced(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report())
    context = Context()
    seen: list[Event] = []
    context.events.subscribe(seen.append)
    tell(context.events, fleet.bring(conductor.store, ""))
    assert sorted(str(event.fields["change"]) for event in seen) == ["deleted"] * 2 + ["host-removed"] * 2


GOOD = dump(REPORT, fleet.report(), "report")
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nonsense_is_refused_by_name_and_leaves_no_trace(conductor: Fleet, data: st.DataObject) -> None:
    assert isinstance(GOOD, dict)
    name = data.draw(st.sampled_from(sorted(GOOD)))
    report: dict[str, Plain] = {**GOOD, name: data.draw(plain), "uuid": "spoilt"}
    with pytest.raises(InvalidArguments) as caught:
        conductor.connection.request(Request(interface_of(Reports).name, "report", arguments=[report]))
    assert caught.value.details["argument"].startswith("report")
    assert conductor.aggregates.hosts() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["show", "why", "report"]), st.text(), st.text())
def test_any_name_is_answered(conductor: Fleet, member: str, first: str, second: str) -> None:
    arguments: list[Plain] = [first, second] if member == "why" else [first]
    with pytest.raises(Problem) as caught:
        conductor.connection.request(Request(interface_of(Aggregates).name, member, arguments=arguments))
    assert caught.value.word in ("not-found", "invalid-arguments")


def test_hosts_are_selected_by_what_they_reported(conductor: Fleet) -> None:
    for number, memory in ((1, 8), (2, 64), (3, 128)):
        conductor.reports.report(fleet.report(number, memory_gib=memory, traits=("HW_CPU_X86_AVX2",)))

    def selected(*where: str) -> list[str]:
        return [each.hostname for each in conductor.aggregates.select(list(where)).hosts]

    assert selected() == ["node1", "node2", "node3"]
    assert selected("memory_gib=>= 64") == ["node2", "node3"]
    assert selected("memory_gib=>= 64", "hostname=<or> node1 <or> node3") == ["node3"]
    assert selected("traits=<in> HW_CPU_X86_AVX2", f"uuid={fleet.uuid_of(2)}") == ["node2"]
    assert selected("no_such_fact=!= 1") == []
    assert conductor.aggregates.select([]).hosts[0].uuid == fleet.uuid_of(1)
    assert conductor.aggregates.select([]).hosts[0].last_seen == conductor.aggregates.hosts()[0].last_seen
    for wrong in ("memory_gib", "memory_gib=", "=8", "memory_gib=>=64", "memory_gib=> 64"):
        with pytest.raises(InvalidArguments, match="where: "):
            conductor.aggregates.select([wrong])


def test_fields_of_a_newer_peer_are_kept(conductor: Fleet) -> None:
    assert isinstance(GOOD, dict)
    assert isinstance(GOOD["facts"], dict)
    arch = {**GOOD["facts"]["arch"], "confidence": 0.5}
    newer = {**GOOD, "mood": {"of": ["the", "future", None]}, "facts": {**GOOD["facts"], "arch": arch}}
    conductor.connection.request(Request(interface_of(Reports).name, "report", arguments=[newer]))
    with conductor.store.read() as connection:
        kept = json.loads(hosts.report_text(connection, fleet.uuid_of(1)))
    assert (kept["mood"], kept["facts"]["arch"]["confidence"]) == ({"of": ["the", "future", None]}, 0.5)
    assert dump(REPORT, conductor.aggregates.report("node1"), "report") == GOOD
    assert conductor.aggregates.show("arch-x86_64").hosts == ["node1"]


@pytest.mark.parametrize(
    "odd", [{"mood": float("nan")}, {"mood": "\0"}, {"mood": "x" * 70_000}, {"mood": [[[]]] * 300_000}]
)
def test_nonsense_in_unknown_fields_is_refused(conductor: Fleet, odd: dict[str, Plain]) -> None:
    assert isinstance(GOOD, dict)
    with pytest.raises(InvalidArguments, match="report"):
        conductor.connection.request(
            Request(interface_of(Reports).name, "report", arguments=[{**GOOD, **odd}])
        )
    assert conductor.aggregates.hosts() == []


def test_a_request_that_comes_to_two_processes_is_carried_out_once(conductor: Fleet) -> None:
    editing = Request(interface_of(Aggregates).name, "create", arguments=["mine"])
    conductor.connection.request(editing)
    with pytest.raises(Conflict, match="carried out already"):
        conductor.connection.request(replace(editing))
    with pytest.raises(Conflict, match="already exists"):
        conductor.connection.request(replace(editing, id="x" * 40))
    # counted by two callers
    conductor.connection.request(replace(editing, arguments=["first"], id="1"))
    conductor.connection.request(replace(editing, arguments=["second"], id="1"))
    names = [each.name for each in conductor.aggregates.list_aggregates()]
    assert names == ["first", "mine", "second"]


def test_people_edit_through_the_interface(conductor: Fleet) -> None:
    conductor.reports.report(fleet.report(arch=None, cpu_flags=[]))
    conductor.events.clear()
    aggregates = conductor.aggregates
    made = aggregates.create("mine", "az1")
    assert aggregates.set_metadata("mine", {"a": "1", "b": "2"}).metadata.keys() > {"a", "b"}
    left = aggregates.set_metadata("mine", {"a": "3"}, ["b", "never"])
    assert left.metadata == {"a": "3", "availability_zone": "az1"}
    assert aggregates.add_host("mine", "node1", left.generation).hosts == ["node1"]
    assert aggregates.update("mine", "yours", "az2").availability_zone == "az2"
    assert aggregates.update("yours").name == "yours"
    assert aggregates.rename(str(made.id), "mine").name == "mine"
    assert aggregates.zones() == [Zone("az2", available=True, hosts={"node1": True}, aggregates=["mine"])]
    with pytest.raises(Conflict, match="is of generation"):
        aggregates.remove_host("mine", "node1", 1)
    with pytest.raises(NotFound, match="Cannot remove host nope in aggregate mine"):
        aggregates.remove_host("mine", "nope")
    assert aggregates.remove_host("mine", "node1").hosts == []
    assert aggregates.delete("mine")
    told = [str(event.fields["change"]) for event in conductor.events]
    assert told == [
        *("created", "metadata", "metadata", "host-added", "renamed", "metadata", "renamed"),
        *("host-removed", "deleted"),
    ]
    entries = aggregates.history("mine", limit=3)
    assert [each.change for each in entries] == ["deleted", "host-removed", "renamed"]
    assert aggregates.history(host="node1")[0].who == entries[0].who != ""


def test_flavors_through_the_interface(conductor: Fleet) -> None:
    aggregates = conductor.aggregates
    made = aggregates.create_flavor("small", 2, 512, 1, {"a": "1"}, "7", "words", 3, 4, False, 0.5)
    assert (made.id, made.name, made.vcpus, made.ram, made.disk) == ("7", "small", 2, 512, 1)
    assert (made.ephemeral, made.swap, made.public, made.rxtx_factor) == (3, 4, False, 0.5)
    assert aggregates.flavors() == [made] == [aggregates.flavor("small")]
    assert aggregates.set_extra_specs("7", {"b": "2"}, ["a"]).extra_specs == {"b": "2"}
    assert aggregates.describe_flavor("7", None).description is None
    assert aggregates.delete_flavor("7")
    assert aggregates.flavors() == []


def test_the_inventory_comes_in_pages(conductor: Fleet) -> None:
    for number in range(5):
        conductor.reports.report(fleet.report(number))
    every = conductor.aggregates.hosts()
    first = conductor.aggregates.hosts("", 2)
    second = conductor.aggregates.hosts(first[-1].uuid, 2)
    assert [*first, *second, *conductor.aggregates.hosts(second[-1].uuid)] == every
    with pytest.raises(NotFound):
        conductor.aggregates.hosts("nobody", 2)
