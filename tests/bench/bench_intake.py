"""Taking reports in: on SQLite and PostgreSQL, by one process and by as many as there are cores, at the end
of AMQP, and how that goes with the size of the fleet.

    .venv/bin/python tests/bench/bench_intake.py [SECONDS]

Beside each rate is that of bare transactions of the same shape and size on the same store: a host's row is
looked up and written back with a report of as many bytes. `unchanged` reports tell nothing new, each of the
`changed` ones has a fact that differs. A worker is a process; its threads take turns at its store.
"""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path[:0] = [str(ROOT), str(ROOT / "agents"), str(ROOT / "tests")]

from sqlalchemy import insert, select  # noqa: E402

import fleet  # noqa: E402
from bench.measure import Cost, tell  # noqa: E402
from libmh.api.aggregates import CapabilityReport, Reports  # noqa: E402
from libmh.remote import connect_async  # noqa: E402
from libmh.spec import Plain  # noqa: E402
from mh_conductor.intake import Intake, arrival_of  # noqa: E402
from mh_conductor.rules import DEFAULT, load  # noqa: E402
from mh_conductor.store import Store, open_store  # noqa: E402
from mh_conductor.tables import HOSTS, MEMBERS  # noqa: E402
from postgresql import PostgreSQL, postgresql  # noqa: E402
from processes import agent  # noqa: E402

SECONDS = 3.0
WORKERS = 2
FLEETS = (1_000, 10_000, 100_000)
OWED = {"unchanged": 1500.0, "changed": 400.0}
IN_FLIGHT = 100
WARM = 50
AT_ONCE = 500
FLAGS = [f"flag_{number}" for number in range(100)] + ["aes", "avx2", "avx512f", "vmx"]
TOLD: dict[str, Plain] = {
    **{f"fact_{number}": f"a value of usual length {number}" for number in range(20)},
    "arch": "x86_64",
    "cpu_flags": sorted(FLAGS),
    "cpu_count": 64,
    "os_id": "debian",
    "os_version": "12",
    "virtualization": "none",
    "memory": 263_000_000,
    "memory_gib": 256,
}
TRAITS = ("HW_CPU_X86_AES", "HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F", "HW_CPU_X86_VMX")


def report(number: int, sequence: int, kind: str) -> CapabilityReport:
    """Of host `number`; one of the facts of a changed one is the sequence."""
    told = {**TOLD, "fact_0": f"changed {sequence}"} if kind == "changed" else TOLD
    made = fleet.with_facts(
        fleet.report(number, sequence, traits=TRAITS),
        **{name: fleet.fact(each) for name, each in told.items()},
    )
    return replace(made, metrics={"load_1m": 0.5, "cpu_utilization": 0.25, "memory_available": 1e6})


def populate(store: Store, hosts: int) -> None:
    """So many hosts, as if each had reported once: two come in as reports, the others are copies."""
    intake = Intake(store, load(DEFAULT))
    for number in (0, 1):
        intake.take(report(number, 1, "unchanged"))
    with store.read() as connection:
        host = connection.execute(select(HOSTS).where(HOSTS.c.uuid == fleet.uuid_of(1))).one()._asdict()
        places = connection.execute(select(MEMBERS).where(MEMBERS.c.host == fleet.uuid_of(1))).all()
    for start in range(2, hosts, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, hosts))
        rows = [_copy(host, number) for number in numbers]
        members = [{**each._asdict(), "host": fleet.uuid_of(n)} for n in numbers for each in places]
        with store.write() as connection:
            connection.execute(insert(HOSTS), rows)
            connection.execute(insert(MEMBERS), members)


def _copy(host: dict[str, object], number: int) -> dict[str, object]:
    kept = arrival_of(report(number, 1, "unchanged"))
    own = {"uuid": kept.uuid, "hostname": kept.hostname, "digest": kept.digest, "report": kept.report}
    return {**host, **own}


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second, and calls for each second of the processor: the same where nobody else uses it."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.0f}/s, {self.processor:.0f} for a second of the processor"


def rate(work: Callable[[int], object], seconds: float) -> Rate:
    """Of calls one after the other, each with the next number."""
    numbers = itertools.count()
    for _ in range(WARM):
        work(next(numbers))
    done, started, used = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - started) < seconds:
        work(next(numbers))
        done += 1
    return Rate(done / spent, done / (time.process_time() - used))


def taking(intake: Intake, hosts: int, kind: str, first: int, sequence: int) -> Callable[[int], object]:
    """Reports of all hosts in turn; they are made beforehand as far as they are alike."""
    template = {number: report(number, 1, kind) for number in range(first, first + min(hosts, 400))}

    def one(count: int) -> object:
        made = template[first + count % len(template)]
        number = sequence + count // len(template)
        if kind == "changed":
            facts = {**made.facts, "fact_0": fleet.fact(f"changed {number}")}
            made = replace(made, facts=facts)
        return intake.take(replace(made, sequence=number))

    return one


