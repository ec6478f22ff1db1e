"""One host against the rules, in a transaction: judge, damp, plan, carry out, remember."""

import json
import logging
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from libmh.api.aggregates import Evidence
from mh_conductor import damping, registry
from mh_conductor.compiled import Compiled
from mh_conductor.judge import Answer, Subject, Verdict, verdicts
from mh_conductor.plan import Plan, plan
from mh_conductor.registry import Done, View
from mh_conductor.store import placing
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS

log = logging.getLogger("mh_conductor.replan")

_PLACES = (
    select(AGGREGATES.c.name, MEMBERS.c.owner)
    .join(MEMBERS, MEMBERS.c.aggregate == AGGREGATES.c.id)
    .where(MEMBERS.c.host == bindparam("host"), MEMBERS.c.owner.is_not(None))
)
_GIVEN = select(HOSTS.c.given).where(HOSTS.c.uuid == bindparam("host"))
_GIVE = update(HOSTS).where(HOSTS.c.uuid == bindparam("host")).values(given=bindparam("given_now"))


@dataclass(frozen=True, slots=True)
class Replanned:
    """What was carried out; `changed`: anything at all about the host, its traits included."""

    done: tuple[Done, ...] = ()
    changed: bool = False


def replan(
    connection: Connection, subject: Subject, compiled: Compiled, now: int, *, known: bool = True
) -> Replanned:
    """Hold a host that is up against the rules. Whoever calls advances the generation of the whole after it.
    `known`: it has reported before, so that an answer which differs is a change. Raises `Conflict`."""
    answers = compiled.answers(subject.facts, subject.traits)
    judged = verdicts(subject, compiled, answers, compiled.all)
    if known:
        judged = _damp(connection, subject, judged, compiled, now)
    return follow(connection, subject, judged, compiled, now)


def _damp(
    connection: Connection, subject: Subject, judged: tuple[Verdict, ...], compiled: Compiled, now: int
) -> tuple[Verdict, ...]:
    memberships = {row.name: row.owner for row in connection.execute(_PLACES, {"host": subject.uuid})}
    notes = damping.notes_of(connection, subject.uuid)
    traits = _given(connection, subject)
    damped = damping.damp(judged, memberships, notes, compiled.rules.regime, now, traits)
    damping.put(connection, subject.uuid, damped.notes)
    registry.record(connection, [_line(subject, "damped", each) for each in damped.begun], now)
    return damped.verdicts


def _line(subject: Subject, change: str, shown: Evidence) -> dict[str, str]:
    line = {"aggregate": "", "change": change, "rule": shown.rule}
    return {**line, "host": subject.hostname, "why": shown.reason}


def follow(
    connection: Connection, subject: Subject, judged: tuple[Verdict, ...], compiled: Compiled, now: int
) -> Replanned:
    """Plan for a host from verdicts, and carry that out."""
    seen, made = _plan(connection, subject, judged, compiled)
    if made.changes and placing(connection):  # what was read before may be old
        seen, made = _plan(connection, subject, judged, compiled)
    _tell(subject, made)
    done = registry.carry_out(connection, subject.uuid, made, seen, now)
    refused = [
        {"aggregate": each.aggregate, "change": "refused", "rule": each.rule}
        | {"host": subject.hostname, "why": each.reason}
        for each in made.refusals
    ]
    registry.record(connection, refused, now)
    given = _give(connection, subject, judged, now)
    return Replanned(tuple(done), changed=bool(done) or given)


def _plan(
    connection: Connection, subject: Subject, judged: tuple[Verdict, ...], compiled: Compiled
) -> tuple[View, Plan]:
    seen = registry.view_of(connection, subject.uuid, judged)
    return seen, plan(subject, judged, compiled.rules, seen.current)


def _give(connection: Connection, subject: Subject, judged: tuple[Verdict, ...], now: int) -> bool:
    before = _given(connection, subject)
    wanted = given(judged, before)
    if wanted == before:
        return False
    connection.execute(_GIVE, {"host": subject.uuid, "given_now": json.dumps(wanted)})
    registry.record(connection, trait_lines(subject.hostname, before, wanted, judged), now)
    return True


def _given(connection: Connection, subject: Subject) -> tuple[str, ...]:
    return tuple(json.loads(connection.execute(_GIVEN, {"host": subject.uuid}).scalar() or "[]"))


def given(judged: tuple[Verdict, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """The traits that rules give, sorted: of those that cannot tell now, what they gave before."""
    traits: set[str] = set()
    for verdict in judged:
        if verdict.answer is Answer.YES:
            traits.update(verdict.rule.gives)
        elif verdict.answer is Answer.UNSURE:
            traits.update(set(verdict.rule.gives) & set(before))
    return tuple(sorted(traits))


def trait_lines(
    hostname: str, before: tuple[str, ...], after: tuple[str, ...], judged: tuple[Verdict, ...]
) -> list[dict[str, str]]:
    """What the history says of traits that came and went."""
    lines = []
    for trait in sorted(set(before) ^ set(after)):
        verdict = next((each for each in judged if trait in each.rule.gives), None)
        word, change = ("has", "trait-given") if trait in after else ("no longer has", "trait-taken")
        reason = "; ".join(each.reason for each in verdict.evidence()) if verdict else "its rule is gone"
        why = f"{hostname} {word} {trait} because {reason}"
        rule = verdict.rule.name if verdict else ""
        lines.append({"aggregate": "", "change": change, "rule": rule, "host": hostname, "why": why})
    return lines


def _tell(subject: Subject, made: Plan) -> None:
    for change in made.changes:
        log.info("%s %s: %s", change.kind, change.aggregate, change.why)
    for refusal in made.refusals:
        log.warning(
            "rule '%s' refused for %s in '%s': %s",
            *(refusal.rule, subject.hostname, refusal.aggregate, refusal.reason),
        )
