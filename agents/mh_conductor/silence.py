"""Hosts that stop reporting: they are marked, keep their places for a grace time, and then leave.

One process at a time looks, under a lease, and only while it hears its broker. The time for which nobody
could hear a host does not count. Where too much of the fleet is silent, nobody leaves before somebody says
so.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from libmh.api.aggregates import Evidence, HostState
from libmh.api.conductor import Held, Step
from libmh.errors import Conflict
from mh_conductor import clock as stores_clock
from mh_conductor import damping, fleetstore, held, leases, registry
from mh_conductor.compiled import Compiled, members
from mh_conductor.damping import hold
from mh_conductor.held import SILENCE, Waiting
from mh_conductor.judge import Answer, Subject, Verdict, clock, verdicts
from mh_conductor.regime import FLAP_WINDOW, NANOSECONDS, duration
from mh_conductor.registry import Done
from mh_conductor.replan import follow, replan
from mh_conductor.rulebook import Rulebook
from mh_conductor.rules import Rule, RuleSet
from mh_conductor.store import Store, again, alone
from mh_conductor.tables import HOSTS, LEASES, MEMBERS

log = logging.getLogger("mh_conductor.silence")
LEASE = "silence"
HEARING = "hearing"
"""The row of this name is no lease: `holder` is since when somebody hears, `until` when that was last so."""
LEASE_SECONDS = 30.0
DEAF_SECONDS = 60.0
AT_ONCE = 500  # hosts that leave in one transaction

_SILENT = (HostState.SILENT.value, HostState.GONE.value)
_COLUMNS = (
    *(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.state, HOSTS.c.state_since, HOSTS.c.last_seen),
    HOSTS.c.given,
)
_OWNERS = select(MEMBERS.c.host, MEMBERS.c.owner).where(
    MEMBERS.c.owner.is_not(None), MEMBERS.c.host.in_(bindparam("hosts", expanding=True))
)
_HEAR = update(LEASES).where(LEASES.c.name == HEARING)
_MARK = (
    update(HOSTS)
    .where(HOSTS.c.state == HostState.UP.value, HOSTS.c.last_seen < bindparam("limit"))
    .values(state=HostState.SILENT.value, state_since=bindparam("now"))
    .returning(HOSTS.c.uuid, HOSTS.c.hostname, HOSTS.c.last_seen)
)


@dataclass(frozen=True, slots=True)
class Quiet:
    """A host that has become silent, or gone."""

    uuid: str
    hostname: str
    state: HostState
    last_seen: int


@dataclass(slots=True)
class Swept:
    """What a look around has found and done. `held` is new: somebody has to say a word first."""

    quiet: list[Quiet] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    held: Held | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Leaver:
    """A silent host, and the rules whose grace is over (a set of bits)."""

    row: Any
    over: int
    gone: bool


class Silence:
    """`holder` names this process; `hearing` tells whether it is connected to a broker."""

    def __init__(
        self,
        store: Store,
        given: RuleSet,
        holder: str,
        hearing: Callable[[], bool],
        clock: Callable[[Connection], int] = stores_clock.now,
    ) -> None:
        self._store = store
        self._book = Rulebook(given)
        self._holder = holder
        self._hearing = hearing
        self._clock = clock

    def sweep(self) -> Swept:
        """Look around once. Raises what `Store.write` raises."""
        if not self._hearing():
            return Swept()
        return again(self._store, self._sweep)

    def _sweep(self, connection: Connection) -> Swept:
        if not leases.take(connection, LEASE, self._holder, LEASE_SECONDS):
            return Swept()
        now, compiled = self._clock(connection), self._book.current(connection)
        since, before = _hear(connection, now)
        found = Swept()
        touched = _mark(connection, compiled, since, now, found)
        leavers = _leavers(connection, compiled, since, now)
        refused = _refused(connection)
        leavers = [each for each in leavers if each.row.uuid not in refused]
        if leavers and _too_many(connection, compiled, len(refused), now):
            found.held = _hold(connection, compiled, leavers, now)
        else:
            _let_go(connection)
            leavers = _still(connection, compiled, since, now, leavers)
            touched += _leave(connection, compiled, leavers[:AT_ONCE], now, found)
            found.more = len(leavers) > AT_ONCE
        touched += _release(connection, compiled, before, now, found)
        if touched:
            registry.advance(connection, len(touched) + len(found.done), hosts=touched, done=found.done)
        return found

    def approve(self, waits: Waiting) -> Iterator[Swept]:
        """Let the hosts leave of which a held change told, those that are silent still. Raises `Conflict`
        where none is."""
        shown = set(json.loads(waits.text))
        first = True
        more = True
        while more:
            swept = again(self._store, lambda connection: self._dismiss(connection, shown))
            if first and not swept.quiet and not swept.done:
                raise Conflict(
                    f"held change '{waits.shown.id}' is no longer what was shown: nobody is silent"
                )
            yield swept
            first, more = False, swept.more
        again(self._store, lambda connection: held.drop(connection, waits.shown.id))

    def _dismiss(self, connection: Connection, shown: set[str]) -> Swept:
        alone(connection)
        now, compiled = self._clock(connection), self._book.current(connection)
        leavers = [each for each in _leavers(connection, compiled, 0, now) if each.row.uuid in shown]
        found = Swept(more=len(leavers) > AT_ONCE)
        touched = _leave(connection, compiled, leavers[:AT_ONCE], now, found)
        if touched:
            registry.advance(connection, len(touched) + len(found.done), hosts=touched, done=found.done)
        return found


def _hear(connection: Connection, now: int) -> tuple[int, int]:
    """(since when there is somebody who hears, when that was last known)."""
    row = connection.execute(select(LEASES).where(LEASES.c.name == HEARING)).one_or_none()
    if row is None:
        connection.execute(insert(LEASES), {"name": HEARING, "holder": str(now), "until": now})
        return now, now
    since = int(row.holder)
    if row.until - now > DEAF_SECONDS * NANOSECONDS:
        log.warning("the clock was put back from %s: silence counts from now on", clock(row.until))
        _put_back(connection, now)
        since = now
    elif now - row.until > DEAF_SECONDS * NANOSECONDS:
        log.info("nobody has heard the hosts since %s: their silence counts from now on", clock(row.until))
        since = now
    connection.execute(_HEAR.values(holder=str(since), until=now))
    return since, min(row.until, now)


def _put_back(connection: Connection, now: int) -> None:
    """What has yet to come by the clock as it is now counts as of now; else it would for as long."""
    for column in (HOSTS.c.last_seen, HOSTS.c.state_since):
        connection.execute(update(HOSTS).where(column > now).values({column.name: now}))
    damping.put_back(connection, now)


def _mark(connection: Connection, compiled: Compiled, since: int, now: int, found: Swept) -> list[str]:
    limit = now - int(compiled.rules.regime.silent_after * NANOSECONDS)
    if since > limit:
        return []
    rows = connection.execute(_MARK, {"limit": limit, "now": now}).all()
    found.quiet += [Quiet(row.uuid, row.hostname, HostState.SILENT, row.last_seen) for row in rows]
    _record(
        connection,
        "silent",
        [(row.hostname, f"no report since {clock(row.last_seen)}") for row in rows],
        now,
    )
    return [row.uuid for row in rows]


def _record(connection: Connection, change: str, said: Iterable[tuple[str, str]], now: int) -> None:
    lines = [
        {"aggregate": "", "change": change, "rule": "", "host": host, "why": f"{host} is {change}: {why}"}
        for host, why in said
    ]
    registry.record(connection, lines, now)


def _leavers(connection: Connection, compiled: Compiled, since: int, now: int) -> list[Leaver]:
    """The silent hosts of which some grace is over that has not been acted on."""
    graces = [compiled.rules.grace(rule) for rule in compiled.rules.rules]
    grace = compiled.rules.regime.grace
    if now - since < min([grace, *graces]) * NANOSECONDS:
        return []
    latest = now - int(min([grace, *graces]) * NANOSECONDS)
    rows = connection.execute(
        select(*_COLUMNS)
        .where(HOSTS.c.state.in_(_SILENT), HOSTS.c.state_since <= latest)
        .order_by(HOSTS.c.hostname, HOSTS.c.uuid)
    ).all()
    owners = _owners(connection, [row.uuid for row in rows])
    leavers = []
    for row in rows:
        elapsed = (now - max(row.state_since, since)) / NANOSECONDS
        over = sum(1 << at for at, each in enumerate(graces) if each <= elapsed)
        gone = row.state == HostState.SILENT and grace <= elapsed
        if gone or _affects(compiled, over, owners.get(row.uuid, ()), json.loads(row.given)):
            leavers.append(Leaver(row, over, gone))
    return leavers


def _still(
    connection: Connection, compiled: Compiled, since: int, now: int, leavers: list[Leaver]
) -> list[Leaver]:
    """Those that have not come back, nor were forgotten, until nobody else changes hosts."""
    if not leavers:
        return []
    alone(connection)
    found = {each.row.uuid for each in leavers}
    return [each for each in _leavers(connection, compiled, since, now) if each.row.uuid in found]


def _owners(connection: Connection, hosts: Sequence[str]) -> Mapping[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for start in range(0, len(hosts), AT_ONCE):
        some = hosts[start : start + AT_ONCE]
        for host, owner in connection.execute(_OWNERS, {"hosts": some}):
            owners.setdefault(host, []).append(owner)
    return owners


def _affects(compiled: Compiled, over: int, owners: Iterable[str], given: Sequence[str]) -> bool:
    if any(over >> compiled.index[owner] & 1 for owner in owners if owner in compiled.index):
        return True
    if not given:
        return False
    # what a rule gives too that the host has some grace left of stays
    rules = compiled.rules.rules
    stays = {trait for at in members(compiled.all & ~over) for trait in rules[at].gives}
    return any(trait not in stays for trait in given)


def _too_many(connection: Connection, compiled: Compiled, refused: int, now: int) -> bool:
    """Whether so many are silent that it is more likely us: all that have not left yet, but for those of
    which somebody knows, and who left of late."""
    regime = compiled.rules.regime
    recent = now - int((regime.grace + FLAP_WINDOW) * NANOSECONDS)
    lately = (HOSTS.c.state == HostState.GONE.value) & (HOSTS.c.state_since > recent)
    silent = HOSTS.c.state == HostState.SILENT.value
    count = select(func.count()).select_from(HOSTS)
    quiet = connection.execute(count.where(silent | lately)).scalar_one()
    up = connection.execute(count.where(HOSTS.c.state == HostState.UP.value)).scalar_one()
    return regime.large(quiet - refused, quiet - refused + up)


def _refused(connection: Connection) -> set[str]:
    """The hosts that keep their places because somebody said so; that ends when they report."""
    refused: set[str] = set()
    for row in held.refused(connection, SILENCE):
        hosts = json.loads(row.text)
        query = select(HOSTS.c.uuid).where(HOSTS.c.state.in_(_SILENT))
        silent = set(connection.execute(query).scalars()).intersection(hosts)
        if not silent:
            held.drop(connection, row.shown.id)
        elif len(silent) < len(hosts):
            held.shrink(connection, row.shown.id, json.dumps(sorted(silent)))
        refused |= silent
    return refused


def _hold(connection: Connection, compiled: Compiled, leavers: list[Leaver], now: int) -> Held | None:
    """Show what would be done; answers what is new to those who watch."""
    before = [each for each in held.waiting(connection) if each.shown.what == SILENCE]
    text = json.dumps(sorted(each.row.uuid for each in leavers))
    if not leavers or any(each.text == text for each in before):
        return None
    for each in before:
        held.drop(connection, each.shown.id)
    hosts = connection.execute(select(func.count()).select_from(HOSTS)).scalar_one()
    share = compiled.rules.regime.large_change
    why = f"{len(leavers)} of {hosts} hosts are silent, and more than {share:.0%} of all: is it the broker?"
    steps = [Step("host-gone", "", each.row.hostname, "", _silent_since(each.row)) for each in leavers]
    shown = Held("", SILENCE, now, len(leavers), hosts, why, steps[: held.MAX_STEPS])
    if not before:
        log.warning("%s: nobody leaves until somebody approves it", why)
    made = held.put(connection, Waiting(shown, text, text, "")).shown
    return None if before else made


def _let_go(connection: Connection) -> None:
    """Nothing has to wait any more."""
    for each in held.waiting(connection):
        if each.shown.what == SILENCE:
            held.drop(connection, each.shown.id)


def _silent_since(row: Any) -> str:
    return f"no report since {clock(row.last_seen)}"


def _leave(
    connection: Connection, compiled: Compiled, leavers: Sequence[Leaver], now: int, found: Swept
) -> list[str]:
    by_uuid = {each.row.uuid: each for each in leavers}
    for subject in fleetstore.subjects(connection, list(by_uuid), compiled):
        leaver = by_uuid[subject.uuid]
        judged = _dismissed(compiled, subject, leaver)
        found.done.extend(follow(connection, subject, judged, compiled, now).done)
    gone = [each.row for each in leavers if each.gone]
    for start in range(0, len(gone), AT_ONCE):
        uuids = [row.uuid for row in gone[start : start + AT_ONCE]]
        connection.execute(update(HOSTS).where(HOSTS.c.uuid.in_(uuids)).values(state=HostState.GONE.value))
    found.quiet += [Quiet(row.uuid, row.hostname, HostState.GONE, row.last_seen) for row in gone]
    _record(connection, "gone", [(row.hostname, _silent_since(row)) for row in gone], now)
    return list(by_uuid)


def _dismissed(compiled: Compiled, subject: Subject, leaver: Leaver) -> tuple[Verdict, ...]:
    """Where the grace is over the answer is no, else the host stays where it is."""
    answers = compiled.answers(subject.facts, subject.traits)
    judged = verdicts(subject, compiled, answers, compiled.all)
    return tuple(
        replace(each, answer=Answer.NO, instead=_over(compiled, each.rule, leaver.row))
        if leaver.over >> at & 1
        else hold(each, None)
        for at, each in enumerate(judged)
    )


def _over(compiled: Compiled, rule: Rule, row: Any) -> Evidence:
    limit = duration(compiled.rules.regime.silent_after + compiled.rules.grace(rule))
    reason = f"{_silent_since(row)}, which is longer than {limit}"
    return Evidence(rule.name, "last report", f"within {limit}", matched=False, reason=reason)


def _release(connection: Connection, compiled: Compiled, before: int, now: int, found: Swept) -> list[str]:
    """Plan again for the hosts of which something has been steady for long enough."""
    notes = damping.every_note(connection)
    steady = damping.settled(notes, compiled.rules.regime, before, now)
    up = select(HOSTS.c.uuid).where(HOSTS.c.uuid.in_(steady), HOSTS.c.state == HostState.UP.value)
    if steady:
        alone(connection)  # what they tell, and whether they are there, has to stay what is read now
    uuids = list(connection.execute(up).scalars()) if steady else []
    for subject in fleetstore.subjects(connection, uuids, compiled):
        found.done.extend(replan(connection, subject, compiled, now).done)
    damping.forget(connection, now)
    return uuids
