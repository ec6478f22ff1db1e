"""Planning: one host, rules and what is -> changes, each with its reason."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleet
from libmh.api.aggregates import CapabilityReport
from libmh.api.host import FactStatus
from mh_conductor.judge import Answer, judge, subject_of
from mh_conductor.plan import Change, Current, Kind, Known, Membership, Owned, Plan, orphans, plan
from mh_conductor.rules import RuleSet

ZONED = """
[[rule]]
name = "near"
aggregate = "near"
requirements = { rack = "<or> r1 <or> r2" }
zone = "az1"

[[rule]]
name = "far"
aggregate = "far"
requirements = { rack = "r9" }
zone = "az2"
"""


def planned(made: CapabilityReport, current: Current | None = None, rules: RuleSet | None = None) -> Plan:
    rules = rules or fleet.rules()
    subject = subject_of(made)
    return plan(subject, judge(subject, rules), rules, current or Current())


def steps(made: Plan) -> list[tuple[str, str]]:
    return [(str(change.kind), change.aggregate) for change in made.changes]


def after(made: Plan, before: Current | None = None) -> Current:
    """What a plan makes of what was: the model that the store is."""
    before = before or Current()
    aggregates, memberships = dict(before.aggregates), dict(before.memberships)
    for change in made.changes:
        apply(change, aggregates, memberships)
    memberships.update(made.kept)
    return Current(aggregates, memberships)


def apply(change: Change, aggregates: dict[str, Known], memberships: dict[str, Membership]) -> None:
    name = change.aggregate
    if change.kind is Kind.CREATED:
        assert name not in aggregates
        aggregates[name] = Known(name, change.owner, change.binding)
    elif change.kind is Kind.DELETED:
        assert name not in memberships
        del aggregates[name]
    elif change.kind is Kind.HOST_ADDED:
        assert name not in memberships
        memberships[name] = Membership(change.owner, change.evidence)
    elif change.kind is Kind.HOST_REMOVED:
        del memberships[name]
    else:
        was = aggregates[name]
        values = {key: held for key, held in was.metadata.items() if key not in change.metadata}
        values |= {k: Owned(v, change.owner) for k, v in change.metadata.items() if v is not None}
        aggregates[name] = Known(name, change.owner, change.binding, values, was.others)


def test_a_new_host_makes_its_aggregates_and_joins_them() -> None:
    made = planned(fleet.report())
    assert steps(made) == [
        ("created", "arch-x86_64"),
        ("metadata", "arch-x86_64"),
        ("host-added", "arch-x86_64"),
        ("created", "avx512"),
        ("metadata", "avx512"),
        ("host-added", "avx512"),
    ]
    assert made.changes[1].metadata == {"arch": "x86_64"}
    assert made.changes[0].binding == {"arch": "x86_64"}


def test_a_change_says_why_with_what_was_seen() -> None:
    added = planned(fleet.report()).changes[-1]
    assert added.why == ("node1 is in avx512 because cpu_flags has 'avx512f', seen 2023-11-14 22:13:20 UTC")
    (shown,) = added.evidence
    assert (shown.rule, shown.fact, shown.requirement, shown.matched) == (
        "avx512",
        "cpu_flags",
        "<in> avx512f",
        True,
    )
    assert (shown.seen, shown.status, shown.source, shown.observed) == (
        ["aes", "avx512f"],
        FactStatus.OK,
        "source",
        fleet.SEEN,
    )


def test_nothing_changes_twice() -> None:
    first = planned(fleet.report())
    second = planned(fleet.report(), after(first))
    assert second.changes == ()
    assert set(second.kept) == {"arch-x86_64", "avx512"}


def test_adding_comes_before_removing() -> None:
    before = after(planned(fleet.report()))
    made = planned(fleet.report(arch="aarch64", memory_gib=64, cpu_flags=["aes"]), before)
    kinds = [kind for kind, _ in steps(made)]
    assert kinds.index("host-removed") > max(at for at, kind in enumerate(kinds) if kind == "host-added")
    assert set(after(made, before).memberships) == {"arch-aarch64", "big"}
    # the aggregate of a value that no host has goes, the one that a rule names stays
    assert ("deleted", "arch-x86_64") in steps(made)
    assert ("deleted", "avx512") not in steps(made)


def test_a_departure_says_why() -> None:
    before = after(planned(fleet.report()))
    made = planned(fleet.report(arch="aarch64", cpu_flags=["aes"]), before)
    why = {change.aggregate: change.why for change in made.changes if change.kind is Kind.HOST_REMOVED}
    assert why["avx512"].startswith("node1 is no longer in avx512 because cpu_flags lacks 'avx512f', seen")
    assert (
        why["arch-x86_64"]
        == "node1 is no longer in arch-x86_64 because rule 'arch' places it in arch-aarch64"
    )


@pytest.mark.parametrize("status", [FactStatus.TIMEOUT, FactStatus.FAILED, FactStatus.DENIED])
def test_a_fact_that_could_not_be_read_moves_nobody(status: FactStatus) -> None:
    before = after(planned(fleet.report()))
    unread = fleet.fact(None, status, "no answer")
    made = planned(fleet.with_facts(fleet.report(), cpu_flags=unread, arch=unread), before)
    assert made.changes == ()
    # but it lets nobody in either
    assert planned(fleet.with_facts(fleet.report(), cpu_flags=unread, arch=unread)).changes == ()


def test_a_fact_that_the_host_does_not_have_counts_as_no() -> None:
    before = after(planned(fleet.report()))
    made = planned(
        fleet.with_facts(fleet.report(), cpu_flags=fleet.fact(None, FactStatus.UNSUPPORTED)), before
    )
    assert ("host-removed", "avx512") in steps(made)


def test_a_stale_fact_counts_with_its_value() -> None:
    stale = fleet.fact(["avx512f"], FactStatus.STALE, "the last read failed")
    made = planned(fleet.with_facts(fleet.report(), cpu_flags=stale))
    assert ("host-added", "avx512") in steps(made)
    assert "(stale: the last read failed)" in made.changes[-1].why


TRAITED = """
[[rule]]
name = "t"
aggregate = "t"
traits = ["HW_CPU_X86_AVX2", "!HW_CPU_HYPERTHREADING"]
"""


@pytest.mark.parametrize(
    ("traits", "answer"),
    [
        (("HW_CPU_X86_AVX2",), Answer.YES),
        ((), Answer.NO),
        (("HW_CPU_X86_AVX2", "HW_CPU_HYPERTHREADING"), Answer.NO),
    ],
)
def test_traits_are_required_or_forbidden(traits: tuple[str, ...], answer: Answer) -> None:
    (verdict,) = judge(subject_of(fleet.report(traits=traits)), fleet.rules(TRAITED))
    assert verdict.answer is answer
    assert all(each.matched for each in verdict.evidence()) is (answer is Answer.YES)


def test_traits_are_unsure_while_a_fact_is() -> None:
    made = fleet.with_facts(fleet.report(), disks=fleet.fact(None, FactStatus.TIMEOUT))
    (verdict,) = judge(subject_of(made), fleet.rules(TRAITED))
    assert verdict.answer is Answer.UNSURE


def test_a_rule_that_is_gone_takes_its_members_and_aggregates_along() -> None:
    before = after(planned(fleet.report()))
    made = planned(fleet.report(), before, RuleSet(()))
    assert sorted(steps(made)) == [
        ("deleted", "arch-x86_64"),
        ("deleted", "avx512"),
        ("host-removed", "arch-x86_64"),
        ("host-removed", "avx512"),
    ]
    assert after(made, before) == Current()


def test_an_aggregate_with_other_hosts_is_not_deleted() -> None:
    known = Known("avx512", "avx512", others=True)
    before = Current({"avx512": known}, {"avx512": Membership("avx512")})
    assert steps(planned(fleet.report(), before, RuleSet(()))) == [("host-removed", "avx512")]


def test_what_was_made_by_hand_is_never_touched() -> None:
    by_hand = Known("avx512", None, metadata={"cpu_avx512": Owned("maybe", None)})
    stranger = Known("mine", None)
    before = Current(
        {"avx512": by_hand, "mine": stranger}, {"mine": Membership(None), "avx512": Membership(None)}
    )
    made = planned(fleet.report(), before)
    assert {name for _, name in steps(made)} == {"arch-x86_64"}
    assert [(each.rule, each.reason) for each in made.refusals] == [("avx512", "'avx512' was made by hand")]
    gone = planned(fleet.report(cpu_flags=[]), before, RuleSet(()))
    assert gone.changes == ()


def test_metadata_and_members_by_hand_in_an_aggregate_of_a_rule_stay() -> None:
    known = Known("avx512", "avx512", metadata={"cpu_avx512": Owned("no", None), "note": Owned("x", None)})
    before = Current({"avx512": known}, {"avx512": Membership(None)})
    made = planned(fleet.report(), before)
    assert {name for _, name in steps(made)} == {"arch-x86_64"}
    assert "avx512" not in made.kept
    assert made.refusals[0].reason == "metadata 'cpu_avx512' was set to 'no' by hand"
    assert {name for _, name in steps(planned(fleet.report(cpu_flags=[]), before))} == {"arch-x86_64"}


def test_metadata_that_a_rule_no_longer_says_is_deleted() -> None:
    held = {"cpu_avx512": Owned("old", "avx512"), "gone": Owned("x", "avx512"), "note": Owned("x", None)}
    before = Current({"avx512": Known("avx512", "avx512", metadata=held)}, {"avx512": Membership("avx512")})
    change = next(each for each in planned(fleet.report(), before).changes if each.aggregate == "avx512")
    assert change.metadata == {"cpu_avx512": "true", "gone": None}


def test_a_renamed_rule_takes_over() -> None:
    before = after(planned(fleet.report()))
    renamed = fleet.rules(fleet.RULES.replace('name = "avx512"', 'name = "wide"'))
    made = planned(fleet.report(), before, renamed)
    assert steps(made) == [("metadata", "avx512")]
    assert made.changes[0].why == "rule 'wide' takes over from 'avx512', which is gone"
    assert made.kept["avx512"].owner == "wide"
    assert planned(fleet.report(), after(made, before), renamed).changes == ()


def test_two_rules_do_not_share_an_aggregate() -> None:
    clash = '[[rule]]\nname = "a"\naggregate = "os-{a}"\n[[rule]]\nname = "b"\naggregate = "os-{b}"\n'
    made = planned(fleet.report(a="x", b="x"), rules=fleet.rules(clash))
    assert steps(made) == [("created", "os-x"), ("host-added", "os-x")]
    assert made.refusals[0].reason == "rule 'a' makes 'os-x' already"
    other = Current({"os-x": Known("os-x", "a", {"a": "x"}, others=True)})
    made = planned(fleet.report(a="y", b="x"), other, fleet.rules(clash))
    assert made.refusals[0].reason == "'os-x' belongs to rule 'a'"


def test_one_name_does_not_stand_for_two_things() -> None:
    rules = fleet.rules('[[rule]]\nname = "r"\naggregate = "{a}-{b}"\nmetadata = { a = "{a}" }\n')
    first = after(planned(fleet.report(a="x-y", b="z"), rules=rules))
    made = planned(fleet.report(2, a="x", b="y-z"), Current(first.aggregates), rules)
    assert made.changes == ()
    assert "'x-y-z' stands for" in made.refusals[0].reason


@pytest.mark.parametrize(
    ("value", "says"),
    [("", "1 to 255"), (" x", "no blank"), ("x" * 300, "1 to 255"), ("a\nb", "printable")],
)
def test_novas_limits_hold_for_what_facts_make(value: str, says: str) -> None:
    rules = fleet.rules('[[rule]]\nname = "r"\naggregate = "{arch}"\n')
    made = planned(fleet.report(arch=value), rules=rules)
    assert made.changes == ()
    assert says in made.refusals[0].reason


def test_novas_limit_holds_for_values() -> None:
    rules = fleet.rules('[[rule]]\nname = "r"\naggregate = "{arch}"\nmetadata = { a = "{arch}{arch}" }\n')
    made = planned(fleet.report(arch="x" * 200), rules=rules)
    assert made.refusals[0].reason == "metadata 'a': expected at most 255 characters, got 400"


def test_a_list_makes_no_name() -> None:
    rules = fleet.rules('[[rule]]\nname = "r"\naggregate = "{cpu_flags}"\n')
    assert planned(fleet.report(), rules=rules) == Plan()


def test_a_second_zone_is_refused() -> None:
    before = Current(
        {"mine": Known("mine", None, metadata={"availability_zone": Owned("az9", None)})},
        {"mine": Membership(None)},
    )
    made = planned(fleet.report(rack="r1"), before, fleet.rules(ZONED))
    assert made.changes == ()
    assert made.refusals[0].reason == "the host is in zone 'az9' already, not in 'az1'"


def test_two_zones_at_once_are_refused() -> None:
    both = fleet.rules(ZONED.replace('"r9"', '"r1"'))
    made = planned(fleet.report(rack="r1"), rules=both)
    assert steps(made)[-1] == ("host-added", "near")
    assert [(each.rule, each.reason) for each in made.refusals] == [
        ("far", "the host is in zone 'az1' already, not in 'az2'")
    ]


def test_a_move_between_zones_leaves_first() -> None:
    before = after(planned(fleet.report(rack="r1"), rules=fleet.rules(ZONED)))
    made = planned(fleet.report(rack="r9"), before, fleet.rules(ZONED))
    assert steps(made) == [
        ("host-removed", "near"),
        ("created", "far"),
        ("metadata", "far"),
        ("host-added", "far"),
    ]


def test_a_zone_is_not_given_over_the_heads_of_members() -> None:
    known = Known("near", "near", others=True, rival_zones=frozenset({"az7"}))
    made = planned(fleet.report(rack="r1"), Current({"near": known}), fleet.rules(ZONED))
    assert made.refusals[0].reason == "zone 'az1' refused: members are in zone 'az7'"


def test_a_zone_stays_when_its_rule_forgets_it() -> None:
    before = after(planned(fleet.report(rack="r1"), rules=fleet.rules(ZONED)))
    made = planned(fleet.report(rack="r1"), before, fleet.rules(ZONED.replace('zone = "az1"', "")))
    assert made.changes == ()
    assert made.refusals[0].reason == "zone 'az1' stays: a zone that was set cannot be unset"


def test_orphans_are_what_nobody_wants() -> None:
    aggregates = {
        each.name: each
        for each in (
            Known("avx512", "avx512"),
            Known("gone", "gone"),
            Known("gone-but-used", "gone", others=True),
            Known("gone-with-a-note", "gone", metadata={"note": Owned("x", None)}),
            Known("by-hand", None),
            Known("arch-vax", "arch", {"arch": "vax"}),
        )
    }
    assert [change.aggregate for change in orphans(fleet.rules(), aggregates)] == ["gone", "arch-vax"]


reports = st.builds(
    lambda arch, flags, memory, rack: fleet.report(arch=arch, cpu_flags=flags, memory_gib=memory, rack=rack),
    st.sampled_from(["x86_64", "aarch64", "", None]),
    st.lists(st.sampled_from(["aes", "avx512f"])),
    st.sampled_from([8, 64, "many", None]),
    st.sampled_from(["r1", "r2", "r9", None]),
)


@given(st.lists(reports, min_size=1, max_size=5))
def test_a_plan_settles_and_never_leaves_two_zones(history: list[CapabilityReport]) -> None:
    rules = fleet.rules(fleet.RULES + ZONED)
    current = Current()
    for made in history:
        current = after(planned(made, current, rules), current)
        zones = {current.aggregates[name].zone for name in current.memberships} - {None}
        assert len(zones) <= 1
        assert planned(made, current, rules).changes == ()
    fresh = after(planned(history[-1], None, rules))
    assert set(current.memberships) == set(fresh.memberships)


owners = st.sampled_from([None, "avx512", "big", "near", "gone"])
owned = st.builds(Owned, st.sampled_from(["true", "x", "az1", "az9"]), owners)
PLACES = ["arch-x86_64", "avx512", "big", "near", "far", "mine"]


@st.composite
def currents(draw: st.DrawFn) -> Current:
    """Anything that there could be; the host's aggregates agree about its zone, as the store sees to."""
    names = draw(st.lists(st.sampled_from(PLACES), unique=True))
    keys = st.sampled_from(["cpu_avx512", "arch", "note"])
    zone = draw(st.sampled_from([None, Owned("az1", None), Owned("az1", "near"), Owned("az9", None)]))
    known = {}
    for name in names:
        owner = draw(owners)
        binding = {"arch": "x86_64"} if name == "arch-x86_64" and owner else {}
        values = draw(st.dictionaries(keys, owned, max_size=2))
        if zone and draw(st.booleans()):
            values["availability_zone"] = zone
        known[name] = Known(name, owner, binding, values, draw(st.booleans()))
    inside = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    return Current(known, {name: Membership(draw(owners)) for name in inside})


