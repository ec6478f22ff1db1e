"""Run by a test: one of several processes that change one store at once, as fast as they can.

    python hammering.py URL NAME THREADS ROUNDS

Prints as JSON what it did: how often it counted, which aggregates it made, of how many changes it was told,
by how much the generation of the whole grew by its reports, and what failed that should not have.
"""

import json
import random
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field

import fleet
from libmh.errors import Conflict, InvalidArguments, NotFound, Problem
from libmh.events import Event, Hub
from mh_conductor import catalogue
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.store import Store, open_store

HOSTS = 4
ZONES = ("z1", "z2", "z3")
COUNTER = "counter"


@dataclass
class Hammer:
    """What the threads of a process share."""

    name: str
    store: Store
    editing: Editing
    intake: Intake
    lock: threading.Lock = field(default_factory=threading.Lock)
    did: Counter[str] = field(default_factory=Counter)
    made: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def tell(self, _event: Event) -> None:
        self.count("events")

    def count(self, what: str, steps: int = 1) -> None:
        with self.lock:
            self.did[what] += steps

    def work(self, thread: int, rounds: int) -> None:
        """Change everything that others change, too."""
        chance = random.Random(f"{self.name} {thread}")
        for number in range(rounds):
            key = f"{self.name}-{thread}-{number}"
            try:
                self.editing.set_metadata(COUNTER, {key: "set"})
                self.add_one()
                self.make(f"made{number}")
                self.move(chance)
                self.report(chance, thread, number)
            except Problem as problem:
                self.troubles.append(f"{key}: {problem!r}")

    def add_one(self) -> None:
        """As everybody does who reads, thinks and writes: only under the generation that he read."""
        for _ in range(1000):
            with self.store.read() as connection:
                seen = catalogue.find(connection, COUNTER)
            count = {COUNTER: str(int(seen.metadata[COUNTER]) + 1)}
            try:
                self.editing.set_metadata(COUNTER, count, seen.generation)
            except Conflict:
                continue
            return self.count("counted")
        raise Conflict("somebody was always quicker")

    def make(self, name: str) -> None:
        try:
            self.editing.create(name)
        except Conflict:
            return
        self.made.append(name)

    def move(self, chance: random.Random) -> None:
        """Put a host into a zone, give a zone to an aggregate, take a host out."""
        host, other = (f"node{chance.randrange(HOSTS)}" for _ in range(2))
        try:
            self.editing.add_host(chance.choice(ZONES), host)
        except Conflict:
            self.count("refused")
        try:
            self.editing.set_metadata(chance.choice(ZONES), {"availability_zone": chance.choice(ZONES)})
        except InvalidArguments:
            self.count("refused")
        try:
            self.editing.remove_host(chance.choice(ZONES), other)
        except NotFound:
            self.count("refused")

    def report(self, chance: random.Random, thread: int, number: int) -> None:
        """Of the same hosts as everybody, who comes and goes by rules."""
        flags = ["avx512f"] if chance.random() < 0.5 else []
        memory = chance.choice((16, 64))
        host, sequence = chance.randrange(HOSTS), 2 + number
        told = fleet.report(host, sequence, boot=f"{self.name}{thread}", cpu_flags=flags, memory_gib=memory)
        outcome = self.intake.take(told)
        if outcome.accepted.changed:
            self.count("grown", 1 + len(outcome.done))


def main(url: str, name: str, threads: int, rounds: int) -> None:
    store, hub = open_store(url), Hub()
    hammer = Hammer(name, store, Editing(store, hub), Intake(store, fleet.rules()))
    hub.subscribe(hammer.tell)
    print("ready", flush=True)
    sys.stdin.readline()
    working = [threading.Thread(target=hammer.work, args=(each, rounds)) for each in range(threads)]
    for each in working:
        each.start()
    for each in working:
        each.join()
    store.close()
    print(json.dumps({"did": hammer.did, "made": hammer.made, "troubles": hammer.troubles}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
