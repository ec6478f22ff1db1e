"""Where something fits: `select` over a whole fleet and 200 aggregates, beside Nova's filters and weigher.

    .venv/bin/python tests/bench/bench_select.py [--hosts 1000,10000,100000] [--runs N]

Every answer is given by the provider from the store, and begins with a look at whether it has changed. Nova
filters and weighs the same hosts, which it holds in memory already, in a Python of its own, and is asked
less: no traits, zones and sizes. Owed are 50 ms at 10,000 hosts.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:  # run as a script
    sys.path[:0] = [str(ROOT), str(ROOT / "agents"), str(ROOT / "tests")]

from sqlalchemy import insert  # noqa: E402

import fleet  # noqa: E402
from bench.measure import median, tell  # noqa: E402
from foreign_clients import DRIVERS, python_environment  # noqa: E402
from libmh.api.aggregates import CapabilityReport  # noqa: E402
from mh_conductor.intake import Intake, arrival_of  # noqa: E402
from mh_conductor.inventory import Inventory  # noqa: E402
from mh_conductor.service import FleetAggregates  # noqa: E402
from mh_conductor.store import Store  # noqa: E402
from mh_conductor.tables import AGGREGATES, HOSTS, MEMBERS, VALUES  # noqa: E402

OWED = 0.050
AT = 10_000
GROUPS = 200
MEMBERSHIPS = 5
NOVA_SECONDS = 600.0
PEER_MOST = 10_000  # more would be hundreds of megabytes of JSON
FLAGS = [
    "fpu",
    "sse",
    "sse2",
    "ssse3",
    "sse4_1",
    "sse4_2",
    "aes",
    "avx",
    "f16c",
    "rdrand",
    "fma",
    "movbe",
    "popcnt",
    "adx",
    "bmi1",
    "bmi2",
    "smep",
    "erms",
]
ODD = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "vmx", "amx_tile")
SPECS = {
    "aggregate_instance_extra_specs:ssd": "true",
    "aggregate_instance_extra_specs:rack": "<or> r1 <or> r2 <or> r3 <or> r4 <or> r5",
    "capabilities:cpu_flags": "<in> avx2",
    "capabilities:cpu_count": ">= 16",
}
SCOPE_TRAIT = "trait:HW_CPU_X86_AVX2"


def told(number: int, sequence: int = 1) -> CapabilityReport:
    """Report of a host: of a few kinds of machine, with what differs between all of them."""
    chance = random.Random(number)
    flags = [*FLAGS, *(flag for flag in ODD if chance.random() < 0.7)]
    count = chance.choice((8, 16, 32, 64))
    made = fleet.report(
        number,
        sequence,
        hostname=f"host{number:06}",
        traits=("HW_CPU_X86_AVX2", "HW_ARCH_X86_64") if "avx2" in flags else ("HW_ARCH_X86_64",),
        cpu_flags=sorted(flags),
        cpu_count=count,
        cpu_cores=count // 2,
        memory=chance.choice((64, 128, 256)) * 1_000_000 + chance.randrange(4096),
        disk_bytes=chance.choice((1, 2, 4)) << 40,
        **{f"fact_{at}": f"value {chance.randrange(4)}" for at in range(20)},
    )
    busy = chance.random()
    metrics = {"load_1m": busy * count, "cpu_utilization": busy, "memory_available": busy * 1e7}
    return replace(made, schema="1.1", metrics=metrics)


def filled(directory: Path, hosts: int) -> Store:
    """A store of hosts and aggregates: what reports and people would have made of it."""
    store = fleet.new_store(directory)
    now = time.time_ns()
    with store.write() as connection:
        for start in range(0, hosts, 1000):
            rows = [row_of(number, now) for number in range(start, min(hosts, start + 1000))]
            connection.execute(insert(HOSTS), rows)
        groups = [
            {"id": at + 1, "uuid": f"{at:032x}", "name": f"aggregate{at}", "binding": "{}", "created": 1}
            | {"updated": 1, "generation": 1}
            for at in range(GROUPS)
        ]
        connection.execute(insert(AGGREGATES), groups)
        values = [
            {"aggregate": at + 1, "key": key, "value": value}
            for at in range(GROUPS)
            for key, value in metadata(at).items()
        ]
        connection.execute(insert(VALUES), values)
        for start in range(0, hosts, 1000):
            numbers = range(start, min(hosts, start + 1000))
            connection.execute(insert(MEMBERS), [row for number in numbers for row in places_of(number)])
    return store


def row_of(number: int, now: int) -> dict[str, object]:
    arrival = arrival_of(told(number))
    kept = {name: getattr(arrival, name) for name in ("uuid", "hostname", "boot_id", "sequence", "facts")}
    kept |= {
        name: getattr(arrival, name) for name in ("agent_version", "traits", "digest", "summary", "metrics")
    }
    times = {"generation": 1, "first_seen": 1, "last_seen": now, "stamp": 0}
    return {**kept, **times, "report": arrival.report}


def metadata(at: int) -> dict[str, str]:
    """The first ten are zones; the others say what their hosts are, some of them for whom."""
    if at < 10:
        return {"availability_zone": f"az{at}"}
    whom = {"filter_tenant_id": f"p{at}, p0"} if at % 50 == 0 else {}
    return {"ssd": ("true", "false", "true,false")[at % 3], "rack": f"r{at % 20}", **whom}


def groups_of(number: int) -> list[int]:
    chance = random.Random(-number)
    return [number % 10, *sorted(chance.sample(range(10, GROUPS), MEMBERSHIPS - 1))]


def places_of(number: int) -> Iterator[dict[str, object]]:
    for at in groups_of(number):
        yield {"aggregate": at + 1, "host": fleet.uuid_of(number), "evidence": "[]"}


def nova(hosts: int, runs: int) -> dict[str, Any]:
    """What Nova takes for the same hosts: its seconds, and how many fit."""
    every = []
    for number in range(hosts):
        facts = {name: fact.value for name, fact in told(number).facts.items()}
        every.append({"facts": facts, "aggregates": groups_of(number), "free": number % 1000})
    asked = {"hosts": every, "aggregates": [metadata(at) for at in range(GROUPS)], "extra_specs": SPECS}
    command = (python_environment("openstack", DRIVERS / "openstack.txt"), str(DRIVERS / "nova_select.py"))
    done = subprocess.run(
        command,
        input=json.dumps({**asked, "project": "p0", "runs": runs}),
        capture_output=True,
        text=True,
        timeout=NOVA_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def holds(hosts: int, seconds: float) -> bool | None:
    return seconds <= OWED if hosts == AT else None


def measure(hosts: int, runs: int, directory: Path) -> None:
    store = filled(directory, hosts)
    provider = FleetAggregates(store, fleet.rules())
    provider.create_flavor("same", extra_specs=SPECS)
    provider.create_flavor("whole", vcpus=8, ram=4096, extra_specs={**SPECS, SCOPE_TRAIT: "required"})
    started = time.perf_counter()
    Inventory(store).current()
    tell(f"{hosts} hosts are read for the first time", f"{time.perf_counter() - started:.2f} s")
    provider.select([])

    same = partial(provider.select, [], flavor="same", project="p0")
    fit, seconds, beside = len(same().hosts), median(same, runs), ""
    if hosts <= PEER_MOST:
        theirs = nova(hosts, min(runs, 5))
        assert fit == theirs["fit"], "Nova and we disagree about who fits"
        ratio = seconds / theirs["seconds"]
        beside = f"Nova {milliseconds(theirs['seconds'])}, ratio {ratio:.2f}"
    owed = milliseconds(OWED) if hosts == AT else ""
    what = f"select at {hosts} hosts: what Nova is asked, {fit} fit"
    tell(what, milliseconds(seconds), beside=beside, owed=owed, holds=holds(hosts, seconds))

    questions: tuple[tuple[str, dict[str, Any]], ...] = (
        (
            "flavor with trait and size, zone, project, ten",
            {"flavor": "whole", "zone": "az3", "project": "p0", "limit": 10},
        ),
        ("facts alone", {"where": ["cpu_flags=<in> amx_tile", "memory=>= 120000000"]}),
        ("every host, weighed", {"project": "p0"}),
        ("every host, by name", {"policy": "inventory"}),
    )
    for what, asked in questions:
        seconds = median(partial(provider.select, **{"where": [], **asked}), runs)
        tell(
            f"select at {hosts} hosts: {what}", milliseconds(seconds), owed=owed, holds=holds(hosts, seconds)
        )
    whole: dict[str, Any] = {"where": [], "flavor": "whole", "zone": "az3", "project": "p0"}
    seconds = median(lambda: provider.select(**whole, rejected=True), runs)
    tell(f"select at {hosts} hosts: with why the others do not fit", milliseconds(seconds))

    intake, sequence = Intake(store, fleet.rules("")), iter(range(2, 1000))

    def changed() -> float:
        """One host reports something new before the question."""
        at = next(sequence)
        made = told(at, at)
        intake.take(fleet.with_facts(made, kernel=fleet.fact(f"6.{at}")))
        started = time.perf_counter()
        provider.select(**whole, limit=10)
        return time.perf_counter() - started

    found = sorted(changed() for _ in range(runs))[runs // 2]
    tell(
        f"select at {hosts} hosts: one has just changed",
        milliseconds(found),
        owed=owed,
        holds=holds(hosts, found),
    )
    store.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", default="1000,10000,100000")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    for hosts in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory() as directory:
            measure(hosts, options.runs, Path(directory))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
