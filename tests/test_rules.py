"""Rules from TOML: what they may say, and that every fault is named with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmh.errors import InvalidArguments
from mh_conductor.regime import Regime
from mh_conductor.rules import MAX_WARNINGS, load, parse

GOOD = """
[[rule]]
name = "big"
description = "for people"
aggregate = "big-{arch}"
traits = ["HW_CPU_X86_AVX2", "!HW_CPU_HYPERTHREADING"]
requirements = { memory_gib = [">= 16", "<= 63"], os_id = "debian" }
metadata = { arch = "{arch}", "trait:HW_CPU_X86_AVX2" = "required", literal = "{{x}}" }
zone = "az-{arch}"
"""


def test_a_rule_says_what_it_was_given() -> None:
    rule = parse(GOOD).rules[0]
    assert (rule.name, rule.aggregate.names, rule.aggregate.render({"arch": "x86_64"})) == (
        "big",
        ("arch",),
        "big-x86_64",
    )
    assert [(c.fact, c.requirement.text) for c in rule.conditions] == [
        ("memory_gib", ">= 16"),
        ("memory_gib", "<= 63"),
        ("os_id", "debian"),
    ]
    assert rule.traits == ("HW_CPU_X86_AVX2", "!HW_CPU_HYPERTHREADING")
    assert {key: each.render({"arch": "a"}) for key, each in rule.templates.items()} == {
        "arch": "a",
        "trait:HW_CPU_X86_AVX2": "required",
        "literal": "{x}",
        "availability_zone": "az-a",
    }


def test_a_rule_may_only_give_traits() -> None:
    rule = parse('[[rule]]\nname = "fast"\ngives = ["CUSTOM_MH_FAST"]\n').rules[0]
    assert (rule.aggregate.text, rule.gives, rule.grace) == ("", ("CUSTOM_MH_FAST",), None)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"90s"', 90.0), ('"15min"', 900.0), ('"2 h"', 7200.0), ('"1.5d"', 129600.0), ("0", 0.0), ("2.5", 2.5)],
)
def test_a_time_is_a_number_of_seconds_or_has_a_unit(written: str, seconds: float) -> None:
    rules = parse(f'[settings]\ngrace = 7\n[[rule]]\nname = "a"\naggregate = "a"\ngrace = {written}\n')
    assert rules.grace(rules.rules[0]) == seconds
    assert parse(f"[settings]\nsettle = {written}").regime.settle == seconds


def test_the_settings_are_those_of_the_file() -> None:
    text = """
    [settings]
    silent_after = "3min"
    grace = "2h"
    settle = 60
    flaps = 2
    large_change = 0.5
    large_hosts = 4
    [[rule]]
    name = "a"
    aggregate = "a"
    """
    rules = parse(text)
    assert rules.regime == Regime(180.0, 7200.0, 60.0, 2, 0.5, 4)
    assert rules.grace(rules.rules[0]) == 7200.0
    assert (rules.text, parse("").regime) == (text, Regime())


@pytest.mark.parametrize(
    ("affected", "hosts", "large"), [(3, 3, False), (10, 50, False), (11, 50, True), (9, 12, False)]
)
def test_a_large_change_is_more_than_a_share_of_more_than_a_few(
    affected: int, hosts: int, large: bool
) -> None:
    assert Regime().large(affected, hosts) is large


def test_the_shipped_rules_are_sound() -> None:
    rules = load("default")
    assert len(rules.rules) >= 10
    assert rules.warnings == ()
    assert rules.digest != parse(GOOD).digest


def fault(text: str) -> str:
    with pytest.raises(InvalidArguments) as caught:
        parse(text, "f.toml")
    return caught.value.message


HEAD = '[[rule]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rule = 3", "f.toml:1: expected [[rule]] tables"),
        ("[rule]\nname = 'a'", "f.toml:1: expected [[rule]] tables"),
        ("[[rule]\n", "at line 1"),
        ("\nother = 1", "f.toml:2: unknown key 'other'"),
        (HEAD, "f.toml:1: 'aggregate' is missing"),
        (HEAD + "aggregate = 3", "f.toml:3: aggregate: expected a string, got 3"),
        (HEAD + 'aggregate = ""', "f.toml:3: aggregate: expected a string, got ''"),
        (HEAD + 'aggregate = " a"', "f.toml:3: aggregate: expected no blank"),
        (HEAD + f'aggregate = "{"a" * 256}"', "f.toml:3: aggregate: expected 1 to 255"),
        (HEAD + 'aggregate = "a\\u0007"', "f.toml:3: aggregate: expected printable"),
        (HEAD + 'aggregate = "a{os_id"', "f.toml:3: aggregate: 'a{os_id': expected '}'"),
        (HEAD + 'aggregate = "a{}"', "f.toml:3: aggregate: 'a{}': expected only the names"),
        (HEAD + 'aggregate = "a{os!r}"', "f.toml:3: aggregate: 'a{os!r}': expected only the names"),
        (HEAD + 'aggregate = "a{os:>9}"', "f.toml:3: aggregate: 'a{os:>9}': expected only the names"),
        (HEAD + 'aggregate = "a{os.id}"', "expected only the names"),
        (HEAD + 'aggregate = "a"\nwrong = 1', "f.toml:4: unknown key 'wrong'"),
        (HEAD + 'aggregate = "a"\ntraits = ["avx2"]', "f.toml:4: traits: expected names like"),
        (HEAD + 'aggregate = "a"\ntraits = 4', "f.toml:4: traits: expected names like"),
        (HEAD + 'aggregate = "a"\nrequirements = 4', "f.toml:4: requirements: expected a table"),
        (HEAD + 'aggregate = "a"\n[rule.requirements]\narch = 4', "f.toml:5: requirements.arch: expected"),
        (HEAD + 'aggregate = "a"\nrequirements.arch = []', "f.toml:4: requirements.arch: expected"),
        (HEAD + 'aggregate = "a"\n[rule.metadata]\n"a/b" = "x"', "f.toml:5: metadata key 'a/b'"),
        (HEAD + 'aggregate = "a"\n[rule.metadata]\na = 1', "f.toml:5: metadata.a: expected a string"),
        (
            HEAD + f'aggregate = "a"\n[rule.metadata]\na = "{"x" * 256}"',
            "f.toml:5: metadata.a: expected at most",
        ),
        (HEAD + 'aggregate = "a"\n[rule.metadata]\na = "{arch}"', "f.toml:5: metadata.a: {arch} must be in"),
        (
            HEAD + 'aggregate = "a"\nmetadata.availability_zone = "z"',
            "f.toml:4: metadata.availability_zone: write",
        ),
        (HEAD + 'aggregate = "a"\nzone = "z "', "f.toml:4: zone: expected no blank"),
        (HEAD + 'aggregate = "a"\nzone = "{arch}"', "f.toml:4: zone: {arch} must be in"),
        (HEAD + 'aggregate = "a"\n' + HEAD + 'aggregate = "b"', "f.toml:5: name 'a' is taken"),
        (
            HEAD + 'aggregate = "a"\n[[rule]]\nname = "b"\naggregate = "a"',
            "f.toml:6: aggregate 'a' is taken",
        ),
        (
            HEAD + 'aggregate = "a"\ngives = ["HW_X"]',
            "f.toml:4: gives: expected names like 'CUSTOM_MH_FAST'",
        ),
        (HEAD + 'aggregate = "a"\ngives = 4', "f.toml:4: gives: expected names like"),
        (HEAD + 'gives = ["CUSTOM_MH_A"]\nzone = "z"', "f.toml:4: zone: there is no aggregate to have it"),
        (HEAD + 'gives = ["CUSTOM_MH_A"]\nmetadata.a = "b"', "f.toml:4: metadata: there is no aggregate"),
        (HEAD + 'aggregate = "a"\ngrace = "soon"', "f.toml:4: grace: expected seconds, or a text like"),
        (HEAD + 'aggregate = "a"\ngrace = -1', "f.toml:4: grace: expected seconds"),
        (HEAD + 'aggregate = "a"\ngrace = true', "f.toml:4: grace: expected seconds"),
        (HEAD + 'aggregate = "a"\ngrace = "367d"', "f.toml:4: grace: expected seconds"),
        ("settings = 4", "f.toml:1: settings: expected a table, got 4"),
        ("[settings]\ngrce = 1", "f.toml:2: unknown setting 'grce': expected silent_after, grace, settle"),
        ("\n[settings]\n\nflaps = 0", "f.toml:4: settings.flaps: expected a number, 1 to 100, got 0"),
        ("[settings]\nlarge_change = 20", "f.toml:2: settings.large_change: expected a share, 0 to 1"),
        ("[settings]\nlarge_hosts = true", "f.toml:2: settings.large_hosts: expected a number of hosts"),
        (
            HEAD + 'aggregate = "a"\ngrace = 3\n[settings]\ngrace = "3 weeks"',
            "f.toml:6: settings.grace: expected seconds, or a text like '90s', '15min', '2h', '1d'",
        ),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, says: str) -> None:
    assert says in fault(text)


def test_all_faults_are_told_at_once() -> None:
    text = HEAD + 'bad = 1\naggregate = "a"\nzone = 3\n' + '[[rule]]\nname = "b"\nworse = 2\n'
    known = "name, description, aggregate, requirements, traits, metadata, zone, gives, grace"
    assert fault(text).split("; ") == [
        f"f.toml:3: unknown key 'bad': expected {known}",
        "f.toml:5: zone: expected a string, got 3",
        f"f.toml:8: unknown key 'worse': expected {known}",
        "f.toml:6: 'aggregate' is missing",
    ]


def test_very_many_faults_are_counted() -> None:
    assert fault("[[rule]]\n" * 30).endswith("; and 40 more")


def test_too_many_rules_are_refused() -> None:
    assert "at most 1000 rules, got 1001" in fault("[[rule]]\n" * 1001)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('requirements.memory_gib = "= 16"', "f.toml:4: requirements.memory_gib: '= 16' means 'at least'"),
        (
            'requirements.memory_gib = ">=16"',
            "f.toml:4: requirements.memory_gib: '>=16' is compared as text",
        ),
        (
            'requirements.cpu_flag = "<in> aes"',
            "f.toml:4: no agent of this version tells the fact 'cpu_flag', did",
        ),
        (
            'traits = ["HW_CPU_X86_AVX512"]',
            "no agent of this version reports the trait 'HW_CPU_X86_AVX512', did",
        ),
    ],
)
def test_what_seems_to_mean_something_else_is_warned_of(line: str, says: str) -> None:
    (warning,) = parse(HEAD + 'aggregate = "a"\n' + line, "f.toml").warnings
    assert says in warning


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    with pytest.raises(InvalidArguments, match=r"rules\.toml': No such file"):
        load(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidArguments, match="not UTF-8"):
        load(str(file))
    file.write_text("#" * (1 << 21))
    with pytest.raises(InvalidArguments, match="longer than"):
        load(str(file))
    file.write_text(GOOD)
    assert len(load(str(file)).rules) == 1


keys = st.sampled_from(
    ["name", "aggregate", "requirements", "traits", "metadata", "zone", "gives", "grace", "x"]
)
values = st.recursive(
    st.sampled_from(['"a"', '"{arch}"', '"{"', "3", "true", "1979-05-27", '""']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda item: f"{{ a = {item}, arch = {item} }}")
    ),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(keys, values), max_size=3))
def test_nothing_but_a_refusal_comes_of_nonsense(tables: list[dict[str, str]]) -> None:
    text = "".join("[[rule]]\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for table in tables)
    said = ""
    try:
        taken = len(parse(text).rules)
    except InvalidArguments as refused:
        said, taken = refused.message, 0
    assert "rules:" in said or taken == len(tables)


def test_the_rules_that_the_readme_shows_are_rules() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    shown = readme.partition("### Aggregates, by rule and by hand\n\n```toml\n")[2].partition("```")[0]
    rules = parse(shown)
    assert (len(rules.rules), rules.warnings, rules.regime) == (1, (), Regime())
    assert rules.rules[0].gives


def one_rule(text: str) -> str:
    return f'[[rule]]\nname = "a"\naggregate = "a"\n{text}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[settings]\ngrace = " + "9" * 5000, "integer string conversion"),
        (one_rule('zone = "a:b"'), "rules:4: zone: expected no ':'"),
        (one_rule("metadata = {" + ",".join(f'k{at}=""' for at in range(1001)) + "}"), "at most 1000 keys"),
        (one_rule("requirements = {" + ",".join(f"x{at}=1" for at in range(1000)) + "}"), "and 980 more"),
    ],
    ids=["digits", "zone", "keys", "faults"],
)
def test_odd_rules_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidArguments, match=said):
        parse(text)


def test_what_is_said_of_rules_has_limits() -> None:
    rules = parse(one_rule("requirements = {" + ",".join(f'x{at}="1"' for at in range(1000)) + "}"))
    assert len(rules.warnings) == MAX_WARNINGS
    with pytest.raises(InvalidArguments) as refused:
        parse(one_rule(f'grace = "{"9" * 100_000}"'))
    assert len(refused.value.message) < 1000
