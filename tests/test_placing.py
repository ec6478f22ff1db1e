"""Whether one host fits, and what people are told of it."""

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmh.match.extra_specs import asked, nearest, warnings
from libmh.match.fitting import (
    Fit,
    capabilities_match,
    capability,
    host_matches,
    image_fits,
    isolation_fits,
    size_fits,
    tenant_fits,
    traits_match,
    zone_fits,
    zone_of,
)
from libmh.match.weighing import WEIGHERS, multiplier_of, normalize, normalized
from libmh.spec import Plain

SCOPE = "aggregate_instance_extra_specs:"
FACTS: Mapping[str, Plain] = {
    "arch": "x86_64",
    "cpu_count": 8,
    "cpu_cores": 4,
    "cpu_sockets": 1,
    "cpu_threads_per_core": 2,
    "cpu_flags": ["aes", "avx2"],
    "memory": 16_000_000,
    "disk_bytes": 10**12,
    "nested": '{"a": {"b": 4}}',
}


@pytest.mark.parametrize(
    ("aggregates", "specs", "fits", "reason"),
    [
        ([{"ssd": "true"}], {f"{SCOPE}ssd": "true"}, True, "ssd is 'true'"),
        ([{"ssd": "false, true"}], {"ssd": "true"}, True, "ssd is 'true'"),
        ([{"ssd": "false"}, {"ssd": "true"}], {f"{SCOPE}ssd": "true"}, True, "ssd is 'true'"),
        ([{"cpus": "8"}], {f"{SCOPE}cpus": ">= 16"}, False, "cpus is '8', not '>= 16'"),
        ([{"cpus": "many"}], {f"{SCOPE}cpus": ">= 16"}, False, "cpus is 'many', which is not a number"),
        (
            [{"ssd": "false"}, {"ssd": "maybe"}],
            {f"{SCOPE}ssd": "true"},
            False,
            "ssd is 'false', not 'true'; is 'maybe', not 'true'",
        ),
        (
            [{"kind": "fastest"}],
            {f"{SCOPE}kind": "fatest"},
            False,
            "kind is 'fastest', not 'fatest': did you mean 'fastest'?",
        ),
        (
            [{"coolhardware": "true"}],
            {f"{SCOPE}coolhardwar": "true"},
            False,
            "no aggregate of the host has the metadata 'coolhardwar': did you mean 'coolhardware'?",
        ),
        ([], {"ssd": "true"}, False, "the host is in no aggregate, so none has the metadata 'ssd'"),
        ([{"a:b": "1"}], {f"{SCOPE}a:b": "1"}, True, "a:b is '1'"),
        ([], {"hw:cpu_policy": "dedicated", "trait:X": "required"}, True, "nothing is asked"),
    ],
)
def test_aggregates(
    aggregates: Sequence[Mapping[str, str]], specs: Mapping[str, str], fits: bool, reason: str
) -> None:
    found = host_matches(aggregates, specs)
    assert (bool(found), found.reason) == (fits, reason)


def test_what_would_match_is_told() -> None:
    specs = {f"{SCOPE}cpus": ">= 16", f"{SCOPE}ssd": "<or> true <or> yes", f"{SCOPE}os": "linux"}
    assert host_matches([{"cpus": "8", "ssd": "no", "os": "linux"}], specs).explain() == [
        f"no: {SCOPE}cpus = '>= 16': cpus is '8', not '>= 16'; a number '>= 16' would match",
        (
            f"no: {SCOPE}ssd = '<or> true <or> yes': ssd is 'no', not one of 'true', 'yes'; "
            "one of 'true', 'yes' would match"
        ),
        f"yes: {SCOPE}os = 'linux': os is 'linux'",
    ]


