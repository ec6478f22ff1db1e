"""PostgreSQL as a store: what its failures become, and that nothing waits for ever."""

import builtins
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, insert, select, text, update

import fleet
from libmh.errors import (
    BackendFailed,
    InvalidArguments,
    NotImplementedHere,
    Problem,
    Unavailable,
)
from mh_conductor import hosts, postgresql, registration, registry, store
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.store import LostRace, Store, again, alone, open_store
from mh_conductor.tables import AGGREGATES, FLEET, HOSTS
from postgresql import PostgreSQL
from postgresql import postgresql as started
from waiting import wait_for


@pytest.fixture
def made(postgresql_url: str) -> Iterator[Store]:
    opened = open_store(postgresql_url)
    yield opened
    opened.close()


def generation(opened: Store) -> int:
    with opened.read() as connection:
        return registry.generation(connection)


def advance(opened: Store) -> int:
    with opened.write() as connection:
        return registry.advance(connection, 1)


def test_a_reader_cannot_write_and_sees_one_state(made: Store) -> None:
    with made.read() as reading:
        assert registry.generation(reading) == 0
        advance(made)
        assert registry.generation(reading) == 0
    with pytest.raises(Unavailable, match="read-only"), made.read() as reading:
        registry.advance(reading, 1)


def cut(opened: Store, stop: Callable[[], None]) -> None:
    """The server goes in the middle of a write."""
    with opened.write() as connection:
        registry.advance(connection, 1)
        stop()
        registry.generation(connection)


def test_a_server_that_comes_back_is_used_again() -> None:
    with started() as server:
        opened = open_store(server.url(server.create()))
        for stop in (server.stop, server.kill):
            before = advance(opened)
            with pytest.raises(Unavailable):
                cut(opened, stop)
            for call in (generation, advance):
                with pytest.raises(Unavailable, match="the store is not available"):
                    call(opened)
            server.start()
            assert generation(opened) == before
            assert Editing(opened).create(stop.__name__).id > 0
        opened.close()


def test_a_server_that_is_not_there_is_unavailable(postgresql_server: PostgreSQL) -> None:
    for url in ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "postgresql://u@/d?host=/nowhere"):
        with pytest.raises(Unavailable, match="the store is not available") as caught:
            open_store(url)
        assert "secret" not in str(caught.value)
    with pytest.raises(Problem, match='database "nope" does not exist'):
        open_store(postgresql_server.url("nope"))


def test_a_password_is_not_shown() -> None:
    for url in (
        "postgresql+pg8000://u:secret@h/d",
        "mysql://u:secret@h/d",
        "postgresql://u:secret@h:port/d",
        "mysql://u:top:secret@h/d",
        "mysql://u:top@secret@h/d?password=secret",
        "mysql://u:top/secret@h/d",
    ):
        with pytest.raises(InvalidArguments, match=r"u:\*\*\*@h") as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name.split(".")[0] == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return really(name, *arguments, **more)  # type: ignore[arg-type]

    for name in [each for each in sys.modules if each.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotImplementedHere, match=r"pip install 'matahari\[postgresql\]'"):
        open_store("postgresql+psycopg://u@/d")


def test_what_the_server_cannot_hold_is_refused(made: Store) -> None:
    row = {"uuid": "u", "binding": "{}", "created": 1, "updated": 1, "generation": 1}
    for name in ("a\0b", "\ud800", "x" * 256):
        with pytest.raises(InvalidArguments, match="cannot hold"), made.write() as connection:
            connection.execute(insert(AGGREGATES), {**row, "name": name})
    with pytest.raises(InvalidArguments, match="cannot hold"), made.write() as connection:
        connection.execute(insert(AGGREGATES), {**row, "name": "a", "created": 2**63})
    with pytest.raises(BackendFailed, match="the store failed"), made.write() as connection:
        connection.execute(text("SELECT * FROM nowhere"))


@contextmanager
def impatient(url: str) -> Iterator[Store]:
    """Another process on the store, by the limits that are in force now."""
    opened = Store(store._engine(store._checked(url)))
    yield opened
    opened.close()


