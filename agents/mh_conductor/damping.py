"""Facts that flap: a host whose answer to a rule keeps changing stays where it is until it has been steady.

What changed lately is kept in the store, one row for a host and a rule, for `FLAP_WINDOW` seconds. `damp` is
pure: verdicts and what was noted -> verdicts, and what is to be noted.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, insert, select

from libmh.api.aggregates import Evidence
from mh_conductor.judge import Answer, Verdict, clock
from mh_conductor.limits import holdable
from mh_conductor.regime import FLAP_WINDOW, NANOSECONDS, Regime, duration
from mh_conductor.tables import VERDICTS

MAX_ANSWER = 255
WINDOW = int(FLAP_WINDOW * NANOSECONDS)


@dataclass(frozen=True, slots=True)
class Note:
    """What a rule says of a host since when, and the moments of its last changes (nanoseconds)."""

    rule: str
    answer: str
    since: int
    changes: tuple[int, ...]

    def held_until(self, regime: Regime, now: int) -> int | None:
        """Until when nothing comes of it if it stays steady; None where it does not flap."""
        lately = [moment for moment in self.changes if now - moment < WINDOW]
        until = self.since + int(regime.settle * NANOSECONDS)
        return until if len(lately) > regime.flaps and now < until else None

    def evidence(self, regime: Regime, until: int) -> Evidence:
        reason = (
            f"rule '{self.rule}' changed its answer {len(self.changes)} times within an hour: the host "
            f"stays where it is until that has been steady for {duration(regime.settle)}, which is at "
            f"{clock(until)}"
        )
        return Evidence(self.rule, "", f"steady for {duration(regime.settle)}", matched=False, reason=reason)


@dataclass(frozen=True, slots=True)
class Damped:
    """The verdicts to plan with, the notes that are new, and which of them began to be held."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[Note, ...] = ()
    begun: tuple[Evidence, ...] = ()


def damp(
    verdicts: tuple[Verdict, ...],
    memberships: Mapping[str, str | None],
    notes: Mapping[str, Note],
    regime: Regime,
    now: int,
    given: Collection[str] = (),
) -> Damped:
    """`memberships` are the host's, aggregate -> rule; `notes` are those of the host, by rule; `given` the
    traits that rules give it."""
    places = {owner: name for name, owner in memberships.items()}
    kept: list[Verdict] = []
    fresh: list[Note] = []
    begun: list[Evidence] = []
    for verdict in verdicts:
        name = verdict.rule.name
        before = notes.get(name)
        place = places.get(name) if verdict.rule.aggregate.text else _gift(verdict, given)
        note = _noted(verdict, before, place, now, regime)
        if note is not None and note is not before:
            fresh.append(note)
        until = note.held_until(regime, now) if note else None
        if note is None or until is None:
            kept.append(verdict)
            continue
        shown = note.evidence(regime, until)
        kept.append(hold(verdict, shown))
        if before is None or before.held_until(regime, now) is None:
            begun.append(shown)
    return Damped(tuple(kept), tuple(fresh), tuple(begun))


def hold(verdict: Verdict, why: Evidence | None) -> Verdict:
    """A member stays wherever the rule put it, a stranger does not join."""
    return replace(verdict, answer=Answer.UNSURE, aggregate="", instead=why)


def _noted(
    verdict: Verdict, before: Note | None, place: str | None, now: int, regime: Regime
) -> Note | None:
    if verdict.answer is Answer.UNSURE:
        return before
    said = _told(verdict.aggregate if verdict.answer is Answer.YES else None)
    if said == (before.answer if before else _told(place)):
        return before
    lately = [moment for moment in before.changes if now - moment < WINDOW] if before else []
    changes = (*lately[-regime.flaps :], now)
    return Note(verdict.rule.name, said, now, changes)


def _gift(verdict: Verdict, given: Collection[str]) -> str | None:
    """Where a rule that only gives traits has put a host: nowhere, by name."""
    return "" if all(trait in given for trait in verdict.rule.gives) else None


def _told(place: str | None) -> str:
    return "no" if place is None else holdable(f"yes {place}", MAX_ANSWER)


def notes_of(connection: Connection, host: str) -> dict[str, Note]:
    """What was noted of a host, by rule."""
    rows = connection.execute(select(VERDICTS).where(VERDICTS.c.host == host))
    return {row.rule: Note(row.rule, row.answer, row.since, tuple(json.loads(row.changes))) for row in rows}


def every_note(connection: Connection) -> dict[str, dict[str, Note]]:
    """What was noted, by host and rule."""
    notes: dict[str, dict[str, Note]] = {}
    for row in connection.execute(select(VERDICTS)):
        note = Note(row.rule, row.answer, row.since, tuple(json.loads(row.changes)))
        notes.setdefault(row.host, {})[row.rule] = note
    return notes


def put(connection: Connection, host: str, notes: Iterable[Note]) -> None:
    """Keep notes of a host."""
    for note in notes:
        key = (VERDICTS.c.host == host) & (VERDICTS.c.rule == note.rule)
        connection.execute(delete(VERDICTS).where(key))
        row = {"host": host, "rule": note.rule, "answer": note.answer, "since": note.since}
        connection.execute(insert(VERDICTS), {**row, "changes": json.dumps(note.changes)})


def settled(notes: Mapping[str, Mapping[str, Note]], regime: Regime, before: int, now: int) -> list[str]:
    """The hosts of which something was held at `before` and is so no longer."""
    return [
        host
        for host, by_rule in notes.items()
        if any(
            each.held_until(regime, before) is not None and each.held_until(regime, now) is None
            for each in by_rule.values()
        )
    ]


def put_back(connection: Connection, now: int) -> None:
    """Let what is of a later time than now be of now: so it ends in time."""
    for row in connection.execute(select(VERDICTS).where(VERDICTS.c.since > now)).all():
        changes = tuple(min(moment, now) for moment in json.loads(row.changes))
        put(connection, row.host, [Note(row.rule, row.answer, now, changes)])


def forget(connection: Connection, now: int) -> None:
    """Drop the notes whose last change is too long ago to count."""
    connection.execute(delete(VERDICTS).where(VERDICTS.c.since < now - WINDOW))
