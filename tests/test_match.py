"""The requirement grammar, line by line, and that nothing makes it raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmh.match import OPERATORS, advice, match, read

FLAGS = ["fpu", "avx2", "avx512f"]


@pytest.mark.parametrize(
    ("value", "requirement", "matched"),
    [
        ("x86_64", "x86_64", True),
        ("x86_64", " x86_64", False),
        ("two words", "two words", True),
        ("two  words", "two words", False),
        ("", "", True),
        (8, "8", True),
        (8.0, "8", False),
        (True, "true", True),
        (True, "True", True),
        (False, "True", False),
        (1, "true", False),
        (["a"], "a", False),
        ("8", "= 8", True),
        ("9", "= 8", True),
        ("7", "= 8", False),
        (8, "== 8.0", True),
        (2**53 + 1, f"== {2**53}", False),
        (8, "!= 8", False),
        (9, "!= 8", True),
        (9, ">= 8", True),
        (9, "<= 8", False),
        (9, "> 8", False),
        ("> 8", "> 8", True),
        (9, ">=8", False),
        (True, ">= 1", False),
        ("many", ">= 1", False),
        (4, ">= some", False),
        ([4], ">= 4", False),
        ("b", "s== b", True),
        ("b", "s!= b", False),
        ("b", "s< c", True),
        ("b", "s<= b", True),
        ("b", "s> a", True),
        ("b", "s>= c", False),
        ("10", "s< 9", True),
        (["b"], "s== b", False),
        (FLAGS, "<in> avx512f", True),
        (FLAGS, "<in> avx512", False),
        ("fpu avx512f", "<in> avx512", True),
        (FLAGS, "<in> avx512f nothing", True),
        ([1, True], "<in> 1", True),
        (42, "<in> 4", False),
        (FLAGS, "<all-in> avx2 fpu", True),
        (FLAGS, "<all-in> avx2 sse", False),
        ("intel", "<or> amd <or> intel", True),
        ("intel", "<or> amd or intel", True),
        ("<or>", "<or> amd <or> intel", False),
        ("amd", "<or> amd", True),
        (FLAGS, "<or> fpu", False),
        (None, "", False),
        (None, "!= 8", False),
        (None, "s!= 8", False),
        *((value, word, False) for word in OPERATORS for value in ("", "0", 0, FLAGS, word)),
    ],
)
def test_grammar(value: object, requirement: str, matched: bool) -> None:
    answer = read(requirement).match(value)
    assert bool(answer) is matched, answer.reason
    assert answer.reason
    if isinstance(value, str):  # for text there is only one way
        assert match(value, requirement) == answer


@pytest.mark.parametrize(
    ("value", "requirement", "matched"),
    [
        (8, "8", False),
        (True, "true", False),
        (True, ">= 1", True),
        (2**53 + 1, f"== {2**53}", True),
        (10**400, ">= 1", False),
        (8, "s!= 8", True),
        (8, "s== 8", False),
        (8, "s< 9", False),
        (["b"], "s!= b", True),
        ([1, "1"], "<in> 1", True),
        ([1], "<in> 1", False),
        ({"a": 1}, "<all-in> a", True),
        (8, "<or> 8", False),
    ],
)
def test_what_is_no_text_is_compared_as_nova_does(value: object, requirement: str, matched: bool) -> None:
    answer = match(value, requirement)
    assert bool(answer) is matched, answer.reason
    assert answer.reason


@pytest.mark.parametrize(
    ("value", "requirement", "reason"),
    [
        (FLAGS, "<in> avx512f", "has 'avx512f'"),
        (FLAGS, "<all-in> avx2 sse aes", "lacks 'sse', 'aes'"),
        (4, ">= 8", "is 4, not '>= 8'"),
        (9, "= 8", "is 9, as '>= 8' asks"),
        ("many", ">= 8", "is 'many', which is not a number"),
        (4, ">= x", "cannot be compared: 'x' after '>=' is not a number"),
        (None, "== 1", "is not known"),
        ("amd", "intel", "is 'amd', not 'intel'"),
        (FLAGS, "fpu", "is a list of 3, which equals no text; use <in> for a list"),
        (4, "<=", "cannot be compared: '<=' has no operand"),
    ],
)
def test_reason_says_what_was_seen(value: object, requirement: str, reason: str) -> None:
    assert read(requirement).match(value).reason == reason


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
operands = st.text() | st.integers().map(str) | st.floats().map(str)
requirements = st.text() | st.builds(" ".join, st.lists(st.sampled_from(OPERATORS) | operands, max_size=6))


@given(values, requirements)
def test_nothing_raises(value: object, requirement: str) -> None:
    for wanted in (read(requirement), read(requirement, exact=True)):
        answer = wanted.match(value)
        assert len(answer.reason) < 300
        assert value is not None or not answer
        assert wanted.holds(value) is wanted.predicate()(value) is answer.matched
        assert len(wanted.wanted()) < 300
    advice(requirement)


MONSTERS = (10**5000, -(10**5000), "9" * 5000, "1e999", float("nan"), "\ud800")


@pytest.mark.parametrize("number", range(len(MONSTERS)))
@pytest.mark.parametrize("word", OPERATORS)
def test_monstrous_values_do_not_raise(number: int, word: str) -> None:
    value = MONSTERS[number]
    for operand in ("1", "9" * 5000, "nan", "\ud800"):
        assert match(value, f"{word} {operand}").reason
        assert read(f"{word} {operand}").match(value).reason
    assert match(value, "1").reason


@given(st.text())
def test_text_without_operator_is_equality(text: str) -> None:
    if read(text).operator is None:
        assert match(text, text)
        assert not match(text + "x", text)


@given(st.integers(), st.integers())
def test_numbers_compare_exactly(value: int, wanted: int) -> None:
    assert read(f"== {wanted}").holds(value) is (value == wanted)
    assert read(f"= {wanted}").holds(str(value)) is (value >= wanted)
    assert read(f"<= {wanted}").holds(value) is (value <= wanted)


@pytest.mark.parametrize(
    ("requirement", "says"),
    [
        ("= 8", "at least"),
        ("> 8", "use '>='"),
        ("< 8", "use '<='"),
        (">=8", "a blank after '>='"),
        ("<in>avx", "a blank after '<in>'"),
        ("==", "never matches"),
        (">= many", "not a number"),
        ("<in> avx2 aes", "the rest is ignored"),
    ],
)
def test_advice_on_what_means_something_else(requirement: str, says: str) -> None:
    assert says in (advice(requirement) or "")


@pytest.mark.parametrize("requirement", ["", "x86_64", "<in> avx2", ">= 8", "<or> a <or> b", "s== b"])
def test_no_advice_on_what_is_plain(requirement: str) -> None:
    assert advice(requirement) is None
