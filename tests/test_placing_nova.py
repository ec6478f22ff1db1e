"""What matches and fits is what Nova's own scheduler says: the same cases asked of both."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from foreign_clients import DRIVERS, python_environment
from libmh.match import OPERATORS, match
from libmh.match.fitting import capabilities_match, host_matches, image_fits, tenant_fits, traits_match
from libmh.match.weighing import multiplier_of, normalize

NOVA_SECONDS = 120.0
Case = Mapping[str, Any]

WORDS = (
    "a",
    "b",
    "A",
    "true",
    "false",
    "aes",
    "avx2",
    "avx512f",
    "8",
    "8.0",
    "16",
    "-1",
    "1e3",
    "nan",
    "ü",
    "",
)
KEYS = ("ssd", "cpu", "aes", "zone:b", "x")
NUMBERS = st.integers(-20, 20) | st.sampled_from((2**53, 2**53 + 1, 10**400)) | st.floats(-9, 9)
scalars = st.sampled_from(WORDS) | NUMBERS | st.booleans() | st.none()
values = scalars | st.lists(st.sampled_from(WORDS) | NUMBERS | st.booleans(), max_size=4)
words = st.sampled_from((*WORDS, *OPERATORS, "or", ">", "<", ">=8")) | st.integers(-20, 20).map(str)
requirements = (
    st.builds(
        lambda first, rest, gap: gap.join((first, *rest)),
        st.sampled_from(OPERATORS),
        st.lists(words, max_size=4),
        st.sampled_from((" ", " ", "  ", "\t")),
    )
    | words
    | st.text(max_size=8)
)
texts = st.sampled_from(WORDS) | st.sampled_from(("a,b", " a , true ", "8,16", ",", "avx2 aes", "8,true"))
aggregates = st.lists(st.dictionaries(st.sampled_from(KEYS), texts, max_size=3), max_size=3)
scoped = st.sampled_from(
    [
        f"{scope}{key}"
        for scope in (
            "aggregate_instance_extra_specs:",
            "aggregate_instance_extra_specs:",
            "",
            "hw:",
            "quota:",
        )
        for key in KEYS
    ]
)
extra_specs = st.dictionaries(scoped, requirements | texts, max_size=3)
facts = st.dictionaries(
    st.sampled_from(("cpu", "mem", "deep", "none")),
    st.recursive(
        scalars | st.lists(st.sampled_from(WORDS), max_size=3),
        lambda inner: (
            st.dictionaries(st.sampled_from(("u", "v")), inner, max_size=2)
            | st.dictionaries(st.sampled_from(("u", "v")), inner, max_size=2).map(
                lambda tree: json.dumps(tree, allow_nan=False, default=str)
            )
        ),
        max_leaves=4,
    ),
    max_size=4,
)
paths = st.sampled_from(
    [
        f"{scope}{path}"
        for scope in ("capabilities:", "capabilities:", "", "aggregate_instance_extra_specs:")
        for path in ("cpu", "mem", "deep:u", "deep:u:v", "deep:v", "cpu:u", "", "none")
    ]
    + ["hw:maxphysaddr_bits"]
)
TRAITS = ("HW_CPU_X86_AVX2", "CUSTOM_A", "CUSTOM_B")
trait_keys = st.sampled_from(
    [f"trait{n}:{name}" for n in ("", "1", "_a", ".") for name in TRAITS] + ["traits"]
)
tenants = st.lists(
    st.dictionaries(
        st.sampled_from(("filter_tenant_id", "filter_tenant_id_2", "x_filter_tenant_id", "ssd")),
        texts,
        max_size=2,
    ),
    max_size=3,
)
image_names = st.sampled_from(("os_type", "hw_disk_bus", "os_distro"))
multipliers = st.sampled_from(("1", "2.5", "-1", "0", "x", "", "1e2"))


def cases(kind: str, **parts: "st.SearchStrategy[Any]") -> "st.SearchStrategy[Case]":
    return st.fixed_dictionaries({"kind": st.just(kind), **parts})


def capability(case: Case) -> bool:
    return bool(capabilities_match(case["facts"], case["extra_specs"]))


def ranked(hosts: Sequence[tuple[int, list[dict[str, str]]]], minimum: float | None) -> list[list[float]]:
    """(number, weight) of hosts that have this much to spare, the best first."""
    shares = normalize([free for free, _ in hosts], minimum)
    weights = [
        [number, multiplier_of(of, "ram_weight_multiplier", 1.0) * share]
        for number, (share, (_, of)) in enumerate(zip(shares, hosts, strict=True))
    ]
    return sorted(weights, key=lambda each: -each[1]) if len(hosts) > 1 else [[0, 0.0]]


CASES: Sequence[tuple["st.SearchStrategy[Case]", int, Callable[[Case], object]]] = (
    (
        cases("match", value=values, requirement=requirements),
        1500,
        lambda case: bool(match(case["value"], case["requirement"])),
    ),
    (
        cases("aggregates", aggregates=aggregates, extra_specs=extra_specs),
        700,
        lambda case: bool(host_matches(case["aggregates"], case["extra_specs"])),
    ),
    (
        cases("capabilities", facts=facts, extra_specs=st.dictionaries(paths, requirements, max_size=2)),
        700,
        capability,
    ),
    (
        cases(
            "traits",
            traits=st.lists(st.sampled_from(TRAITS)),
            extra_specs=st.dictionaries(
                trait_keys, st.sampled_from(("required", "required", "forbidden", "x")), max_size=3
            ),
        ),
        200,
        lambda case: bool(traits_match(set(case["traits"]), case["extra_specs"])),
    ),
    (
        cases("tenant", aggregates=tenants, project=st.none() | texts),
        200,
        lambda case: bool(tenant_fits(case["aggregates"], case["project"])),
    ),
    (
        cases(
            "image",
            aggregates=st.lists(st.dictionaries(image_names, texts, max_size=2), max_size=2),
            properties=st.dictionaries(image_names, texts, max_size=2),
        ),
        200,
        lambda case: bool(image_fits(case["aggregates"], case["properties"])),
    ),
    (
        cases(
            "multiplier",
            aggregates=st.lists(st.dictionaries(st.just("k"), multipliers), max_size=3),
            key=st.just("k"),
            default=st.floats(-2, 2),
        ),
        100,
        lambda case: multiplier_of(case["aggregates"], "k", case["default"]),
    ),
    (
        cases(
            "weighed",
            hosts=st.lists(
                st.tuples(
                    st.integers(-9, 99),
                    st.lists(st.dictionaries(st.just("ram_weight_multiplier"), multipliers), max_size=2),
                ),
                min_size=1,
                max_size=4,
            ),
            minimum=st.sampled_from((None, 0)),
        ),
        200,
        lambda case: ranked(case["hosts"], case["minimum"]),
    ),
)


def gathered(strategy: "st.SearchStrategy[Case]", count: int) -> list[Case]:
    """So many cases, always the same ones: Nova is asked of all of them at once."""
    found: list[Case] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def gather(case: Case) -> None:
        found.append(case)

    gather()
    return found


def nova(asked_of_it: Sequence[Case]) -> list[Any]:
    """Nova's answers, from its own environment."""
    command = (python_environment("openstack", DRIVERS / "openstack.txt"), str(DRIVERS / "nova_answers.py"))
    done = subprocess.run(
        command, input=json.dumps(asked_of_it), capture_output=True, text=True, timeout=NOVA_SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[Any] = json.loads(done.stdout)
    return answers


def differing(
    found: Sequence[Case], ours: Sequence[object], theirs: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    for case, our, their in zip(found, ours, theirs, strict=True):
        if isinstance(their, dict):
            # where Nova fails on one of several, what it would say of the others is a matter of order
            single = case["kind"] == "match" or len(case["extra_specs"]) == 1
            single &= all("," not in text for each in case.get("aggregates", []) for text in each.values())
            if our and single and len(case.get("aggregates", [])) < 2:
                yield case, our, their
        elif our != their:
            yield case, our, their


@pytest.fixture(scope="module")
def answered() -> list[tuple[list[Case], list[object], list[Any]]]:
    gatherings = [(gathered(strategy, count), ours) for strategy, count, ours in CASES]
    answers = iter(nova([case for found, _ in gatherings for case in found]))
    return [
        (found, [ours(case) for case in found], [next(answers) for _ in found]) for found, ours in gatherings
    ]


@pytest.mark.parametrize("kind", range(len(CASES)))
def test_answers_are_those_of_nova(
    answered: list[tuple[list[Case], list[object], list[Any]]], kind: int
) -> None:
    found, ours, theirs = answered[kind]
    assert list(differing(found, ours, theirs)) == []
    said = [answer for answer in theirs if not isinstance(answer, dict)]
    assert len(said) > len(found) / 2, "nearly everything that was asked made Nova fail"
    assert len({json.dumps(answer) for answer in said}) > 1, "one answer alone proves nothing"
