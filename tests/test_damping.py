"""Facts that flap leave a host where it is until they have been steady."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

import fleet
from libmh.api.host import FactStatus
from mh_conductor import catalogue, damping
from mh_conductor.damping import Note, damp
from mh_conductor.explaining import Explaining
from mh_conductor.intake import Intake
from mh_conductor.judge import Answer, judge, subject_of
from mh_conductor.reconcile import Reconciler
from mh_conductor.regime import FLAP_WINDOW, NANOSECONDS, Regime
from mh_conductor.rules import RuleSet
from mh_conductor.silence import Silence
from mh_conductor.store import Store, open_store
from mh_conductor.tables import HISTORY, HOSTS, VERDICTS

NONE = RuleSet(())
RULES = """
[settings]
flaps = 3
settle = "10min"
silent_after = "1d"

[[rule]]
name = "big"
aggregate = "big"
requirements = { memory_gib = ">= 64" }

[[rule]]
name = "arch"
aggregate = "arch-{arch}"
"""
SECOND = NANOSECONDS
MINUTE = 60 * SECOND
WINDOW = int(FLAP_WINDOW) * SECOND


class World:
    def __init__(self, store: Store) -> None:
        self.now = 10**18
        self.store = store
        fleet.bring(self.store, RULES)
        self.intake = Intake(self.store, NONE, clock=lambda: self.now)
        self.silence = Silence(self.store, NONE, "one", lambda: True, clock=lambda _: self.now)
        self.sequence = 0
        self.silence.sweep()

    def tells(self, memory: int = 16, arch: str = "x86_64") -> list[str]:
        """A report after five seconds; answers where the host is now."""
        self.now += 5 * SECOND
        self.sequence += 1
        made = fleet.report(1, self.sequence, memory_gib=memory, arch=arch)
        return self.intake.take(made).accepted.aggregates

    def passes(self, span: int) -> None:
        end = self.now + span
        while self.now < end:
            self.now = min(end, self.now + MINUTE // 2)
            self.silence.sweep()

    def places(self) -> list[str]:
        with self.store.read() as connection:
            return [each.name for each in catalogue.listing(connection) if each.hosts]

    def notes(self) -> int:
        with self.store.read() as connection:
            return connection.execute(select(func.count()).select_from(VERDICTS)).scalar_one()

    def why(self, name: str) -> list[str]:
        with self.store.read() as connection:
            return [
                each.reason for each in Explaining(NONE, lambda _: self.now).why(connection, "node1", name)
            ]


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    made = World(open_store(store_url))
    yield made
    made.store.close()


IN, OUT = ["arch-x86_64", "big"], ["arch-x86_64"]


def test_what_changes_now_and_then_is_followed_at_once(world: World) -> None:
    assert [world.tells(16), world.tells(64), world.tells(16), world.tells(64)] == [OUT, IN, OUT, IN]


def flapping(world: World) -> None:
    for memory in (16, 64, 16, 64):
        world.tells(memory)


def test_what_flaps_stays_where_it_is_until_it_is_steady(world: World) -> None:
    flapping(world)
    assert world.tells(16) == IN  # the fourth change
    assert [world.tells(64), world.tells(16), world.tells(16)] == [IN, IN, IN]
    world.passes(9 * MINUTE)
    assert world.places() == IN
    world.passes(MINUTE)
    assert world.places() == OUT


def test_a_stranger_that_flaps_does_not_join(world: World) -> None:
    flapping(world)
    world.tells(16)
    world.passes(10 * MINUTE)
    assert world.places() == OUT
    assert [world.tells(64), world.tells(16), world.tells(64)] == [OUT, OUT, OUT]
    world.passes(11 * MINUTE)
    assert world.places() == IN


def test_steady_enough_is_counted_from_the_last_change(world: World) -> None:
    flapping(world)
    world.tells(16)
    world.passes(9 * MINUTE)
    world.tells(64)
    world.tells(16)
    world.passes(9 * MINUTE)
    assert world.places() == IN
    world.passes(2 * MINUTE)
    assert world.places() == OUT


def test_a_fact_in_a_name_may_flap_too(world: World) -> None:
    for arch in ("x86_64", "aarch64", "x86_64", "aarch64", "x86_64"):
        world.tells(arch=arch)
    assert world.places() == ["arch-aarch64"]
    world.passes(11 * MINUTE)
    assert world.places() == ["arch-x86_64"]


def test_it_is_told(world: World) -> None:
    flapping(world)
    world.tells(16)
    said = "rule 'big' changed its answer 4 times within an hour: the host stays where it is until that has"
    assert said in world.why("big")[-1]
    assert "been steady for 10 min, which is at 2001-09-09 01:57:" in world.why("big")[-1]
    with world.store.read() as connection:
        damped = connection.execute(select(HISTORY).where(HISTORY.c.change == "damped")).all()
    assert [(row.rule, row.host) for row in damped] == [("big", "node1")]
    assert said in damped[0].why
    world.passes(11 * MINUTE)
    assert not any("changed its answer" in reason for reason in world.why("big"))


def test_new_rules_do_not_hurry_it(world: World) -> None:
    flapping(world)
    world.tells(16)
    reconciler = Reconciler(world.store, NONE, lambda: world.now)
    for text in (RULES + "# again", RULES.replace('aggregate = "big"', 'aggregate = "large"')):
        reconciler.load(fleet.rules(text), "test", approve=True)
        assert world.places() == IN


def test_what_was_noted_is_forgotten(world: World) -> None:
    flapping(world)
    assert world.notes() == 1
    world.passes(60 * MINUTE + MINUTE)
    assert world.notes() == 0
    assert world.tells(16) == OUT


def test_a_new_host_and_a_fact_that_cannot_be_read_are_no_changes(world: World) -> None:
    world.tells(64)
    assert world.notes() == 0
    unread = fleet.with_facts(fleet.report(1, 2), memory_gib=fleet.fact(None, FactStatus.TIMEOUT))
    world.intake.take(unread)
    assert (world.notes(), world.places()) == (0, IN)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=30))
def test_a_host_never_moves_more_often_than_it_may(told: list[tuple[bool, int]]) -> None:
    """Whatever the facts do: within any hour no more moves than the limit, and one after each settling."""
    rules, regime = fleet.rules(RULES.partition('[[rule]]\nname = "arch"')[0]), Regime(flaps=3, settle=600.0)
    now, member, moves = 10**18, False, list[int]()
    notes: dict[str, Note] = {}
    for big, minutes in told:
        now += minutes * MINUTE
        notes = {name: note for name, note in notes.items() if now - note.since < WINDOW}
        verdicts = judge(subject_of(fleet.report(memory_gib=64 if big else 8)), rules)
        made = damp(verdicts, {"big": "big"} if member else {}, notes, regime, now)
        notes |= {note.rule: note for note in made.notes}
        (verdict,) = made.verdicts
        wanted = member if verdict.answer is Answer.UNSURE else verdict.answer is Answer.YES
        assert verdict.answer is Answer.UNSURE or wanted is big
        if wanted is not member:
            member = wanted
            moves.append(now)
        assert all(len(note.changes) <= regime.flaps + 1 for note in notes.values())
    for at, moment in enumerate(moves):
        lately = [each for each in moves[: at + 1] if moment - each < regime.settle * SECOND]
        assert len(lately) <= regime.flaps


def test_notes_come_back_as_they_were_put(world: World) -> None:
    world.tells(16)
    note = Note("big", "yes big", 7, (1, 2, 7))
    with world.store.write() as connection:
        damping.put(connection, fleet.uuid_of(1), [Note("big", "no", 3, (3,)), note])
        assert damping.notes_of(connection, fleet.uuid_of(1)) == {"big": note}
        assert damping.every_note(connection) == {fleet.uuid_of(1): {"big": note}}


def test_a_trait_flaps_no_more_than_a_place(store_url: str) -> None:
    world = World(open_store(store_url))
    fleet.bring(world.store, RULES.replace('aggregate = "big"', 'gives = ["CUSTOM_MH_BIG"]'))

    def given_now() -> str:
        with world.store.read() as connection:
            query = select(HOSTS.c.given).where(HOSTS.c.uuid == fleet.uuid_of(1))
            return str(connection.execute(query).scalar_one())

    seen = []
    for memory in (16, 64, 16, 64, 16, 64):
        world.tells(memory)
        seen.append(given_now())
    has, lacks = '["CUSTOM_MH_BIG"]', "[]"
    assert seen == [lacks, has, lacks, has, has, has]
    world.tells(16)
    assert given_now() == has
    world.passes(11 * MINUTE)
    assert given_now() == lacks
    world.store.close()
