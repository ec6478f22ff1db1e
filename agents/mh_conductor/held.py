"""Changes of too much of the fleet at once: what waits for somebody's word, and what he refused."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sqlalchemy import Connection, Row, delete, insert, select, update

from libmh.api.conductor import Held, Step
from libmh.declaration import type_of
from libmh.errors import NotFound
from libmh.wire import dump, parse
from mh_conductor.fleet import HostPlan, line_of
from mh_conductor.limits import ZONE_KEY
from mh_conductor.plan import Change, Plan
from mh_conductor.tables import HELD

MAX_STEPS = 1000
MAX_REFUSED = 20
MAX_WAITING = 20
ID_DIGITS = 8
RULES, SILENCE = "rules", "silence"
REFUSED = "refused "
"""Before what was refused: it is not shown, and not held again."""
NOBODY: Mapping[str, Iterable[str]] = MappingProxyType({})
STEPS = type_of("steps", list[Step])


@dataclass(slots=True)
class Tally:
    """What plans would change: counted whole, told at most `MAX_STEPS` steps of. `digest` is the same for
    the same changes, whatever was seen when."""

    moved: set[str] = field(default_factory=set)
    total: int = 0
    steps: list[Step] = field(default_factory=list)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def affected(self) -> int:
        return len(self.moved)

    @property
    def left(self) -> int:
        return self.total - len(self.steps)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def add(self, planned: HostPlan, rezoned: Mapping[str, Iterable[str]] = NOBODY) -> None:
        """Count what changes for one host, and for the members of aggregates that become another zone."""
        host = planned.resident
        if planned.moves:
            self.moved.add(host.uuid)
        for change in planned.plan.changes:
            if ZONE_KEY in change.metadata:
                self.moved.update(rezoned.get(change.aggregate, ()))
        for change in planned.plan.changes:
            self.change(change, host.uuid)
        for line in planned.lines:
            self._digest.update(f"{line['change']} {host.uuid} {planned.given}\n".encode())
            self._tell(Step(line["change"], "", host.hostname, line["rule"], line["why"]))
        self._refusals(planned.plan, host.hostname)

    def change(self, change: Change, uuid: str = "") -> None:
        """Count one change."""
        self._digest.update(line_of(change, uuid).encode() + b"\n")
        values = {key: value for key, value in change.metadata.items() if value is not None}
        self._tell(
            Step(
                change.kind.value,
                change.aggregate,
                change.host,
                change.owner,
                change.why,
                values if change.metadata else None,
            )
        )

    def _refusals(self, plan: Plan, hostname: str) -> None:
        for each in plan.refusals:
            self._tell(Step("refused", each.aggregate, hostname, each.rule, each.reason))

    def _tell(self, step: Step) -> None:
        self.total += 1
        if len(self.steps) < MAX_STEPS:
            self.steps.append(step)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row: `digest` is that of the plan, `text` the rules, or the silent hosts as a JSON list."""

    shown: Held
    digest: str
    text: str
    who: str


def waiting(connection: Connection) -> list[Waiting]:
    """What waits, the oldest first."""
    rows = connection.execute(select(HELD).order_by(HELD.c.made, HELD.c.id))
    return [_waiting(row) for row in rows if not row.what.startswith(REFUSED)]


def find(connection: Connection, wanted: str) -> Waiting:
    """Raises `NotFound`."""
    row = connection.execute(select(HELD).where(HELD.c.id == wanted)).one_or_none()
    if row is None or row.what.startswith(REFUSED):
        raise NotFound(f"no change '{wanted}' is held", id=wanted)
    return _waiting(row)


def same(connection: Connection, what: str, text: str) -> Waiting | None:
    """A change that is held, or was refused, for the same text."""
    condition = HELD.c.what.in_((what, REFUSED + what)) & (HELD.c.text == text)
    row = connection.execute(select(HELD).where(condition).limit(1)).one_or_none()
    return _waiting(row) if row else None


def _waiting(row: "Row[tuple[str, ...]]") -> Waiting:
    steps = parse(STEPS, json.loads(row.steps), "steps")
    shown = Held(row.id, row.what, row.made, row.affected, row.hosts, row.why, steps)
    return Waiting(shown, row.digest, row.text, row.who)


def put(connection: Connection, waits: Waiting) -> Waiting:
    """Hold a change; what is held for the same text, or refused before, gives way to it."""
    shown = waits.shown
    old = same(connection, shown.what, waits.text)
    if old is not None:
        drop(connection, old.shown.id)
    made = replace(shown, id=_id_of(waits))
    row = {
        "id": made.id,
        "what": made.what,
        "made": made.made,
        "affected": made.affected,
        "hosts": made.hosts,
        "why": made.why,
        "steps": json.dumps(dump(STEPS, made.steps[:MAX_STEPS], "steps")),
        "digest": waits.digest,
        "text": waits.text,
        "who": waits.who,
    }
    connection.execute(delete(HELD).where(HELD.c.id == made.id))
    connection.execute(insert(HELD), row)
    # who changes a file again and again need not clear up after himself
    mine = HELD.c.what == made.what
    latest = select(HELD.c.id).where(mine).order_by(HELD.c.made.desc(), HELD.c.id).limit(MAX_WAITING)
    connection.execute(delete(HELD).where(mine, HELD.c.id.not_in(latest), HELD.c.id != made.id))
    return replace(waits, shown=made)


def _id_of(waits: Waiting) -> str:
    """Of what is done and to what: another plan for the same text is another change."""
    seed = f"{waits.shown.what} {waits.digest} {waits.text}"
    return hashlib.sha256(seed.encode()).hexdigest()[:ID_DIGITS]


def drop(connection: Connection, which: str) -> None:
    connection.execute(delete(HELD).where(HELD.c.id == which))


def shrink(connection: Connection, which: str, text: str) -> None:
    """Let a change be about less."""
    connection.execute(update(HELD).where(HELD.c.id == which).values(text=text))


def refuse(connection: Connection, waits: Waiting) -> None:
    """Remember that it is not wanted; of these the latest are kept."""
    chosen = HELD.c.id == waits.shown.id
    connection.execute(update(HELD).where(chosen).values(what=REFUSED + waits.shown.what, steps="[]"))
    refused = select(HELD.c.id).where(HELD.c.what.startswith(REFUSED))
    latest = refused.order_by(HELD.c.made.desc(), HELD.c.id).limit(MAX_REFUSED)
    connection.execute(delete(HELD).where(HELD.c.what.startswith(REFUSED), HELD.c.id.not_in(latest)))


def refused(connection: Connection, what: str) -> list[Waiting]:
    """What was refused."""
    rows = connection.execute(select(HELD).where(HELD.c.what == REFUSED + what))
    return [_waiting(row) for row in rows]
