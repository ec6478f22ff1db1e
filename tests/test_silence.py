"""Hosts that stop reporting: marked, kept for the grace time, gone, and back; and when nobody leaves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

import fleet
from libmh.context import Context
from libmh.errors import Conflict
from libmh.events import Event
from mh_conductor import catalogue, damping, held, leases, registration, registry, silence
from mh_conductor.damping import Note
from mh_conductor.editing import Editing
from mh_conductor.governing import Governing, tell_silence
from mh_conductor.intake import Intake
from mh_conductor.regime import NANOSECONDS
from mh_conductor.rules import RuleSet
from mh_conductor.silence import Silence, Swept
from mh_conductor.store import Store, alone, open_store
from mh_conductor.tables import HISTORY, HOSTS, LEASES

NONE = RuleSet(())
RULES = """
[settings]
silent_after = 300
grace = "1h"
large_hosts = 5

[[rule]]
name = "arch"
aggregate = "arch-{arch}"

[[rule]]
name = "brief"
aggregate = "brief"
grace = "10min"
gives = ["CUSTOM_MH_BRIEF"]

[[rule]]
name = "loyal"
aggregate = "loyal"
grace = "1d"
"""
ALL = ["arch-x86_64", "brief", "loyal"]
MINUTE = 60 * NANOSECONDS
HOUR = 60 * MINUTE


class World:
    """A store, the time in it, and somebody who looks around."""

    def __init__(self, store: Store) -> None:
        self.now = 10**18
        self.hears = True
        self.store = store
        fleet.bring(self.store, RULES)
        self.intake = Intake(self.store, NONE, clock=lambda: self.now)
        self.silence = self.watcher("one")
        self._sequence = 1
        self.context = Context()
        self.events: list[Event] = []
        self.context.events.subscribe(self.events.append)
        self.people = Governing(self.store, NONE, self.context.events, self.silence)

    def watcher(self, name: str) -> Silence:
        return Silence(self.store, NONE, name, lambda: self.hears, clock=lambda _: self.now)

    def report(self, *numbers: int) -> None:
        self._sequence += 1
        for number in numbers:
            self.intake.take(fleet.report(number, self._sequence))

    def sweep(self) -> Swept:
        swept = self.silence.sweep()
        tell_silence(self.context.events, swept)
        return swept

    def passes(self, span: int, *reporting: int) -> None:
        """Time, in which some hosts report what is known and somebody looks around again and again."""
        end, step = self.now + span, MINUTE if span < 2 * HOUR else 10 * MINUTE
        while self.now < end:
            self.now = min(end, self.now + step)
            uuids = [fleet.uuid_of(number) for number in reporting]
            with self.store.write() as connection:
                connection.execute(update(HOSTS).where(HOSTS.c.uuid.in_(uuids)).values(last_seen=self.now))
                if step > MINUTE:
                    connection.execute(update(LEASES).values(until=self.now))
            self.sweep()

    def places(self, number: int = 1) -> list[str]:
        with self.store.read() as connection:
            return [each.name for each in catalogue.listing(connection) if f"node{number}" in each.hosts]

    def row(self, number: int = 1) -> tuple[str, str]:
        with self.store.read() as connection:
            query = select(HOSTS.c.state, HOSTS.c.given).where(HOSTS.c.uuid == fleet.uuid_of(number))
            row = connection.execute(query).one()
            return row.state, row.given


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    made = World(open_store(store_url))
    made.sweep()
    made.report(1, 2)
    yield made
    made.store.close()


def test_a_host_that_reports_stays_up(world: World) -> None:
    world.passes(HOUR, 1, 2)
    assert (world.row()[0], world.places()) == ("up", ALL)
    assert {event.member for event in world.events} == set()


def test_silence_is_marked_then_each_grace_ends_then_it_is_gone(world: World) -> None:
    world.passes(5 * MINUTE, 2)
    assert world.row()[0] == "up"
    world.passes(MINUTE, 2)
    assert (world.row()[0], world.places()) == ("silent", ALL)
    world.passes(9 * MINUTE, 2)
    assert world.places() == ALL
    world.passes(MINUTE, 2)
    assert (world.row(), world.places()) == (("silent", "[]"), ["arch-x86_64", "loyal"])
    world.passes(49 * MINUTE, 2)
    assert world.places() == ["arch-x86_64", "loyal"]
    world.passes(MINUTE, 2)
    assert (world.row()[0], world.places()) == ("gone", ["loyal"])
    world.passes(23 * HOUR, 2)
    assert (world.row()[0], world.places()) == ("gone", [])
    assert world.places(2) == ALL
    told = [
        (event.fields["hostname"], event.fields["state"])
        for event in world.events
        if event.member == "host_silent"
    ]
    assert told == [("node1", "silent"), ("node1", "gone")]


def test_it_says_why(world: World) -> None:
    world.passes(20 * MINUTE, 2)
    with world.store.read() as connection:
        rows = connection.execute(select(HISTORY.c.change, HISTORY.c.host, HISTORY.c.why)).all()
    said = {row.change: row.why for row in rows if row.host == "node1"}
    assert said["silent"].startswith("node1 is silent: no report since 2001-09-09 01:46:40 UTC")
    moment = "2001-09-09 01:46:40 UTC, which is longer than 15 min"
    assert said["host-removed"].startswith(f"node1 is no longer in brief because no report since {moment}")
    assert "no longer has CUSTOM_MH_BRIEF because no report since" in said["trait-taken"]


def test_a_report_brings_it_back(world: World) -> None:
    world.passes(3 * HOUR, 2)
    assert (world.row()[0], world.places()) == ("gone", ["loyal"])
    world.report(1)
    assert (world.row(), world.places()) == (("up", '["CUSTOM_MH_BRIEF"]'), ALL)
    world.passes(HOUR, 1, 2)
    assert world.places() == ALL


def test_what_was_added_by_hand_stays(world: World) -> None:
    people = Editing(world.store, None)
    people.create("mine", "")
    people.add_host("mine", "node1")
    world.passes(3 * HOUR, 2)
    assert (world.row()[0], world.places()) == ("gone", ["loyal", "mine"])


def test_new_rules_do_not_move_who_is_silent(world: World) -> None:
    world.passes(3 * HOUR, 2)
    fleet.bring(world.store, RULES + '[[rule]]\nname = "new"\naggregate = "new"\n')
    assert (world.places(), world.places(2)) == (["loyal"], [*ALL, "new"])
    fleet.bring(
        world.store, RULES.replace('name = "loyal"\n', 'name = "loyal"\nrequirements.arch = "vax"\n')
    )
    assert world.places() == []


def test_who_could_not_hear_says_nothing(world: World) -> None:
    world.hears = False
    world.now += 5 * HOUR
    world.sweep()
    assert world.row()[0] == "up"
    world.hears = True
    world.passes(5 * MINUTE, 2)
    assert world.row()[0] == "up"
    world.passes(MINUTE, 2)
    assert world.row()[0] == "silent"


def test_the_grace_does_not_run_while_nobody_hears(world: World) -> None:
    world.passes(10 * MINUTE, 2)
    assert (world.row()[0], world.places()) == ("silent", ALL)
    world.now += 5 * HOUR
    world.passes(9 * MINUTE, 2)
    assert world.places() == ALL
    world.passes(3 * MINUTE, 2)
    assert world.places() == ["arch-x86_64", "loyal"]


def test_one_process_looks_at_a_time(world: World) -> None:
    other = world.watcher("two")
    for _ in range(6):
        assert other.sweep() == Swept()
        world.passes(MINUTE)
    assert world.row()[0] == "silent"
    with world.store.write() as connection:
        leases.release(connection, silence.LEASE, "one")
    world.now += MINUTE // 2
    assert other.sweep() == Swept()
    with world.store.read() as connection:
        assert leases.holder_of(connection, silence.LEASE) == "two"
    assert world.sweep() == Swept()


def crowd(tmp_path: Path, hosts: int = 12) -> World:
    made = World(fleet.new_store(tmp_path))
    made.sweep()
    made.report(*range(1, hosts + 1))
    return made


LEFT = range(1, 7)


def test_when_too_many_are_silent_nobody_leaves(tmp_path: Path) -> None:
    world = crowd(tmp_path)
    world.passes(3 * HOUR, *LEFT)
    assert [world.row(number)[0] for number in (1, 9, 12)] == ["up", "silent", "silent"]
    assert world.places(9) == ALL
    (waits,) = world.people.held()
    assert (waits.what, waits.affected, waits.hosts) == ("silence", 6, 12)


def test_silence_that_trickles_in_is_one(tmp_path: Path) -> None:
    world = crowd(tmp_path, 30)
    for gone in range(12):
        world.passes(2 * MINUTE, *range(1, 30 - gone))
    world.passes(3 * HOUR, *range(1, 19))
    (waits,) = world.people.held()
    assert waits.affected == 12
    assert [event.member for event in world.events].count("change_held") == 1
    assert (world.places(30), world.places(20)) == (["arch-x86_64", "loyal"], ALL)
    assert "are silent, and more than 20% of all: is it the broker?" in waits.why


def test_approved_silence_leaves_and_what_came_back_stays(tmp_path: Path) -> None:
    world = crowd(tmp_path)
    world.passes(3 * HOUR, *range(1, 7))
    (waits,) = world.people.held()
    assert [each.host for each in waits.steps] == ["node10", "node11", "node12", "node7", "node8", "node9"]
    world.report(7)
    assert world.people.approve(waits.id)
    assert (world.row(7)[0], world.places(7)) == ("up", ALL)
    assert [(world.row(number)[0], world.places(number)) for number in (8, 12)] == [("gone", ["loyal"])] * 2
    assert world.people.held() == []
    world.passes(HOUR, *range(1, 8))
    assert world.people.held() == []


def test_nothing_is_left_to_approve_when_all_came_back(tmp_path: Path) -> None:
    world = crowd(tmp_path)
    world.passes(3 * HOUR, *range(1, 7))
    (waits,) = world.people.held()
    world.report(*range(1, 13))
    with pytest.raises(Conflict, match="no longer what was shown"):
        world.people.approve(waits.id)
    world.sweep()
    assert world.people.held() == []


def test_refused_silence_keeps_its_places_until_it_reports(tmp_path: Path) -> None:
    world = crowd(tmp_path)
    world.passes(3 * HOUR, *range(1, 7))
    (waits,) = world.people.held()
    assert world.people.refuse(waits.id)
    world.passes(3 * HOUR, *range(1, 7))
    assert (world.people.held(), world.places(12)) == ([], ALL)
    # one host more that falls silent is no crowd
    world.passes(3 * HOUR, *range(1, 6))
    assert (world.row(6)[0], world.places(6)) == ("gone", ["loyal"])
    world.report(12)
    world.sweep()
    with world.store.read() as connection:
        (kept,) = held.refused(connection, held.SILENCE)
        assert fleet.uuid_of(12) not in json.loads(kept.text)
        assert len(json.loads(kept.text)) == 5
    world.passes(3 * HOUR, *range(1, 6))
    assert world.places(12) == ["loyal"]


def test_very_many_leave_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "AT_ONCE", 2)
    world = crowd(tmp_path)
    world.passes(3 * HOUR, *range(1, 6))
    (waits,) = world.people.held()
    assert world.people.approve(waits.id)
    assert {world.row(number)[0] for number in range(6, 13)} == {"gone"}


def test_a_clock_that_is_put_back_ends_nothing_for_as_long(world: World) -> None:
    """It was a year ahead, in which a host fell silent and another one's fact was noted."""
    world.passes(10 * MINUTE, 1)
    with world.store.write() as connection:
        damping.put(connection, fleet.uuid_of(1), [Note("brief", "no", world.now, (world.now,) * 5)])
        connection.execute(update(LEASES).where(LEASES.c.name == silence.LEASE).values(until=0))
    world.now -= 365 * 24 * HOUR
    world.sweep()
    world.passes(2 * HOUR, 1)
    assert (world.row(2)[0], world.places(2)) == ("gone", ["loyal"])
    with world.store.read() as connection:
        assert damping.every_note(connection) == {}
    world.passes(10 * MINUTE)
    assert world.row()[0] == "silent"


