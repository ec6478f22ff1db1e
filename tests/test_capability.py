"""From what a host tells to its capability report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import os_traits
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmh import traits
from libmh.api.aggregates import CapabilityReport
from libmh.api.host import Fact, FactStatus, Host
from libmh.capability import FACTS, Facts, Reporter, build, seconds_since_boot, survey
from libmh.context import Context, Settings
from libmh.declaration import type_of
from libmh.errors import Unavailable
from libmh.linux.host import LinuxHost
from libmh.spec import Plain, interface_of
from libmh.wire import dump, parse

SSD = {"name": "nvme0n1", "size": 10, "rotational": False, "removable": False, "read_only": False}
STICK = {"name": "sdb", "size": 5, "rotational": True, "removable": True, "read_only": False}
TOLD: dict[str, Plain] = {
    "uuid": "11111111111111111111111111111111",
    "hostname": "node1",
    "boot_id": "b1",
    "arch": "x86_64",
    "cpu_flags": "fpu avx2 avx512f aes vmx avx512_vnni unheard_of",
    "cpu_topology": {"sockets": 1, "cores": 4, "threads": 8, "threads_per_core": 2, "numa_nodes": 1},
    "operating_system": {"id": "debian", "name": "Debian GNU/Linux 12 (bookworm)", "version": "12"},
    "memory": 16_300_000,
    "disks": [SSD, STICK],
}


class ToldHost:
    """A host that tells what a test gives it."""

    def __init__(self, **told: Plain) -> None:
        self.told = {
            name: Fact(FactStatus.OK, f"source of {name}", 1, value)
            for name, value in {**TOLD, **told}.items()
        }

    def facts(self) -> dict[str, Fact]:
        return self.told


def values(host: Facts) -> dict[str, Plain]:
    return {name: fact.value for name, fact in survey(host).facts.items()}


def test_facts_are_ready_for_rules() -> None:
    seen = values(ToldHost())
    assert seen["cpu_flags"] == sorted(str(TOLD["cpu_flags"]).split())
    assert (seen["os_id"], seen["os_version"], seen["os_id_like"]) == ("debian", "12", None)
    assert seen["memory_gib"] == 16
    assert (seen["ssd"], seen["hdd"], seen["disks"], seen["disk_bytes"]) == (True, False, 1, 10)
    assert seen["virtualization_capable"] is True
    assert seen["cpu_threads_per_core"] == 2


def test_traits_are_named_by_os_traits() -> None:
    assert survey(ToldHost()).traits == (
        "HW_ARCH_X86_64",
        "HW_CPU_HYPERTHREADING",
        "HW_CPU_X86_AESNI",
        "HW_CPU_X86_AVX2",
        "HW_CPU_X86_AVX512F",
        "HW_CPU_X86_AVX512VNNI",
        "HW_CPU_X86_INTEL_VMX",
        "HW_CPU_X86_VMX",
        "STORAGE_DISK_SSD",
    )


def test_flags_mean_nothing_on_another_architecture() -> None:
    assert survey(ToldHost(arch="s390x")).traits == (
        "HW_ARCH_S390X",
        "HW_CPU_HYPERTHREADING",
        "STORAGE_DISK_SSD",
    )
    assert "HW_CPU_AARCH64_AES" in survey(ToldHost(arch="aarch64", cpu_flags="aes sve")).traits


def test_every_trait_is_in_the_vocabulary() -> None:
    assert traits.KNOWN - set(os_traits.get_traits()) == set()


def test_every_origin_is_a_property_of_host() -> None:
    members = interface_of(Host).members
    assert {derivation.origin for derivation in FACTS.values()} <= set(members)


def test_a_fact_that_failed_says_why_and_costs_no_other() -> None:
    host = ToldHost()
    host.told["disks"] = Fact(FactStatus.TIMEOUT, "/sys/block", 5, reason="no answer within 2 s")
    host.told["operating_system"] = replace(host.told["operating_system"], value=["not", "a", "record"])
    del host.told["memory"]
    facts = survey(host).facts
    assert facts["ssd"] == Fact(FactStatus.TIMEOUT, "/sys/block", 5, reason="no answer within 2 s")
    assert facts["os_id"].status is FactStatus.FAILED
    assert "unexpected shape" in (facts["os_id"].reason or "")
    assert facts["memory_gib"].status is FactStatus.UNSUPPORTED
    assert facts["arch"].value == "x86_64"


def test_a_stale_fact_keeps_its_value() -> None:
    host = ToldHost()
    host.told["arch"] = Fact(FactStatus.STALE, "uname(2)", 5, "x86_64", "the last read failed")
    assert survey(host).facts["arch"] == host.told["arch"]


@given(
    st.dictionaries(
        st.sampled_from(sorted({d.origin for d in FACTS.values()})),
        st.none() | st.text() | st.lists(st.integers()),
    )
)
def test_no_shape_of_a_fact_breaks_the_report(told: dict[str, Any]) -> None:
    assert set(survey(ToldHost(**told)).facts) == set(FACTS)


@pytest.mark.parametrize("name", ["uuid", "hostname", "boot_id"])
def test_a_host_without_identity_is_not_reported(name: str) -> None:
    with pytest.raises(Unavailable, match=name):
        survey(ToldHost(**{name: "not-available"}))


def at_boot() -> float:
    return 0.0


def numbers(report: CapabilityReport) -> tuple[int, int]:
    return report.sequence, report.generation


def test_numbers_outlive_the_agent_and_start_again_with_a_boot(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    first = Reporter(ToldHost(), Settings(file), at_boot)
    assert numbers(first.report()) == (1, 1)
    assert numbers(first.report()) == (2, 1)
    assert not first.changed()
    assert numbers(build(ToldHost(), Settings(file), at_boot)) == (3, 1)
    grown = Reporter(ToldHost(memory=32_600_000), Settings(file), at_boot)
    assert grown.changed()
    assert numbers(grown.report()) == (4, 2)
    assert not grown.changed()
    assert numbers(build(ToldHost(boot_id="b2"), Settings(file), at_boot)) == (1, 1)


def test_the_time_of_observation_is_no_change() -> None:
    host = ToldHost()
    reporter = Reporter(host, Settings(), at_boot)
    reporter.report()
    host.told = {name: replace(fact, observed=99) for name, fact in host.told.items()}
    assert not reporter.changed()
    host.told["arch"] = replace(host.told["arch"], status=FactStatus.STALE)
    assert reporter.changed()


def test_what_is_measured_is_told_and_is_no_change() -> None:
    host = ToldHost(load={"1": 0.5, "5": 1.0, "15": 1.5}, available_mem=4096, cpu_utilization=0.25)
    reporter = Reporter(host, Settings(), at_boot)
    first = reporter.report()
    assert first.metrics == {"load_1m": 0.5, "cpu_utilization": 0.25, "memory_available": 4096.0}
    host.told |= ToldHost(load={"1": 9}, available_mem="much", cpu_utilization=float("nan")).told
    assert not reporter.changed()
    second = reporter.report()
    assert (second.generation, second.metrics) == (first.generation, {"load_1m": 9.0})
    host.told["load"] = replace(host.told["load"], status=FactStatus.STALE)
    assert reporter.report().metrics == {}
    assert build(ToldHost(), Settings(), at_boot).metrics == {}


def test_settings_that_are_damaged_cost_the_count_and_no_report(tmp_path: Path) -> None:
    damaged = tmp_path / "settings.json"
    damaged.write_text("{broken")
    reporter = Reporter(ToldHost(), Settings(damaged), at_boot)
    assert reporter.changed()
    assert [reporter.report().sequence, reporter.report().sequence] == [1, 2]
    assert (tmp_path / "settings.json.damaged").read_text() == "{broken"
    assert build(ToldHost(), Settings(damaged), at_boot).sequence == 3


def test_numbers_grow_even_when_what_persisted_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    before = [Reporter(ToldHost(), Settings(file), lambda: 1000.5).report().sequence for _ in range(3)]
    assert before == [1000, 1001, 1002]
    file.unlink()
    assert Reporter(ToldHost(), Settings(file), lambda: 1060.0).report().sequence == 1060


def test_the_clock_of_the_numbers_runs_since_boot() -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= seconds_since_boot() - uptime < 5


def test_reporting_goes_on_when_nothing_can_be_written() -> None:
    reporter = Reporter(ToldHost(), Settings(Path("/proc/nowhere/settings.json")), at_boot)
    assert [numbers(reporter.report()) for _ in range(3)] == [(1, 1), (2, 1), (3, 1)]


def test_spoilt_numbers_count_as_none() -> None:
    settings = Settings()
    settings.set("report", {"boot_id": "b1", "sequence": "many", "generation": -3})
    assert numbers(build(ToldHost(), settings, at_boot)) == (1, 1)


def test_this_machine_can_be_reported() -> None:
    report = build(LinuxHost(Context()), Settings())
    declared = type_of("report", CapabilityReport)
    assert parse(declared, dump(declared, report, "report"), "report") == report
    assert report.facts["arch"].status is FactStatus.OK
    assert report.facts["memory_gib"].value
    assert set(report.metrics or ()) == {"load_1m", "cpu_utilization", "memory_available"}
