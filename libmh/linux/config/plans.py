"""Plans that wait to be applied: what was shown, and the bytes that it stands for."""

import json
import os
import re
import sqlite3
import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

from libmh.api.sysconfig import Plan, Sysconfig
from libmh.errors import NotFound
from libmh.linux.config.confstore import Store, digest
from libmh.spec import interface_of
from libmh.wire import dump, parse

ID = re.compile(r"[0-9a-f]{16}")
LIFETIME = 86_400 * 10**9
MAX_PLANS = 500
MAX_SIZE = 128 << 20
SHOWN = 100
PLAN = interface_of(Sysconfig).members["plan"].results[0].type
Look = dict[str, Any]
"""Owner, mode and attributes of a file that is made again: see `applying`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a plan, its contents by hash (None: no file). `content` is what it becomes, where that is
    known; `told`: another program makes it."""

    path: str
    before: str | None
    after: str | None
    content: bytes | None = None
    look: Look | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what it takes to carry it out. `undoes`: the run that it takes back."""

    plan: Plan
    steps: tuple[Step, ...]
    text: str = ""
    undoes: str = ""
    directories: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        shown = sum(len(file.diff) for file in self.plan.files) + len(self.plan.output)
        return shown + len(self.text) + sum(len(step.content or b"") for step in self.steps)


def new_id() -> str:
    """For a plan or a run."""
    return os.urandom(8).hex()


def put(store: Store, prepared: Prepared) -> None:
    """Keep a plan; the oldest make room for it."""
    plan = prepared.plan
    record = json.dumps({"plan": dump(PLAN, plan, "plan"), "directories": prepared.directories})
    text = prepared.text.encode("utf-8", "surrogateescape")
    values = (plan.id, plan.time, plan.expires, prepared.size, record, text, prepared.undoes)
    with store.transaction(durable=False) as connection:
        connection.execute("INSERT INTO plans VALUES(?, ?, ?, ?, ?, ?, ?)", values)
        connection.executemany(
            "INSERT INTO plan_files VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    plan.id,
                    at,
                    step.path,
                    step.before,
                    step.after,
                    json.dumps(step.look),
                    step.told,
                    step.content,
                )
                for at, step in enumerate(prepared.steps)
            ],
        )
        _make_room(connection)


def _make_room(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT id, expires, size FROM plans ORDER BY made DESC, rowid DESC"
    ).fetchall()
    size = 0
    for count, (name, expires, own) in enumerate(rows):
        size += own
        if expires < time.time_ns() or count >= MAX_PLANS or (count and size > MAX_SIZE):
            _remove(connection, name)
            size -= own


def _remove(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM plans WHERE id = ?", (name,))
    connection.execute("DELETE FROM plan_files WHERE plan = ?", (name,))


def waiting(store: Store) -> list[str]:
    """Ids of those that can be applied, the newest first."""
    if not store.exists:
        return []
    with store.transaction(durable=False) as connection:
        query = "SELECT id FROM plans WHERE expires >= ? ORDER BY made DESC, rowid DESC"
        return [str(name) for (name,) in connection.execute(query, (time.time_ns(),))]


def shown(store: Store, name: str) -> Plan:
    """A plan that can be applied, and stays so. `not-found` where there is none, or no longer."""
    if not ID.fullmatch(name) or not store.exists:
        raise NotFound(f"there is no plan '{name[:SHOWN]}'", plan=name[:SHOWN])
    with store.transaction(durable=False) as connection:
        query = "SELECT record FROM plans WHERE id = ? AND expires >= ?"
        row = connection.execute(query, (name, time.time_ns())).fetchone()
    if row is None:
        raise _gone(name)
    return cast("Plan", parse(PLAN, json.loads(row[0])["plan"], "plan"))


def _gone(name: str) -> NotFound:
    return NotFound(f"there is no plan '{name}': it was applied, or has expired", plan=name)


def take(store: Store, name: str) -> Prepared:
    """A plan, which is used up by that. `not-found` where there is none, or no longer."""
    if not ID.fullmatch(name):
        raise NotFound(f"there is no plan '{name[:SHOWN]}'", plan=name[:SHOWN])
    # what is done with it is on the disk later, and this with it: until then it may as well be there again
    with store.transaction(durable=False) as connection:
        row = connection.execute(
            "SELECT record, text, undoes, expires FROM plans WHERE id = ?", (name,)
        ).fetchone()
        files = connection.execute(
            "SELECT path, before, after, look, told, content FROM plan_files "
            "WHERE plan = ? ORDER BY position",
            (name,),
        ).fetchall()
        _remove(connection, name)
    if row is None or row[3] < time.time_ns():
        raise _gone(name)
    record = json.loads(row[0])
    return Prepared(
        cast("Plan", parse(PLAN, record["plan"], "plan")),
        tuple(_step(*each) for each in files),
        bytes(row[1]).decode("utf-8", "surrogateescape"),
        row[2],
        tuple(record["directories"]),
    )


def _step(
    path: str, before: str | None, after: str | None, look: str, told: int, content: bytes | None
) -> Step:
    """What a power failure has left of a plan is not applied: its bytes are what their hash says."""
    if content is not None and digest(content) != after:
        raise NotFound(f"what was planned for '{path}' is lost: plan it again")
    return Step(path, before, after, content, json.loads(look), bool(told))


def as_made(plan: Plan, **changed: Any) -> Plan:
    """A plan with its id and times, as of now."""
    now = time.time_ns()
    return replace(plan, id=new_id(), time=now, expires=now + LIFETIME, **changed)
