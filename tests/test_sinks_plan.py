"""Plans of sinks: pure, and held against a model of Nova that refuses what Nova refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_conductor.limits import ZONE_KEY
from mh_conductor.sinks.matching import tentative
from mh_conductor.sinks.naming import join
from mh_conductor.sinks.plan import plan
from mh_conductor.sinks.state import OWNER_KEY, UUID_KEY, Actual, Compute, Desired, Found, Provider, Wanted
from mh_conductor.sinks.steps import MAX_STEPS, Action, Plan, Step, as_text, from_text
from mh_conductor.sinks.traits import named

OWNER = "matahari"
HOSTS = ("n1", "n2", "n3", "n4")
COMPUTES = tuple(Compute(host, f"{host}.example.org", f"uuid-{host}") for host in HOSTS)
PROVIDERS = {each.uuid: Provider(each.uuid, each.hypervisor) for each in COMPUTES}


def marks(uuid: str) -> dict[str, str]:
    return {OWNER_KEY: OWNER, UUID_KEY: uuid}


def there(number: int, name: str, *hosts: str, mark: str | None = "", **metadata: str) -> Found:
    """Ours, with the UUID of its name for a mark, unless `mark` says otherwise."""
    own = {} if mark is None else marks(mark or f"uuid-{name}")
    return Found(number, f"theirs-{number}", name, frozenset(hosts), {**own, **metadata})


def here(name: str, *hosts: str, uuid: str = "", **metadata: str) -> Wanted:
    return Wanted(uuid or f"uuid-{name}", name, frozenset(hosts), metadata)


def planned(
    wanted: tuple[Wanted, ...], found: tuple[Found, ...] = (), traits: Mapping[str, set[str]] | None = None
) -> Plan:
    told = {host: frozenset(those) for host, those in (traits or {}).items()}
    return plan(Desired(wanted, told), Actual(found, COMPUTES, PROVIDERS), OWNER)


def lines(steps: tuple[Step, ...]) -> list[str]:
    return [f"{step.action} {step.target} {step.detail}".strip() for step in steps]


@dataclass
class Nova:
    """Aggregates, changed by steps as Nova would be; what it would refuse is an AssertionError."""

    found: dict[str, Found] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)

    def do(self, step: Step) -> None:
        at = self.made.get(step.aggregate, step.aggregate)
        if step.action is Action.CREATE:
            assert step.target not in self.names()
            at = str(max((each.id for each in self.found.values()), default=0) + 1)
            self.made[step.aggregate] = at
            values = {key: value for key, value in step.metadata.items() if value is not None}
            self.found[at] = Found(int(at), f"theirs-{at}", step.target, frozenset(), values)
        elif step.action is Action.DELETE:
            assert not self.found.pop(at).hosts
        else:
            self.found[at] = self._changed(self.found[at], step)

    def _changed(self, was: Found, step: Step) -> Found:
        if step.action is Action.RENAME:
            assert step.name not in self.names()
            return replace(was, name=step.name)
        if step.action is Action.ADD_HOST:
            assert step.host not in was.hosts
            assert was.zone is None or self.zones(step.host, was) <= {was.zone}
            return replace(was, hosts=was.hosts | {step.host})
        if step.action is Action.REMOVE_HOST:
            assert step.host in was.hosts
            return replace(was, hosts=was.hosts - {step.host})
        assert step.action in (Action.SET_METADATA, Action.UNSET_METADATA)
        values = {**was.metadata, **step.metadata}
        zone = values.get(ZONE_KEY)
        assert zone or not was.zone
        assert zone is None or all(self.zones(host, was) <= {zone} for host in was.hosts)
        return replace(was, metadata={key: value for key, value in values.items() if value is not None})

    def names(self) -> set[str]:
        return {each.name for each in self.found.values()}

    def zones(self, host: str, beside: Found) -> set[str]:
        others = (each for each in self.found.values() if each.id != beside.id and host in each.hosts)
        return {each.zone for each in others if each.zone}

    def places(self, host: str) -> set[str]:
        return {at for at, each in self.found.items() if host in each.hosts}


def test_an_aggregate_has_its_metadata_before_a_host_joins() -> None:
    made = planned((here("a", "n1", ssd="true"),))
    assert lines(made.steps) == [
        f"create a {OWNER_KEY}={OWNER}, {UUID_KEY}=uuid-a, ssd=true",
        "add-host a n1",
    ]
    assert [step.why for step in made.steps] == ["there is none of this name", "n1 is in 'a' here"]


def test_what_is_as_wanted_needs_nothing() -> None:
    assert planned((here("a", "n1", ssd="true"),), (there(1, "a", "n1", ssd="true"),)) == Plan()


def test_a_host_joins_the_new_before_it_leaves_the_old() -> None:
    made = planned((here("a"), here("b", "n1")), (there(1, "a", "n1"), there(2, "b")))
    assert lines(made.steps) == ["add-host b n1", "remove-host a n1"]


def test_keys_are_set_before_hosts_join_and_go_when_hosts_have_gone() -> None:
    made = planned(
        (here("a", "n2", new="1", same="1"),),
        (there(1, "a", "n1", same="1", old="1", filter_tenant_id="x"),),
    )
    assert lines(made.steps) == [
        "set-metadata a new=1",
        "add-host a n2",
        "remove-host a n1",
        "unset-metadata a -filter_tenant_id, -old",
    ]


def test_between_two_zones_the_old_place_goes_first() -> None:
    made = planned(
        (here("a", availability_zone="az1"), here("b", "n1", availability_zone="az2")),
        (there(1, "a", "n1", availability_zone="az1"), there(2, "b", availability_zone="az2")),
    )
    assert lines(made.steps) == ["remove-host a n1", "add-host b n1"]
    assert made.steps[0].why == "n1 can be in one zone only, and leaves 'az1' for 'az2'"


def test_a_zone_through_what_is_not_ours_is_a_conflict_and_the_host_keeps_its_place() -> None:
    made = planned(
        (here("a"), here("b", "n1", "n2", availability_zone="az2")),
        (there(1, "a", "n1"), there(2, "hand", "n1", mark=None, availability_zone="az1")),
    )
    assert [step.action for step in made.steps] == [Action.CREATE, Action.ADD_HOST]
    assert lines(made.conflicts) == ["add-host b n1", "remove-host a n1"]
    assert made.conflicts[0].why == "n1 is in zone 'az1' through 'hand', so it cannot be in 'az2'"
    assert made.conflicts[1].why == "n1 stays for as long as it cannot join what it belongs to"


def test_what_restricts_a_host_stays_for_as_long_as_the_host_does() -> None:
    made = planned(
        (here("a"), here("b", "n1", availability_zone="az2")),
        (
            there(1, "a", "n1", filter_tenant_id="x"),
            there(2, "hand", "n1", mark=None, availability_zone="az1"),
        ),
    )
    assert [step.action for step in made.steps] == [Action.CREATE]
    assert lines(made.conflicts) == [
        "add-host b n1",
        "remove-host a n1",
        "unset-metadata a -filter_tenant_id",
    ]
    assert made.conflicts[2].why == "the metadata stay for as long as n1 does"


def test_a_zone_changes_for_members_that_stay() -> None:
    made = planned(
        (here("a", "n1", availability_zone="new"),), (there(1, "a", "n1", "n2", availability_zone="old"),)
    )
    assert lines(made.steps) == ["set-metadata a availability_zone=new", "remove-host a n2"]


def test_a_zone_that_a_member_cannot_follow_is_not_set() -> None:
    made = planned(
        (here("a", "n1", "n2", availability_zone="az2", x="1"),),
        (there(1, "a", "n1"), there(2, "hand", "n1", mark=None, availability_zone="az1")),
    )
    assert lines(made.steps) == ["set-metadata a x=1", "add-host a n2"]
    assert lines(made.conflicts) == ["add-host a n1"]


def test_a_zone_cannot_be_taken_away() -> None:
    made = planned((here("a"),), (there(1, "a", availability_zone="az1"),))
    assert made.steps == ()
    assert [step.why for step in made.conflicts] == [
        "zone 'az1' stays: Nova does not take a zone away that was set"
    ]


def test_what_is_not_ours_is_left_alone() -> None:
    others = (there(1, "a", "n1", mark=None), replace(there(2, "b"), metadata={OWNER_KEY: "another"}))
    made = planned((here("a", "n2"), here("b")), others)
    assert made.steps == ()
    assert lines(made.conflicts) == ["create a", "create b"]
    assert f"{OWNER_KEY}={OWNER}" in made.conflicts[0].why


def test_what_is_gone_here_goes_there() -> None:
    made = planned((), (there(1, "a", "n1", "n2"), there(2, "hand", "n1", mark=None)))
    assert lines(made.steps) == ["remove-host a n1", "remove-host a n2", "delete a"]


def test_a_new_name_is_a_rename() -> None:
    made = planned((here("new", "n1", uuid="uuid-old"),), (there(1, "old", "n1"),))
    assert lines(made.steps) == ["rename old 'new'"]


def test_two_swap_their_names() -> None:
    made = planned((here("a", uuid="uuid-b"), here("b", uuid="uuid-a")), (there(1, "a"), there(2, "b")))
    nova = Nova({"1": there(1, "a"), "2": there(2, "b")})
    for step in made.steps:
        nova.do(step)
    assert {at: each.name for at, each in nova.found.items()} == {"1": "b", "2": "a"}
    assert made.conflicts == ()


def test_one_that_was_made_anew_here_takes_the_old_one_over() -> None:
    made = planned((here("a", "n1", uuid="new"),), (there(1, "a", "n1"),))
    assert lines(made.steps) == [f"set-metadata a {UUID_KEY}=new"]


def test_what_was_left_half_made_is_finished() -> None:
    half = there(7, tentative(OWNER, "uuid-a"), mark=None)
    made = planned((here("a", "n1"),), (half,))
    assert [step.action for step in made.steps] == [Action.SET_METADATA, Action.RENAME, Action.ADD_HOST]
    assert lines(planned((), (half,)).steps) == [f"delete {half.name}"]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"flags": "x" * 256}, "metadata 'flags': expected at most 255 characters, got 256"),
        ({"ä": "1"}, "metadata 'ä': expected 1 to 255 letters, digits, blanks, '-', '_', ':' or '.'"),
        ({OWNER_KEY: "me"}, f"metadata '{OWNER_KEY}': 'matahari:...' is ours"),
    ],
)
def test_metadata_that_nova_would_refuse_are_told_and_the_rest_is_set(
    metadata: dict[str, str], why: str
) -> None:
    made = planned((Wanted("uuid-a", "a", frozenset(), {**metadata, "good": "1"}),), (there(1, "a"),))
    assert lines(made.steps) == ["set-metadata a good=1"]
    assert [step.why for step in made.conflicts] == [why]


def test_a_host_that_nova_does_not_know_is_told_once() -> None:
    made = planned((here("a", "n1", "nope"), here("b", "nope")), (there(1, "a"), there(2, "b")))
    assert lines(made.steps) == ["add-host a n1"]
    assert lines(made.conflicts) == ["name nope"]


def test_hosts_are_found_by_either_name() -> None:
    computes = (
        Compute("node1", "node1.example.org", "1"),
        Compute("node2.example.org", "node2", "2"),
        Compute("node3", "node3.example.org", "3"),
    )
    joined = join(["node1.example.org", "node2", "node3.example.org", "node3", "node9"], computes)
    assert joined.hosts == {"node1.example.org": "node1", "node2": "node2.example.org", "node3": "node3"}
    assert joined.faults == {
        "node3.example.org": "'node3.example.org' and 'node3' would both be the compute host 'node3'",
        "node9": "there is no compute host or hypervisor 'node9' there",
    }


def test_a_first_label_decides_only_where_it_is_nobody_elses() -> None:
    computes = (Compute("a.x", "a.x", "1"), Compute("a.y", "a.y", "2"), Compute("b.x", "b.x", "3"))
    joined = join(["a", "b", "b.z"], computes)
    assert joined.hosts == {"b": "b.x"}
    assert joined.faults == {
        "a": "'a' could be any of the compute hosts 'a.x', 'a.y'",
        "b.z": "there is no compute host or hypervisor 'b.z' there",
    }


def test_custom_traits_are_made_first_and_only_ours_come_or_go() -> None:
    providers = {**PROVIDERS, "uuid-n1": replace(PROVIDERS["uuid-n1"], traits=frozenset({"CUSTOM_MH_OLD"}))}
    desired = Desired(
        (), {"n1": frozenset({"CUSTOM_MH_NEW"}), "n2.example.org": frozenset({"CUSTOM_MH_KNOWN"})}
    )
    actual = Actual((), COMPUTES, providers, frozenset({"CUSTOM_MH_OLD", "CUSTOM_MH_KNOWN"}))
    made = plan(desired, actual, OWNER)
    assert lines(made.steps) == [
        "create-trait CUSTOM_MH_NEW",
        "set-traits n1.example.org +CUSTOM_MH_NEW, -CUSTOM_MH_OLD",
        "set-traits n2.example.org +CUSTOM_MH_KNOWN",
    ]


def test_traits_of_others_hosts_are_told_and_left() -> None:
    providers = {**PROVIDERS, "uuid-n4": replace(PROVIDERS["uuid-n4"], traits=frozenset({"CUSTOM_MH_X"}))}
    made = plan(Desired((), {"n1": frozenset()}), Actual((), COMPUTES, providers), OWNER)
    assert made.steps == ()
    assert lines(made.conflicts) == ["set-traits CUSTOM_MH_X"]
    assert "n4.example.org" in made.conflicts[0].why


def test_a_host_with_several_hypervisors_or_none_gets_no_traits() -> None:
    computes = (Compute("ironic", "metal1", "1"), Compute("ironic", "metal2", "2"), Compute("n", "n.x", "3"))
    traits = {"ironic": frozenset({"CUSTOM_MH_X"}), "n": frozenset({"CUSTOM_MH_X"})}
    made = plan(Desired((), traits), Actual((), computes), OWNER)
    assert made.steps == ()
    assert [step.why for step in made.conflicts] == [
        "'ironic' has 2 hypervisors: which of them is meant cannot be told",
        "Placement has no provider 'n.x' yet: nova-compute has to make it",
    ]


@pytest.mark.parametrize(
    ("names", "traits", "faults"),
    [
        (["cool hardware"], {"cool hardware": "CUSTOM_MH_COOL_HARDWARE"}, []),
        (["CUSTOM_MH_FAST"], {"CUSTOM_MH_FAST": "CUSTOM_MH_FAST"}, []),
        (["x" * 246], {}, ["x" * 246]),
        (["x" * 245], {"x" * 245: "CUSTOM_MH_" + "X" * 245}, []),
        (["a-b", "a.b", "c"], {"c": "CUSTOM_MH_C"}, ["a-b", "a.b"]),
        (["fast", "CUSTOM_MH_FAST"], {}, ["fast", "CUSTOM_MH_FAST"]),
        (["custom_x"], {}, ["custom_x"]),
        (["日本"], {}, ["日本"]),
    ],
)
def test_names_become_traits_or_it_is_told_why_not(
    names: list[str], traits: dict[str, str], faults: list[str]
) -> None:
    made = named(names)
    assert made.traits == traits
    assert set(made.faults) == set(faults)


def test_what_several_names_dispute_stays_as_it_is() -> None:
    made = named(["a-b", "a.b"])
    assert made.disputed == {"CUSTOM_MH_A_B"}
    assert made.faults["a-b"] == "'a-b' would be CUSTOM_MH_A_B, and so would 'a.b'"
    providers = {"uuid-n1": replace(PROVIDERS["uuid-n1"], traits=made.disputed)}
    desired = Desired((), {"n1": frozenset()}, made.faults, made.disputed)
    assert plan(desired, Actual((), COMPUTES, providers), OWNER).steps == ()


def test_both_sides_of_an_aggregate_are_compared() -> None:
    found = (
        replace(there(1, "a", "n1", "n2"), mirror=frozenset({"uuid-n2", "uuid-n3", "somebodys-disks"})),
        there(2, "hand", "n1", mark=None),
    )
    made = planned((here("a", "n1", "n2"),), found)
    assert lines(made.steps) == ["mirror-host a n1", "unmirror-host a n3"]
    assert [step.provider for step in made.steps] == ["uuid-n1", "uuid-n3"]
    assert [step.why for step in made.steps] == [
        "Nova has n1 in it, and Placement has not",
        "Placement has n3 in it, and Nova has not",
    ]


def test_a_plan_has_a_limit_and_says_so() -> None:
    wanted = tuple(here(f"a{number:04}") for number in range(MAX_STEPS + 5))
    made = planned(wanted)
    assert (len(made.steps), made.left) == (MAX_STEPS, 5)
    assert [step.detail for step in made.told_conflicts()] == ["5 steps"]


NAMES = st.sampled_from("abcde")
ZONES = st.sampled_from([None, None, "az1", "az2"])
MEMBERS = st.frozensets(st.sampled_from(HOSTS), max_size=3)
VALUES = st.dictionaries(st.sampled_from(["k1", "k2"]), st.sampled_from("12"), max_size=2)
WANTED = st.lists(st.tuples(NAMES, NAMES, MEMBERS, ZONES, VALUES), max_size=5)
FOUND = st.lists(st.tuples(NAMES, st.none() | NAMES, MEMBERS, ZONES, VALUES), max_size=5)


def consistent(
    members: frozenset[str], zone: str | None, zones: dict[str, str]
) -> tuple[frozenset[str], dict[str, str]]:
    """No host in two zones: those that would be stay out."""
    stay = frozenset(host for host in members if zone is None or zones.setdefault(host, zone) == zone)
    return stay, {} if zone is None else {ZONE_KEY: zone}


Wish = tuple[str, str, frozenset[str], str | None, dict[str, str]]
Find = tuple[str, str | None, frozenset[str], str | None, dict[str, str]]


def desired_of(wishes: list[Wish]) -> Desired:
    zones: dict[str, str] = {}
    wanted: dict[str, Wanted] = {}
    for name, uuid, members, zone, values in wishes:
        if uuid not in wanted and name not in {each.name for each in wanted.values()}:
            hosts, own = consistent(members, zone, zones)
            wanted[uuid] = Wanted(uuid, name, hosts, {**values, **own})
    return Desired(tuple(wanted.values()))


def nova_of(finds: list[Find]) -> Nova:
    zones: dict[str, str] = {}
    nova = Nova()
    for name, mark, members, zone, values in finds:
        if name not in nova.names():
            hosts, own = consistent(members, zone, zones)
            number = len(nova.found) + 1
            own |= {} if mark is None else marks(mark)
            nova.found[str(number)] = Found(number, f"theirs-{number}", name, hosts, {**values, **own})
    return nova


def carry_out(made: Plan, nova: Nova, restricted: set[str]) -> None:
    """Every step; those hosts must be somewhere after each."""
    moving = {step.host for step in made.steps if "can be in one zone only" in step.why}
    for step in made.steps:
        nova.do(step)
        assert all(nova.places(host) for host in restricted - moving), (step, made)


@given(WANTED, FOUND)
@settings(max_examples=300, deadline=None)
def test_every_step_is_one_that_nova_takes_and_what_nobody_disputes_comes_to_be(
    wishes: list[Wish], finds: list[Find]
) -> None:
    desired, nova = desired_of(wishes), nova_of(finds)
    foreign = {at: each for at, each in nova.found.items() if OWNER_KEY not in each.metadata}
    belonging = {host for each in desired.aggregates for host in each.hosts}
    for _ in range(4):
        made = plan(desired, Actual(tuple(nova.found.values()), COMPUTES), OWNER)
        assert from_text(as_text(made)) == made
        carry_out(made, nova, {host for host in belonging if nova.places(host)})
        if not made.steps:
            break
    assert not made.steps, "it does not come to rest"
    assert {at: nova.found[at] for at in foreign} == foreign
    if not made.conflicts:
        ours = [each for each in nova.found.values() if OWNER_KEY in each.metadata]
        assert {each.name: (each.hosts, dict(each.metadata)) for each in ours} == {
            each.name: (each.hosts, {**each.metadata, **marks(each.uuid)}) for each in desired.aggregates
        }


def test_nobody_moves_a_host_by_taking_its_name() -> None:
    """Somebody else's host has the name, or one that could be meant as well: all stays as it is."""
    found = (there(1, "a", "n1"), there(2, "b"), there(3, "z1", "n1", availability_zone="az1"))
    wanted = (here("a"), here("b", "n1"), here("z1", availability_zone="az2"))
    actual = Actual(found, COMPUTES, PROVIDERS)
    doubles = Desired(
        wanted,
        {"n1": frozenset({"CUSTOM_MH_X"})},
        {"n1": "several hosts are called 'n1' here"},
        doubles=frozenset({"n1"}),
    )
    made = plan(doubles, actual, OWNER)
    assert [each for each in lines(made.steps) if "n1" in each] == []
    assert "several hosts are called 'n1' here" in {each.why for each in made.conflicts}
    alike = Desired(
        (here("a"), here("b", "N1.other")),
        {"N1.other": frozenset({"CUSTOM_MH_X"}), "n1.another": frozenset()},
    )
    made = plan(alike, actual, OWNER)
    assert [each for each in lines(made.steps) if "n1" in each] == []
    assert "n1 stays for as long as it cannot be told which host it is here" in {
        each.why for each in made.conflicts
    }
