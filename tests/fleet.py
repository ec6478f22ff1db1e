"""Hosts and rules for the tests of the fleet side."""

import time
from pathlib import Path

from libmh.api.aggregates import CapabilityReport
from libmh.api.host import Fact, FactStatus
from libmh.spec import Plain
from mh_conductor.intake import Intake
from mh_conductor.reconcile import Reconciled, Reconciler
from mh_conductor.rules import RuleSet, parse
from mh_conductor.store import Store, open_store

SEEN = 1_700_000_000 * 10**9
RULES = """
[[rule]]
name = "arch"
aggregate = "arch-{arch}"
metadata = { arch = "{arch}" }

[[rule]]
name = "avx512"
aggregate = "avx512"
requirements = { cpu_flags = "<in> avx512f" }
metadata = { cpu_avx512 = "true" }

[[rule]]
name = "big"
aggregate = "big"
requirements = { memory_gib = ">= 64" }
"""
TOLD: dict[str, Plain] = {"arch": "x86_64", "cpu_flags": ["aes", "avx512f"], "memory_gib": 16}


def fact(value: Plain, status: FactStatus = FactStatus.OK, reason: str | None = None) -> Fact:
    return Fact(status, "source", SEEN, value, reason)


def uuid_of(number: int) -> str:
    return f"{number:032x}"


def report(
    number: int = 1,
    sequence: int = 1,
    boot: str = "boot1",
    traits: tuple[str, ...] = (),
    hostname: str = "",
    **told: Plain,
) -> CapabilityReport:
    """Of host `number`; a keyword is a fact's value, or a whole fact."""
    values = {**TOLD, **told}
    return CapabilityReport(
        schema="1.0",
        uuid=uuid_of(number),
        hostname=hostname or f"node{number}",
        boot_id=boot,
        sequence=sequence,
        generation=1,
        created=time.time_ns(),
        agent_version="1.0",
        facts={name: fact(value) for name, value in values.items()},
        traits=list(traits),
    )


def with_facts(made: CapabilityReport, **facts: Fact) -> CapabilityReport:
    made.facts.update(facts)
    return made


def rules(text: str = RULES) -> RuleSet:
    return parse(text)


def new_store(directory: Path) -> Store:
    return open_store(f"sqlite:///{directory / 'conductor.db'}")


def new_intake(directory: Path, text: str = RULES) -> Intake:
    return Intake(new_store(directory), rules(text))


def bring(store: Store, text: str) -> Reconciled:
    """Put rules in force, however much they change."""
    return Reconciler(store, RuleSet(())).load(rules(text), "test", approve=True)
