"""Flavors: Nova's limits and messages, on each kind of store."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from libmh.api.placement import Flavor
from libmh.caller import Caller, answering
from libmh.errors import Conflict, InvalidArguments, NotFound
from mh_conductor import flavors, registry
from mh_conductor.flavors import Flavors
from mh_conductor.history import history
from mh_conductor.limits import MAX_INT, MAX_KEYS
from mh_conductor.store import Store, open_store

SMALL = Flavor("1", "small", 1, 512, 0, {}, 0, 0, 0)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    made = open_store(store_url)
    yield made
    made.close()


def listed(store: Store) -> list[Flavor]:
    with store.read() as connection:
        return flavors.listing(connection)


def find(store: Store, which: str) -> Flavor:
    with store.read() as connection:
        return flavors.find(connection, which)


def test_a_flavor_is_made_found_and_deleted(store: Store) -> None:
    edit = Flavors(store)
    whole = replace(SMALL, extra_specs={"a": "1"}, description="für alle", ephemeral=1, swap=2, public=False)
    made = edit.create(replace(whole, rxtx_factor=0.5))
    assert made == replace(whole, rxtx_factor=0.5, created=made.created, updated=made.created, generation=1)
    other = edit.create(replace(SMALL, id="", name="A b"))
    assert len(other.id) == 36
    assert listed(store) == [other, made]
    assert find(store, "1") == find(store, "small") == made
    with pytest.raises(Conflict, match=r"^Flavor with ID 1 already exists\.$"):
        edit.create(replace(SMALL, name="another"))
    with pytest.raises(Conflict, match=r"^Flavor with name small already exists\.$"):
        edit.create(replace(SMALL, id="another"))
    assert edit.delete("small")
    for unknown in ("small", "nope", "", "a\0b", "\ud800"):
        with pytest.raises(NotFound, match="could not be found"):
            edit.delete(unknown)
    assert listed(store) == [other]


def test_an_id_comes_before_a_name(store: Store) -> None:
    edit = Flavors(store)
    edit.create(replace(SMALL, id="a", name="b"))
    edit.create(replace(SMALL, id="b", name="a"))
    assert find(store, "b").name == "a"


def test_extra_specs_are_merged(store: Store) -> None:
    edit = Flavors(store)
    made = edit.create(replace(SMALL, extra_specs={"hw:cpu_policy": "shared", "b": "2"}))
    after = edit.set_extra_specs("1", {"b": "3", "c d": ""}, ["hw:cpu_policy"])
    assert after.extra_specs == {"b": "3", "c d": ""}
    assert after.generation == 2
    assert after.updated > made.updated
    assert edit.set_extra_specs("1", {"b": "3"}) == after
    with pytest.raises(NotFound, match=r"^Flavor 1 has no extra specs with key x\.$"):
        edit.set_extra_specs("small", {"z": "1"}, ["x"])
    with pytest.raises(Conflict, match="is of generation 2, not of 1"):
        edit.set_extra_specs("1", {"z": "1"}, generation=1)
    assert edit.set_extra_specs("1", {}, ["b", "c d"], generation=2).extra_specs == {}


def test_a_description_is_changed(store: Store) -> None:
    edit = Flavors(store)
    edit.create(SMALL)
    after = edit.describe("small", "new", generation=1)
    assert (after.description, after.generation) == ("new", 2)
    assert edit.describe("1", "new") == after
    assert edit.describe("1", None).description is None
    with pytest.raises(Conflict):
        edit.describe("1", "other", generation=1)
    with pytest.raises(NotFound, match=r"^Flavor nope could not be found\.$"):
        edit.describe("nope", "other")


def test_what_no_flavor_can_have_is_refused(store: Store) -> None:
    edit = Flavors(store)
    many = {f"k{n}": "v" for n in range(MAX_KEYS + 1)}
    for wrong, argument in (
        (replace(SMALL, name=""), "name"),
        (replace(SMALL, name=" x"), "name"),
        (replace(SMALL, name="x" * 256), "name"),
        (replace(SMALL, name="a\0"), "name"),
        (replace(SMALL, id=" x"), "id"),
        (replace(SMALL, id="ü"), "id"),
        (replace(SMALL, id="x" * 256), "id"),
        (replace(SMALL, id="x\n"), "id"),
        (replace(SMALL, vcpus=0), "vcpus"),
        (replace(SMALL, ram=0), "ram"),
        (replace(SMALL, ram=MAX_INT + 1), "ram"),
        (replace(SMALL, disk=MAX_INT + 1), "disk"),
        (replace(SMALL, rxtx_factor=0.0), "rxtx_factor"),
        (replace(SMALL, rxtx_factor=float("nan")), "rxtx_factor"),
        (replace(SMALL, rxtx_factor=float("inf")), "rxtx_factor"),
        (replace(SMALL, description="a\nb"), "description"),
        (replace(SMALL, description="x" * 65536), "description"),
        (replace(SMALL, extra_specs={"": "v"}), "extra_specs"),
        (replace(SMALL, extra_specs={"k": "v" * 256}), "extra_specs"),
        (replace(SMALL, extra_specs={"k": "\0"}), "extra_specs"),
        (replace(SMALL, extra_specs=many), "extra_specs"),
    ):
        with pytest.raises(InvalidArguments, match=f"^{argument}"):
            edit.create(wrong)
    assert listed(store) == []
    edit.create(SMALL)
    for call in (partial(edit.set_extra_specs, "1", many), partial(edit.describe, "1", "\0")):
        with pytest.raises(InvalidArguments):
            call()
    assert edit.create(replace(SMALL, id="max", name="max", ram=MAX_INT, disk=MAX_INT)).ram == MAX_INT


def test_changes_of_flavors_are_in_the_history(store: Store) -> None:
    edit = Flavors(store)
    with answering(Caller("amqp", "anna")):
        edit.create(SMALL)
        edit.set_extra_specs("1", {"a": "1", "b": "2"})
        edit.set_extra_specs("1", {}, ["b"])
        edit.delete("1")
    with store.read() as connection:
        assert [(each.who, each.change, each.why) for each in history(connection)] == [
            ("amqp anna", "flavor-deleted", "amqp anna deleted flavor 'small'"),
            ("amqp anna", "flavor-specs", "amqp anna removed b in flavor 'small'"),
            ("amqp anna", "flavor-specs", "amqp anna set a='1', b='2' in flavor 'small'"),
            ("amqp anna", "flavor-created", "amqp anna made flavor 'small'"),
        ]
        assert registry.generation(connection) == 4
