"""`python -m libmh.linux.config.undoing STATE RUN [ROOT]`: take back a run that nobody has confirmed.

What is armed when a run must prove itself; it needs no agent. 0: undone, or there was nothing to undo; 1:
one sentence on stderr says why not, and the agent tries again when it starts.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from libmh.context import Root
from libmh.errors import NotImplementedHere, Problem
from libmh.linux.config.confstore import Store
from libmh.linux.config.performing import Performer
from libmh.schemes import Scheme

USAGE = 2


def main(arguments: Sequence[str]) -> int:
    if len(arguments) not in (2, 3):
        print("usage: undoing STATE RUN [ROOT]", file=sys.stderr)
        return USAGE
    state, name, *base = arguments
    store = Store(Path(state))
    try:
        Performer(Root(Path(base[0] if base else "/")), store, _no_scheme).expire(name)
    except Problem as problem:
        print(f"run {name} is not undone: {problem}", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def _no_scheme(name: str) -> Scheme:
    raise NotImplementedHere(f"an undoing writes files by itself: it has no scheme '{name}'")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
