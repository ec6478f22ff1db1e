"""The history of configuration runs, and what each of them did to which file."""

import json
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

from libmh.api.sysconfig import Run, RunResult, Sysconfig
from libmh.errors import NotFound
from libmh.linux.config.confstore import Store, forget_contents
from libmh.linux.config.plans import Look
from libmh.spec import interface_of
from libmh.wire import dump, parse

ID = re.compile(r"[0-9a-f]{16}")
MAX_RUNS = 10_000
KEPT_WHOLE = 200
MAX_OLD = 1024
"""Bytes of output that are kept of a run that is not among the newest."""
MAX_OUTPUTS = 4 << 20
SHOWN = 100
RUN = interface_of(Sysconfig).members["apply"].results[0].type
COLUMNS = "id, key, result, confirm_by, undone_by, reason, status, output, record"


@dataclass(frozen=True, slots=True)
class Change:
    """What a run did to a file: contents by hash (None: no file), and what the file looked like."""

    path: str
    before: str | None
    after: str | None
    look: Look | None = None


def save(connection: sqlite3.Connection, run: Run, directories: Iterable[str] = ()) -> None:
    """Keep a run, new or known."""
    plain = cast("dict[str, object]", dump(RUN, run, "run"))
    changing = ("id", "key", "result", "confirm_by", "undone_by", "reason", "status", "output")
    values = [plain.pop(name, None) for name in changing]
    connection.execute(
        f"INSERT INTO runs({COLUMNS}, directories) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT(id) DO UPDATE SET result = excluded.result, confirm_by = excluded.confirm_by, "
        "undone_by = excluded.undone_by, reason = excluded.reason, status = excluded.status, "
        "output = excluded.output, record = excluded.record",
        [*values, json.dumps(plain), json.dumps(list(directories))],
    )


def save_changes(connection: sqlite3.Connection, run: str, changes: Iterable[Change]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO files VALUES(?, ?, ?, ?, ?)",
        [(run, each.path, each.before, each.after, json.dumps(each.look)) for each in changes],
    )


def forget_changes(connection: sqlite3.Connection, run: str) -> None:
    """It changed nothing after all."""
    connection.execute("DELETE FROM files WHERE run = ?", (run,))


def changes_of(connection: sqlite3.Connection, run: str) -> list[Change]:
    rows = connection.execute(
        "SELECT path, before, after, look FROM files WHERE run = ? ORDER BY path", (run,)
    )
    return [Change(path, before, after, json.loads(look)) for path, before, after, look in rows]


def directories_of(connection: sqlite3.Connection, run: str) -> tuple[str, ...]:
    """Those that a run made."""
    row = connection.execute("SELECT directories FROM runs WHERE id = ?", (run,)).fetchone()
    return tuple(json.loads(row[0])) if row else ()


def prune(connection: sqlite3.Connection) -> None:
    """Keep the last 10,000; only where no run is under way."""
    newest = connection.execute("SELECT max(seq) FROM runs").fetchone()[0] or 0
    connection.execute(
        "UPDATE runs SET output = substr(output, 1, ?), status = substr(status, 1, ?) "
        "WHERE seq = ? AND length(output) + length(status) > ?",
        (MAX_OLD, MAX_OLD, newest - KEPT_WHOLE, MAX_OLD),
    )
    connection.execute(
        "DELETE FROM files WHERE run IN (SELECT id FROM runs WHERE seq <= ?)", (newest - MAX_RUNS,)
    )
    connection.execute("DELETE FROM runs WHERE seq <= ?", (newest - MAX_RUNS,))
    forget_contents(connection)


def find(store: Store, name: str) -> Run:
    """A run by its id; `not-found`."""
    found = _select(store, "WHERE id = ?", name) if ID.fullmatch(name) and store.exists else []
    if not found:
        raise NotFound(f"there is no run '{name[:SHOWN]}'", run=name[:SHOWN])
    return found[0]


def last(store: Store, key: str) -> Run | None:
    """The last one under a key."""
    found = _select(store, "WHERE key = ? ORDER BY seq DESC LIMIT 1", key) if store.exists else []
    return found[0] if found else None


def standing(store: Store, key: str) -> Run | None:
    """The last one under a key whose status counts."""
    counts = "WHERE key = ? AND result NOT IN ('undone', 'interrupted') ORDER BY seq DESC LIMIT 1"
    found = _select(store, counts, key)
    return found[0] if found else None


def newest(store: Store, key: str, limit: int) -> list[Run]:
    """The newest first; under a key, or all. Past 4 MiB what they printed is left out."""
    if not store.exists:
        return []
    if key:
        return _fitting(_select(store, "WHERE key = ? ORDER BY seq DESC LIMIT ?", key, limit))
    return _fitting(_select(store, "ORDER BY seq DESC LIMIT ?", limit))


def _fitting(found: list[Run]) -> list[Run]:
    """All in one answer that a transport can carry."""
    budget, fitting = MAX_OUTPUTS, []
    for run in found:
        budget -= len(run.output) + len(run.status)
        short = run if budget >= 0 else replace(run, output="", status=run.status[:MAX_OLD])
        fitting.append(short)
    return fitting


def pending(store: Store) -> list[Run]:
    """Those that are undone unless they are confirmed."""
    return _select(store, "WHERE result = 'pending' ORDER BY seq") if store.exists else []


def confirm(store: Store, name: str) -> bool:
    """Keep a pending run; False where it is not pending any more."""
    with store.transaction() as connection:
        done = connection.execute(
            "UPDATE runs SET result = 'applied', confirm_by = NULL WHERE id = ? AND result = 'pending'",
            (name,),
        )
        return done.rowcount == 1


def mark_undone(connection: sqlite3.Connection, name: str, by: str, reason: str | None) -> RunResult | None:
    """A run was taken back by another; None where it does not stand any more, else how it stood."""
    row = connection.execute("SELECT result FROM runs WHERE id = ?", (name,)).fetchone()
    if row is None or row[0] not in (RunResult.APPLIED, RunResult.PENDING):
        return None
    connection.execute(
        "UPDATE runs SET result = ?, undone_by = ?, reason = ? WHERE id = ?",
        (RunResult.UNDONE, by, reason, name),
    )
    return RunResult(row[0])


def mark_standing(connection: sqlite3.Connection, name: str, result: str) -> None:
    """It was not taken back after all."""
    connection.execute(
        "UPDATE runs SET result = ?, undone_by = NULL, reason = NULL WHERE id = ?", (result, name)
    )


def _select(store: Store, where: str, *values: object) -> list[Run]:
    with store.transaction(durable=False) as connection:
        rows = connection.execute(f"SELECT {COLUMNS} FROM runs {where}", values).fetchall()  # noqa: S608 - ours
    return [_run(row) for row in rows]


def _run(row: tuple[str | int | None, ...]) -> Run:
    plain = json.loads(str(row[-1]))
    names = COLUMNS.split(", ")[:-1]
    plain |= {name: value for name, value in zip(names, row, strict=False) if value is not None}
    run = cast("Run", parse(RUN, plain, "run"))
    return run if run.result is RunResult.PENDING else replace(run, confirm_by=None)
