"""Rules that were made ready say of every host what each rule says by itself."""

from hypothesis import given
from hypothesis import strategies as st

import fleet
from libmh.api.host import Fact, FactStatus
from libmh.match import read
from libmh.spec import Plain
from mh_conductor import compiled as module
from mh_conductor.compiled import Answers, Compiled, members
from mh_conductor.rules import Rule
from mh_conductor.template import as_text

RULES = """
[[rule]]
name = "arch"
aggregate = "arch-{arch}"

[[rule]]
name = "both"
aggregate = "{arch}-{rack}"
requirements = { memory_gib = [">= 16", "<= 63"], cpu_flags = "<in> aes" }

[[rule]]
name = "flags"
aggregate = "flags"
requirements = { cpu_flags = ["<all-in> aes avx2", "<in> vmx"] }

[[rule]]
name = "text"
aggregate = "text"
requirements = { rack = "<or> r1 <or> 1", ssd = "true" }

[[rule]]
name = "traits"
aggregate = "traits"
traits = ["HW_CPU_X86_AVX2", "!HW_CPU_HYPERTHREADING"]

[[rule]]
name = "gives"
gives = ["CUSTOM_MH_X"]
requirements = { memory_gib = "== 1" }

[[rule]]
name = "all"
aggregate = "all"
"""
VALUES: st.SearchStrategy[Plain] = st.sampled_from(
    [None, 1, 1.0, True, "1", "r1", "x86_64", "true", 32, 64.5, "many", [], ["aes"], [1, True], {"aes": 1}]
) | st.lists(st.sampled_from(["aes", "avx2", "vmx"])).map(list[Plain])
FACTS = st.dictionaries(
    st.sampled_from(["arch", "rack", "memory_gib", "cpu_flags", "ssd", "other"]),
    st.builds(
        lambda value, status: fleet.fact(value, status if value is None else FactStatus.OK),
        VALUES,
        st.sampled_from(FactStatus),
    ),
)
TRAITS = st.frozensets(st.sampled_from(["HW_CPU_X86_AVX2", "HW_CPU_HYPERTHREADING", "OTHER"]))
UNSURE = (FactStatus.TIMEOUT, FactStatus.FAILED, FactStatus.DENIED)


def unread(fact: Fact | None) -> bool:
    return fact is not None and fact.value is None and fact.status in UNSURE


def by_hand(rule: Rule, facts: dict[str, Fact], traits: frozenset[str]) -> str:
    """What one rule says, requirement by requirement."""
    told = {name: fact.value for name, fact in facts.items()}
    missing = [facts.get(name) for name in rule.aggregate.names if as_text(told.get(name)) is None]
    missing += [
        facts.get(each.fact)
        for each in rule.conditions
        if not read(each.requirement.text).match(told.get(each.fact))
    ]
    lacks_trait = any((each.lstrip("!") in traits) is each.startswith("!") for each in rule.traits)
    doubts = [unread(fact) for fact in missing]
    if lacks_trait:
        doubts.append(any(unread(fact) for fact in facts.values()))
    return "yes" if not doubts else "unsure" if all(doubts) else "no"


def told(answers: Answers, at: int) -> str:
    sets = {"yes": answers.yes, "unsure": answers.unsure, "no": answers.no}
    (answer,) = (word for word, mask in sets.items() if mask >> at & 1)
    return answer


@given(st.lists(st.tuples(FACTS, TRAITS), min_size=1, max_size=6))
def test_every_rule_answers_as_by_itself(hosts: list[tuple[dict[str, Fact], frozenset[str]]]) -> None:
    rules = fleet.rules(RULES)
    compiled = Compiled(rules)
    for facts, traits in hosts:
        answers = compiled.answers(facts, traits)
        for at, rule in enumerate(rules.rules):
            assert told(answers, at) == by_hand(rule, facts, traits), (rule.name, facts, traits)


def test_what_is_remembered_has_a_limit() -> None:
    compiled = Compiled(fleet.rules(RULES))
    for number in range(module.MAX_VALUES + 10):
        answers = compiled.answers({"memory_gib": fleet.fact(number)}, frozenset())
        assert bool(answers.yes >> compiled.index["gives"] & 1) is (number == 1)
    (looking,) = (each for each in compiled._facts.values() if each.name == "memory_gib")
    assert 0 < len(looking._lacking) <= module.MAX_VALUES


@given(st.sets(st.integers(0, 1000)))
def test_a_set_of_bits_tells_its_members(bits: set[int]) -> None:
    assert list(members(sum(1 << at for at in bits))) == sorted(bits)
