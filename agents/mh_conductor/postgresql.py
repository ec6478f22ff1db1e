"""A store in a PostgreSQL database, 13 or later, for any number of conductors.

Readers see a consistent state (REPEATABLE READ, read only). Writers are READ COMMITTED: each of their
statements sees what was committed before it, every write says which generation it expects, and whatever
depends on more than the rows that it writes waits for its turn first: see `store.alone`. Nothing waits for
ever: neither for the server, nor for a connection, a lock or an answer.
"""

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL

from libmh.errors import NotImplementedHere

NAME = "postgresql"
DRIVER = "postgresql+psycopg"
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
IDLE_SECONDS = 300
# a server that is gone without a word is given up after about 20 s
KEEPING = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
# whoever asks for a lock names it by a number
_MIGRATING, _HOSTS, _AGGREGATES = 0x6D680001, 0x6D680002, 0x6D680003
_EXCLUSIVE = text("SELECT pg_advisory_xact_lock(:key)")
_SHARED = text("SELECT pg_advisory_xact_lock_shared(:key)")


def engine(url: URL, connections: int, seconds: float) -> Engine:
    """Waits at most `seconds` for a connection that is free, and for a lock. Raises `NotImplementedHere`
    where the driver is not installed."""
    try:
        made = create_engine(
            url.set(drivername=DRIVER),
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "mh-conductor", **KEEPING},
            pool_size=connections,
            max_overflow=0,
            pool_timeout=seconds,
            pool_pre_ping=True,  # the server may have been restarted
        )
    except ImportError as error:
        raise NotImplementedHere(
            f"the software for PostgreSQL is not installed ({error}); pip install 'matahari[postgresql]' "
            "brings it"
        ) from error
    limits = (
        ("statement_timeout", STATEMENT_SECONDS),
        ("lock_timeout", seconds),
        ("idle_in_transaction_session_timeout", IDLE_SECONDS),
    )
    settings = "; ".join(f"SET {name} = {int(limit * 1000)}" for name, limit in limits)

    def prepare(connection: Any, _record: object) -> None:
        connection.execute(settings)
        connection.commit()

    event.listen(made, "connect", prepare)
    return made


def reader(made: Engine) -> Engine:
    """The same, for transactions that read."""
    return made.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def writer(made: Engine) -> Engine:
    """The same, for transactions that write."""
    return made.execution_options(isolation_level="READ COMMITTED")


def migrating(connection: Connection) -> None:
    """Wait until no other process makes or migrates the tables."""
    connection.execute(text(f"SET LOCAL lock_timeout = {STATEMENT_SECONDS * 1000}"))
    connection.execute(_EXCLUSIVE, {"key": _MIGRATING})
    connection.execute(text("SET LOCAL statement_timeout = 0"))


def alone(connection: Connection) -> None:
    """Wait until no other transaction changes what hosts told or what aggregates are; see `store.alone`."""
    connection.execute(_EXCLUSIVE, {"key": _HOSTS})
    connection.execute(_EXCLUSIVE, {"key": _AGGREGATES})


def reporting(connection: Connection) -> None:
    """See `store.reporting`."""
    connection.execute(_SHARED, {"key": _HOSTS})


def placing(connection: Connection) -> None:
    """See `store.placing`."""
    connection.execute(_EXCLUSIVE, {"key": _AGGREGATES})


def is_away(state: str) -> bool:
    """Whether an SQLSTATE (empty: the connection failed) says that the server is away, closes, starts, is
    full, took too long, or takes no writes."""
    return not state or state in ("25006", "25P03", "53300", "55P03", "57014") or state[:2] in ("08", "57")


def is_race(state: str) -> bool:
    """Whether an SQLSTATE says that transactions met: a deadlock, a serialization failure."""
    return state.startswith("40")


def is_value(state: str) -> bool:
    """Whether an SQLSTATE says that a value cannot be held."""
    return state.startswith("22")