def bare(store: Store, kind: str) -> Callable[[int], object]:
    """A transaction of the same shape, straight at the driver: what no program can be faster than."""
    body = arrival_of(report(0, 1, kind)).report
    raw = store._engine.raw_connection()
    lite = raw.driver_connection
    mark = "?" if isinstance(lite, sqlite3.Connection) else "%s"
    look = f"SELECT generation, sequence, digest FROM hosts WHERE uuid = {mark}"
    write = f"UPDATE hosts SET last_seen = {mark}, report = {mark} WHERE uuid = {mark}"
    cursor = raw.cursor()

    def one(count: int) -> object:
        uuid = fleet.uuid_of(count % 1000)
        if mark == "?":
            cursor.execute("BEGIN IMMEDIATE")
        cursor.execute(look, (uuid,))
        found = cursor.fetchone()
        cursor.execute(write, (time.time_ns(), body, uuid))
        raw.commit()
        return found

    return one


def worker(url: str, kind: str, first: int, hosts: int, sequence: int, seconds: float) -> None:
    """One process: says when it is ready, begins when it is told to, and prints its rate."""
    store = open_store(url)
    work = taking(Intake(store, load(DEFAULT)), hosts, kind, first, sequence)
    print("ready", flush=True)
    sys.stdin.readline()
    done = rate(work, seconds)
    print(done.wall, done.processor, flush=True)
    store.close()


def together(url: str, kind: str, workers: int, hosts: int, seconds: float, sequence: int) -> Rate:
    """The rate of so many processes, each with hosts of its own."""
    share = hosts // workers
    command = [sys.executable, __file__, "--worker", url, kind]
    processes = [
        subprocess.Popen(
            [*command, str(number * share), str(share), str(sequence), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    rates = [Rate(*(float(word) for word in words)) for words in said]
    return Rate(sum(each.wall for each in rates), sum(each.processor for each in rates) / workers)


def one_store(name: str, url: str, hosts: int, seconds: float, workers: Iterable[int]) -> None:
    """Rates of a store, each beside bare transactions."""
    store = open_store(url)
    sequence = itertools.count(10, 10**6)
    alone: dict[str, float] = {}
    for count in workers:
        for kind, rates in OWED.items():
            got = together(url, kind, count, hosts, seconds, next(sequence))
            beside = rate(bare(store, kind), seconds / 2)
            what = f"{kind} reports, {name}, {hosts:,} hosts, {count} worker{'s' if count > 1 else ''}"
            times = f"{got.wall / alone[kind]:.2f} times one; " if count > 1 else ""
            alone.setdefault(kind, got.wall)
            owed = rates if name == "SQLite" and count == 1 else 0
            tell(
                what,
                str(got),
                beside=f"{times}bare transactions {beside}: ratio {got.wall / beside.wall:.2f}",
                owed=f"{owed:.0f}/s" if owed else "",
                holds=got.wall >= owed if owed else None,
            )
    store.close()


async def through_a_broker(broker: str, kind: str, seconds: float, sequence: int) -> int:
    """Reports over one connection, so many in flight, each answered after its transaction."""
    done = 0
    async with await connect_async(broker) as connection:

        async def sender(number: int, ends: float) -> None:
            nonlocal done
            for count in itertools.count(sequence):
                await connection.call(Reports.report, report(number, count, kind))
                if time.perf_counter() > ends:
                    return
                done += 1

        started = time.perf_counter()
        await asyncio.gather(*(sender(number, started + seconds) for number in range(IN_FLIGHT)))
        return done


def end_to_end(directory: Path, url: str, name: str, seconds: float, workers: int) -> None:
    """With a real broker and real conductors; the hosts' side is this process."""
    with ExitStack() as stack:
        listening = ("--listen", "127.0.0.1:0", "--state", str(directory / "broker"))
        broker = stack.enter_context(agent("mh-broker", *listening))
        options = ("--broker", broker.url, "--store", url, "--log-level", "warning")
        states = (str(directory / f"conductor{number}") for number in range(workers))
        conductors = [
            stack.enter_context(agent("mh-conductor", *options, "--state", each)) for each in states
        ]
        for kind in OWED:
            before = [Cost.of(each.process.pid).processor for each in (broker, *conductors)]
            done = asyncio.run(through_a_broker(broker.url, kind, seconds, time.time_ns() // 1000))
            after = [Cost.of(each.process.pid).processor for each in (broker, *conductors)]
            spent = [(b - a) * 1000 / done for a, b in zip(before, after, strict=True)]
            tell(
                f"{kind} reports through AMQP, {name}, {workers} conductor{'s' if workers > 1 else ''}",
                f"{done / seconds:.0f}/s",
                beside=f"processor for each: broker {spent[0]:.2f} ms, conductors {sum(spent[1:]):.2f} ms",
            )


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as place, postgresql() as server:
        for hosts in FLEETS:
            for name, url in stores(Path(place), server, hosts).items():
                store = open_store(url)
                populate(store, hosts)
                store.close()
                one_store(name, url, hosts, seconds, (1, WORKERS) if hosts == FLEETS[0] else (1,))
                if hosts == FLEETS[0]:
                    for workers in (1, WORKERS):
                        end_to_end(Path(place) / name, url, name, seconds, workers)


def stores(place: Path, server: PostgreSQL, hosts: int) -> dict[str, str]:
    """An empty one of each kind."""
    return {
        "SQLite": f"sqlite:///{place}/fleet{hosts}.db",
        "PostgreSQL": server.url(server.create()),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        url_, kind_, first_, hosts_, sequence_, seconds_ = sys.argv[2:]
        worker(url_, kind_, int(first_), int(hosts_), int(sequence_), float(seconds_))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else SECONDS)
