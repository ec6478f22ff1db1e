"""Planning: 100 rules against a whole fleet, and against one host that changed.

    .venv/bin/python tests/bench/bench_plan.py [--hosts 1000,10000,100000] [--rules 100] [--runs N]

Beside each stands a bare loop of Python over the same matches: every requirement of every rule against the
fact of every host, already read, with nothing planned, explained or written. Owed are, at 10,000 hosts and
100 rules, 3 s for the whole fleet and 20 ms for one host, both in the store when they end. In brackets are
the seconds of the processor, which other work on the machine does not lengthen.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:  # run as a script
    sys.path[:0] = [str(ROOT), str(ROOT / "agents"), str(ROOT / "tests")]

from sqlalchemy import insert  # noqa: E402

import fleet  # noqa: E402
from bench.measure import median, tell  # noqa: E402
from libmh.api.aggregates import CapabilityReport  # noqa: E402
from libmh.traits import of_flags  # noqa: E402
from mh_conductor.intake import Intake, arrival_of  # noqa: E402
from mh_conductor.judge import Subject, subject_of  # noqa: E402
from mh_conductor.reconcile import Reconciled, Reconciler  # noqa: E402
from mh_conductor.rules import Rule, RuleSet, parse  # noqa: E402
from mh_conductor.store import Store  # noqa: E402
from mh_conductor.tables import HOSTS  # noqa: E402

OWED_FLEET, OWED_HOST = 3.0, 20.0
AT = 10_000
FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 ss ht "
    "syscall nx rdtscp lm constant_tsc rep_good nopl cpuid pni pclmulqdq vmx ssse3 fma cx16 pcid sse4_1 "
    "sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave avx f16c rdrand hypervisor lahf_lm abm "
    "fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap clflushopt clwb avx512cd "
    "avx512bw avx512vl xsaveopt xsavec avx512_vnni vaes gfni amx_tile amx_int8"
)
ODD = "vmx aes avx2 avx512f avx512_vnni amx_tile fma adx vaes gfni clwb abm"
"""What hosts differ in, each in its own way: no fleet that was bought is so mixed."""
RACKS = 40


def told(number: int) -> CapabilityReport:
    """What host `number` reports: like others in most, and in some things like none."""
    chance = random.Random(number)
    flags = sorted(set(FLAGS.split()) - set(chance.sample(ODD.split(), chance.randrange(0, 8))))
    memory = chance.choice((16, 32, 64, 128, 256, 512))
    return fleet.report(
        number,
        traits=tuple(sorted(of_flags("x86_64", flags))),
        arch="x86_64",
        cpu_flags=flags,
        cpu_count=chance.choice((8, 16, 32, 64, 96)),
        cpu_model=f"CPU model {chance.randrange(12)}",
        memory=memory * 1_048_576 - chance.randrange(500_000),
        memory_gib=memory,
        os_id=chance.choice(("debian", "rhel", "ubuntu")),
        os_version=str(chance.randrange(8, 13)),
        kernel=f"6.{chance.randrange(12)}.{chance.randrange(90)}",
        disks=chance.randrange(1, 12),
        disk_bytes=chance.randrange(10**13),
        ssd=chance.random() < 0.7,
        virtualization=chance.choice(("none", "kvm")),
        numa_nodes=chance.choice((1, 2, 4)),
        firmware_version=f"{chance.randrange(3)}.{chance.randrange(40)}",
        hardware_vendor=chance.choice(("Dell", "HPE", "Lenovo")),
        rack=f"r{chance.randrange(RACKS)}",
    )


def rule(name: str, body: str) -> str:
    return f'[[rule]]\nname = "{name}"\n{body}\n'


def rules_text(count: int) -> Iterator[str]:
    """So many rules; a host is in about fifteen aggregates."""
    yield rule("arch", 'aggregate = "arch-{arch}"\nmetadata = { arch = "{arch}" }')
    yield rule("os", 'aggregate = "os-{os_id}-{os_version}"\nmetadata = { os_id = "{os_id}" }')
    yield rule("model", 'aggregate = "{cpu_model}"')
    for flag in ODD.split():
        yield rule(
            flag,
            f'aggregate = "cpu-{flag}"\nrequirements = {{ cpu_flags = "<in> {flag}", cpu_count = ">= 32" }}',
        )
    for at in range(RACKS):
        yield rule(f"rack{at}", f'aggregate = "rack{at}"\nrequirements = {{ rack = "r{at}" }}')
    for at in range(count - 3 - len(ODD.split()) - RACKS):
        yield rule(
            f"class{at}",
            f'aggregate = "class{at}"\ntraits = ["HW_CPU_X86_AVX2"]\n'
            f'requirements = {{ memory_gib = ">= {16 + 8 * at}", disks = "{at % 12}" }}\n'
            f'metadata = {{ class = "{at}" }}',
        )


def rules_of(count: int) -> RuleSet:
    return parse("".join(rules_text(count)))


def filled(directory: Path, hosts: int) -> Store:
    """A store in which so many hosts have reported, and no rule has looked at them."""
    store = fleet.new_store(directory)
    with store.write() as connection:
        for start in range(0, hosts, 1000):
            rows = [row_of(number) for number in range(start, min(start + 1000, hosts))]
            connection.execute(insert(HOSTS), rows)
    return store


def row_of(number: int) -> dict[str, object]:
    arrival = arrival_of(told(number))
    kept = {name: getattr(arrival, name) for name in ("uuid", "hostname", "boot_id", "sequence", "facts")}
    kept |= {name: getattr(arrival, name) for name in ("agent_version", "traits", "digest", "summary")}
    times = {"generation": 1, "first_seen": 1, "last_seen": time.time_ns(), "stamp": 0}
    return {**kept, **times, "report": arrival.report}


def naive(subjects: list[Subject], rules: RuleSet) -> int:
    """Every requirement of every rule against every host: what a filter loop does, and nothing else."""
    held = 0
    for subject in subjects:
        for each in rules.rules:
            held += _holds(each, subject)
    return held


def _holds(rule_: Rule, subject: Subject) -> bool:
    for condition in rule_.conditions:
        fact = subject.facts.get(condition.fact)
        if not condition.requirement.match(fact.value if fact else None):
            return False
    return all(trait in subject.traits for trait in rule_.traits)


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds by the clock, and of the processor."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.processor:.2f})"


def bring(store: Store, rules: RuleSet) -> tuple[Taken, Reconciled]:
    wall, processor = time.perf_counter(), time.process_time()
    done = Reconciler(store, RuleSet(())).load(rules, "bench", approve=True)
    return Taken(time.perf_counter() - wall, time.process_time() - processor), done


def measured(hosts: int, count: int, runs: int) -> float:
    """Processor seconds for the whole fleet."""
    text = "".join(rules_text(count))
    rules = parse(text)
    with tempfile.TemporaryDirectory() as path:
        store = filled(Path(path), hosts)
        first, _ = bring(store, rules)
        moved = parse(text.replace('rack = "r1"', 'rack = "r2"').replace('rack = "r3"', 'rack = "r4"'))
        seconds, changed = bring(store, moved)
        again, _ = bring(store, parse(text + "\n# the same\n"))
        affected = changed.forecast.affected
        sample = [subject_of(told(number)) for number in range(min(hosts, 1000))]
        peer = median(lambda: naive(sample, rules), 3) * hosts / len(sample)
        owed = f"{OWED_FLEET:g} s" if hosts == AT else ""
        tell(
            f"{hosts} hosts, {count} rules, two changed: {affected} hosts move",
            str(seconds),
            beside=f"bare loop over the matches {peer:.2f} s, ratio {seconds.wall / peer:.2f}",
            owed=owed,
            holds=seconds.wall <= OWED_FLEET if owed else None,
        )
        print(f"    every host joins its first: {first}; two rules back: {again}", flush=True)
        _one_host(store, rules, hosts, runs)
        store.close()
    return seconds.processor


def _one_host(store: Store, rules: RuleSet, hosts: int, runs: int) -> None:
    intake, numbers = Intake(store, rules), iter(range(2, 10**6))
    last = subject_of(told(1))

    def change() -> None:
        number = next(numbers)
        report = told(1)
        report.facts["memory_gib"] = fleet.fact([16, 512][number % 2])
        intake.take(replace(report, sequence=number))

    mine = median(change, runs) * 1000
    peer = median(lambda: naive([last], rules), runs) * 1000
    owed = f"{OWED_HOST:g} ms" if hosts == AT else ""
    beside = f"bare loop {peer:.2f} ms, ratio {mine / peer:.1f}"
    holds = mine <= OWED_HOST if owed else None
    tell(f"one changed host of {hosts}", f"{mine:.1f} ms", beside=beside, owed=owed, holds=holds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default=[1_000, 10_000, 100_000],
                        type=lambda text: [int(part) for part in text.split(",")])  # fmt: skip
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
    base = 0.0
    for hosts in options.hosts:
        seconds = measured(hosts, options.rules, options.runs)
        base = base or seconds / hosts
        print(
            f"growth {hosts:7} hosts  {seconds:6.2f} s, {seconds / hosts / base:.2f} of linear", flush=True
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
