"""What people change of aggregates: Nova's semantics and messages, on each kind of store."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from sqlalchemy import select, update

import fleet
from libmh.api.aggregates import Aggregate
from libmh.api.placement import Flavor
from libmh.caller import Caller, answering
from libmh.errors import Conflict, InvalidArguments, NotFound, Problem, Timeout
from libmh.events import Event, Hub
from mh_conductor import catalogue, registry
from mh_conductor.editing import Editing
from mh_conductor.flavors import Flavors
from mh_conductor.history import history
from mh_conductor.intake import Intake
from mh_conductor.limits import MAX_KEYS
from mh_conductor.store import Store, open_store
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS

ZONE = "availability_zone"
ANNA = Caller("amqp", "anna")


@dataclass
class Hand:
    """An empty fleet of three hosts, and whoever edits it."""

    store: Store
    editing: Editing
    intake: Intake
    events: list[Event] = field(default_factory=list)

    def state(self) -> list[Aggregate]:
        with self.store.read() as connection:
            return catalogue.listing(connection)

    def generation(self) -> int:
        with self.store.read() as connection:
            return registry.generation(connection)

    def told(self) -> list[tuple[object, ...]]:
        names = ("aggregate", "change", "host", "generation")
        return [tuple(event.fields[name] for name in names) for event in self.events]


@pytest.fixture
def hand(store_url: str) -> Iterator[Hand]:
    store, hub = open_store(store_url), Hub()
    made = Hand(store, Editing(store, hub), Intake(store, fleet.rules()))
    for number in (1, 2, 3):
        made.intake.take(fleet.report(number, arch=None, cpu_flags=[]))
    hub.subscribe(made.events.append)
    yield made
    store.close()


def refused(hand: Hand, kind: type[Problem], message: str, call: Callable[[], object]) -> None:
    """Refused in these words, and nothing has changed."""
    before = hand.state(), hand.generation(), list(hand.events)
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.message == message
    assert (hand.state(), hand.generation(), hand.events) == before


def test_nothing_comes_of_what_nobody_waits_for_any_more(hand: Hand) -> None:
    given_up = time.monotonic() - 1
    late = "the store did not take it in before whoever asked gave up, nothing was changed"

    def asked(call: Callable[[], object]) -> None:
        with answering(ANNA, given_up):
            call()

    made = hand.editing.create("one")
    flavors = Flavors(hand.store)
    flavor = Flavor("f", "f", 1, 1, 0, {}, 0, 0, 0)
    for call in (
        partial(hand.editing.create, "two"),
        partial(hand.editing.set_metadata, made.id, {"a": "b"}),
        partial(hand.editing.delete, made.id),
        partial(flavors.create, flavor),
    ):
        refused(hand, Timeout, late, partial(asked, call))
    assert flavors.create(flavor).id == "f"


def test_making_and_deleting(hand: Hand) -> None:
    edit = hand.editing
    made = edit.create("a")
    assert (made.name, made.hosts, made.metadata, made.availability_zone) == ("a", [], {}, None)
    assert (made.generation, made.owner, made.created) == (1, None, made.updated)
    zone = edit.create("z", "az1")
    assert (zone.availability_zone, zone.metadata) == ("az1", {ZONE: "az1"})
    assert zone.id > made.id
    refused(hand, Conflict, "Aggregate a already exists.", lambda: edit.create("a"))
    assert edit.create("A").name == "A"
    edit.add_host("a", "node1")
    refused(
        hand,
        InvalidArguments,
        f"Cannot remove host from aggregate {made.id}. Reason: Host aggregate is not empty.",
        lambda: edit.delete("a"),
    )
    edit.remove_host("a", "node1")
    assert edit.delete("a")
    refused(hand, NotFound, "Aggregate a could not be found.", lambda: edit.delete("a"))
    assert edit.create("a").id > zone.id


def test_an_aggregate_is_named_by_name_uuid_or_id(hand: Hand) -> None:
    edit = hand.editing
    first = edit.create("first")
    trap = edit.create(str(first.id))
    assert edit.set_metadata(first.id, {"by": "id"}).name == "first"
    assert edit.set_metadata(first.uuid, {"by": "uuid"}).name == "first"
    assert edit.set_metadata(str(first.id), {"by": "name"}).id == trap.id
    for unknown in (9999, 0, -1, 10**30, "9999", "nope", "", "a\0b", "\ud800"):
        with pytest.raises(NotFound, match="could not be found"):
            edit.set_metadata(unknown, {"a": "b"})
    refused(hand, NotFound, "Aggregate 9999 could not be found.", lambda: edit.delete(9999))


def test_adding_and_removing_hosts(hand: Hand) -> None:
    edit = hand.editing
    made = edit.create("a")
    assert edit.add_host("a", "node1").hosts == ["node1"]
    assert edit.add_host("a", fleet.uuid_of(2)).hosts == ["node1", "node2"]
    refused(
        hand, Conflict, f"Aggregate {made.id} already has host node1.", lambda: edit.add_host("a", "node1")
    )
    gone = "Compute host nope could not be found."
    refused(hand, NotFound, gone, lambda: edit.add_host("a", "nope"))
    refused(hand, NotFound, gone, lambda: edit.add_host(9999, "nope"))
    refused(hand, NotFound, "Aggregate 9999 could not be found.", lambda: edit.add_host(9999, "node1"))
    for which, host in ((made.id, "node3"), (made.id, "nope"), (9999, "node1")):
        said = f"Cannot remove host {host} in aggregate {which}"
        refused(hand, NotFound, said, partial(edit.remove_host, which, host))
    assert edit.remove_host("a", "node1").hosts == ["node2"]


def test_a_host_is_in_one_zone(hand: Hand) -> None:
    edit = hand.editing
    one, two, third = edit.create("one", "az1"), edit.create("two", "az2"), edit.create("third")
    edit.add_host("one", "node1")
    already = "One or more hosts already in availability zone(s) ['az1']."
    refused(
        hand,
        Conflict,
        f"Cannot add host to aggregate {two.id}. Reason: {already}",
        lambda: edit.add_host("two", "node1"),
    )
    edit.add_host("third", "node1")
    refused(
        hand,
        InvalidArguments,
        f"Cannot update metadata of aggregate {third.id}. Reason: {already}",
        lambda: edit.set_metadata("third", {"a": "b", ZONE: "az3"}),
    )
    refused(
        hand,
        InvalidArguments,
        f"Cannot update aggregate {third.id}. Reason: {already}",
        lambda: edit.update("third", {"name": "other", ZONE: "az3"}),
    )
    assert edit.set_metadata("third", {ZONE: "az1"}).availability_zone == "az1"
    assert edit.set_metadata("two", {ZONE: "az9"}).availability_zone == "az9"
    edit.remove_host("third", "node1")
    assert edit.update(one.id, {ZONE: "az7"}).availability_zone == "az7"
    edit.remove_host("one", "node1")
    assert edit.add_host("two", "node1").hosts == ["node1"]


def test_a_zone_is_never_none(hand: Hand) -> None:
    edit = hand.editing
    made = edit.create("a", "az1")
    empty = "Reason: Aggregate a does not support empty named availability zone."
    for value in (None, ""):
        refused(
            hand,
            InvalidArguments,
            f"Cannot update metadata of aggregate {made.id}. {empty}",
            partial(edit.set_metadata, "a", {ZONE: value}),
        )
        refused(
            hand,
            InvalidArguments,
            f"Cannot update aggregate {made.id}. {empty}",
            partial(edit.update, "a", {ZONE: value}),
        )


def test_a_zone_is_checked_on_every_path(hand: Hand) -> None:
    before = hand.editing.create("a")
    for zone in ("a:b", " a", "a ", "a\n", "a\tb", "\0", "x" * 256, "\u2028", "🙂"):
        calls: list[Callable[[], object]] = [
            partial(hand.editing.create, "b", zone),
            partial(hand.editing.update, "a", {ZONE: zone}),
            partial(hand.editing.set_metadata, "a", {ZONE: zone}),
        ]
        for call in calls:
            with pytest.raises(InvalidArguments):
                call()
    assert hand.state() == [before]


def test_metadata_is_merged(hand: Hand) -> None:
    edit = hand.editing
    edit.create("a")
    assert edit.set_metadata("a", {"k1": "v1", "k2": "v2"}).metadata == {"k1": "v1", "k2": "v2"}
    merged = edit.set_metadata("a", {"k1": None, "k3": "", "never there": None})
    assert merged.metadata == {"k2": "v2", "k3": ""}
    keys = {"a-Z_0:9. x": "'; DROP TABLE hosts; --", "x" * 255: "ü" * 255, "lines": "a\nb\t\x1b"}
    assert edit.set_metadata("a", keys).metadata.items() >= keys.items()


def test_nothing_changes_where_nothing_does(hand: Hand) -> None:
    edit = hand.editing
    edit.create("a", "az1")
    made = edit.set_metadata("a", {"k": "v"})
    before = hand.generation(), list(hand.events)
    assert edit.set_metadata("a", {}) == made
    assert edit.set_metadata("a", {"k": "v", ZONE: "az1", "gone": None}) == made
    assert edit.update("a", {"name": "a", ZONE: "az1"}) == made
    assert edit.update("a", {}) == made
    assert (hand.generation(), hand.events) == before


def test_every_change_is_seen(hand: Hand) -> None:
    edit = hand.editing
    was = edit.create("a")
    for change in (
        partial(edit.set_metadata, "a", {"k": "v"}),
        partial(edit.set_metadata, "a", {"k": None}),
        partial(edit.add_host, "a", "node1"),
        partial(edit.remove_host, "a", "node1"),
        partial(edit.rename, "a", "b"),
        partial(edit.update, "b", {ZONE: "az1", "name": "a"}),
    ):
        whole = hand.generation()
        now = change()
        assert now.generation > was.generation
        assert now.updated > was.updated
        assert (now.created, now.uuid, now.id) == (was.created, was.uuid, was.id)
        assert hand.generation() > whole
        with hand.store.read() as connection:
            stamp = connection.execute(select(AGGREGATES.c.stamp).where(AGGREGATES.c.id == now.id)).scalar()
        assert stamp == hand.generation()
        was = now


def test_renaming(hand: Hand) -> None:
    edit = hand.editing
    edit.create("a")
    edit.create("taken")
    refused(hand, Conflict, "Aggregate taken already exists.", lambda: edit.rename("a", "taken"))
    taken = {"name": "taken", ZONE: "az1"}
    refused(hand, Conflict, "Aggregate taken already exists.", lambda: edit.update("a", taken))
    both = edit.update("a", {"name": "b", ZONE: "az1"})
    assert (both.name, both.availability_zone, both.generation) == ("b", "az1", 3)
    assert hand.told()[2:] == [("b", "renamed", "", 2), ("b", "metadata", "", 3)]


def test_a_generation_that_is_over_is_a_conflict(hand: Hand) -> None:
    edit = hand.editing
    edit.create("a")
    made = edit.add_host("a", "node1", generation=1)
    assert made.generation == 2
    over = "aggregate 'a' is of generation 2, not of 1"
    refused(hand, Conflict, over, lambda: edit.add_host("a", "node2", 1))
    refused(hand, Conflict, over, lambda: edit.remove_host("a", "node1", 1))
    refused(hand, Conflict, over, lambda: edit.set_metadata("a", {"k": "v"}, 1))
    refused(hand, Conflict, over, lambda: edit.rename("a", "b", 1))
    refused(hand, Conflict, over, lambda: edit.delete("a", 1))
    assert edit.remove_host("a", "node1", 2).generation == 3
    assert edit.delete("a", 3)


def test_a_bad_name_is_refused(hand: Hand) -> None:
    before = hand.editing.create("a")
    for name in ("", " ", " a", "a ", "a\n", "a\0b", "x" * 256, "\u2028", "\ud800", "a\x7f", "🙂"):
        for call in (partial(hand.editing.create, name), partial(hand.editing.rename, "a", name)):
            with pytest.raises(InvalidArguments, match=r"^name: expected "):
                call()
    assert hand.state() == [before]


def test_names_that_nova_takes(hand: Hand) -> None:
    names = [
        "x" * 255,
        "a  b",
        "a\u00a0b",
        "ü",
        "日本",
        "'; DROP TABLE aggregates; --",
        "%s",
        "{}",
        ":x",
        "a\\",
    ]
    assert [hand.editing.create(name).name for name in names] == names


KEYS = "metadata: expected 1 to 255 letters"
BAD: list[tuple[dict[str, str | None], str]] = [
    ({"": "v"}, KEYS),
    ({"k" * 256: "v"}, KEYS),
    ({"k\n": "v"}, KEYS),
    ({"ü": None}, KEYS),
    ({"k;": "v"}, KEYS),
    ({"k": "v" * 256}, "metadata.k: expected at most 255 characters, got 256"),
    ({"k": "a\0b"}, "metadata.k: expected text without U+0000"),
    ({"k": "\ud800"}, "metadata.k: expected text without U+0000"),
    ({f"k{n}": "v" for n in range(9_999)}, f"metadata: expected at most {MAX_KEYS} keys, got 10000"),
    ({f"k{n}": "v" for n in range(MAX_KEYS)}, "Cannot update metadata of aggregate "),
]


def test_bad_metadata_is_refused_whole(hand: Hand) -> None:
    made = hand.editing.create("a", "az1")
    for metadata, expected in BAD:
        with pytest.raises(InvalidArguments) as caught:
            hand.editing.set_metadata("a", {"fine": "value", **metadata})
        assert caught.value.message.startswith(expected)
    assert caught.value.message.endswith(f"Reason: expected at most {MAX_KEYS} keys of metadata, got 1002.")
    assert hand.state() == [made]


def test_unknown_hosts_of_any_kind_are_not_found(hand: Hand) -> None:
    hand.editing.create("a")
    for host in ("", "a\0b", "\ud800", "x" * 5000, "'; DELETE FROM hosts; --", "%", "NODE1"):
        with pytest.raises(NotFound):
            hand.editing.add_host("a", host)
        with pytest.raises(NotFound):
            hand.editing.remove_host("a", host)


def test_who_did_what_is_kept_and_told(hand: Hand) -> None:
    with answering(ANNA):
        hand.editing.create("a", "az1")
        hand.editing.set_metadata("a", {"k": "v", "l": None})
        hand.editing.add_host("a", "node1")
        hand.editing.rename("a", "b")
        hand.editing.remove_host("b", "node1")
        hand.editing.delete("b")
    with hand.store.read() as connection:
        entries = history(connection, "b")
        assert [(each.who, each.change, each.host, each.why) for each in entries] == [
            ("amqp anna", "deleted", "", "amqp anna deleted 'b'"),
            ("amqp anna", "host-removed", "node1", "amqp anna removed node1 from 'b'"),
            ("amqp anna", "renamed", "", "amqp anna renamed 'a' to 'b'"),
        ]
        assert [each.change for each in history(connection, "a")] == [
            *("renamed", "host-added", "metadata", "created")
        ]
        assert history(connection, host="node1")[0].change == "host-removed"
        assert len(history(connection, limit=2)) == 2
        assert history(connection, "a\0") == []
        for limit in (0, 10_001):
            with pytest.raises(InvalidArguments, match="limit: expected 1 to 10000"):
                history(connection, limit=limit)
    assert hand.told() == [
        ("a", "created", "", 1),
        ("a", "metadata", "", 2),
        ("a", "host-added", "node1", 3),
        ("b", "renamed", "", 4),
        ("b", "host-removed", "node1", 5),
        ("b", "deleted", "", 6),
    ]
    assert hand.events[1].fields["why"] == "amqp anna set k='v'"


def test_what_people_set_no_rule_touches(hand: Hand) -> None:
    take = hand.intake.take
    take(fleet.report(1, 2))
    take(fleet.report(2, 2))
    edit = hand.editing
    kept = edit.add_host("avx512", "node1")
    assert kept.hosts == ["node1", "node2"]
    with pytest.raises(Conflict, match="already has host node1"):
        edit.add_host("avx512", "node1")
    edit.set_metadata("avx512", {"cpu_avx512": "maybe", "mine": "too"})
    take(fleet.report(1, 3, cpu_flags=[]))
    take(fleet.report(2, 3, cpu_flags=[]))
    (left,) = [each for each in hand.state() if each.name == "avx512"]
    assert (left.hosts, left.owner) == (["node1"], "avx512")
    assert left.metadata == {"cpu_avx512": "maybe", "mine": "too"}


def test_a_value_that_a_rule_set_becomes_ones_own(hand: Hand) -> None:
    hand.intake.take(fleet.report(1, 2))
    before = next(each for each in hand.state() if each.name == "avx512")
    after = hand.editing.set_metadata("avx512", {"cpu_avx512": "true"})
    assert (after.metadata, after.generation) == (before.metadata, before.generation + 1)
    hand.intake.take(fleet.report(1, 3, cpu_flags=[]))
    assert "avx512" in [each.name for each in hand.state()]


def test_what_a_rule_made_comes_back(hand: Hand) -> None:
    hand.intake.take(fleet.report(1, 2))
    assert hand.editing.remove_host("avx512", "node1").hosts == []
    assert hand.editing.set_metadata("avx512", {"cpu_avx512": None}).metadata == {}
    hand.intake.take(fleet.report(1, 3, memory_gib=17))
    (back,) = [each for each in hand.state() if each.name == "avx512"]
    assert (back.hosts, back.metadata) == (["node1"], {"cpu_avx512": "true"})


def test_a_registered_host_can_be_placed(hand: Hand) -> None:
    with hand.store.write() as connection:
        connection.execute(update(HOSTS).where(HOSTS.c.hostname == "node3").values(state="registered"))
    hand.editing.create("a")
    assert hand.editing.add_host("a", "node3").hosts == ["node3"]


def test_a_name_of_two_hosts_has_to_be_said_better(hand: Hand) -> None:
    hand.intake.take(fleet.report(9, hostname="node1", arch=None, cpu_flags=[]))
    hand.editing.create("a")
    with pytest.raises(InvalidArguments, match="is the name of several hosts"):
        hand.editing.add_host("a", "node1")
    assert hand.editing.add_host("a", fleet.uuid_of(9)).hosts == ["node1"]
    with hand.store.read() as connection:
        assert connection.execute(select(MEMBERS.c.host)).scalars().all() == [fleet.uuid_of(9)]
