"""What holds of a plan for the whole fleet, whatever there was before."""

import json
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

import fleet
from libmh.api.aggregates import CapabilityReport
from mh_conductor import fleetstore
from mh_conductor.compiled import Compiled
from mh_conductor.fleet import Fleet, Place, Resident
from mh_conductor.judge import subject_of
from mh_conductor.plan import Kind, Known, Owned
from mh_conductor.records import plain_report
from test_reconcile import REPORTS, TEXTS

OWNERS = st.sampled_from([None, "arch", "avx512", "wide", "near", "rack", "gone"])
NAMES = ("arch-x86_64", "avx512", "big", "near", "rack-r1", "mine")
KNOWN = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            Known,
            st.just(name),
            OWNERS,
            st.sampled_from([{}, {"arch": "x86_64"}, {"rack": "r1"}]),
            st.dictionaries(
                st.sampled_from(["arch", "cpu_avx512", "availability_zone"]),
                st.builds(Owned, st.sampled_from(["x86_64", "true", "az1"]), OWNERS),
                max_size=2,
            ),
        )
        for name in NAMES
    },
)
BEFORE = st.dictionaries(st.sampled_from(NAMES), OWNERS)
STATES = st.sampled_from(["up", "up", "silent", "gone"])


@settings(max_examples=60, deadline=None)
@given(
    REPORTS,
    TEXTS,
    KNOWN,
    st.lists(st.tuples(BEFORE, STATES), min_size=6, max_size=6),
    st.booleans(),
    st.data(),
)
def test_who_is_left_out_of_a_plan_has_nothing_to_change(
    reports: list[CapabilityReport],
    text: str,
    known: dict[str, Known],
    before: list[tuple[dict[str, str | None], str]],
    same: bool,
    data: st.DataObject,
) -> None:
    """Whatever there was, by hand or of rules that are gone: only hosts are passed over that stay as they
    are, what is by hand stays, and whom nothing was refused does not move in a second plan."""
    rules = fleet.rules(text)
    compiled = Compiled(rules)
    whole = Fleet(compiled, frozenset(rule.name for rule in rules.rules) if same else frozenset())
    whole.places = {name: Place(each, 0, 1) for name, each in known.items()}
    for report, (places, state) in zip(reports, before, strict=False):
        row = {"uuid": report.uuid, "hostname": report.hostname, "state": state}
        fleetstore._meet(whole, SimpleNamespace(**row, report=json.dumps(plain_report(report))))
        resident = whole.residents[report.uuid]
        resident.places = {name: owner for name, owner in places.items() if name in known}
        resident.given = data.draw(st.sampled_from([(), ("CUSTOM_MH_NEAR",)]))
    whole.count()
    subjects = {report.uuid: subject_of(report) for report in reports}
    mine = {uuid: by_hand_of(each) for uuid, each in whole.residents.items()}
    hand = {name: each for name, each in known.items() if each.owner is None}
    moving = whole.unsettled()
    for uuid in whole.residents.keys() - set(moving):
        assert not whole.plan(subjects[uuid]).plan.changes
        assert whole.plan(subjects[uuid]).given is None
    content = [uuid for uuid in moving if not whole.plan(subjects[uuid]).plan.refusals]
    assert {uuid: by_hand_of(each) for uuid, each in whole.residents.items()} == mine
    for name, each in hand.items():
        now = whole.places[name].known
        assert (now.owner, now.metadata) == (None, each.metadata)
    for uuid in content:
        again = whole.plan(subjects[uuid]).plan.changes
        assert {each.kind for each in again} <= {Kind.METADATA}


def by_hand_of(resident: Resident) -> set[str]:
    return {name for name, owner in resident.places.items() if owner is None}
