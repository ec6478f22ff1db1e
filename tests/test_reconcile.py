"""New rules for the whole fleet: foretold, held, approved, refused, and the same as host by host."""

import json
import random
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, literal, select

import fleet
from libmh.api.aggregates import Aggregate, CapabilityReport
from libmh.api.conductor import Step
from libmh.api.host import FactStatus
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotFound, Unavailable
from libmh.events import Event
from mh_conductor import catalogue, held, registry, rulebook
from mh_conductor.governing import Governing
from mh_conductor.intake import Intake
from mh_conductor.plan import Change, Kind
from mh_conductor.reconcile import MAX_DONE, Reconciler, told
from mh_conductor.registry import Done
from mh_conductor.rules import RuleSet
from mh_conductor.sinks.desired import desired
from mh_conductor.store import Store, open_store
from mh_conductor.tables import AGGREGATES, HISTORY, HOSTS, MEMBERS, VALUES
from waiting import wait_for

NONE = RuleSet(())
WIDE = fleet.RULES.replace(">= 64", ">= 96").replace('"avx512"', '"wide"')


def aggregates(store: Store) -> list[Aggregate]:
    with store.read() as connection:
        return catalogue.listing(connection)


def members(store: Store) -> dict[str, list[str]]:
    return {each.name: each.hosts for each in aggregates(store)}


def filled(where: Path | str, hosts: int, text: str = fleet.RULES) -> Store:
    store = open_store(where) if isinstance(where, str) else fleet.new_store(where)
    fleet.bring(store, text)
    intake = Intake(store, NONE)
    for number in range(1, hosts + 1):
        intake.take(fleet.report(number, memory_gib=32 * number))
    return store


def governing(store: Store) -> tuple[Governing, list[Event]]:
    context, seen = Context(), list[Event]()
    context.events.subscribe(seen.append)
    return Governing(store, NONE, context.events), seen


def test_a_forecast_changes_nothing_and_comes_true(store_url: str) -> None:
    store = filled(store_url, 4)
    people, _ = governing(store)
    before = aggregates(store)
    foretold = people.test_rules(WIDE)
    assert aggregates(store) == before
    assert (foretold.hosts, foretold.affected, foretold.rules, foretold.large) == (4, 4, 3, False)
    assert foretold.left == 0
    done = people.load_rules(WIDE)
    assert [(each.change, each.aggregate, each.host) for each in foretold.steps] == [
        (each.change, each.aggregate, each.host) for each in done.steps
    ]
    gone = next(each for each in foretold.steps if each.change == "host-removed" and each.aggregate == "big")
    assert gone.why.startswith("node2 is no longer in big because memory_gib is 64, not '>= 96'")
    assert members(store) == {
        "arch-x86_64": ["node1", "node2", "node3", "node4"],
        "big": ["node3", "node4"],
        "wide": ["node1", "node2", "node3", "node4"],
    }
    assert people.test_rules(WIDE).steps == []


def test_faults_are_told_with_their_lines(tmp_path: Path) -> None:
    people, _ = governing(filled(tmp_path, 1))
    text = '[[rule]]\nname = "a"\nbad = 1\n'
    for call in (people.test_rules, people.load_rules):
        with pytest.raises(InvalidArguments, match=r"rules:3: unknown key 'bad'.*rules:1: 'aggregate' is"):
            call(text)
    assert people.rules().text == fleet.RULES


