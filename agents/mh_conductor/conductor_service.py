"""The provider of `Conductor`: how the fleet side is, and hosts ahead of their first report."""

import time
from collections.abc import Callable

from sqlalchemy import Connection, func, select

from libmh.api.aggregates import Aggregates, FleetHost
from libmh.api.conductor import Conductor, Forecast, Held, RulesInForce, Status
from libmh.caller import asking
from libmh.events import Hub
from mh_conductor import held, hosts, registration, registry, workers
from mh_conductor.governing import Governing
from mh_conductor.hosts import Standing
from mh_conductor.registry import Done
from mh_conductor.reporting import announce_done
from mh_conductor.rulebook import Rulebook
from mh_conductor.rules import RuleSet
from mh_conductor.store import Store, again
from mh_conductor.tables import AGGREGATES

MAX_WHO = 255


def untold() -> int | None:
    """How many reports wait at a broker that does not tell."""
    return None


class FleetConductor(Conductor):
    """Answers from the store; `queued` asks the broker how many reports wait, or knows that it does not
    tell."""

    def __init__(
        self, store: Store, rules: RuleSet, events: Hub, queued: Callable[[], int | None] = untold
    ) -> None:
        self._store = store
        self._book = Rulebook(rules)
        self._governing = Governing(store, rules, events)
        self._events = events
        self._queued = queued

    def status(self) -> Status:
        queued = self._queued()
        with self._store.read() as connection:
            alive = workers.alive(connection)
            rules = self._book.current(connection).rules
            return Status(
                generation=registry.generation(connection),
                hosts=hosts.by_state(connection),
                aggregates=connection.execute(select(func.count()).select_from(AGGREGATES)).scalar_one(),
                rules=len(rules.rules),
                digest=rules.digest,
                workers=alive,
                rate=sum(each.rate for each in alive),
                held=len(held.waiting(connection)),
                queued=queued,
                last_error=workers.last_error(connection),
            )

    def register(self, hostname: str, uuid: str = "", identity: str = "") -> FleetHost:
        def attempt(connection: Connection) -> FleetHost:
            who = asking().described[:MAX_WHO]
            return registration.register(connection, hostname, uuid, identity or None, time.time_ns(), who)

        made = again(self._store, attempt)
        self._tell(made.uuid, made.hostname, made.generation)
        return made

    def forget(self, host: str) -> bool:
        def attempt(connection: Connection) -> tuple[Standing, list[Done]]:
            return registration.forget(connection, host, time.time_ns(), asking().described[:MAX_WHO])

        was, done = again(self._store, attempt)
        announce_done(self._events, done)
        self._tell(was.uuid, was.hostname, was.generation + 1)
        return True

    def rules(self) -> RulesInForce:
        return self._governing.rules()

    def test_rules(self, text: str) -> Forecast:
        return self._governing.test_rules(text)

    def load_rules(self, text: str, approve: bool = False) -> Forecast:  # noqa: FBT001, FBT002 - as declared
        return self._governing.load_rules(text, approve=approve)

    def held(self) -> list[Held]:
        return self._governing.held()

    def approve(self, id: str) -> bool:  # noqa: A002 - as declared
        return self._governing.approve(id)

    def refuse(self, id: str) -> bool:  # noqa: A002 - as declared
        return self._governing.refuse(id)

    def _tell(self, uuid: str, hostname: str, generation: int) -> None:
        self._events.emit(Aggregates.host_changed, uuid=uuid, hostname=hostname, generation=generation)