@given(reports, currents(), st.sampled_from(["", fleet.RULES, ZONED, fleet.RULES + ZONED]))
def test_a_plan_holds_to_its_laws(report: CapabilityReport, before: Current, text: str) -> None:
    rules = fleet.rules(text)
    made = planned(report, before, rules)
    now = after(made, before)
    by_hand = {name for name, each in before.aggregates.items() if each.owner is None}
    members = {name for name, each in before.memberships.items() if each.owner is None}
    # nothing that was made by hand is touched
    assert not by_hand & {each.aggregate for each in made.changes if each.kind is not Kind.HOST_REMOVED}
    assert members <= now.memberships.keys()
    for name, known in before.aggregates.items():
        mine = {key: each for key, each in known.metadata.items() if each.owner is None}
        assert mine == {} or mine.items() <= now.aggregates[name].metadata.items()
    # a host joins before it leaves, but where it changes its zone
    zones = {now.aggregates[name].zone for name in now.memberships} - {None}
    kinds = [each.kind for each in made.changes]
    if Kind.HOST_ADDED in kinds and Kind.HOST_REMOVED in kinds and not zones:
        last = max(at for at, kind in enumerate(kinds) if kind is Kind.HOST_ADDED)
        assert kinds.index(Kind.HOST_REMOVED) > last
    # a plan of the result is empty
    assert planned(report, now, rules).changes == ()


@given(reports, st.randoms(use_true_random=False))
def test_the_order_of_rules_does_not_matter(report: CapabilityReport, chance: random.Random) -> None:
    rules = fleet.rules(fleet.RULES)
    shuffled = list(rules.rules)
    chance.shuffle(shuffled)
    one, other = after(planned(report, None, rules)), after(planned(report, None, RuleSet(tuple(shuffled))))
    assert one == other


def test_a_rule_without_an_aggregate_makes_none() -> None:
    rules = fleet.rules('[[rule]]\nname = "r"\ngives = ["CUSTOM_MH_A"]\n')
    assert planned(fleet.report(), None, rules) == Plan()
