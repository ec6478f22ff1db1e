"""Units followed: the table stays what systemd has, events tell of changes, storms stay small."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from libmh.api.services import Action, JobResult
from libmh.context import Context, Root
from libmh.events import Event
from libmh.linux.daemons import SYSTEMD
from libmh.linux.init.line import UNIT, Asked, Line
from libmh.linux.init.unitnames import unit_path
from libmh.linux.init.unitwatch import UnitWatch
from libmh.linux.services import LinuxServices
from service_units import context_of, machine_with_units
from testbed.machine import Host
from waiting import wait_for

FLAP = "for n in $(seq 150); do systemctl start mh-flaps@1; systemctl stop mh-flaps@1; done; "
FLAP += "systemctl start mh-flaps@1"


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with machine_with_units("watch") as host:
        yield host


class Heard:
    """The events of a context."""

    def __init__(self, context: Context) -> None:
        self.events: list[Event] = []
        context.events.subscribe(self.events.append)

    def of(self, unit: str, member: str = "service_changed") -> list[Event]:
        return [e for e in self.events if (e.fields["unit"], e.member) == (unit, member)]

    def states(self, unit: str) -> list[str]:
        return [str(event.fields["new_state"]) for event in self.of(unit)]


@pytest.fixture
def context(machine: Host) -> Context:
    return context_of(machine)


@pytest.fixture
def heard(context: Context) -> Heard:
    return Heard(context)


@pytest.fixture
def services(context: Context, heard: Heard) -> Iterator[LinuxServices]:
    watching = LinuxServices(context)
    watching.watch()
    wait_for(lambda: warm(watching), seconds=15)
    yield watching
    watching.close()


def warm(services: LinuxServices) -> bool:
    systemd = services._systemd
    return systemd is not None and systemd._watch is not None and systemd._watch.current


def asked(context: Context) -> LinuxServices:
    """One that asks anew at each call."""
    return LinuxServices(context)


def test_the_table_is_what_systemd_answers(services: LinuxServices, context: Context) -> None:
    services.start("mh-runs", 5000)
    services.start("mh-fails", 5000)
    cold, warm_ones = ({unit.name: unit for unit in each.units()} for each in (asked(context), services))
    assert warm_ones.keys() == cold.keys()
    for name in ("mh-runs.service", "mh-fails.service", "dbus.socket", "system.slice", "basic.target"):
        assert warm_ones[name] == cold[name]
    assert [unit.name for unit in services.units("mh-r*")] == ["mh-runs.service"]
    assert services.units("mh-fails")[0].exit_status == 7
    assert {unit.active_state for unit in services.units(state="failed")} == {"failed"}


def test_what_was_done_is_in_the_table_at_once(services: LinuxServices) -> None:
    for _ in range(10):
        assert services.act("mh-runs", Action.START).result is JobResult.DONE
        (unit,) = services.units("mh-runs")
        assert (unit.active_state, unit.sub_state) == ("active", "running")
        services.act("mh-runs", Action.STOP)
        assert services.units("mh-runs", "active") == []


class SlowLine(Line):
    """While it waits for the last of its answers, the unit changes, once."""

    watch: UnitWatch
    changed = False

    async def get(self, asked: Sequence[Asked]) -> list[Any]:
        states = {"ActiveState": "inactive", "SubState": "dead", "LoadState": "loaded"}
        news = {} if self.changed else {"ActiveState": "activating", "SubState": "start"}
        self.changed = True
        self.watch._heard("PropertiesChanged", asked[0][0], [UNIT, news, []])
        return [states.get(name, "mh-x.service") for _, _, name in asked]


def test_news_is_not_undone_by_an_older_answer(tmp_path: Path) -> None:
    watch = UnitWatch("unix:path=/no/such", Root(tmp_path), lambda _change: None, lambda _name, _body: None)
    watch.line = line = SlowLine("unix:path=/no/such", watch._heard)
    line.watch = watch
    path = unit_path("mh-x.service")

    async def work() -> None:
        watch._heard("UnitNew", SYSTEMD.path, ["mh-x.service", path])
        await watch._add()

    asyncio.run(work())
    assert watch.table.told(path)["ActiveState"] == "activating"
    assert watch.table.told(path)["Description"] == "mh-x.service"


def test_new_and_lost_units(services: LinuxServices, machine: Host) -> None:
    machine.run("systemctl", "start", "mh-many@new")
    wait_for(lambda: [unit.fragment_path for unit in services.units("mh-many@new", "active")])
    machine.run("systemctl", "stop", "mh-many@new")
    wait_for(lambda: not services.units("mh-many@new"))


def test_enablement_follows_the_files(services: LinuxServices, machine: Host) -> None:
    machine.run("systemctl", "start", "mh-runs")
    wait_for(lambda: [unit.enablement for unit in services.units("mh-runs")] == ["disabled"])
    machine.run("systemctl", "enable", "mh-runs")
    wait_for(lambda: [unit.enablement for unit in services.units("mh-runs")] == ["enabled"])
    machine.run("systemctl", "disable", "mh-runs")
    wait_for(lambda: [unit.enablement for unit in services.units("mh-runs")] == ["disabled"])


def test_events_tell_of_a_failure(services: LinuxServices, machine: Host, heard: Heard) -> None:
    machine.run("systemctl", "reset-failed", "mh-late", check=False)
    machine.run("systemctl", "start", "mh-late")
    wait_for(lambda: heard.states("mh-late.service")[-1:] == ["failed"])
    last = heard.of("mh-late.service")[-1].fields
    assert (last["result"], last["why"]) == ("exit-code", "its process exited with status 9")
    assert (last["old_state"], last["sub_state"]) == ("active", "failed")


def test_a_storm_is_told_in_few_words_and_to_the_end(
    services: LinuxServices, machine: Host, heard: Heard
) -> None:
    began = time.monotonic()
    machine.run("sh", "-c", FLAP, seconds=60)
    took = time.monotonic() - began
    wait_for(lambda: services.units("mh-flaps@1", "active"))
    wait_for(lambda: heard.states("mh-flaps@1.service")[-1:] == ["active"])
    assert len(heard.of("mh-flaps@1.service")) <= took / 0.2 + 2
    assert services._systemd is not None
    assert services._systemd._watch is not None
    new = services._systemd._watch._new
    wait_for(lambda: not new)  # what is new is taken up a moment after it was told


def test_long_jobs_tell_how_they_go(services: LinuxServices, machine: Host, heard: Heard) -> None:
    outcome = services.act("mh-slow", Action.START, 1500)
    assert outcome.result is JobResult.TIMEOUT
    wait_for(lambda: heard.of("mh-slow.service", "job_changed"))
    first = heard.of("mh-slow.service", "job_changed")[0].fields
    assert (first["verb"], first["state"]) == ("start", "running")
    assert isinstance(first["seconds"], float)
    assert 0.9 < first["seconds"] < 1.5
    services.stop("mh-slow", 5000)
    wait_for(lambda: heard.of("mh-slow.service", "job_changed")[-1].fields["state"] == "canceled")
    assert not heard.of("mh-runs.service", "job_changed")


@pytest.mark.parametrize("again", [["systemctl", "daemon-reexec"], ["systemctl", "restart", "dbus"]])
def test_it_heals(
    services: LinuxServices, machine: Host, heard: Heard, context: Context, again: list[str]
) -> None:
    services.stop("mh-runs", 5000)
    machine.run(*again)
    assert isinstance(asked(context).units(), list)
    wait_for(lambda: services.start("mh-runs", 5000) == 0, seconds=15)
    wait_for(lambda: heard.states("mh-runs.service")[-1:] == ["active"], seconds=15)
    wait_for(lambda: warm(services), seconds=15)
    assert [unit.active_state for unit in services.units("mh-runs")] == ["active"]


def test_a_reload_of_systemd_keeps_the_table(services: LinuxServices, machine: Host) -> None:
    machine.run("systemctl", "start", "mh-runs")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "mh-runs")
    wait_for(lambda: not services.units("mh-runs", "active"))
    machine.run("systemctl", "start", "mh-runs")
    wait_for(lambda: services.units("mh-runs", "active"))


def test_a_unit_in_full(services: LinuxServices) -> None:
    services.start("mh-needy", 1000)
    needy = services.unit("mh-needy")
    assert "mh-fails.service" in needy.requires
    assert "mh-fails.service" in needy.after
    assert (needy.unit.name, needy.can_start, needy.can_reload) == ("mh-needy.service", True, False)
    services.start("mh-unmet", 1000)
    (condition,) = services.unit("mh-unmet").conditions
    assert (condition.name, condition.parameter) == ("ConditionPathExists", "/no/such")
    assert condition.met is not True  # systemd may have forgotten: nothing holds the unit
    assert services.unit("dbus").triggered_by == ["dbus.socket"]
    assert services.unit("mh-limited").start_timeout == 0.3
    assert services.unit("basic.target").unit.active_state == "active"
