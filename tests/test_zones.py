"""Availability zones: which there are, and who is in them, on each kind of store."""

from sqlalchemy import update

import fleet
from libmh.api.aggregates import Zone
from mh_conductor import zones
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.store import open_store
from mh_conductor.tables import HOSTS


def test_zones_are_what_aggregates_name_and_hosts_are_in(store_url: str) -> None:
    store = open_store(store_url)
    edit, intake = Editing(store), Intake(store, fleet.rules(""))
    for number in (1, 2, 3, 4):
        intake.take(fleet.report(number))
    for name, zone in (("a", "az1"), ("b", "az1"), ("c", "Az2"), ("d", "nobody"), ("e", "")):
        edit.create(name, zone)
    for name, host in (("a", "node1"), ("b", "node1"), ("b", "node2"), ("c", "node3"), ("e", "node3")):
        edit.add_host(name, host)
    with store.write() as connection:
        for uuid, state in ((2, "silent"), (3, "gone"), (4, "registered")):
            connection.execute(update(HOSTS).where(HOSTS.c.uuid == fleet.uuid_of(uuid)).values(state=state))
    with store.read() as connection:
        assert zones.zones(connection, "default") == [
            Zone("Az2", False, {"node3": False}, ["c"]),
            Zone("az1", True, {"node1": True, "node2": False}, ["a", "b"]),
            Zone("default", False, {"node4": False}, []),
        ]
        assert dict(zones.by_host(connection)) == {
            fleet.uuid_of(1): "az1",
            fleet.uuid_of(2): "az1",
            fleet.uuid_of(3): "Az2",
        }
    store.close()


def test_there_are_no_zones_without_hosts(store_url: str) -> None:
    store = open_store(store_url)
    Editing(store).create("a", "az1")
    with store.read() as connection:
        assert zones.zones(connection) == []
    store.close()


def test_hosts_of_one_name_are_up_when_one_is(store_url: str) -> None:
    store = open_store(store_url)
    intake = Intake(store, fleet.rules(""))
    for number in (1, 2):
        intake.take(fleet.report(number, hostname="twin"))
    with store.write() as connection:
        silent = update(HOSTS).where(HOSTS.c.uuid == fleet.uuid_of(2)).values(state="silent")
        connection.execute(silent)
    with store.read() as connection:
        assert zones.zones(connection) == [Zone("nova", True, {"twin": True}, [])]
    store.close()
