"""Processes on one store: that they know of each other, which may work side by side, and leases."""

import threading

import pytest
from sqlalchemy import select, text, update

import fleet
from libmh.errors import BackendFailed, InvalidArguments
from mh_conductor import leases, protocol, workers
from mh_conductor.intake import Intake
from mh_conductor.store import Store, open_store
from mh_conductor.tables import FLEET, LEASES, WORKERS
from mh_conductor.workers import Tally

MINUTE = 60 * 10**9


def set_protocol(store: Store, version: str) -> None:
    with store.write() as connection:
        connection.execute(update(FLEET).values(protocol=version))


def get_protocol(store: Store) -> str:
    with store.read() as connection:
        return protocol.current(connection)


def take(store: Store, holder: str, seconds: float = 60) -> bool:
    with store.write() as connection:
        return leases.take(connection, "sweep", holder, seconds)


def test_one_holder_at_a_time(store_url: str) -> None:
    store = open_store(store_url)
    assert take(store, "a")
    assert not take(store, "b")
    assert take(store, "a")
    with store.write() as connection:
        leases.release(connection, "sweep", "b")
        assert leases.holder_of(connection, "sweep") == "a"
        leases.release(connection, "sweep", "a")
    assert take(store, "b", 0)
    assert take(store, "a")


def test_of_many_who_ask_at_once_one_gets_it(store_url: str) -> None:
    stores = [open_store(store_url) for _ in range(4)]
    got: list[bool] = []
    threads = [
        threading.Thread(target=lambda store=store, name=name: got.append(take(store, name)))
        for store, name in zip(stores, "abcd", strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [False, False, False, True]


def test_a_lease_ends_by_the_time_of_the_store(store_url: str) -> None:
    store = open_store(store_url)
    assert take(store, "a")
    with store.write() as connection:
        connection.execute(update(LEASES).values(until=LEASES.c.until - 2 * MINUTE))
    assert take(store, "b")
    assert not take(store, "a")


def test_a_clock_that_is_set_back_leaves_no_lease_to_the_dead(store_url: str) -> None:
    store = open_store(store_url)
    assert take(store, "a")
    with store.write() as connection:
        connection.execute(update(LEASES).values(until=LEASES.c.until + 60 * MINUTE))
    assert take(store, "b")
    assert not take(store, "a")


def beat(store: Store, tally: Tally) -> None:
    workers.beat(store, tally)


def test_a_process_tells_what_it_does(store_url: str) -> None:
    store, now = open_store(store_url), [100.0]
    tally = Tally(seconds=lambda: now[0])
    beat(store, tally)
    for _ in range(30):
        tally.took(0, changed=False)
    tally.took(0, changed=True)
    now[0] = 103.0
    tally.refuse(InvalidArguments("x" * 2000))
    beat(store, tally)
    with store.read() as connection:
        (worker,) = workers.alive(connection)
        assert workers.last_error(connection) == "x" * workers.MAX_ERROR
    assert (worker.id, worker.protocol) == (tally.id, protocol.PROTOCOL)
    assert (worker.reports, worker.changed, worker.refused) == (32, 1, 1)
    assert worker.rate == pytest.approx(31 / 3)
    assert worker.lag > 0
    now[0] = 300.0
    assert tally.rate() == 0.0
    workers.farewell(store, tally)
    with store.read() as connection:
        assert workers.alive(connection) == []


def test_who_has_died_is_not_told_and_goes(store_url: str) -> None:
    store = open_store(store_url)
    dead, alive = Tally(), Tally(id="other")
    beat(store, dead)
    with store.write() as connection:
        connection.execute(update(WORKERS).values(last_seen=WORKERS.c.last_seen - MINUTE))
    beat(store, alive)
    with store.read() as connection:
        assert [each.id for each in workers.alive(connection)] == ["other"]
        assert len(connection.execute(select(WORKERS)).all()) == 2
    with store.write() as connection:
        older = WORKERS.c.last_seen - 2 * MINUTE
        connection.execute(update(WORKERS).where(WORKERS.c.id == dead.id).values(last_seen=older))
    beat(store, alive)
    with store.read() as connection:
        assert connection.execute(select(WORKERS.c.id)).scalars().all() == ["other"]


def test_a_clock_that_is_set_back_leaves_nobody_alive_for_ever(store_url: str) -> None:
    store = open_store(store_url)
    dead, alive = Tally(), Tally(id="other")
    for each in (dead, alive):
        beat(store, each)
    with store.write() as connection:
        connection.execute(update(WORKERS).values(last_seen=WORKERS.c.last_seen + 60 * MINUTE))
        protocol.admit(connection, "2.0")
    with store.read() as connection:
        assert workers.alive(connection) == []
    beat(store, alive)
    with store.read() as connection:
        assert [each.id for each in workers.alive(connection)] == ["other"]
        assert connection.execute(select(WORKERS.c.id)).scalars().all() == ["other"]


def test_a_newer_minor_works_beside_an_older(store_url: str) -> None:
    store = open_store(store_url)
    set_protocol(store, "1.7")
    again = open_store(store_url)
    beat(again, Tally())
    assert get_protocol(again) == "1.7"
    with store.write() as connection:
        protocol.mark(connection, "1.9")
        protocol.mark(connection, "1.10")
    assert get_protocol(store) == "1.10"


def test_what_a_newer_minor_added_is_left_alone(new_store_url: str) -> None:
    """Its migration is one that this program does not have."""
    store = open_store(new_store_url)
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE hosts ADD COLUMN mood VARCHAR(16) NOT NULL DEFAULT 'good'"))
        connection.execute(text("CREATE TABLE moods (id INTEGER PRIMARY KEY)"))
        connection.execute(update(FLEET).values(protocol="1.1"))
    store.close()
    taken = Intake(open_store(new_store_url), fleet.rules())
    assert taken.take(fleet.report()).accepted.generation == 1
    with taken._store.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
        assert connection.execute(text("SELECT mood FROM hosts")).scalar() == "good"


def test_another_major_is_refused_and_named(store_url: str) -> None:
    store = open_store(store_url)
    tally = Tally()
    set_protocol(store, "2.0")
    with pytest.raises(BackendFailed, match=r"of protocol 2\.0, and this program speaks 1\.0"):
        open_store(store_url)
    with pytest.raises(protocol.Displaced, match=r"protocol 2\.0, and this program speaks 1\.0"):
        beat(store, tally)


def test_a_newer_major_waits_until_the_older_have_gone(store_url: str) -> None:
    store = open_store(store_url)
    tally = Tally(id="node1:77:1")
    beat(store, tally)
    with store.read() as connection, pytest.raises(BackendFailed, match=r"1 processes .* \(node1:77:1\)"):
        protocol.admit(connection, "2.0")
    workers.farewell(store, tally)
    with store.write() as connection:
        protocol.admit(connection, "2.0")
        protocol.mark(connection, "2.0")
    assert get_protocol(store) == "2.0"


@pytest.mark.parametrize("version", ["", "1", "x.y", "'; DROP TABLE hosts; --"])
def test_a_protocol_that_is_none_is_refused(store_url: str, version: str) -> None:
    set_protocol(open_store(store_url), version[:16])
    with pytest.raises(BackendFailed, match=r"not of the form major\.minor"):
        open_store(store_url)
