"""A change that may cut its host off: made, and confirmed once the host was reached over a new connection.

The connection that the change was asked over proves nothing: it may be the one that is cut, or may live on
where no new one could be made. Losing it is no failure either: what came of the change is looked up.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from libmh.api.network import ChangeState, Network
from libmh.call import Verb
from libmh.cli.session import Session
from libmh.errors import Conflict, NotFound, Problem, Timeout, Unavailable
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Network)
LOST = (Unavailable, Timeout)
"""What says of the way to the host, not of the change."""
NANOSECONDS = 10**9
MAX_SECONDS = 2 * 3600.0
Change = Mapping[str, Any]
"""A `NetworkChange` as plain tree."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how long the answer alone is waited for, what one look may take, the pause between two, and
    how long the host is looked for once the time to confirm is up."""

    answer: float = 5.0
    look: float = 5.0
    pause: float = 0.5
    afterwards: float = 15.0


@dataclass(slots=True)
class Attempt:
    """A change that was asked for: who answers, what was known of it last, and what went wrong last."""

    url: str
    link: str
    known: frozenset[str]
    begun: float
    seconds: float
    answer: "Future[Plain]" = field(default_factory=Future)
    change: Change | None = None
    trouble: Problem | None = None

    @property
    def until(self) -> float:
        """When its time to confirm is up, at the earliest: the host begins to count when it has made the
        change, and says until when as it makes it. Its clock is compared with itself alone."""
        change = self.change or {}
        told = (int(change.get("confirm_by") or 0) - int(change.get("time") or 0)) / NANOSECONDS
        return self.begun + max(self.seconds, min(told, MAX_SECONDS))


def ask(session: Session, member: str, arguments: Mapping[str, Plain]) -> Attempt:
    """Ask for a change of the link `iface`, and do not wait for the answer."""
    known = frozenset(str(each["id"]) for each in changes(session))
    seconds = float(str(arguments["confirm"]))
    attempt = Attempt(session.url, str(arguments["iface"]), known, time.monotonic(), seconds)
    Thread(target=_answer, args=(session, member, dict(arguments), attempt.answer), daemon=True).start()
    return attempt


def _answer(session: Session, member: str, arguments: dict[str, Plain], answer: "Future[Plain]") -> None:
    try:
        answer.set_result(session.ask(INTERFACE, member, Verb.CALL, arguments))
    except Problem as problem:
        answer.set_exception(problem)


def changes(session: Session) -> list[dict[str, Any]]:
    """What the host tells of its changes, the newest first."""
    found = session.ask(INTERFACE, "changes", Verb.CALL)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def heard(attempt: Attempt, seconds: float) -> bool:
    """Whether the host has answered within that time, or the connection is lost. Raises the problem that
    the host answered."""
    try:
        problem = attempt.answer.exception(seconds)
    except TimeoutError:
        return False
    if problem is None:
        answered = attempt.answer.result()
        attempt.change = attempt.change or (answered if isinstance(answered, dict) else None)
    elif isinstance(problem, LOST):
        attempt.trouble = attempt.trouble or problem
    else:
        raise problem
    return True


def prove(attempt: Attempt, waiting: Callable[[float], None], pace: Pace | None = None) -> None:
    """Wait for the change and confirm it over connections that are made for that, until that has gone well,
    or the change has ended otherwise, or the time is up. `attempt.change` tells how it stands; `waiting` is
    told before each look how many seconds are left."""
    pace = pace or Pace()
    heard(attempt, min(pace.answer, _left(attempt)))
    pause = Event()
    while not ended(attempt) and (left := _left(attempt) + pace.afterwards) > 0:
        waiting(_left(attempt))
        # what comes too late is refused by the host, which then tells that it took the change back
        _look(attempt, min(pace.look, left))
        if not ended(attempt):
            pause.wait(min(pace.pause, left))
            heard(attempt, 0)


def ended(attempt: Attempt) -> bool:
    """Whether nothing more comes of the change."""
    return attempt.change is not None and attempt.change.get("state") != ChangeState.PENDING


def _left(attempt: Attempt) -> float:
    return attempt.until - time.monotonic()


def _look(attempt: Attempt, seconds: float) -> None:
    """One connection: confirm the change where it is known, else see what came of it. One that is seen here
    may be in the making yet: the next connection confirms it."""
    try:
        with _reached(attempt.url, seconds) as session:
            if attempt.change is None:
                attempt.change = _ours(attempt, changes(session))
            else:
                attempt.change = _confirmed(attempt, session, attempt.change)
    except Problem as problem:
        attempt.trouble = problem


@contextmanager
def _reached(url: str, seconds: float) -> Iterator[Session]:
    session = Session(url, timeout=seconds)
    try:
        yield session
    finally:
        session.close()


def _ours(attempt: Attempt, found: list[dict[str, Any]]) -> Change | None:
    """The change that was not there before; where there are several, none can be told to be ours."""
    if attempt.change is not None:
        return next((each for each in found if each["id"] == attempt.change["id"]), None)
    new = [each for each in found if each["link"] == attempt.link and each["id"] not in attempt.known]
    return new[0] if len(new) == 1 else None


def _confirmed(attempt: Attempt, session: Session, change: Change) -> Change:
    try:
        answer = session.ask(INTERFACE, "confirm", Verb.CALL, {"id": change["id"]})
    except (Conflict, NotFound) as problem:  # too late, or it is in the making: the host knows which
        attempt.trouble = problem
        return _ours(attempt, changes(session)) or change
    return answer if isinstance(answer, dict) else change
