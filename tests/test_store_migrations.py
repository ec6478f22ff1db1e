"""Stores of every released schema become stores of today, with what is in them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

import fleet
from libmh.api.aggregates import HostState
from mh_conductor import catalogue, history, hosts, registry, store
from mh_conductor.editing import Editing
from mh_conductor.inventory import Inventory
from mh_conductor.records import report_of
from mh_conductor.store import Store, open_store
from mh_conductor.tables import METADATA

DUMPS = {"0001": Path(__file__).parent / "golden" / "store-0001.sql"}
HEAD = "head"


def migrate(opened: Store, revision: str, *, back: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(store.MIGRATIONS))
    with opened.write() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if back else command.upgrade)(config, revision)


def fill(url: str, revision: str) -> None:
    """Make a store of a released schema: what the release itself left in a file, or its rows in tables that
    its migrations made."""
    dump = DUMPS[revision].read_text()
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.executescript(dump)
        return
    opened = Store(store._engine(store._checked(url)))
    migrate(opened, revision)
    rows = re.findall(r'^INSERT INTO "(?!alembic_version|sqlite_sequence).*;$', dump, re.MULTILINE)
    last = re.findall(r"^INSERT INTO \"sqlite_sequence\" VALUES\('(\w+)',(\d+)\);$", dump, re.MULTILINE)
    with opened.write() as connection:
        connection.execute(text("DELETE FROM fleet"))
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # rows in any order
        for row in rows:
            connection.exec_driver_sql(row)
        for table, number in last:
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {number})")
    opened.close()


@pytest.fixture(params=DUMPS)
def old(request: pytest.FixtureRequest, new_store_url: str) -> Iterator[Store]:
    """A store of a released schema, opened by this release."""
    fill(new_store_url, request.param)
    opened = open_store(new_store_url)
    yield opened
    opened.close()


def test_an_old_store_becomes_one_of_today(old: Store) -> None:
    with old.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_what_is_in_an_old_store_stays(old: Store) -> None:
    with old.read() as connection:
        found = {each.name: each for each in catalogue.listing(connection)}
        assert {name: each.hosts for name, each in found.items()} == {
            "arch-aarch64": ["node3"],
            "arch-x86_64": ["node1", "node2"],
            "avx512": ["node2", "node3"],
            "big": ["node2"],
            "by hand": ["node1"],
        }
        hand = found["by hand"]
        assert (hand.id, hand.owner, hand.generation, hand.updated) == (5, None, 3, 2)
        assert hand.metadata == {"availability_zone": "az1", "note": "it's ü; --"}
        assert found["big"].owner == "big"
        listed = hosts.listing(connection)
        assert [(each.hostname, each.state, each.zone) for each in listed] == [
            ("node1", HostState.UP, "az1"),
            ("node2", HostState.UP, "nova"),
            ("node3", HostState.UP, "nova"),
        ]
        assert hosts.is_over(connection, fleet.uuid_of(1), "boot1")
        assert report_of(hosts.report_text(connection, fleet.uuid_of(2))).facts["memory_gib"].value == 64
        assert registry.generation(connection) == 20
        entries = history.history(connection)
        assert len(entries) == 15
        assert entries[0].who == "avx512"


def test_an_old_store_is_worked_on(old: Store) -> None:
    made = Editing(old).create("new")
    assert made.id == 6
    assert Editing(old).add_host("big", "node3").generation == 3
    assert len(Inventory(old).current().hosts) == 3


def test_an_old_store_is_migrated_once(old: Store) -> None:
    store.migrate(old)
    store.migrate(old)
    with old.read() as connection:
        assert hosts.count(connection) == 3


def test_migrations_can_be_undone(new_store_url: str) -> None:
    fill(new_store_url, "0001")
    opened = open_store(new_store_url)
    migrate(opened, "0001", back=True)
    with opened.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM members")).scalar() == 7
    migrate(opened, HEAD)
    with opened.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert hosts.count(connection) == 3
    migrate(opened, "base", back=True)
    opened.close()
