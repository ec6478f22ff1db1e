"""Taking reports in: what decides, what is refused, and that rules which changed are caught up with."""

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

import fleet
from libmh.api.aggregates import CapabilityReport
from libmh.api.host import FactStatus
from libmh.errors import Conflict, InvalidArguments, Unavailable
from libmh.spec import Plain
from mh_conductor import catalogue, hosts, intake, registry, store
from mh_conductor.intake import Intake
from mh_conductor.report_check import MAX_FACTS, MAX_REPORT, MAX_TRAITS
from mh_conductor.tables import HISTORY, HOSTS, MEMBERS


def generation(taken: Intake) -> int:
    with taken._store.read() as connection:
        return registry.generation(connection)


def kept(taken: Intake, number: int = 1) -> Any:
    with taken._store.read() as connection:
        return connection.execute(select(HOSTS).where(HOSTS.c.uuid == fleet.uuid_of(number))).one_or_none()


def test_a_first_report_is_kept_and_answered(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    outcome = taken.take(fleet.report())
    assert (outcome.accepted.generation, outcome.accepted.changed) == (1, True)
    assert outcome.accepted.aggregates == ["arch-x86_64", "avx512"]
    assert [(str(done.change.kind), done.change.aggregate, done.generation) for done in outcome.done] == [
        ("created", "arch-x86_64", 1),
        ("metadata", "arch-x86_64", 2),
        ("host-added", "arch-x86_64", 3),
        ("created", "avx512", 1),
        ("metadata", "avx512", 2),
        ("host-added", "avx512", 3),
    ]


@pytest.mark.parametrize(
    ("boot", "sequence", "told", "changed", "kept_sequence"),
    [
        ("boot1", 5, {}, False, 5),  # a duplicate
        ("boot1", 5, {"memory_gib": 64}, False, 5),  # another one of the same number
        ("boot1", 4, {"memory_gib": 64}, False, 5),  # older
        ("boot1", 6, {}, False, 6),  # newer, nothing new
        ("boot1", 6, {"memory_gib": 64}, True, 6),  # newer
        ("boot2", 1, {}, True, 1),  # a new boot
        ("boot0", 99, {"memory_gib": 64}, False, 5),  # a replay from a boot that is over
    ],
)
def test_uuid_boot_and_sequence_decide(
    tmp_path: Path, boot: str, sequence: int, told: dict[str, Any], changed: bool, kept_sequence: int
) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report(boot="boot0"))
    taken.take(fleet.report(sequence=5))
    before = kept(taken).generation
    accepted = taken.take(fleet.report(sequence=sequence, boot=boot, **told)).accepted
    assert accepted.changed is changed
    assert accepted.generation == before + changed == kept(taken).generation
    assert kept(taken).sequence == kept_sequence
    assert ("big" in accepted.aggregates) is ("memory_gib" in told and changed)


def test_two_hosts_with_one_uuid_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report(boot="boot0", hostname="web1"))
    taken.take(fleet.report(boot="boot1", hostname="web2"))
    taken.take(fleet.report(boot="boot0", hostname="web1", sequence=2))
    said = [record.getMessage() for record in caplog.records if "one UUID" in record.getMessage()]
    assert len(said) == 1
    assert "'web1'" in said[0]
    assert "'web2'" in said[0]


def test_a_duplicate_touches_nothing(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    report = fleet.report()
    taken.take(report)
    before, whole = kept(taken), generation(taken)
    again = taken.take(report)
    assert (kept(taken), generation(taken), again.done) == (before, whole, ())


def test_new_times_of_observation_are_kept_without_a_change(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report())
    later = fleet.report(sequence=2)
    later.facts["arch"] = replace(later.facts["arch"], observed=fleet.SEEN + 1)
    assert not taken.take(later).accepted.changed
    assert str(fleet.SEEN + 1) in kept(taken).report


DELIVERIES = [
    fleet.report(boot=boot, sequence=sequence, memory_gib=memory)
    for boot, sequence, memory in [("a", 1, 8), ("a", 2, 64), ("a", 3, 8), ("b", 1, 64), ("b", 2, 16)]
]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_repeated_deliveries_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random
) -> None:
    taken = fleet.new_intake(tmp_path_factory.mktemp("store"))
    sent: list[CapabilityReport] = []
    for report in DELIVERIES:
        sent.append(report)
        taken.take(report)
        before = (kept(taken), generation(taken))
        for old in chance.choices(sent, k=3):
            taken.take(old)
        assert (kept(taken), generation(taken)) == before
    taken._store.close()


def told(values: Mapping[str, Plain]) -> CapabilityReport:
    return fleet.with_facts(fleet.report(), **{name: fleet.fact(value) for name, value in values.items()})


