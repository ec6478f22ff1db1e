"""What people do about rules and large changes, and the events that tell of it."""

import logging

from sqlalchemy import Connection

from libmh.api.aggregates import Aggregates
from libmh.api.conductor import Conductor, Forecast, Held, RulesInForce
from libmh.caller import asking
from libmh.events import Hub
from mh_conductor import held, once
from mh_conductor.held import RULES
from mh_conductor.reconcile import Reconciled, Reconciler
from mh_conductor.reporting import announce_done
from mh_conductor.rules import RuleSet, parse
from mh_conductor.silence import Silence, Swept
from mh_conductor.store import Store, again

log = logging.getLogger("mh_conductor.governing")
MAX_WHO = 255


class Governing:
    """`given` rules hold as long as the store has none."""

    def __init__(self, store: Store, given: RuleSet, events: Hub, silence: Silence | None = None) -> None:
        self._store = store
        self._events = events
        self._reconciler = Reconciler(store, given)
        self._silence = silence or Silence(store, given, "", lambda: False)

    def rules(self) -> RulesInForce:
        return self._reconciler.in_force()

    def test_rules(self, text: str) -> Forecast:
        return self._reconciler.test(text)

    def load_rules(self, text: str, *, approve: bool = False) -> Forecast:
        done = self._reconciler.load(parse(text), asking().described[:MAX_WHO], approve=approve)
        tell(self._events, done)
        return done.forecast

    def held(self) -> list[Held]:
        with self._store.read() as connection:
            return [each.shown for each in held.waiting(connection)]

    def approve(self, wanted: str) -> bool:
        """Raises `NotFound`, and `Conflict` where it is no longer what was shown."""
        with self._store.read() as connection:
            waits = held.find(connection, wanted)
        log.warning("'%s' approves the held change '%s': %s", asking().described, wanted, waits.shown.why)
        if waits.shown.what == RULES:
            tell(self._events, self._reconciler.approve(wanted))
        else:
            for swept in self._silence.approve(waits):
                tell_silence(self._events, swept)
        return True

    def refuse(self, wanted: str) -> bool:
        """Raises `NotFound`."""

        def attempt(connection: Connection) -> None:
            once.note(connection)
            held.refuse(connection, held.find(connection, wanted))

        again(self._store, attempt)
        return True


def tell(events: Hub, reconciled: Reconciled) -> None:
    """Raise the events of what came of rules."""
    announce_done(events, reconciled.done)
    if reconciled.held:
        tell_held(events, reconciled.held)


def tell_silence(events: Hub, swept: Swept) -> None:
    """Raise the events of what came of silence."""
    for each in swept.quiet:
        events.emit(
            Aggregates.host_silent,
            uuid=each.uuid,
            hostname=each.hostname,
            state=each.state.value,
            last_seen=each.last_seen,
        )
    announce_done(events, swept.done)
    if swept.held:
        tell_held(events, swept.held)


def tell_held(events: Hub, change: Held) -> None:
    """Raise the event that somebody has to say a word."""
    events.emit(
        Conductor.change_held, id=change.id, what=change.what, affected=change.affected, why=change.why
    )