@pytest.mark.parametrize(
    ("specs", "fits", "reason"),
    [
        ({"capabilities:arch": "x86_64"}, True, "arch is 'x86_64'"),
        ({"capabilities:cpu_count": ">= 16"}, False, "cpu_count is '8', not '>= 16'"),
        ({"capabilities:cpu_flags": "<in> avx2"}, True, "cpu_flags has 'avx2'"),
        ({"capabilities:nested:a:b": "= 4"}, True, "nested:a:b is '4', as '>= 4' asks"),
        ({"capabilities:nested:c": "4"}, False, "the host does not report 'nested:c'"),
        (
            {"capabilities:cpu_info:features": "<all-in> aes avx2"},
            True,
            "cpu_info:features has 'aes', 'avx2'",
        ),
        ({"capabilities:cpu_info:topology:cores": "4"}, True, "cpu_info:topology:cores is '4'"),
        ({"capabilities:vcpus_total": "== 8"}, True, "vcpus_total is '8', as '== 8' asks"),
        ({"capabilities:total_usable_ram_mb": ">= 15000"}, True, "total_usable_ram_mb is '15625', as"),
        ({"capabilities:ach": "x86_64"}, False, "the host does not report 'ach': did you mean 'arch'?"),
        ({"arch": "aarch64"}, False, "arch is 'x86_64', not 'aarch64'"),
        ({"unheard_of": "1"}, True, "nothing is asked"),
        ({"hw:maxphysaddr_bits": "42"}, False, "the host does not report 'cpu_info:maxphysaddr:bits'"),
        ({f"{SCOPE}arch": "x"}, True, "nothing is asked"),
    ],
)
def test_capabilities(specs: Mapping[str, str], fits: bool, reason: str) -> None:
    found = capabilities_match(FACTS, specs)
    assert (bool(found), found.reason.startswith(reason)) == (fits, True), found.reason


def test_facts_in_text_that_is_no_json_are_not_there() -> None:
    assert capability({"a": "{"}, ("a", "b")) is None
    assert capability({"a": "[" * 100_000}, ("a", "b")) is None
    assert capability({"a": "{"}, ("a",)) == "{"


def test_traits() -> None:
    traits = {"HW_CPU_X86_AVX2", "CUSTOM_MH_A"}
    assert traits_match(traits, {"trait:CUSTOM_MH_A": "required", "trait1:CUSTOM_B": "forbidden"})
    lacking = traits_match(traits, {"trait:HW_CPU_X86_AVX": "required"})
    assert lacking.reason == "the host lacks the trait HW_CPU_X86_AVX: did you mean 'HW_CPU_X86_AVX2'?"
    assert (
        traits_match(traits, {"trait2:CUSTOM_MH_A": "forbidden"}).reason
        == "the host has the trait CUSTOM_MH_A"
    )
    assert traits_match(set(), {"trait:CUSTOM_B": "requird"})


def test_projects() -> None:
    aggregates = [{"filter_tenant_id": "p1, p2"}, {"filter_tenant_id:3": "p3"}, {"ssd": "true"}]
    assert all(tenant_fits(aggregates, project) for project in ("p1", "p2", "p3"))
    assert (
        tenant_fits(aggregates, "p4").reason
        == "the host is for 'p1', 'p2', 'p3' only, and project 'p4' asks"
    )
    assert (
        tenant_fits(aggregates, None).reason == "the host is for 'p1', 'p2', 'p3' only, and no project asks"
    )
    assert tenant_fits([{"ssd": "true"}], None)


def test_zones() -> None:
    assert zone_fits([{"a": "b"}, {"availability_zone": "az1"}], "az1")
    assert zone_fits([{"availability_zone": "az1"}], "nova").reason == "the host is in zone 'az1'"
    assert zone_fits([{"a": "b"}], "nova")
    assert not zone_fits([], "az1")
    assert (zone_of([{}, {"availability_zone": "az1"}]), zone_of([])) == ("az1", "nova")


def test_images_and_isolation() -> None:
    aggregates = [{"os_type": "linux,bsd"}, {"trait:CUSTOM_LICENSED": "required", "trait:X": "preferred"}]
    assert image_fits(aggregates, {"os_type": "bsd", "other": "x"})
    assert image_fits(aggregates, {"os_type": "windows"}).reason == (
        "os_type of the host's aggregates is 'bsd', 'linux'"
    )
    assert isolation_fits(aggregates, asked({"trait:CUSTOM_LICENSED": "required"}))
    assert "CUSTOM_LICENSED" in isolation_fits(aggregates, asked({})).reason


def test_size_is_held_against_what_is_known() -> None:
    assert size_fits(FACTS, 8, 15_000, 900)
    assert size_fits({}, 1000, 10**6, 10**6)
    too_small = [size_fits(FACTS, *each).lacking for each in ((9, 1, 0), (1, 16_000, 0), (1, 1, 932))]
    assert [each.requirement for each in too_small if each] == ["vcpus 9", "ram 16000", "disk 932"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("ssd", "true", f"has no scope: write '{SCOPE}ssd'"),
        ("agregate_instance_extra_specs:ssd", "true", "did you mean 'aggregate_instance_extra_specs'"),
        ("capability:arch", "x86_64", "did you mean 'capabilities'"),
        (f"{SCOPE}cpus", "= 8", "write '>=', or '==' for equality"),
        (f"{SCOPE}cpus", ">=8", "write a blank after '>='"),
        ("capabilities:cpu_count", "> 8", "use '>='"),
        ("trait:CUSTOM_A", "yes", "expected 'required' or 'forbidden', got 'yes'"),
        (SCOPE, "x", "names nothing"),
    ],
)
def test_what_means_something_else_is_said(key: str, value: str, says: str) -> None:
    assert any(says in each for each in warnings({key: value})), warnings({key: value})


