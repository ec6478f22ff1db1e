"""The file of rules: loaded when it is new, by one of all processes, and never when it has faults."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import fleet
from libmh.errors import InvalidArguments
from mh_conductor import held
from mh_conductor.intake import Intake
from mh_conductor.reconcile import Reconciled, Reconciler
from mh_conductor.rules import DEFAULT, RuleSet, load
from mh_conductor.rulesfile import NONE, RulesFile, watch
from mh_conductor.store import Store
from waiting import eventually

OTHER = fleet.RULES.replace('"avx512"', '"wide"')


def text(store: Store) -> str:
    return Reconciler(store, NONE).in_force().text


def file_of(directory: Path, content: str = fleet.RULES) -> Path:
    path = directory / "rules.toml"
    path.write_text(content)
    return path


def look(file: RulesFile) -> Reconciled | None:
    """Twice: what was found may be half written."""
    assert file.check() is None
    return file.check()


def opened(directory: Path) -> tuple[Store, Path, RulesFile]:
    store, path = fleet.new_store(directory), file_of(directory)
    file = RulesFile(store, str(path))
    file.open()
    return store, path, file


def test_a_file_is_loaded_at_the_start_and_when_it_changes(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    assert text(store) == fleet.RULES
    assert Reconciler(store, NONE).in_force().who == f"file {path}"
    assert file.check() is None
    path.write_text(OTHER)
    assert look(file) is not None
    assert text(store) == OTHER


def test_a_second_process_finds_the_work_done(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    other = RulesFile(store, str(path))
    assert other.open() is None
    path.write_text(OTHER)
    assert look(file) is not None
    assert look(other) is None
    assert Intake(store, RuleSet(())).take(fleet.report()).accepted.aggregates == ["arch-x86_64", "wide"]


def test_faults_leave_the_rules_in_force_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, path, file = opened(tmp_path)
    path.write_text('[[rule]]\nname = "a"\nbad = 1\n')
    assert [file.check(), file.check(), file.check(asked=True)] == [None] * 3
    said = [record.getMessage() for record in caplog.records if "stay" in record.getMessage()]
    assert len(said) == 2
    assert f"{path}:3: unknown key 'bad'" in said[0]
    assert text(store) == fleet.RULES
    path.unlink()
    assert file.check() is None
    path.write_text(OTHER)
    assert look(file) is not None
    assert text(store) == OTHER


def test_at_the_start_faults_are_refused_only_where_there_are_no_rules(tmp_path: Path) -> None:
    path = file_of(tmp_path, "bad = 1")
    empty = fleet.new_store(tmp_path)
    with pytest.raises(InvalidArguments, match="unknown key 'bad'"):
        RulesFile(empty, str(path)).open()
    fleet.bring(empty, OTHER)
    assert RulesFile(empty, str(path)).open() is None
    assert text(empty) == OTHER


def test_what_people_loaded_stays_until_the_file_is_new_or_asked_for(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    fleet.bring(store, OTHER)
    assert file.check() is None
    assert RulesFile(store, str(path)).open() is None
    assert text(store) == OTHER
    assert file.check(asked=True) is not None
    assert text(store) == fleet.RULES
    fleet.bring(store, OTHER)
    path.write_text(fleet.RULES + "# new")
    assert look(file) is not None
    assert text(store) == fleet.RULES + "# new"


def test_the_shipped_rules_give_way_for_good(tmp_path: Path) -> None:
    store = fleet.new_store(tmp_path)
    assert RulesFile(store, DEFAULT).open() is not None
    assert text(store) == load(DEFAULT).text
    fleet.bring(store, OTHER)
    assert RulesFile(store, DEFAULT).open() is None
    assert text(store) == OTHER


def test_what_is_held_or_was_refused_is_not_held_again(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    intake = Intake(store, NONE)
    for number in range(1, 13):
        intake.take(fleet.report(number))
    path.write_text(OTHER)
    done = look(file)
    assert done is not None
    assert done.held is not None
    assert RulesFile(store, str(path)).open() is None
    with store.write() as connection:
        (waits,) = held.waiting(connection)
        held.refuse(connection, waits)
    assert RulesFile(store, str(path)).open() is None
    assert text(store) == fleet.RULES
    asked = file.check(asked=True)
    assert asked is not None
    assert asked.held is not None


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    for content in ("", OTHER[:80].rpartition("[[")[0], OTHER):
        path.write_text(content)
        assert file.check() is None
        assert text(store) == fleet.RULES
    assert file.check() is not None
    assert text(store) == OTHER


def test_a_signal_is_heard_at_once(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    fleet.bring(store, OTHER)
    told: list[Reconciled] = []

    async def run() -> None:
        async with asyncio.timeout(60):
            watching = asyncio.create_task(watch(file, 3600.0, told.append))
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: bool(told), 50)
            watching.cancel()

    asyncio.run(run())
    assert text(store) == fleet.RULES
    assert path.exists()


def test_it_is_looked_at_by_the_clock(tmp_path: Path) -> None:
    store, path, file = opened(tmp_path)
    told: list[Reconciled] = []

    async def run() -> None:
        async with asyncio.timeout(60):
            path.write_text(OTHER)
            watching = asyncio.create_task(watch(file, 0.05, told.append))
            await eventually(lambda: bool(told), 50)
            watching.cancel()

    asyncio.run(run())
    assert text(store) == OTHER
