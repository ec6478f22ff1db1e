"""Processes of several threads change one store at once: no change is lost, and none is made twice."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

import fleet
from hammering import COUNTER, HOSTS, ZONES
from mh_conductor import catalogue, registry
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.limits import ZONE_KEY
from mh_conductor.store import Store, open_store
from mh_conductor.tables import HISTORY, MEMBERS, VALUES

SCRIPT = Path(__file__).with_name("hammering.py")
PROCESSES, THREADS, ROUNDS = 2, 3, 6
SECONDS = 240


def prepared(url: str) -> tuple[Store, int, int]:
    """A store with what everybody changes, the generation of the whole, and the length of its history."""
    store = open_store(url)
    editing, intake = Editing(store), Intake(store, fleet.rules())
    for number in range(HOSTS):
        intake.take(fleet.report(number))
    editing.create(COUNTER)
    editing.set_metadata(COUNTER, {COUNTER: "0"})
    for zone in ZONES:
        editing.create(zone, zone)
    with store.read() as connection:
        return store, registry.generation(connection), lines(connection)


def lines(connection: Any) -> int:
    length: int = connection.execute(select(func.count()).select_from(HISTORY)).scalar_one()
    return length


def hammered(url: str) -> list[dict[str, Any]]:
    """What each process says that it did."""
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), url, f"p{each}", str(THREADS), str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    said = []
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        out, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        said.append(json.loads(out))
    return said


def test_no_change_is_lost_and_none_is_made_twice(store_url: str) -> None:
    store, before, length = prepared(store_url)
    said = hammered(store_url)
    assert [each["troubles"] for each in said] == [[]] * PROCESSES
    did: Counter[str] = sum((Counter(each["did"]) for each in said), Counter())
    with store.read() as connection:
        counter = catalogue.find(connection, COUNTER)
        every = {each.name for each in catalogue.listing(connection)}
        # each host is in one zone at most
        zone = func.count(VALUES.c.value.distinct())
        places = select(MEMBERS.c.host).join(VALUES, VALUES.c.aggregate == MEMBERS.c.aggregate)
        split = places.where(VALUES.c.key == ZONE_KEY).group_by(MEMBERS.c.host).having(zone > 1)
        assert connection.execute(split).all() == []
        assert registry.generation(connection) - before == did["events"] + did["grown"]
        assert lines(connection) - length >= did["events"]
    keys = {f"p{p}-{t}-{r}" for p in range(PROCESSES) for t in range(THREADS) for r in range(ROUNDS)}
    assert counter.metadata.keys() == keys | {COUNTER}
    assert int(counter.metadata[COUNTER]) == did["counted"] == len(keys)
    assert counter.generation == 2 + 2 * len(keys)
    made = [name for each in said for name in each["made"]]
    assert sorted(made) == sorted(f"made{number}" for number in range(ROUNDS))
    assert set(made) < every
    store.close()