def test_the_rules_in_force_are_told(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    people, _ = governing(store)
    people.load_rules(WIDE + '[[rule]]\nname = "x"\naggregate = "x"\nrequirements = { arch = ">=x" }\n')
    told_now = people.rules()
    assert told_now.digest == fleet.rules(told_now.text).digest
    assert (told_now.who, told_now.loaded > 0) == ("local local", True)
    assert "is compared as text" in told_now.warnings[0]


def large(where: Path | str) -> tuple[Store, Governing, list[Event]]:
    store = filled(where, 12)
    people, seen = governing(store)
    return store, people, seen


def test_a_large_change_waits(store_url: str) -> None:
    store, people, seen = large(store_url)
    before, generation = aggregates(store), registry_generation(store)
    assert people.test_rules(WIDE).large
    answer = people.load_rules(WIDE)
    assert (answer.large, answer.affected) == (True, 12)
    assert (aggregates(store), registry_generation(store)) == (before, generation)
    assert people.rules().text == fleet.RULES
    (waits,) = people.held()
    assert (waits.what, waits.affected, waits.hosts) == ("rules", 12, 12)
    assert waits.why == "new rules would move 12 of 12 hosts, which is more than 20% at once"
    assert [each.change for each in waits.steps] == [each.change for each in answer.steps]
    (event,) = seen
    assert (event.member, event.fields["id"], event.fields["affected"]) == ("change_held", waits.id, 12)
    assert people.approve(waits.id)
    assert people.held() == []
    assert set(members(store)) == {"arch-x86_64", "big", "wide"}
    assert people.rules().text == WIDE
    assert {event.member for event in seen[1:]} == {"aggregate_changed"}


def registry_generation(store: Store) -> int:
    with store.read() as connection:
        return registry.generation(connection)


def test_what_was_refused_is_gone(store_url: str) -> None:
    store, people, _ = large(store_url)
    before = aggregates(store)
    people.load_rules(WIDE)
    (waits,) = people.held()
    assert people.refuse(waits.id)
    assert people.held() == []
    assert aggregates(store) == before
    for call in (people.approve, people.refuse):
        with pytest.raises(NotFound, match=f"no change '{waits.id}' is held"):
            call(waits.id)
    people.load_rules(WIDE)
    assert [each.id for each in people.held()] == [waits.id]


def test_what_is_no_longer_what_was_shown_is_not_carried_out(store_url: str) -> None:
    store, people, _ = large(store_url)
    people.load_rules(WIDE)
    (waits,) = people.held()
    Intake(store, NONE).take(fleet.report(13, memory_gib=96))
    before = aggregates(store)
    with pytest.raises(Conflict, match="is no longer what was shown: it moves 13 hosts now") as caught:
        people.approve(waits.id)
    assert aggregates(store) == before
    (again,) = people.held()
    assert (again.id, again.affected) == (caught.value.details["id"], 13)
    assert people.approve(again.id)
    assert members(store)["wide"] == sorted(f"node{number}" for number in range(1, 14))


def test_new_times_of_observation_are_no_other_plan(tmp_path: Path) -> None:
    store, people, _ = large(tmp_path)
    people.load_rules(WIDE)
    later = fleet.report(1, sequence=2, memory_gib=32)
    later.facts["arch"] = fleet.fact("x86_64", FactStatus.STALE, "no answer")
    Intake(store, NONE).take(later)
    (waits,) = people.held()
    assert people.approve(waits.id)


def test_it_is_carried_out_at_once_when_it_is_approved_ahead(tmp_path: Path) -> None:
    store, people, seen = large(tmp_path)
    people.load_rules(WIDE)
    assert not people.load_rules(WIDE, approve=True).large
    assert people.held() == []
    assert "wide" in members(store)
    assert [event.member for event in seen].count("change_held") == 1


def test_a_small_share_of_many_is_not_large(tmp_path: Path) -> None:
    store, people, _ = large(tmp_path)
    assert not people.load_rules(fleet.RULES.replace(">= 64", ">= 90")).large
    assert members(store)["big"] == sorted(f"node{number}" for number in range(3, 13))


def test_how_much_is_large_is_said_by_the_rules_in_force(tmp_path: Path) -> None:
    store = filled(tmp_path, 12, "[settings]\nlarge_change = 1\n" + fleet.RULES)
    people, _ = governing(store)
    assert not people.load_rules("[settings]\nlarge_change = 0.0\n" + WIDE).large
    assert people.load_rules(fleet.RULES).large


def test_very_many_changes_are_told_by_aggregate() -> None:
    done = [
        Done(Change(Kind.HOST_ADDED, f"a{number % 3}", "r", "why", f"node{number}"), number)
        for number in range(MAX_DONE + 1)
    ]
    assert told(done[:MAX_DONE]) == tuple(done[:MAX_DONE])
    short = told(done)
    assert sorted((each.change.aggregate, each.generation) for each in short) == [
        ("a0", 9999), ("a1", 10000), ("a2", 9998)]  # fmt: skip
    assert "10001 changes" in short[0].change.why


GIVING = """
[[rule]]
name = "big"
aggregate = "big"
requirements = { memory_gib = ">= 64" }
gives = ["CUSTOM_MH_BIG", "CUSTOM_MH_ROOMY"]

[[rule]]
name = "fast"
gives = ["CUSTOM_MH_FAST"]
requirements = { cpu_flags = "<in> avx512f" }
"""


def traits(store: Store) -> dict[str, str]:
    with store.read() as connection:
        return {
            row.hostname: row.given for row in connection.execute(select(HOSTS.c.hostname, HOSTS.c.given))
        }


def test_rules_give_traits(store_url: str) -> None:
    store = filled(store_url, 2)
    assert traits(store) == {"node1": "[]", "node2": "[]"}
    people, _ = governing(store)
    foretold = people.load_rules(GIVING)
    assert [(each.change, each.host) for each in foretold.steps if "trait" in each.change] == [
        ("trait-given", "node1"),
        *[("trait-given", "node2")] * 3,
    ]
    both = '["CUSTOM_MH_BIG", "CUSTOM_MH_FAST", "CUSTOM_MH_ROOMY"]'
    assert traits(store) == {"node1": '["CUSTOM_MH_FAST"]', "node2": both}
    with store.read() as connection:
        pushed = desired(connection, "CUSTOM_MH_", aggregate_traits=False).traits
    assert pushed == {host: frozenset(json.loads(text)) for host, text in traits(store).items()}
    intake = Intake(store, NONE)
    unread = fleet.with_facts(fleet.report(2, 2), memory_gib=fleet.fact(None, FactStatus.TIMEOUT))
    intake.take(unread)
    assert traits(store)["node2"] == both
    intake.take(fleet.report(2, 3, memory_gib=8))
    assert traits(store)["node2"] == '["CUSTOM_MH_FAST"]'
    assert people.test_rules(GIVING).steps == []
    people.load_rules(fleet.RULES)
    assert traits(store) == {"node1": "[]", "node2": "[]"}
    with store.read() as connection:
        lines = connection.execute(select(HISTORY.c.why).where(HISTORY.c.change == "trait-taken")).scalars()
        said = list(lines)
    assert said[0].startswith("node2 no longer has CUSTOM_MH_BIG because memory_gib is 8, not '>= 64'")
    assert said[-1] == "node2 no longer has CUSTOM_MH_FAST because its rule is gone"


def test_only_what_a_rule_that_changed_made_gets_new_evidence(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    with store.write() as connection:
        connection.execute(MEMBERS.update().values(evidence="[]"))
    fleet.bring(store, fleet.RULES.replace(">= 64", ">= 65"))
    with store.read() as connection:
        query = select(AGGREGATES.c.name, MEMBERS.c.evidence).join(MEMBERS)
        fresh = {row.name for row in connection.execute(query) if row.evidence != "[]"}
    assert fresh == {"big"}


def by_hand(store: Store, name: str, hosts: tuple[int, ...], **values: str) -> None:
    with store.write() as connection:
        row = {"uuid": name, "name": name, "binding": "{}", "created": 1, "updated": 1, "generation": 1}
        made = connection.execute(insert(AGGREGATES).returning(AGGREGATES.c.id), row).scalar_one()
        for number in hosts:
            member = {"aggregate": made, "host": fleet.uuid_of(number), "owner": None, "evidence": "[]"}
            connection.execute(insert(MEMBERS), member)
        for key, value in values.items():
            connection.execute(
                insert(VALUES), {"aggregate": made, "key": key, "value": value, "owner": None}
            )


REPORTS = st.lists(
    st.builds(
        lambda number, arch, flags, memory, rack: fleet.report(
            number, arch=arch, cpu_flags=flags, memory_gib=memory, rack=rack
        ),
        st.integers(1, 6),
        st.sampled_from(["x86_64", "aarch64", "", None]),
        st.lists(st.sampled_from(["aes", "avx512f"])),
        st.sampled_from([8, 64, 96, "many", None]),
        st.sampled_from(["r1", "r9", None]),
    ),
    max_size=6,
    unique_by=lambda report: report.uuid,
)
RACKS = """
[[rule]]
name = "near"
aggregate = "near"
requirements = { rack = "r1" }
zone = "az1"
gives = ["CUSTOM_MH_NEAR"]

[[rule]]
name = "rack"
aggregate = "rack-{rack}"
metadata = { rack = "{rack}" }
"""
TEXTS = st.sampled_from(
    ["", fleet.RULES, WIDE, RACKS, fleet.RULES + RACKS, RACKS.replace("az1", "az2"), GIVING + RACKS]
)


def picture(store: Store) -> object:
    """Everything but ids, times and generations."""
    with store.read() as connection:
        owners = connection.execute(
            select(AGGREGATES.c.name, MEMBERS.c.host, MEMBERS.c.owner, MEMBERS.c.evidence).join(MEMBERS)
        ).all()
        values = connection.execute(
            select(AGGREGATES.c.name, VALUES.c.key, VALUES.c.value, VALUES.c.owner).join(VALUES)
        ).all()
        named = connection.execute(select(AGGREGATES.c.name, AGGREGATES.c.owner, AGGREGATES.c.binding)).all()
        given_now = connection.execute(select(HOSTS.c.uuid, HOSTS.c.given)).all()
    return [sorted(map(repr, rows)) for rows in (owners, values, named, given_now)]


SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(REPORTS, TEXTS, TEXTS, st.randoms(use_true_random=False))
def test_the_whole_is_planned_as_host_by_host(
    tmp_path_factory: pytest.TempPathFactory,
    reports: list[CapabilityReport],
    first: str,
    second: str,
    chance: random.Random,
) -> None:
    """Order does not matter, a plan of the result is empty, and what is by hand stays."""
    stores = [fleet.new_store(tmp_path_factory.mktemp("store")) for _ in range(2)]
    whole, single = stores
    for report in reports:
        Intake(whole, fleet.rules("")).take(report)
    by_hand(whole, "big", (), note="mine")
    fleet.bring(whole, first)
    fleet.bring(whole, second)
    fleet.bring(single, second)
    by_hand(single, "big", (), note="mine")
    chance.shuffle(reports)
    for report in reports:
        Intake(single, NONE).take(report)
    assert zoneless(picture(whole)) == zoneless(picture(single))
    with whole.read() as connection:
        mine = catalogue.find(connection, "big")
    assert (mine.hosts, mine.metadata, mine.generation) == ([], {"note": "mine"}, 1)
    assert not [each for each in Reconciler(whole, NONE).test(second).steps if each.change != "refused"]
    assert fleet.bring(whole, second).done == ()
    for store in stores:
        store.close()


def zoneless(shown: object) -> object:
    """A zone that an aggregate had cannot be taken from it: there the past counts. And an aggregate that a
    rule names stays when its last host leaves."""
    assert isinstance(shown, list)
    owners, values, _, given_now = shown
    used = {row.split("'")[1] for row in owners}
    return (
        owners,
        [row for row in values if "availability_zone" not in row and row.split("'")[1] in used],
        given_now,
    )


def test_hosts_and_aggregates_are_stamped(store_url: str) -> None:
    store = filled(store_url, 3)
    before = registry_generation(store)
    fleet.bring(store, fleet.RULES.replace(">= 64", ">= 65"))
    now = registry_generation(store)
    with store.read() as connection:
        hosts = connection.execute(select(HOSTS.c.hostname).where(HOSTS.c.stamp > before)).scalars().all()
        places = connection.execute(select(AGGREGATES.c.name, AGGREGATES.c.stamp)).all()
    assert hosts == ["node2"]
    assert {row.name for row in places if row.stamp > before} == {"big"}
    assert max(row.stamp for row in places) == now


def test_generations_grow_with_every_change(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    before = {each.name: each.generation for each in aggregates(store)}
    done = fleet.bring(store, fleet.RULES.replace(">= 64", ">= 999")).done
    after = {each.name: each.generation for each in aggregates(store)}
    assert after["big"] == before["big"] + 2 == max(each.generation for each in done)
    assert after["avx512"] == before["avx512"]


KILLED = """
import os, sys
import fleet
from mh_conductor import fleetstore, reconcile, registry, rulebook
from mh_conductor.store import open_store

where, url, text = sys.argv[1:]
module, name = {"write": (fleetstore.Writer, "write"), "finish": (fleetstore.Writer, "finish"),
                "rules": (rulebook, "put"), "advance": (registry, "advance")}[where]
setattr(module, name, lambda *arguments, **named: os.kill(os.getpid(), 9))
fleet.bring(open_store(url), text)
"""


@pytest.mark.parametrize("where", ["write", "finish", "rules", "advance"])
def test_killed_anywhere_leaves_the_old_rules_whole(tmp_path: Path, where: str) -> None:
    store = filled(tmp_path, 3)
    before = picture(store)
    url = f"sqlite:///{tmp_path / 'conductor.db'}"
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, where, url, WIDE],
        env={"PYTHONPATH": f"{tests}:{Path(tests).parent}:{Path(tests).parent / 'agents'}"},
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr
    assert picture(store) == before
    with store.read() as connection:
        assert rulebook.digest_in_force(connection) == fleet.rules().digest
    fleet.bring(store, WIDE)
    assert Reconciler(store, NONE).test(WIDE).steps == []


def test_a_store_that_was_left_half_done_is_finished(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    with store.write() as connection:
        rulebook.put(connection, fleet.rules(WIDE), "somebody", 1)
    done = Reconciler(store, NONE).catch_up()
    assert done is not None
    assert "wide" in members(store)
    assert Reconciler(store, NONE).catch_up() is None


def test_old_rules_and_refusals_are_forgotten_in_time(tmp_path: Path) -> None:
    store, people, _ = large(tmp_path)
    for number in range(held.MAX_REFUSED + 3):
        people.load_rules(f"{WIDE}# {number}\n")
        (waits,) = people.held()
        people.refuse(waits.id)
    with store.write() as connection:
        assert len(held.refused(connection, held.RULES)) == held.MAX_REFUSED
        for number in range(rulebook.MAX_KEPT + 5):
            rulebook.put(connection, fleet.rules(f"# {number}"), "somebody", number)
        assert rulebook.text_of(connection, fleet.rules("# 0").digest) is None
        kept = rulebook.text_of(connection, fleet.rules(f"# {rulebook.MAX_KEPT}").digest)
    assert kept == f"# {rulebook.MAX_KEPT}"


def test_nobody_is_left_with_rules_that_were_replaced(store_url: str) -> None:
    """Hosts report all the time while rules come and go, as from processes of their own."""
    store = filled(store_url, 8)
    ends, troubles = threading.Event(), list[BaseException]()

    def report(part: int) -> None:
        own = open_store(store_url)
        intake = Intake(own, NONE)
        try:
            for sequence in range(2, 1000):
                if ends.is_set():
                    break
                for number in (part, part + 4):
                    memory = 32 * ((number + sequence) % 9)
                    with suppress(Unavailable):  # a busy machine; the next report tells the same
                        intake.take(fleet.report(number, sequence, memory_gib=memory))
        except BaseException as error:
            troubles.append(error)
            raise
        finally:
            own.close()

    threads = [threading.Thread(target=report, args=(part,)) for part in range(1, 5)]
    for thread in threads:
        thread.start()
    try:
        for text in (WIDE, fleet.RULES, GIVING, WIDE, fleet.RULES + GIVING.replace('"big', '"large'), WIDE):
            wait_for(partial(brought, store, text), 120)
            assert Reconciler(store, NONE).in_force().text == text
    finally:
        ends.set()
        for thread in threads:
            thread.join(60)
    assert troubles == []
    assert moves(Reconciler(store, NONE).test(WIDE).steps) == []
    store.close()


def brought(store: Store, text: str) -> bool:
    try:
        fleet.bring(store, text)
    except Unavailable:  # as above
        return False
    return True


def moves(steps: list[Step]) -> list[Step]:
    """What flaps may wait; nothing else."""
    return [each for each in steps if each.aggregate != "big"]


ODD = fleet.RULES + (
    '[[rule]]\nname = "os"\naggregate = "os-{os_id}"\n'
    '[[rule]]\nname = "kernel"\naggregate = "kernel"\nrequirements = { kernel = "6.1" }\n'
)


@pytest.mark.parametrize("value", ["x\0y", "x" * 300, "\0"], ids=["zero", "long", "only zero"])
def test_what_one_host_tells_keeps_nobody_from_new_rules(store_url: str, value: str) -> None:
    """PostgreSQL holds neither U+0000 nor more than a column's width, and history has the host's words."""
    store = open_store(store_url)
    fleet.bring(store, fleet.RULES)
    intake = Intake(store, NONE)
    intake.take(fleet.report(1, 1, os_id=value, kernel=value))
    intake.take(fleet.report(2, 1, os_id="debian", kernel="6.1"))
    fleet.bring(store, ODD)
    assert members(store)["os-debian"] == members(store)["kernel"] == ["node2"]
    assert intake.take(fleet.report(2, 2, os_id=value, kernel=value)).accepted.aggregates == [
        "arch-x86_64",
        "avx512",
    ]
    store.close()


def test_hosts_that_are_gone_make_no_change_smaller(tmp_path: Path) -> None:
    store = filled(tmp_path, 12)
    with store.write() as connection:
        gone = [{"uuid": f"gone{number}", "state": "gone", "of": fleet.uuid_of(1)} for number in range(100)]
        others = [each for each in HOSTS.c if each.name not in ("uuid", "state")]
        for row in gone:
            wanted = select(literal(row["uuid"]), literal(row["state"]), *others)
            copied = wanted.where(HOSTS.c.uuid == row["of"])
            connection.execute(insert(HOSTS).from_select(["uuid", "state", *others], copied))
    foretold = governing(store)[0].test_rules(WIDE)
    assert (foretold.hosts, foretold.affected, foretold.large) == (12, 12, True)
    store.close()


def test_no_more_waits_than_somebody_can_look_at(tmp_path: Path) -> None:
    store, people, _ = large(tmp_path)
    for number in range(held.MAX_WAITING + 3):
        people.load_rules(f"{WIDE}# {number}\n")
    with store.read() as connection:
        texts = [each.text for each in held.waiting(connection)]
    assert texts == [f"{WIDE}# {number}\n" for number in range(3, held.MAX_WAITING + 3)]


def test_a_fleet_that_goes_to_another_zone_is_a_large_change(tmp_path: Path) -> None:
    zoned = '[[rule]]\nname = "arch"\naggregate = "arch-{arch}"\nzone = "az1"\n'
    store = filled(tmp_path, 12, zoned)
    people, _ = governing(store)
    other = zoned.replace("az1", "az2")
    foretold = people.test_rules(other)
    assert (foretold.affected, foretold.large) == (12, True)
    assert people.load_rules(other).large
    assert {each.metadata["availability_zone"] for each in aggregates(store)} == {"az1"}
    assert people.approve(people.held()[0].id)
    assert {each.metadata["availability_zone"] for each in aggregates(store)} == {"az2"}
    store.close()


def test_an_aggregate_that_another_rule_makes_now_is_full_at_once(tmp_path: Path) -> None:
    """Whoever is planned for before its old members have left, too."""
    old = '[[rule]]\nname = "a"\naggregate = "x"\nrequirements = { memory_gib = ">= 96" }\n'
    store = filled(tmp_path, 4, old)
    assert members(store) == {"x": ["node3", "node4"]}
    new = old.replace('"x"', '"y"') + '[[rule]]\nname = "b"\naggregate = "x"\n'
    new += 'requirements = { memory_gib = "<= 64" }\n'
    fleet.bring(store, new)
    assert members(store) == {"x": ["node1", "node2"], "y": ["node3", "node4"]}
    assert Reconciler(store, NONE).test(new).steps == []
    fleet.bring(store, old.replace('"x"', '"y"'))
    assert members(store) == {"y": ["node3", "node4"]}
    store.close()