def test_waiting_for_a_lock_has_an_end(
    made: Store, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
    with impatient(postgresql_url) as other, made.write() as holding:
        alone(holding)
        registry.advance(holding, 1)
        for call in (lambda: advance(other), lambda: Editing(other).create("a")):
            with pytest.raises(Unavailable, match="lock timeout"):
                call()
    assert advance(made) == 1 + 1


def test_waiting_for_an_answer_has_an_end(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 1.0)
    with (
        impatient(postgresql_url) as other,
        pytest.raises(Unavailable, match="statement timeout"),
        other.read() as connection,
    ):
        connection.execute(text("SELECT pg_sleep(600)"))


def test_waiting_for_a_connection_has_an_end(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(store, "MAX_CONNECTIONS", 2)
    with impatient(postgresql_url) as other:
        with other.read(), other.read():
            for call in (generation, advance):
                with pytest.raises(Unavailable, match="no connection to the store became free"):
                    call(other)
        assert generation(other) == 0


def in_step(*calls: Callable[[threading.Barrier], None]) -> list[Problem]:
    """Run calls side by side, each waiting at the barrier in its midst; what they raised."""
    barrier, raised = threading.Barrier(len(calls)), list[Problem]()

    def run(call: Callable[[threading.Barrier], None]) -> None:
        try:
            call(barrier)
        except Problem as problem:
            raised.append(problem)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


def test_a_deadlock_is_a_lost_race(made: Store) -> None:
    with made.write() as connection:
        for number in (1, 2):
            row = {"uuid": f"u{number}", "name": f"n{number}", "binding": "{}"}
            connection.execute(insert(AGGREGATES), {**row, "created": 1, "updated": 1, "generation": 1})

    def touch(first: str, second: str, barrier: threading.Barrier) -> None:
        with made.write() as connection:
            connection.execute(update(AGGREGATES).where(AGGREGATES.c.uuid == first).values(updated=2))
            barrier.wait(60)
            connection.execute(update(AGGREGATES).where(AGGREGATES.c.uuid == second).values(updated=2))

    raised = in_step(lambda barrier: touch("u1", "u2", barrier), lambda barrier: touch("u2", "u1", barrier))
    assert [type(each) for each in raised] == [LostRace]
    assert "deadlock" in raised[0].message


def test_a_serialization_failure_is_a_lost_race(made: Store) -> None:
    strict = Store(made._engine)
    strict._writer = made._engine.execution_options(isolation_level="SERIALIZABLE")
    tries: list[int] = []

    def attempt(connection: Connection) -> int:
        tries.append(registry.generation(connection))
        if len(tries) == 1:
            advance(made)
        return registry.advance(connection, 1)

    assert again(strict, attempt) == 2
    assert tries == [0, 1]


def test_a_lost_race_is_run_again_but_not_for_ever(made: Store) -> None:
    tries: list[int] = []

    def lose(_connection: object) -> None:
        tries.append(1)
        raise LostRace("somebody was quicker")

    with pytest.raises(Unavailable, match="try again later"):
        again(made, lose)
    assert len(tries) == store.MAX_ATTEMPTS


def test_two_who_register_a_name_do_not_both_succeed(made: Store) -> None:
    raised: list[Problem] = []

    def register(connection: Connection, number: int) -> None:
        registration.register(connection, "web1", fleet.uuid_of(number), None, 1, "anna")

    def second() -> None:
        try:
            again(made, lambda connection: register(connection, 2))
        except Problem as problem:
            raised.append(problem)

    other = threading.Thread(target=second)
    with made.write() as connection:
        register(connection, 1)
        other.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        wait_for(lambda: connection.execute(waiting).scalar(), 60)
    other.join(60)
    assert [each.message for each in raised] == [
        f"host 'web1' is known already, with the UUID '{fleet.uuid_of(1)}'"
    ]
    with made.read() as connection:
        assert hosts.count(connection) == 1


def test_what_reports_tell_waits_for_who_is_alone(made: Store) -> None:
    intake = Intake(made, fleet.rules())
    intake.take(fleet.report(1))
    sent = threading.Thread(target=intake.take, args=(fleet.report(1, 2, arch="aarch64"),))
    with made.write() as connection:
        alone(connection)
        sent.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        wait_for(lambda: connection.execute(waiting).scalar(), 60)
        assert hosts.count(connection) == 1
        # the report that waits holds nothing that is needed here
        connection.execute(update(HOSTS).values(state_since=5))
    sent.join(60)
    with made.read() as connection:
        found = hosts.standing(connection, fleet.uuid_of(1))
        assert found is not None
        assert found.sequence == 2
        assert connection.execute(select(FLEET.c.generation)).scalar_one() > 1