def test_no_warning_about_what_is_plain() -> None:
    plain = {
        f"{SCOPE}ssd": "true",
        "capabilities:cpu_info:arch": "x86_64",
        "trait:HW_CPU_X86_AVX2": "required",
        "trait_1:CUSTOM_A": "forbidden",
        "hw:cpu_policy": "dedicated",
        "resources1:VCPU": "2",
        "quota:disk_read_iops": "= 8",
    }
    assert warnings(plain) == ()


texts = st.text(max_size=20)
maps = st.dictionaries(texts, texts, max_size=4)


@given(st.lists(maps, max_size=3), maps, st.dictionaries(texts, texts | st.dictionaries(texts, st.none())))
def test_nothing_raises(
    aggregates: list[dict[str, str]], specs: dict[str, str], facts: dict[str, Plain]
) -> None:
    scoped = {
        f"{scope}{key}": value
        for scope in ("", SCOPE, "capabilities:", "trait:")
        for key, value in specs.items()
    }
    fits: list[Fit] = [
        host_matches(aggregates, scoped),
        capabilities_match(facts, scoped),
        traits_match(set(facts), scoped),
        isolation_fits(aggregates, asked(scoped)),
    ]
    for fit in fits:
        assert bool(fit) is (fit.lacking is None)
        assert fit.reason
        assert len(fit.explain()) == len(fit.findings)
    assert all(isinstance(each, str) for each in warnings(scoped))


def test_near_names() -> None:
    assert nearest("Cool", ["cool", "hot"]) == ": did you mean 'cool'?"
    assert nearest("x", ["cool", "hot"]) == ""
    assert nearest("x" * 10_000, ["x" * 9_999]) == ""


def test_near_names_are_looked_for_once_for_hosts_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = []

    def close(word: str, known: Iterable[str], **_options: float) -> list[str]:
        asked_for.append(word)
        return list(known)[:1]

    monkeypatch.setattr("difflib.get_close_matches", close)
    traits = {f"CUSTOM_{number}" for number in range(100)}
    for _ in range(10):
        lacking = traits_match(set(traits), {"trait:CUSTOM_ALIKE": "required"})
        assert lacking.reason == "the host lacks the trait CUSTOM_ALIKE: did you mean 'CUSTOM_0'?"
    assert asked_for == ["custom_alike"]


def test_weights_are_spread_over_the_candidates() -> None:
    assert normalize([10, 20, 15]) == [0.0, 1.0, 0.5]
    assert normalize([5, 5]) == [0.0, 0.0]
    assert normalize([]) == []
    assert normalize([5, 10], 0) == [0.5, 1.0]
    assert normalize([-5, 10], 0) == [0.0, 1.0]
    assert normalized([None, 1.0, 3.0, None], [1.0, 1.0, 1.0, -1.0]) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "multiplier"),
    [([], 7.0), (["2"], 2.0), (["2", "-1.5"], -1.5), (["2", "x"], 7.0), (["nan"], 7.0), (["1e308"], 7.0)],
)
def test_the_least_multiplier_counts(values: list[str], multiplier: float) -> None:
    aggregates = [{"ram_weight_multiplier": value} for value in values]
    assert multiplier_of([*aggregates, {"a": "b"}], "ram_weight_multiplier", 7.0) == multiplier


def test_weighers_look_at_what_is_measured() -> None:
    metrics = {"cpu_utilization": 0.25, "memory_available": 1000.0, "load_1m": 4.0}
    raw = {name: weigher.raw(metrics, {"cpu_count": 8}) for name, weigher in WEIGHERS.items()}
    assert raw == {"cpu": 0.75, "ram": 1000.0, "load": -0.5}
    assert [weigher.raw({}, {}) for weigher in WEIGHERS.values()] == [None] * 3
    assert WEIGHERS["load"].raw(metrics, {}) == -4.0


def test_the_whole_of_matching_needs_the_standard_library_alone() -> None:
    code = "import sys; before = set(sys.modules); import libmh.match; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert loaded == {"libmh"}
    ours = {name for name in done.stdout.split() if name.startswith("libmh")}
    assert {name for name in ours if not name.startswith("libmh.match")} == {"libmh"}
