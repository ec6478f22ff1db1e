"""Run every benchmark of this directory, one after the other, and print one table of what they found.

    .venv/bin/python tests/bench/run.py [NAME ...]

Each runs as a program of its own; NAME is what follows `bench_`. What a program says is shown as it comes.
The table has its results, and of those that print their own lines the ratios.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import RESULT

HERE = Path(__file__).parent
LONGEST = 3600.0
OWN_WORDS = re.compile(r"ratio|worst|of a core")


def run(script: Path) -> Iterator[tuple[str, ...]]:
    """Rows for the table."""
    print(f"--- {script.stem.removeprefix('bench_')}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(RESULT):
            yield tuple(part.strip() for part in line.removeprefix(RESULT).split("|"))
        elif OWN_WORDS.search(line):
            yield (script.stem.removeprefix("bench_"), " ".join(line.split()))
    code = process.wait(LONGEST)
    if code:
        yield (script.stem.removeprefix("bench_"), f"ended with {code}", "", "", "MISSED")
    print(f"    {time.monotonic() - started:.0f} s", flush=True)


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width, as far as a row goes."""
    widths = [max((len(row[at]) for row in rows if len(row) > at + 1), default=0) for at in range(5)]
    padded = ([f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def main(names: list[str]) -> int:
    scripts = sorted(HERE.glob("bench_*.py"))
    chosen = [each for each in scripts if not names or each.stem.removeprefix("bench_") in names]
    rows = [row for script in chosen for row in run(script)]
    print("\n" + table(rows))
    return int(any("MISSED" in row for row in rows))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
