"""Availability zones: which there are, and who is in them, on each kind of store."""

import pytest
from sqlalchemy import update

import fleet
from libmh.api.aggregates import Zone
from libmh.errors import InvalidArguments
from mh_conductor import hosts, zones
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.placing import Placing
from mh_conductor.store import open_store
from mh_conductor.tables import HOSTS


def test_zones_are_what_aggregates_name_and_hosts_are_in(store_url: str) -> None:
    store = open_store(store_url, "default")
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
        assert zones.zones(connection) == [
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


def test_the_default_zone_can_be_another(store_url: str) -> None:
    store = open_store(store_url, "home")
    intake, placing = Intake(store, fleet.rules("")), Placing(store)
    for number in (1, 2):
        intake.take(fleet.report(number))
    Editing(store).create("far", "away")
    Editing(store).add_host("far", "node2")
    with store.read() as connection:
        assert [each.zone for each in hosts.listing(connection)] == ["home", "away"]
    for zone, there in (("home", ["node1"]), ("away", ["node2"]), ("nova", [])):
        fitting = placing.select([], zone=zone, rejected=True)
        assert [(each.hostname, each.zone) for each in fitting.hosts] == [(host, zone) for host in there]
        assert len(fitting.rejected or []) == 2 - len(there)
        assert bool(fitting.warnings) == (zone == "nova")
    store.close()
    with pytest.raises(InvalidArguments, match="the default zone 'a:b': expected no ':'"):
        open_store(store_url, "a:b")
