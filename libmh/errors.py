"""Every failure that a caller can meet, the same on every path.

::

    Problem
     +-- NotImplementedHere   1 not-implemented     known, but not supported on this host
     +-- InvalidArguments     2 invalid-arguments   a value refused: names the argument and what was expected
     +-- DownloadFailed       3 download-failed     a URI could not be fetched
     +-- BackendFailed        4 backend-failed      systemd, tuned, the kernel ... failed; carries its words
     +-- NotAuthorized        5 not-authorized      polkit or the remote policy refused; carries the action
     +-- Failed               6 failed              the rest of the expected
     +-- NotFound             7 not-found           no such interface, member, unit, link, key, host
     +-- Timeout              8 timeout             the deadline passed: says which
     +-- Unavailable          9 unavailable         not connected, starting, shutting down
     +-- Conflict            10 conflict            the thing changed meanwhile
     +-- Internal            11 internal            a bug; carries an id that the journal has too

`word` and `number` are the wire: D-Bus says `org.matahariproject.Error.<CamelWord>`, AMQP `mh:error`.
"""

from collections.abc import Mapping
from typing import ClassVar

DBUS_PREFIX = "org.matahariproject.Error."
MAX_MESSAGE = 2000


def carriable(text: str) -> str:
    """One line that every transport can carry and a terminal can show: messages quote what a caller sent."""
    text = text[:MAX_MESSAGE]
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in text)


class Problem(Exception):
    """An expected failure. `details` are plain strings for machines: an action, an argument, an id."""

    word: ClassVar[str] = "failed"
    number: ClassVar[int] = 6
    ancestor: ClassVar[str] = "General error"

    def __init__(self, message: str = "", /, **details: str) -> None:
        self.message = carriable(message or self.ancestor)
        self.details: Mapping[str, str] = {name: carriable(text) for name, text in details.items()}
        super().__init__(self.message)


class NotImplementedHere(Problem):
    word = "not-implemented"
    number = 1
    ancestor = "Not implemented"


class InvalidArguments(Problem):
    word = "invalid-arguments"
    number = 2
    ancestor = "Invalid Arguments"


class DownloadFailed(Problem):
    word = "download-failed"
    number = 3
    ancestor = "Unable to download file"


class BackendFailed(Problem):
    word = "backend-failed"
    number = 4
    ancestor = "Error in backend"


class NotAuthorized(Problem):
    word = "not-authorized"
    number = 5
    ancestor = "You are not authorized for specified action"


class Failed(Problem):
    word = "failed"
    number = 6


class NotFound(Problem):
    word = "not-found"
    number = 7
    ancestor = "Not found"


class Timeout(Problem):
    word = "timeout"
    number = 8
    ancestor = "The deadline passed"


class Unavailable(Problem):
    word = "unavailable"
    number = 9
    ancestor = "Not available now"


class Conflict(Problem):
    word = "conflict"
    number = 10
    ancestor = "Changed meanwhile"


class Internal(Problem):
    word = "internal"
    number = 11
    ancestor = "Internal error"


PROBLEMS: tuple[type[Problem], ...] = (
    NotImplementedHere,
    InvalidArguments,
    DownloadFailed,
    BackendFailed,
    NotAuthorized,
    Failed,
    NotFound,
    Timeout,
    Unavailable,
    Conflict,
    Internal,
)
BY_WORD: Mapping[str, type[Problem]] = {problem.word: problem for problem in PROBLEMS}


def dbus_name(problem: type[Problem] | Problem) -> str:
    """`org.matahariproject.Error.NotFound` for `not-found`."""
    return DBUS_PREFIX + "".join(part.capitalize() for part in problem.word.split("-"))


BY_DBUS_NAME: Mapping[str, type[Problem]] = {dbus_name(problem): problem for problem in PROBLEMS}


def from_word(word: str, message: str, /, **details: str) -> Problem:
    """The problem that a peer named; a word not known here is `failed`, and says the word."""
    known = BY_WORD.get(word)
    if known is None:
        return Failed(f"{message} (the peer's error word is '{word}')", **details)
    return known(message, **details)


def not_installed(scheme: str, error: ImportError) -> NotImplementedHere:
    """The problem that a transport's missing library is."""
    remedy = f"pip install 'matahari[{scheme}]' brings it"
    return NotImplementedHere(f"the software for '{scheme}:' is not installed ({error}); {remedy}")