def huge() -> CapabilityReport:
    return told({f"fact{number}": "x" * 1000 for number in range(MAX_REPORT // 1000 + 1)})


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (replace(fleet.report(), schema="2.0"), "version '2.0' is not taken in by version '1.1'"),
        (replace(fleet.report(), schema="1.2"), "version '1.2' is not taken in by version '1.1'"),
        (replace(fleet.report(), schema="1"), "report.schema"),
        (replace(fleet.report(), schema="x" * 999), "report.schema"),
        (replace(fleet.report(), uuid="node1"), "report.uuid: expected 32 hexadecimal digits"),
        (replace(fleet.report(), uuid="0" * 33), "report.uuid"),
        (replace(fleet.report(), hostname=""), "report.hostname: expected a host name"),
        (replace(fleet.report(), hostname="a b"), "report.hostname"),
        (replace(fleet.report(), hostname="../etc"), "report.hostname"),
        (replace(fleet.report(), hostname="x" * 256), "report.hostname"),
        (replace(fleet.report(), boot_id=""), "report.boot_id"),
        (replace(fleet.report(), boot_id="a\x1b"), "report.boot_id"),
        (replace(fleet.report(), agent_version="x" * 129), "report.agent_version"),
        (replace(fleet.report(), sequence=0), "report.sequence: expected 1 to"),
        (replace(fleet.report(), sequence=2**63), "report.sequence"),
        (replace(fleet.report(), generation=2**63), "report.generation"),
        (fleet.report(traits=("avx2",)), "report.traits: expected names of capitals"),
        (fleet.report(traits=("A",) * (MAX_TRAITS + 1)), "report.traits: expected at most"),
        (
            told(dict.fromkeys([f"f{n}" for n in range(MAX_FACTS)], 1)),
            "report.facts: expected at most",
        ),
        (told({"a fact": 1}), "report.facts: expected names"),
        (replace(fleet.report(), metrics={"a metric": 1.0}), "report.metrics: expected names"),
        (replace(fleet.report(), metrics={"load_1m": float("nan")}), "report.metrics.load_1m: expected"),
        (replace(fleet.report(), metrics={f"m{n}": 0.0 for n in range(65)}), "report.metrics: expected"),
        (fleet.report(blob=b"x"), "report.facts: expected values of text"),
        (fleet.report(blob=[{"a": b"x"}]), "report.facts: expected values of text"),
        (huge(), "report: expected at most"),
        (
            fleet.with_facts(fleet.report(), arch=replace(fleet.fact("x"), source="x" * 1025)),
            "report.facts.arch.source",
        ),
        (
            fleet.with_facts(fleet.report(), arch=fleet.fact("x", FactStatus.STALE, "x" * 2001)),
            "report.facts.arch.reason",
        ),
    ],
)
def test_what_is_refused_leaves_no_trace(tmp_path: Path, report: CapabilityReport, says: str) -> None:
    taken = fleet.new_intake(tmp_path)
    with pytest.raises(InvalidArguments) as caught:
        taken.take(report)
    assert says in caught.value.message
    assert caught.value.details["argument"].startswith("report")
    assert len(caught.value.message) < 300
    assert generation(taken) == 0
    with taken._store.read() as connection:
        assert hosts.count(connection) == 0


def test_facts_of_unknown_names_are_kept(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(told({"of_the.future": {"a": [1, 2.5, True, "x"]}}))
    assert '"of_the.future":{"status":"ok"' in kept(taken).report


def test_another_writer_in_between_means_doing_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = fleet.new_intake(tmp_path)
    real, failures = hosts.put, iter([True, True])

    def put(*arguments: Any) -> int:
        generation = real(*arguments)
        if next(failures, False):
            raise Conflict("somebody else was faster")
        return generation

    monkeypatch.setattr(hosts, "put", put)
    assert taken.take(fleet.report()).accepted.generation == 1
    assert len(list(failures)) == 0
    assert kept(taken).generation == 1


def test_doing_it_again_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = fleet.new_intake(tmp_path)
    attempts: list[int] = []

    def put(*_arguments: Any) -> int:
        attempts.append(1)
        raise Conflict("somebody else was faster")

    monkeypatch.setattr(hosts, "put", put)
    with pytest.raises(Unavailable, match="try again later"):
        taken.take(fleet.report())
    assert len(attempts) == intake.MAX_ATTEMPTS


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    troubles: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for number in range(10):
                for sequence in (1, 2, 2, 1):
                    taken.take(fleet.report(number, sequence, memory_gib=[16, 64][sequence - 1]))
        except BaseException as error:
            troubles.append(error)
            raise

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert troubles == []
    with taken._store.read() as connection:
        rows = connection.execute(select(HOSTS.c.sequence, HOSTS.c.generation)).all()
        assert {tuple(row) for row in rows} == {(2, 2)}
        assert len(connection.execute(select(MEMBERS)).all()) == 30
        assert len(catalogue.find(connection, "big").hosts) == 10


def names(taken: Intake) -> dict[str, list[str]]:
    with taken._store.read() as connection:
        return {each.name: each.hosts for each in catalogue.listing(connection)}


def test_new_rules_are_held_against_every_host(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    for number in range(1, 4):
        taken.take(fleet.report(number, memory_gib=32 * number))
    text = fleet.RULES.replace(">= 64", ">= 96").replace('"avx512"', '"wide"')
    done = fleet.bring(taken._store, text).done
    assert names(taken) == {"arch-x86_64": ["node1", "node2", "node3"], "big": ["node3"], "wide": [
        "node1", "node2", "node3"]}  # fmt: skip
    assert {each.change.host for each in done} == {"node1", "node2", "node3", ""}
    assert fleet.bring(taken._store, text).done == ()


def test_reports_go_by_the_rules_of_the_store(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    fleet.bring(taken._store, fleet.RULES.replace('"avx512"', '"wide"'))
    assert taken.take(fleet.report()).accepted.aggregates == ["arch-x86_64", "wide"]
    fleet.bring(taken._store, "")
    assert taken.take(fleet.report(sequence=2, memory_gib=64)).accepted.aggregates == []


def test_without_rules_nothing_of_theirs_is_left(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report())
    fleet.bring(taken._store, "")
    assert names(taken) == {}
    fleet.bring(taken._store, fleet.RULES)
    assert names(taken) == {"arch-x86_64": ["node1"], "avx512": ["node1"]}


def test_an_empty_aggregate_of_a_gone_rule_goes_when_rules_change(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report())
    taken.take(fleet.report(sequence=2, cpu_flags=[]))
    assert names(taken) == {"arch-x86_64": ["node1"], "avx512": []}
    done = fleet.bring(taken._store, fleet.RULES.partition('[[rule]]\nname = "avx512"')[0]).done
    assert [str(each.change.kind) for each in done] == ["deleted"]
    assert names(taken) == {"arch-x86_64": ["node1"]}


def test_history_tells_changes_and_refusals(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path, '[[rule]]\nname = "r"\naggregate = "{arch}"\n')
    taken.take(fleet.report())
    taken.take(fleet.report(sequence=2, arch="x" * 300))
    with taken._store.read() as connection:
        rows = connection.execute(select(HISTORY.c.change, HISTORY.c.aggregate, HISTORY.c.rule)).all()
    assert [tuple(row) for row in rows] == [
        ("created", "x86_64", "r"),
        ("host-added", "x86_64", "r"),
        ("host-removed", "x86_64", "r"),
        ("deleted", "x86_64", "r"),
        ("refused", "x" * 255, "r"),
    ]


ZONED = """
[[rule]]
name = "a"
aggregate = "a"

[[rule]]
name = "b"
aggregate = "b"
requirements = { memory_gib = ">= 64" }
zone = "az1"
"""


def test_zones_of_members_elsewhere_are_seen(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path, ZONED)
    taken.take(fleet.report(1, memory_gib=64))
    taken.take(fleet.report(2))
    fleet.bring(taken._store, ZONED.replace('aggregate = "a"', 'aggregate = "a"\nzone = "az2"'))
    with taken._store.read() as connection:
        assert catalogue.find(connection, "a").availability_zone is None
        assert catalogue.find(connection, "b").availability_zone == "az1"
        refused = select(HISTORY.c.host, HISTORY.c.why).where(HISTORY.c.change == "refused")
        assert [tuple(row) for row in connection.execute(refused)] == [
            ("node1", "the host is in zone 'az1' already, not in 'az2'"),
            ("node2", "zone 'az2' refused: members are in zone 'az1'"),
        ]


def test_what_the_database_says_of_itself_holds(tmp_path: Path) -> None:
    taken = fleet.new_intake(tmp_path)
    taken.take(fleet.report())
    with taken._store.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    assert store.MIGRATIONS.is_dir()


def test_a_worker_whose_own_clock_is_wrong_goes_by_the_stores(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who compares is another process: by a year ahead no host would be silent before that has passed."""
    before = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: before + 365 * 86400 * 10**9)
    opened = store.open_store(postgresql_url)
    taken = Intake(opened, fleet.rules())
    for sequence in (1, 2):
        taken.take(fleet.report(1, sequence))
        assert 0 <= kept(taken).last_seen - before < 3600 * 10**9
    opened.close()
