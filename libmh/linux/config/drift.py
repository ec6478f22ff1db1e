"""Files that are no longer what the last run left."""

import json

from libmh.api.sysconfig import Drift
from libmh.context import Root
from libmh.errors import InvalidArguments
from libmh.linux.config.confstore import Store, content_of, digest
from libmh.linux.config.diffs import unified
from libmh.linux.config.places import locate, look

MAX_DRIFTS = 1000
MAX_DIFFS = 4 << 20
LAST = (
    "SELECT path, after, run, key, record, max(seq) FROM files JOIN runs ON run = id "
    "GROUP BY path ORDER BY path"
)


def drifts(root: Root, store: Store) -> list[Drift]:
    """At most 1,000 of them; diffs are empty past 4 MiB, and where what the run left is kept no longer."""
    if not store.exists:
        return []
    with store.transaction(durable=False) as connection:
        rows = connection.execute(LAST).fetchall()
    found: list[Drift] = []
    budget = MAX_DIFFS
    for path, after, run, key, record, _seq in rows:
        now, plain = _now(root, path)
        if plain and (None if now is None else digest(now)) == after:
            continue
        diff = _diff(store, path, after, now) if plain and budget > 0 else ""
        budget -= len(diff)
        gone = (now is None) != (after is None) or not plain
        found.append(Drift(path, run, key, json.loads(record)["time"], diff, gone))
        if len(found) == MAX_DRIFTS:
            break
    return found


def _now(root: Root, path: str) -> tuple[bytes | None, bool]:
    """What is there, and whether it is a plain file or nothing."""
    try:
        return look(root, locate(root, path)).content, True
    except InvalidArguments:
        return None, False


def _diff(store: Store, path: str, after: str | None, now: bytes | None) -> str:
    with store.transaction(durable=False) as connection:
        left = content_of(connection, after)
    return "" if left is None and after is not None else unified(path, left, now)
