"""The store: made and migrated, whole transactions, and what its failures become."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, text

import fleet
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound, Problem, Unavailable
from mh_conductor import catalogue, hosts, registry, store
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake, arrival_of
from mh_conductor.judge import judge, subject_of
from mh_conductor.plan import plan
from mh_conductor.store import Store, open_store
from mh_conductor.tables import AGGREGATES, BOOTS, HISTORY, METADATA


@pytest.fixture
def made(store_url: str) -> Iterator[Store]:
    opened = open_store(store_url)
    yield opened
    opened.close()


def test_migrations_make_what_the_tables_say(made: Store) -> None:
    with made.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_file_is_kept_by_a_write_ahead_log(tmp_path: Path) -> None:
    made = fleet.new_store(tmp_path)
    with made.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    made.close()


def test_opening_again_keeps_what_is_there(made: Store, store_url: str) -> None:
    put(made, None)
    again = open_store(store_url)
    with again.read() as connection:
        assert hosts.count(connection) == 1
    again.close()


def test_several_processes_may_make_the_store_at_once(new_store_url: str) -> None:
    code = f"from mh_conductor.store import open_store; open_store({new_store_url!r})"
    starting = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in starting]
    assert [process.returncode for process in starting] == [0] * 2, said


def test_who_opens_a_store_need_not_read_of_plug_ins(tmp_path: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level='INFO'); "
        "from mh_conductor.store import open_store; open_store(sys.argv[1]).close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'conductor.db'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_store_that_another_program_made_is_refused(tmp_path: Path) -> None:
    made = fleet.new_store(tmp_path)
    with made.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DROP TABLE fleet"))
    made.close()
    with pytest.raises(BackendFailed, match="another version"):
        fleet.new_store(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://host",
        "mysql://x",
        "postgresql+asyncpg://h/d",
        "postgresql://h:x/d",
        "http:///x",
    ],
)
def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidArguments, match="sqlite:///PATH"):
        open_store(url)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conductor.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(BackendFailed, match="the store failed"):
        fleet.new_store(tmp_path)


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(BackendFailed, match="cannot make the directory"):
        open_store("sqlite:////proc/nowhere/conductor.db")


def test_a_write_is_whole_or_absent(made: Store) -> None:

    def half() -> None:
        with made.write() as connection:
            hosts.put(connection, None, arrival_of(fleet.report()), 1)
            raise NotFound("half way")

    with pytest.raises(NotFound):
        half()
    with made.read() as connection:
        assert hosts.count(connection) == 0


def test_a_reader_sees_one_state(made: Store) -> None:
    with made.read() as reading:
        assert hosts.count(reading) == 0
        with made.write() as connection:
            hosts.put(connection, None, arrival_of(fleet.report()), 1)
        assert hosts.count(reading) == 0
    with made.read() as reading:
        assert hosts.count(reading) == 1


def test_a_store_that_somebody_holds_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.1)
    made = fleet.new_store(tmp_path)
    with sqlite3.connect(tmp_path / "conductor.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy"):
            put(made, None)
        other.execute("ROLLBACK")
    assert put(made, None) == 1


def put(made: Store, was: hosts.Standing | None, sequence: int = 1) -> int:
    with made.write() as connection:
        return hosts.put(connection, was, arrival_of(fleet.report(sequence=sequence)), 1)


def standing(made: Store) -> hosts.Standing:
    with made.read() as connection:
        found = hosts.standing(connection, fleet.uuid_of(1))
    assert found is not None
    return found


def test_a_stale_write_of_a_host_is_a_conflict(made: Store) -> None:
    put(made, None)
    was = standing(made)
    assert put(made, was, 2) == 2
    with pytest.raises(Conflict, match="no longer of generation 1"):
        put(made, was, 3)
    with pytest.raises(Conflict), made.write() as connection:
        hosts.touch(connection, was, arrival_of(fleet.report(sequence=3)), 1)
    with pytest.raises(Conflict):
        put(made, None)
    assert standing(made).sequence == 2


def test_an_unchanged_report_makes_a_stale_write_a_conflict_too(made: Store) -> None:
    put(made, None)
    was = standing(made)
    with made.write() as connection:
        hosts.touch(connection, was, arrival_of(fleet.report(sequence=2)), 1)
    assert standing(made).generation == was.generation
    with pytest.raises(Conflict):
        put(made, was, 3)


def test_a_stale_plan_is_a_conflict(made: Store) -> None:
    rules = fleet.rules()
    put(made, None)
    subject = subject_of(fleet.report())
    verdicts = judge(subject, rules)
    with made.write() as connection:
        seen = registry.view_of(connection, subject.uuid, verdicts)
        planned = plan(subject, verdicts, rules, seen.current)
        registry.carry_out(connection, subject.uuid, planned, seen, 1)
    with pytest.raises(Conflict), made.write() as connection:
        registry.carry_out(connection, subject.uuid, planned, registry.View(seen.current), 2)
    left = subject_of(fleet.report(cpu_flags=[]))
    leaving = judge(left, rules)
    with made.read() as connection:
        seen = registry.view_of(connection, subject.uuid, leaving)
    with made.write() as connection:
        connection.execute(AGGREGATES.update().values(generation=AGGREGATES.c.generation + 1))
    made_plan = plan(left, leaving, rules, seen.current)
    with pytest.raises(Conflict, match="no longer of generation"), made.write() as connection:
        registry.carry_out(connection, subject.uuid, made_plan, seen, 3)


def test_old_boots_are_remembered_up_to_a_limit(made: Store) -> None:
    put(made, None)
    for number in range(hosts.MAX_BOOTS + 5):
        with made.write() as connection:
            was = hosts.standing(connection, fleet.uuid_of(1))
            hosts.put(connection, was, arrival_of(fleet.report(boot=f"later{number}")), number)
    with made.read() as connection:
        assert len(connection.execute(select(BOOTS)).all()) == hosts.MAX_BOOTS
        assert hosts.is_over(connection, fleet.uuid_of(1), f"later{hosts.MAX_BOOTS + 3}")
        assert not hosts.is_over(connection, fleet.uuid_of(1), "boot1")


def test_history_has_a_limit(made: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_HISTORY", 10)
    line = {"time": 1, "aggregate": "a", "change": "created", "rule": "r", "host": "", "why": ""}
    with made.write() as connection:
        connection.execute(insert(HISTORY), [line] * 50)
        assert registry.advance(connection, registry.PRUNE_EVERY - 1) == registry.PRUNE_EVERY - 1
        every = connection.execute(select(HISTORY.c.id).order_by(HISTORY.c.id)).scalars().all()
        assert len(every) == 50
        registry.advance(connection, 1)
        kept = connection.execute(select(HISTORY.c.id).order_by(HISTORY.c.id)).scalars().all()
        assert kept == every[-10:]


def test_texts_are_sorted_alike_everywhere(made: Store) -> None:
    names = sorted(["a", "B", "_x", "A b", "Ab", "ä", "-1", "1", "z"])
    editing, intake = Editing(made), Intake(made, fleet.rules(""))
    for name in reversed(names):
        editing.create(name)
    hostnames = sorted(["a", "B", "_x", "A-b", "Ab", "a.b"])
    for number, hostname in enumerate(reversed(hostnames)):
        intake.take(fleet.report(number, hostname=hostname))
        editing.add_host("a", hostname)
    for name in set(names) - {"a"}:
        editing.add_host(name, "B")
    editing.set_metadata("a", dict.fromkeys(reversed(["-", ":", "A", "B", "_", "a"]), ""))
    with made.read() as connection:
        assert [each.name for each in catalogue.listing(connection)] == names
        shown = catalogue.find(connection, "a")
        assert (shown.hosts, list(shown.metadata)) == (hostnames, ["-", ":", "A", "B", "_", "a"])
        listed = hosts.listing(connection)
        assert [each.hostname for each in listed] == hostnames
        assert listed[hostnames.index("B")].aggregates == names
        page = hosts.listing(connection, listed[2].uuid, 2)
        assert [each.hostname for each in page] == hostnames[3:5]


def test_threads_take_turns(made: Store) -> None:
    troubles: list[Problem] = []

    def write() -> None:
        try:
            for _ in range(20):
                with made.write() as connection:
                    registry.advance(connection, 1)
                with made.read() as connection:
                    registry.generation(connection)
        except Problem as problem:
            troubles.append(problem)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert troubles == []
    with made.read() as connection:
        assert registry.generation(connection) == 160
