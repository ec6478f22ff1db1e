"""Run by a test: takes one report in and dies by SIGKILL at its n-th SQL statement; 0 survives all of them.

    python killed_intake.py DATABASE N

Prints the number of statements that it came to, where it lives to tell.
"""

import itertools
import os
import signal
import sys

from sqlalchemy import event

import fleet
from mh_conductor.intake import Intake
from mh_conductor.store import open_store


def main(path: str, fatal: int) -> None:
    store = open_store(f"sqlite:///{path}")
    counted = itertools.count(1)
    reached = [0]

    def die_at_the_chosen_one(*_arguments: object) -> None:
        reached[0] = next(counted)
        if reached[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(store._engine, "after_cursor_execute", die_at_the_chosen_one)
    event.listen(store._engine, "commit", die_at_the_chosen_one)
    Intake(store, fleet.rules()).take(fleet.report(1, 2, memory_gib=64, cpu_flags=[]))
    print(reached[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
