"""The journal of the run that is under way, and what it says is to be done when that died.

========== ===========================================================================================
staged     nothing has changed yet: what was laid beside the files goes, the run was interrupted
committed  the run counts: what is left of it is done
reverting  a file could not be replaced after all: what was done is taken back, the run has failed
running    another program changes the host: the files it told of get their bytes back, interrupted
========== ===========================================================================================
"""

import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from libmh.api.sysconfig import Run, RunResult
from libmh.context import Root
from libmh.errors import BackendFailed, NotFound, Problem
from libmh.linux.config import applying, keys, runs, strays
from libmh.linux.config.applying import Target
from libmh.linux.config.confstore import Store, content_of
from libmh.wire import dump, parse

log = logging.getLogger("libmh.linux.config.recovery")
STAGED, COMMITTED, REVERTING, RUNNING = "staged", "committed", "reverting", "running"
MAX_LISTED = 10
DIED = "the agent ended in the middle of it; all is as before"


@dataclass(frozen=True, slots=True)
class Entry:
    """A run that is under way. `undoes`: the run that it takes back, which stood as `stood`; `pid`: of the
    agent that is at it."""

    run: Run
    targets: tuple[Target, ...]
    directories: tuple[str, ...] = ()
    undoes: str = ""
    stood: str = ""
    pid: int = field(default_factory=os.getpid)


def write(connection: sqlite3.Connection, entry: Entry, state: str) -> None:
    record: dict[str, Any] = {
        "run": dump(runs.RUN, entry.run, "run"),
        "targets": [target.kept() for target in entry.targets],
        "directories": list(entry.directories),
        "undoes": entry.undoes,
        "stood": entry.stood,
        "pid": entry.pid,
    }
    connection.execute(
        "INSERT OR REPLACE INTO journal VALUES(?, ?, ?)", (entry.run.id, state, json.dumps(record))
    )


def close(connection: sqlite3.Connection, entry: Entry) -> None:
    connection.execute("DELETE FROM journal WHERE run = ?", (entry.run.id,))


def _read(store: Store) -> list[tuple[str, Entry]]:
    with store.transaction(durable=False) as connection:
        rows = connection.execute("SELECT state, record FROM journal").fetchall()
    return [(state, _entry(json.loads(record))) for state, record in rows]


def _entry(record: Any) -> Entry:
    return Entry(
        cast("Run", parse(runs.RUN, record["run"], "run")),
        tuple(Target(**target) for target in record["targets"]),
        tuple(record["directories"]),
        record["undoes"],
        record["stood"],
        record["pid"],
    )


def recover(root: Root, store: Store) -> list[Run]:
    """Finish what died, or take it back; the store is locked, so nobody is at it. Answers how these runs
    ended. `backend-failed` where the disk still refuses, and the journal stays."""
    ended = []
    for state, entry in _read(store):
        log.warning("run %s died when it was %s: recovering", entry.run.id, state)
        try:
            ended.append(RECOVERIES[state](root, store, entry))
        except OSError as error:
            raise BackendFailed(
                f"run {entry.run.id} died in the middle of it and cannot be recovered: {error}",
                run=entry.run.id,
            ) from error
    return ended


def _staged(root: Root, store: Store, entry: Entry) -> Run:
    return _interrupted(root, store, entry, DIED)


def _committed(root: Root, store: Store, entry: Entry) -> Run:
    left = applying.go_on(root, entry.targets)
    reason = f"{_listed(left)} had changed when the agent came back, and stayed so" if left else None
    run = replace(entry.run, reason=reason)
    finish(root, store, replace(entry, run=run))
    return run


def _reverting(root: Root, store: Store, entry: Entry) -> Run:
    take_back(root, store, entry)
    return entry.run


def _running(root: Root, store: Store, entry: Entry) -> Run:
    strays.end(root, entry.pid)
    not_restored = restore(root, store, entry.targets)
    reason = DIED if not not_restored else f"the agent ended in the middle of it; {not_restored}"
    return _interrupted(root, store, entry, reason)


RECOVERIES = {STAGED: _staged, COMMITTED: _committed, REVERTING: _reverting, RUNNING: _running}


def _interrupted(root: Root, store: Store, entry: Entry, reason: str) -> Run:
    run = replace(
        entry.run,
        result=RunResult.INTERRUPTED,
        status=f"FAILED\n{Problem.number}\n{reason}",
        files=[],
        reason=reason,
        confirm_by=None,
    )
    drop(root, store, replace(entry, run=run))
    return run


def finish(root: Root, store: Store, entry: Entry) -> None:
    """After the last file has its new name: the status under the key, and nothing is left beside."""
    applying.clean(root, entry.targets)
    applying.sync(root, entry.targets)
    keep_status(root, store, entry)
    with store.transaction(durable=False) as connection:  # done again after a power failure, it does nothing
        if entry.run.reason is not None:
            connection.execute("UPDATE runs SET reason = ? WHERE id = ?", (entry.run.reason, entry.run.id))
        close(connection, entry)
        runs.prune(connection)


def drop(root: Root, store: Store, entry: Entry, stands: str = "") -> None:
    """Nothing was changed: nothing is left beside, and the history says how it ended."""
    applying.clean(root, entry.targets)
    applying.remove_directories(root, entry.directories)
    with store.transaction() as connection:
        if stands:
            runs.mark_standing(connection, stands, entry.stood)
        runs.forget_changes(connection, entry.run.id)
        runs.save(connection, entry.run)
        close(connection, entry)
        runs.prune(connection)


def take_back(root: Root, store: Store, entry: Entry) -> None:
    """Undo what was switched so far; the run that was to be undone stands again."""
    applying.revert(root, entry.targets)
    applying.sync(root, entry.targets)
    drop(root, store, entry, stands=entry.undoes)


def restore(root: Root, store: Store, targets: Sequence[Target]) -> str:
    """Give every file its bytes back; what could not be is said in one sentence."""
    missed = []
    for target in targets:
        with store.transaction(durable=False) as connection:
            content = content_of(connection, target.before)
        try:
            if target.before is not None and content is None:
                missed.append(target.path)
            else:
                applying.restore(root, target, content)
        except (OSError, Problem) as error:  # the others have a right to theirs
            log.warning("'%s' cannot be restored: %s", target.path, error)
            missed.append(target.path)
    return f"{_listed(missed)} could not be restored" if missed else ""


def keep_status(root: Root, store: Store, entry: Entry) -> None:
    """The status under the run's key; the key of a run that was undone has the one from before again."""
    try:
        key = runs.find(store, entry.undoes).key if entry.undoes else ""
        if key and (standing := runs.standing(store, key)):
            keys.keep(root, key, standing.status)
        elif key:
            keys.forget(root, key)
        if entry.run.key:
            keys.keep(root, entry.run.key, entry.run.status)
    except (BackendFailed, NotFound) as problem:  # the history has it; of a run long ago it has nothing
        log.warning("%s, ignoring", problem)


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return ", ".join(f"'{path}'" for path in paths[:MAX_LISTED]) + more