def test_a_trait_that_another_rule_gives_too_keeps_nobody_busy(tmp_path: Path) -> None:
    world = crowd(tmp_path, 3)
    fleet.bring(
        world.store, RULES.replace('name = "loyal"\n', 'name = "loyal"\ngives = ["CUSTOM_MH_BRIEF"]\n')
    )
    world.passes(3 * HOUR, 2, 3)
    assert world.row() == ("gone", '["CUSTOM_MH_BRIEF"]')
    with world.store.read() as connection:
        before = registry.generation(connection)
    world.passes(10 * MINUTE, 2, 3)
    with world.store.read() as connection:
        assert registry.generation(connection) == before
    world.passes(22 * HOUR, 2, 3)
    assert world.row() == ("gone", "[]")


@pytest.mark.parametrize("does", ["reports", "is forgotten"])
def test_who_comes_back_or_is_forgotten_meanwhile_does_not_leave(
    postgresql_url: str, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(open_store(postgresql_url))
    world.sweep()
    world.report(1, 2)
    world.passes(15 * MINUTE, 2)
    assert (world.row()[0], world.places()) == ("silent", ALL)
    came = []

    def meanwhile(connection: Connection) -> None:
        monkeypatch.setattr(silence, "alone", alone)
        came.append(does)
        if does == "reports":
            world.report(1)
        else:
            with world.store.write() as other:
                registration.forget(other, "node1", world.now, "somebody")
        alone(connection)

    monkeypatch.setattr(silence, "alone", meanwhile)
    world.passes(2 * MINUTE, 2)
    assert came == [does]
    assert world.places() == (ALL if does == "reports" else [])
    world.store.close()
