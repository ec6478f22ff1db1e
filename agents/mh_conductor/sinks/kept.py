"""What the store keeps of sinks: plans, for whichever process is asked to apply them, and how the last try
went."""

import secrets

from sqlalchemy import Connection, delete, insert, select, update

from libmh.errors import NotFound
from mh_conductor import clock
from mh_conductor.sinks.steps import Plan, as_text, from_text
from mh_conductor.tables import SINK_PLANS, SINKS

SECOND = 10**9
KEPT_SECONDS = 3600
MAX_PLANS = 20
MAX_ERROR = 500


def save(connection: Connection, sink: str, plan: Plan, generation: int) -> tuple[str, int]:
    """Keep a plan; answers its id, and when it was made."""
    made = clock.now(connection)
    identity = secrets.token_hex(6)
    row = {"id": identity, "sink": sink, "made": made, "generation": generation, "body": as_text(plan)}
    connection.execute(insert(SINK_PLANS), row)
    connection.execute(delete(SINK_PLANS).where(SINK_PLANS.c.made < made - KEPT_SECONDS * SECOND))
    latest = select(SINK_PLANS.c.id).where(SINK_PLANS.c.sink == sink).order_by(SINK_PLANS.c.made.desc())
    older = latest.offset(MAX_PLANS).limit(MAX_PLANS)
    connection.execute(delete(SINK_PLANS).where(SINK_PLANS.c.id.in_(older.scalar_subquery())))
    return identity, made


def find(connection: Connection, sink: str, identity: str) -> Plan:
    """A plan that was kept. Raises `NotFound`."""
    where = (SINK_PLANS.c.id == identity, SINK_PLANS.c.sink == sink)
    recent = SINK_PLANS.c.made >= clock.now(connection) - KEPT_SECONDS * SECOND
    body = connection.execute(select(SINK_PLANS.c.body).where(*where, recent)).scalar()
    if body is None:
        raise NotFound(
            f"there is no plan '{identity}' for '{sink}': plans are kept for an hour", plan=identity
        )
    return from_text(body)


def drop(connection: Connection, identity: str) -> None:
    """Forget a plan: none is carried out twice. Raises `NotFound` where another one was quicker."""
    if not connection.execute(delete(SINK_PLANS).where(SINK_PLANS.c.id == identity)).rowcount:
        raise NotFound(f"there is no plan '{identity}' any more: it was applied meanwhile", plan=identity)


def note(connection: Connection, sink: str, error: str | None, *, applied: bool = False) -> None:
    """Keep how a try went."""
    values: dict[str, object] = {"last_error": error[:MAX_ERROR] if error else None}
    if applied:
        values["applied"] = clock.now(connection)
    if not connection.execute(update(SINKS).where(SINKS.c.name == sink).values(values)).rowcount:
        connection.execute(insert(SINKS), {"name": sink, "applied": 0, **values})


def noted(connection: Connection) -> dict[str, tuple[int | None, str | None]]:
    """By sink: when a plan was last carried out, and what went wrong last."""
    rows = connection.execute(select(SINKS.c.name, SINKS.c.applied, SINKS.c.last_error))
    return {name: (applied or None, error) for name, applied, error in rows}
