"""The rules in force: the last row of their table, whatever the files of the processes say.

Every transaction that plans asks for them by `Rulebook.current`, and before it commits makes sure by
`confirm` that they were not replaced meanwhile: two processes never plan with different rules.
"""

import threading
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, insert, select

from mh_conductor.compiled import Compiled
from mh_conductor.rules import RuleSet, parse
from mh_conductor.store import LostRace
from mh_conductor.tables import RULES

MAX_KEPT = 100
SHOWN = 12

_LATEST = select(RULES.c.digest).order_by(RULES.c.id.desc()).limit(1)
_ROW = select(RULES).order_by(RULES.c.id.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A row of the table; `loaded` is nanoseconds since the epoch."""

    digest: str
    text: str
    loaded: int
    who: str


def digest_in_force(connection: Connection) -> str | None:
    """None as long as none were loaded."""
    digest: str | None = connection.execute(_LATEST).scalar()
    return digest


def in_force(connection: Connection) -> Loaded | None:
    """None as long as none were loaded."""
    return _loaded(connection.execute(_ROW).one_or_none())


def last_of(connection: Connection, who: str) -> Loaded | None:
    """What somebody, or a file, loaded last."""
    return _loaded(connection.execute(_ROW.where(RULES.c.who == who)).one_or_none())


def _loaded(row: "Row[tuple[int, str, str, int, str]] | None") -> Loaded | None:
    return Loaded(row.digest, row.text, row.loaded, row.who) if row else None


def text_of(connection: Connection, digest: str) -> str | None:
    """The text of rules that were in force lately."""
    text: str | None = connection.execute(
        select(RULES.c.text).where(RULES.c.digest == digest).limit(1)
    ).scalar()
    return text


def put(connection: Connection, rules: RuleSet, who: str, now: int) -> None:
    """Put rules in force; of the older ones so many are kept."""
    row = {"digest": rules.digest, "text": rules.text, "loaded": now, "who": who}
    connection.execute(insert(RULES), row)
    oldest = select(RULES.c.id).order_by(RULES.c.id.desc()).offset(MAX_KEPT).limit(1)
    connection.execute(delete(RULES).where(RULES.c.id <= oldest.scalar_subquery()))


def confirm(connection: Connection, rules: RuleSet) -> None:
    """Last thing in a transaction that planned, after the generation of the whole advanced: what came before
    it is visible from there on. Raises `LostRace` where other rules came into force meanwhile."""
    digest = digest_in_force(connection)
    if digest is not None and digest != rules.digest:
        raise LostRace(f"rules '{digest[:SHOWN]}' came into force meanwhile")


class Rulebook:
    """The rules in force, read once; for any number of threads. `given` hold until the store has some."""

    def __init__(self, given: RuleSet) -> None:
        self._given = Compiled(given)
        self._lock = threading.Lock()
        self._latest = self._given

    def current(self, connection: Connection) -> Compiled:
        """The rules to plan with in this transaction."""
        digest = digest_in_force(connection)
        if digest is None:
            return self._given
        with self._lock:
            if self._latest.rules.digest == digest:
                return self._latest
        found = in_force(connection)
        if found is None:
            return self._given
        compiled = Compiled(parse(found.text))
        with self._lock:
            self._latest = compiled
        return compiled
