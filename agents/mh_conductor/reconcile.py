"""New rules for the whole fleet: what they would change, and bringing them in force.

Rules come into force together with everything that they change, in one transaction: whoever is killed at any
moment leaves the old ones with what they made, or the new ones with theirs. The hosts are judged before it,
so that it is short; who reported meanwhile is judged again in it.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection, select

from libmh.api.aggregates import HostState
from libmh.api.conductor import Forecast, Held, RulesInForce
from libmh.errors import Conflict
from mh_conductor import fleetstore, held, registry, rulebook
from mh_conductor.compiled import Compiled
from mh_conductor.fleet import Fleet, HostPlan
from mh_conductor.fleetstore import Writer
from mh_conductor.held import RULES, Tally, Waiting
from mh_conductor.registry import Done
from mh_conductor.replan import replan
from mh_conductor.rulebook import Rulebook
from mh_conductor.rules import RuleSet, parse
from mh_conductor.store import Store, again, alone
from mh_conductor.tables import HOSTS

T = TypeVar("T")
log = logging.getLogger("mh_conductor.reconcile")
MAX_DONE = 10_000
"""Changes that are told one by one; of more than that every aggregate is told once."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """`held` where nothing was changed and somebody has to say a word first."""

    forecast: Forecast
    done: tuple[Done, ...] = ()
    held: Held | None = None


class Reconciler:
    """Rules -> the store. `given` hold as long as the store has none."""

    def __init__(self, store: Store, given: RuleSet, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._given = given
        self._book = Rulebook(given)
        self._clock = clock

    def in_force(self) -> RulesInForce:
        with self._store.read() as connection:
            rules = self._book.current(connection).rules
            row = rulebook.in_force(connection)
            text, digest, warnings = rules.text, rules.digest, list(rules.warnings)
            if row is None:
                return RulesInForce(text, digest, 0, "", warnings)
            return RulesInForce(text, digest, row.loaded, row.who, warnings)

    def test(self, text: str) -> Forecast:
        """What rules would change. Raises `InvalidArguments` with every fault, each with its line."""
        rules = parse(text)
        with self._store.read() as connection:
            work = _Work(connection, rules, self._clock())
            work.meet(connection)
            return work.forecast(work.tally(connection), self._regime(connection).large)

    def load(self, rules: RuleSet, who: str, *, approve: bool = False) -> Reconciled:
        """Bring rules in force, unless that is a large change that nobody approved."""
        expected = None if approve else ""
        return self._load(rules, who, expected)

    def approve(self, wanted: str) -> Reconciled:
        """Bring rules in force that are held. Raises `NotFound`, and `Conflict` where they would not change
        now what was shown: what they would is held instead."""
        with self._store.read() as connection:
            waits = held.find(connection, wanted)
        result = self._load(parse(waits.text), waits.who, waits.digest)
        if result.held is not None:
            now = result.held
            raise Conflict(
                f"held change '{wanted}' is no longer what was shown: it moves {now.affected} hosts now, "
                f"and is held as '{now.id}'",
                id=now.id,
            )
        return result

    def catch_up(self) -> Reconciled | None:
        """Finish what a release that worked host by host had begun; None where there is nothing to do."""
        with self._store.read() as connection:
            rules = self._book.current(connection).rules
            if registry.rules_digest(connection) == rules.digest:
                return None
            row = rulebook.in_force(connection)
        return self._load(rules, row.who if row else "", None)

    def _regime(self, connection: Connection) -> "_Limits":
        rules = self._book.current(connection).rules
        return _Limits(rules)

    def _load(self, rules: RuleSet, who: str, expected: str | None) -> Reconciled:
        """`expected` is the digest of the plan that was approved; None: any, empty: none was."""
        with self._store.read() as connection:
            work = _Work(connection, rules, self._clock())

        def attempt(connection: Connection) -> Reconciled:
            alone(connection)
            work.meet(connection)
            # the first rules of a store have nothing to take the place of
            asks = expected is not None and rulebook.digest_in_force(connection) is not None
            if asks and self._regime(connection).large(work.most(), work.hosts()):
                tally = work.tally(connection)
                forecast = work.forecast(tally, self._regime(connection).large)
                if forecast.large and tally.digest != expected:
                    return Reconciled(forecast, held=self._hold(connection, rules, who, forecast, tally))
                work.meet(connection)
            return self._carry_out(connection, work, who)

        return again(self._store, attempt)

    def _hold(
        self, connection: Connection, rules: RuleSet, who: str, forecast: Forecast, tally: Tally
    ) -> Held:
        why = (
            f"new rules would move {forecast.affected} of {forecast.hosts} hosts, which is more than "
            f"{self._regime(connection).share:.0%} at once"
        )
        shown = Held("", RULES, self._clock(), forecast.affected, forecast.hosts, why, tally.steps)
        log.warning("%s: held until somebody approves it", why)
        return held.put(connection, Waiting(shown, tally.digest, rules.text, who)).shown

    def _carry_out(self, connection: Connection, work: "_Work", who: str) -> Reconciled:
        now, rules = self._clock(), work.compiled.rules
        writer = Writer(connection, work.fleet, now)
        tally = Tally()
        for planned in work.plans(connection):
            tally.add(planned, work.rezoned)
            writer.write(planned)
        for change in work.fleet.left_over():
            tally.change(change)
            writer.delete(change)
        writer.finish()
        if rulebook.digest_in_force(connection) != rules.digest:
            rulebook.put(connection, rules, who, now)
        old = held.same(connection, RULES, rules.text)
        if old is not None:
            held.drop(connection, old.shown.id)
        registry.set_rules_digest(connection, rules.digest)
        stamp = registry.advance(connection, 1 + writer.steps, hosts=writer.hosts, done=writer.done)
        late = _late(connection, work, stamp, now)
        forecast = work.forecast(tally, lambda _affected, _hosts: False)
        return Reconciled(forecast, (*told(writer.done), *late))


class _Limits:
    """What is a large change, by the rules in force."""

    def __init__(self, rules: RuleSet) -> None:
        self.large = rules.regime.large
        self.share = rules.regime.large_change


class _Work:
    """The fleet under new rules, read for a plan."""

    def __init__(self, connection: Connection, rules: RuleSet, now: int) -> None:
        self.stamp = registry.generation(connection)
        self.compiled = Compiled(rules)
        self._before = registry.rules_digest(connection)
        self.fleet = Fleet(self.compiled, _unchanged(connection, rules, self._before))
        self._now = now
        self._unsettled: list[str] = []
        self.rezoned: Mapping[str, list[str]] = {}
        fleetstore.read(connection, self.fleet)

    def meet(self, connection: Connection) -> None:
        """What changed since it was read; drops what was planned."""
        stamp = registry.generation(connection)
        before = registry.rules_digest(connection)
        if before == self._before:
            self.fleet = self.fleet.again()
        else:  # others came into force since: what they made has their evidence
            self._before = before
            self.fleet = self.fleet.after(_unchanged(connection, self.compiled.rules, before))
        fleetstore.refresh(connection, self.fleet, self.stamp, self._now)
        self.stamp = stamp
        self._unsettled = self.fleet.unsettled()
        self.rezoned = self.fleet.rezoned()

    def hosts(self) -> int:
        """Of which some could move: who is gone has no place to lose, however many these are."""
        return sum(each.state != HostState.GONE for each in self.fleet.residents.values())

    def most(self) -> int:
        """No more hosts than these come or go."""
        return len({*self._unsettled, *itertools.chain.from_iterable(self.rezoned.values())})

    def plans(self, connection: Connection) -> Iterator[HostPlan]:
        for subject in fleetstore.subjects(connection, self._unsettled, self.compiled):
            yield self.fleet.plan(subject)

    def tally(self, connection: Connection) -> Tally:
        """What would change."""
        tally = Tally()
        for planned in self.plans(connection):
            tally.add(planned, self.rezoned)
        for change in self.fleet.left_over():
            tally.change(change)
        return tally

    def forecast(self, tally: Tally, large: Callable[[int, int], bool]) -> Forecast:
        rules = self.compiled.rules
        return Forecast(
            digest=rules.digest,
            rules=len(rules.rules),
            hosts=self.hosts(),
            affected=tally.affected,
            large=large(tally.affected, self.hosts()),
            steps=tally.steps,
            left=tally.left,
            warnings=list(rules.warnings),
        )


def _unchanged(connection: Connection, rules: RuleSet, digest: str) -> frozenset[str]:
    """The rules that every host was held against last and that have not changed since: what they made has
    evidence that still serves."""
    text = rulebook.text_of(connection, digest)
    if text is None:
        return frozenset()
    before = parse(text).by_name()
    return frozenset(rule.name for rule in rules.rules if before.get(rule.name) == rule)


def _late(connection: Connection, work: _Work, stamp: int, now: int) -> list[Done]:
    """Who reported after the hosts were read, and went by the old rules without changing anything: from the
    growth of the generation on nobody else does."""
    late = select(HOSTS.c.uuid).where(
        HOSTS.c.stamp > work.stamp, HOSTS.c.stamp < stamp, HOSTS.c.state == HostState.UP.value
    )
    uuids = list(connection.execute(late).scalars())
    done: list[Done] = []
    for subject in fleetstore.subjects(connection, uuids, work.compiled):
        done.extend(replan(connection, subject, work.compiled, now, known=False).done)
    if uuids:
        registry.advance(connection, 1 + len(done), hosts=uuids, done=done)
    return done


def told(done: list[Done]) -> tuple[Done, ...]:
    """What is announced: everything, or of very much the last change of each aggregate."""
    if len(done) <= MAX_DONE:
        return tuple(done)
    last = {each.change.aggregate: each for each in done}
    why = f"new rules made {len(done)} changes, of which each aggregate's last is told"
    return tuple(replace(each, change=replace(each.change, host="", why=why)) for each in last.values())
