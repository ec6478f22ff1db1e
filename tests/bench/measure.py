"""What the benchmarks share: medians of runs taken in turns with a peer, one form of telling a result."""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
LONGEST = 60.0
RESULT = "result:"


def median(function: Callable[[], object], runs: int) -> float:
    """Seconds that a call takes: the median of `runs`, after one that does not count."""
    return side_by_side([function], runs)[0]


def side_by_side(functions: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Median seconds of each, measured in turns, so that what else the machine does meets all alike."""
    taken: list[list[float]] = [[] for _ in functions]
    for turn in range(runs + 1):
        for function, seconds in zip(functions, taken, strict=True):
            started = time.perf_counter()
            function()
            if turn:
                seconds.append(time.perf_counter() - started)
    return [statistics.median(each) for each in taken]


def command(*words: str, env: Mapping[str, str] | None = None) -> Callable[[], object]:
    """A program, run to its end with its output thrown away, and killed after a minute."""
    whole = {**os.environ, **env} if env else None

    def run() -> int:
        child = subprocess.Popen(
            words,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # subprocess waits for a time-out by looking ever more rarely, which would count as the program's
        overdue = threading.Timer(LONGEST, child.kill)
        overdue.start()
        try:
            return child.wait()
        finally:
            overdue.cancel()

    return run


def tell(what: str, got: str, *, beside: str = "", owed: str = "", holds: bool | None = None) -> None:
    """Print one line of the table."""
    verdict = "" if holds is None else "holds" if holds else "MISSED"
    print(RESULT, " | ".join((what, got, beside, owed, verdict)), flush=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used so far: processor seconds, and megabytes that it holds now."""

    processor: float
    resident: float
    own: float

    @classmethod
    def of(cls, pid: int) -> "Cost":
        """From /proc/PID/stat and /proc/PID/smaps_rollup; `own` leaves out what other processes share."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        sizes = {words[0]: int(words[1]) / 1024 for words in lines}
        own = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
        return cls((int(fields[11]) + int(fields[12])) / TICKS, sizes["Rss:"], own)
