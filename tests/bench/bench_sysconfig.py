"""One edit of a file, planned and applied through D-Bus, beside augtool with the same single lens; one value
of /etc/hosts asked for, cold and warm.

.venv/bin/python tests/bench/bench_sysconfig.py

It changes a file of its own below the state directory of a private agent, and reads /etc/hosts. Owed: 1.5
times augtool, whose start is counted; 120 ms for the first query of an agent, 5 ms for any other.
"""

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import side_by_side, tell
from libmh.api.sysconfig import Sysconfig
from libmh.client import connect
from processes import agent
from testbed import needs
from testbed.bus import private_bus

ROUNDS = 31
STARTS = 5
QUERY = ("/files/etc/hosts/1/ipaddr", 0, "augeas")
TIMES, COLD, WARM = 1.5, 0.120, 0.005


def edits(sysconfig: Sysconfig, place: Path) -> None:
    ours, theirs = place / "ours", place / "theirs"
    for file in (ours, theirs):
        file.write_text(Path("/etc/hosts").read_text())
    numbers = itertools.count()
    augtool = needs.command("augtool", "augeas-tools")

    def edit() -> None:
        said = [
            f"transform Hosts.lns incl {ours}",
            f"set /files{ours}/1/canonical name{next(numbers)}",
            "save",
        ]
        run = sysconfig.apply(sysconfig.plan("augeas", "\n".join(said) + "\n").id)
        assert run.files == [str(ours)]

    def edit_by_augtool() -> None:
        said = f"set /files{theirs}/1/canonical name{next(numbers)}\nsave\n"
        command = [augtool, "-At", f"Hosts.lns incl {theirs}"]
        subprocess.run(command, input=said, text=True, check=True, capture_output=True)

    own, their = side_by_side([edit, edit_by_augtool], ROUNDS)
    tell(
        "plan and apply one edit",
        f"{own * 1000:.1f} ms",
        beside=f"augtool {their * 1000:.1f} ms: ratio {own / their:.2f}",
        owed=f"{TIMES} times",
        holds=own <= TIMES * their,
    )


def queries(state: str) -> None:
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(STARTS):
        with (
            private_bus() as address,
            agent("mh-dbus", "--bus", address, "--state", state),
            connect(address) as here,
        ):
            sysconfig = here.proxy(Sysconfig)
            sysconfig.hostname()
            for times in (cold, *(warm,) * ROUNDS):
                began = time.perf_counter()
                assert sysconfig.query(*QUERY)
                times.append(time.perf_counter() - began)
    for name, times, owed in (("cold", cold, COLD), ("warm", warm, WARM)):
        took = statistics.median(times)
        tell(
            f"query one value, {name}",
            f"{took * 1000:.1f} ms",
            beside=f"at most {max(times) * 1000:.1f} ms",
            owed=f"{owed * 1000:.0f} ms",
            holds=took <= owed,
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        state = f"{place}/state"
        with (
            private_bus() as address,
            agent("mh-dbus", "--bus", address, "--state", state),
            connect(address) as here,
        ):
            edits(here.proxy(Sysconfig), Path(place))
        queries(state)


if __name__ == "__main__":
    main()
