"""The table of errors: it is on the wire, so it is written down here once more."""

import copy
import pickle

import pytest

from libmh.errors import (
    BY_DBUS_NAME,
    BY_WORD,
    MAX_MESSAGE,
    PROBLEMS,
    Failed,
    InvalidArguments,
    NotFound,
    Problem,
    dbus_name,
    from_word,
)

TABLE = [
    (1, "not-implemented", "NotImplemented", "Not implemented"),
    (2, "invalid-arguments", "InvalidArguments", "Invalid Arguments"),
    (3, "download-failed", "DownloadFailed", "Unable to download file"),
    (4, "backend-failed", "BackendFailed", "Error in backend"),
    (5, "not-authorized", "NotAuthorized", "You are not authorized for specified action"),
    (6, "failed", "Failed", "General error"),
    (7, "not-found", "NotFound", "Not found"),
    (8, "timeout", "Timeout", "The deadline passed"),
    (9, "unavailable", "Unavailable", "Not available now"),
    (10, "conflict", "Conflict", "Changed meanwhile"),
    (11, "internal", "Internal", "Internal error"),
]


def test_the_table_is_the_agreed_one() -> None:
    prefix = "org.matahariproject.Error."
    told = [(p.number, p.word, dbus_name(p).removeprefix(prefix), p.ancestor) for p in PROBLEMS]
    assert told == TABLE
    assert list(BY_WORD) == [word for _, word, _, _ in TABLE]
    assert list(BY_DBUS_NAME) == [prefix + name for _, _, name, _ in TABLE]


def test_every_problem_is_in_the_table() -> None:
    assert set(Problem.__subclasses__()) == set(PROBLEMS)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_word_becomes_its_problem_again(problem: type[Problem]) -> None:
    met = from_word(problem.word, "as it was", action="a.b")
    assert type(met) is problem
    assert (met.message, met.details, str(met)) == ("as it was", {"action": "a.b"}, "as it was")


def test_a_word_of_a_newer_peer_is_kept() -> None:
    met = from_word("melted", "too hot")
    assert type(met) is Failed
    assert met.message == "too hot (the peer's error word is 'melted')"


def test_details_may_have_any_name() -> None:
    met = from_word("failed", "it", self="a", message="b", word="c")
    assert met.details == {"self": "a", "message": "b", "word": "c"}


def test_no_message_is_the_ancestors() -> None:
    assert NotFound().message == "Not found"


@pytest.mark.parametrize(
    ("given", "carried"),
    [
        ("two\nlines", "two lines"),
        ("a\0b", "a\ufffdb"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("lone \ud800", "lone \ufffd"),
        ("grüße 漢字", "grüße 漢字"),
        ("x" * 5000, "x" * MAX_MESSAGE),
    ],
)
def test_every_message_can_be_carried_and_shown(given: str, carried: str) -> None:
    met = InvalidArguments(given, argument=given)
    assert (met.message, met.details["argument"]) == (carried, carried)
    met.message.encode()


def test_a_problem_can_be_copied() -> None:
    met = InvalidArguments("it", argument="a")
    for copied in (copy.copy(met), pickle.loads(pickle.dumps(met))):
        assert (type(copied), copied.message, copied.details) == (InvalidArguments, "it", {"argument": "a"})
