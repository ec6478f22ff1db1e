"""The provider of `Sinks`."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf

from libmh.api.sinks import Sink, SinkPlan, SinkResult, Sinks, SinkStep
from libmh.errors import Conflict, NotFound, Problem
from mh_conductor import leases
from mh_conductor.sinks import kept
from mh_conductor.sinks.desired import desired
from mh_conductor.sinks.places import Place, place
from mh_conductor.sinks.settings import OpenStack, SinkSettings
from mh_conductor.sinks.state import Desired
from mh_conductor.sinks.steps import MAX_CONFLICTS, Action, Plan, Pushed, as_text, bounded
from mh_conductor.store import Store

log = logging.getLogger("mh_conductor.sinks")
LEASE_SECONDS = 300.0
"""Longer than any one call may take; after it, others need not wait for a process that has died."""
RENEW_SECONDS = 20.0


class FleetSinks(Sinks):
    """Compares the store with each sink that is configured, and pushes."""

    def __init__(self, store: Store, sinks: Mapping[str, SinkSettings]) -> None:
        self._store = store
        self._sinks = sinks

    def list_sinks(self) -> list[Sink]:
        with self._store.read() as connection:
            noted = kept.noted(connection)
        return [
            Sink(
                name,
                "openstack" if isinstance(each, OpenStack) else "file",
                each.target,
                *noted.get(name, ()),
            )
            for name, each in sorted(self._sinks.items())
        ]

    def plan(self, sink: str) -> SinkPlan:
        settings = self._find(sink)
        with self._noting(sink):
            wanted = self._desired(settings)
            made = place(settings).plan(wanted)
        with self._store.write() as connection:
            kept.note(connection, sink, None)
            identity, when = kept.save(connection, sink, made, wanted.generation)
        return SinkPlan(
            id=identity,
            sink=sink,
            made=when,
            generation=wanted.generation,
            steps=[step.told() for step in made.steps],
            conflicts=made.told_conflicts(),
        )

    def apply(self, sink: str, plan: str) -> SinkResult:
        settings = self._find(sink)
        with self._store.read() as connection:
            shown = kept.find(connection, sink, plan)
        with self._alone(sink) as keep, self._noting(sink):
            wanted, there = self._desired(settings), place(settings)
            _require_same(shown, there.plan(wanted))
            with self._store.write() as connection:
                kept.drop(connection, plan)
            pushed = there.push(shown, wanted, keep)
            self._tell(sink, pushed)
            with self._store.write() as connection:
                kept.note(connection, sink, _summary(pushed), applied=True)
            drift = _drift(there, wanted)
        failed = bounded([step.told(why) for step, why in pushed.failed])
        return SinkResult(pushed.done, failed, bounded(drift))

    def drift(self, sink: str) -> list[SinkStep]:
        settings = self._find(sink)
        with self._noting(sink):
            return _differences(place(settings).plan(self._desired(settings)))

    def _find(self, sink: str) -> SinkSettings:
        if sink not in self._sinks:
            listed = ", ".join(f"'{name}'" for name in sorted(self._sinks)) or "none"
            raise NotFound(f"there is no sink '{sink}': configured are {listed}", sink=sink)
        return self._sinks[sink]

    def _desired(self, settings: SinkSettings) -> Desired:
        with self._store.read() as connection:
            return desired(connection, settings.prefix, aggregate_traits=settings.aggregate_traits)

    @contextmanager
    def _noting(self, sink: str) -> Iterator[None]:
        """Keep what went wrong where `list` tells it."""
        try:
            yield
        except Problem as problem:
            log.warning("sink '%s': %s", sink, problem)
            with suppress(Problem), self._store.write() as connection:  # the store may be what failed
                kept.note(connection, sink, problem.message)
            raise

    @contextmanager
    def _alone(self, sink: str) -> Iterator[Callable[[], None]]:
        """Keep every other process from applying to the sink; what is given is to be called now and then.
        Both raise `Conflict` where another one does."""
        lease, holder = f"sink:{sink}", secrets.token_hex(8)
        taken = -inf

        def keep() -> None:
            nonlocal taken
            if time.monotonic() - taken > RENEW_SECONDS:
                with self._store.write() as connection:
                    if not leases.take(connection, lease, holder, LEASE_SECONDS):
                        raise Conflict(f"a plan is being applied to '{sink}' just now")
                taken = time.monotonic()

        keep()
        try:
            yield keep
        finally:
            with self._store.write() as connection:
                leases.release(connection, lease, holder)

    @staticmethod
    def _tell(sink: str, pushed: Pushed) -> None:
        log.info("sink '%s': %d steps done, %d not", sink, pushed.done, len(pushed.failed))
        for step, why in pushed.failed[:MAX_CONFLICTS]:
            log.warning("sink '%s': %s %s %s: %s", sink, step.action, step.target, step.detail, why)


def _require_same(shown: Plan, now: Plan) -> None:
    if as_text(shown) == as_text(now):
        return
    for what, before, after in (
        ("it would no longer", shown.steps, now.steps),
        ("it would now", now.steps, shown.steps),
        ("a conflict has gone:", shown.conflicts, now.conflicts),
        ("there is a new conflict:", now.conflicts, shown.conflicts),
    ):
        known = {repr(step) for step in after}
        for step in before:
            if repr(step) not in known:
                raise Conflict(
                    f"what the plan was made from has changed: {what} {step.action} '{step.target}' "
                    f"{step.detail} ({step.why}); plan again"
                )
    raise Conflict("what the plan was made from has changed: plan again")


def _summary(pushed: Pushed) -> str | None:
    if not pushed.failed:
        return None
    step, why = pushed.failed[0]
    left = len(pushed.failed)
    return f"{left} of {left + pushed.done} steps were not done; {step.action} '{step.target}': {why}"


def _differences(plan: Plan) -> list[SinkStep]:
    return [*(step.told() for step in plan.steps), *plan.told_conflicts()]


def _drift(there: Place, wanted: Desired) -> list[SinkStep]:
    """What still differs from what was pushed. After it has failed half-way, nobody may answer at all."""
    try:
        return _differences(there.plan(wanted))
    except Problem as problem:
        return [SinkStep(Action.VERIFY.value, "", "", f"it could not be read back: {problem.message}")]
