"""Actions on the units of a real systemd: what became of them, told at once."""

import threading
import time
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

from libmh.api.services import Action, JobResult, Outcome, Whom
from libmh.caller import LOCAL, Stop, answering
from libmh.errors import InvalidArguments, NotFound
from libmh.linux.services import LinuxServices
from service_units import context_of, machine_with_units
from testbed.machine import Host
from waiting import wait_for

NOT_NAMES = ["../../bin/true", "/bin/true", "..", "-H", "--help", "a b", "a\0b", "x" * 300, "*", "ä"]


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with machine_with_units("actions") as host:
        yield host


@pytest.fixture(scope="module")
def services(machine: Host) -> LinuxServices:
    return LinuxServices(context_of(machine))


def state(machine: Host, unit: str, what: str = "ActiveState") -> str:
    return machine.run("systemctl", "show", "-P", what, unit).stdout.strip()


def test_start_restart_stop(services: LinuxServices, machine: Host) -> None:
    started = services.act("mh-runs", Action.START)
    assert (started.unit, started.verb, started.result) == ("mh-runs.service", "start", JobResult.DONE)
    assert (started.active_state, started.sub_state, started.reason, started.log) == (
        "active",
        "running",
        None,
        None,
    )
    before = state(machine, "mh-runs", "MainPID")
    assert services.restart("mh-runs.service").result is JobResult.DONE
    assert state(machine, "mh-runs", "MainPID") != before
    stopped = services.act("mh-runs", Action.STOP)
    assert (stopped.result, stopped.active_state) == (JobResult.DONE, "inactive")
    assert state(machine, "mh-runs") == "inactive"


def test_the_ancestors_start_and_stop(services: LinuxServices) -> None:
    assert [services.start("mh-runs", 5000), services.status("mh-runs", 0)] == [0, 0]
    assert [services.stop("mh-runs", 5000), services.status("mh-runs", 0)] == [0, 3]
    assert services.start("mh-fails", 5000) == 1
    assert services.start("mh-killed", 5000) == 194
    assert services.start("mh-slow", 300) == 198
    assert services.start("mh-absent", 5000) == 5
    assert services.stop("mh-slow", 5000) == 0


def failed(outcome: Outcome) -> tuple[JobResult, str | None, int | None]:
    return outcome.result, outcome.service_result, outcome.exit_status


def test_a_failure_says_why(services: LinuxServices) -> None:
    outcome = services.act("mh-fails", Action.START)
    assert failed(outcome) == (JobResult.FAILED, "exit-code", 7)
    assert outcome.reason == "could not start 'mh-fails.service': its process exited with status 7"
    assert (outcome.active_state, outcome.load_state) == ("failed", "loaded")
    said = [line.message for line in outcome.log or ()]
    assert "no such luck" in said
    assert any("status=7" in line for line in said)
    killed = services.act("mh-killed", Action.START)
    assert failed(killed) == (JobResult.FAILED, "signal", 9)
    assert killed.reason is not None
    assert "SIGKILL" in killed.reason


def test_a_dependency_that_fails(services: LinuxServices) -> None:
    outcome = services.act("mh-needy", Action.START)
    assert outcome.result is JobResult.DEPENDENCY
    assert outcome.reason == "cannot start 'mh-needy.service': a unit that it depends on failed"


def test_the_callers_limit_and_the_units(services: LinuxServices, machine: Host) -> None:
    began = time.monotonic()
    outcome = services.act("mh-slow", Action.START, 300)
    assert time.monotonic() - began < 20
    assert (outcome.result, outcome.active_state) == (JobResult.TIMEOUT, "activating")
    assert state(machine, "mh-slow") == "activating"
    assert services.act("mh-slow", Action.STOP).result is JobResult.DONE
    own = services.act("mh-limited", Action.START)
    assert (own.result, own.service_result) == (JobResult.TIMEOUT, "timeout")
    assert own.reason == "'mh-limited.service' took longer to start than its unit file allows"


def test_a_job_can_be_cancelled(services: LinuxServices, machine: Host) -> None:
    stop, outcomes = Stop(), list[Outcome]()

    def start() -> None:
        with answering(LOCAL, stop=stop):
            outcomes.append(services.act("mh-slow", Action.START, 60_000))

    starting = threading.Thread(target=start)
    starting.start()
    wait_for(lambda: "mh-slow" in machine.run("systemctl", "list-jobs", "--no-legend").stdout, seconds=60)
    wait_for(stop.pull, seconds=60)
    starting.join(60)
    (outcome,) = outcomes
    assert outcome.result is JobResult.CANCELLED
    assert outcome.reason == "to start 'mh-slow.service' was cancelled, by hand or by another job"
    assert services.act("mh-slow", Action.STOP).result is JobResult.DONE
    assert stop.pull() is True  # once more changes nothing


def test_a_condition_that_is_not_met(services: LinuxServices) -> None:
    outcome = services.act("mh-unmet", Action.START)
    assert (outcome.result, outcome.active_state) == (JobResult.SKIPPED, "inactive")
    assert outcome.reason == "'mh-unmet.service' was not started: a condition of its unit file is not met"


def test_what_ends_at_once_was_done_and_is_not_kept(services: LinuxServices, machine: Host) -> None:
    for verb in (Action.START, Action.RESTART):
        outcome = services.act("mh-once@1", verb)
        assert (outcome.result, outcome.active_state) == (JobResult.DONE, "inactive")
    listed = machine.run("systemctl", "list-units", "--all", "--no-legend", "mh-once@*", "mh-unmet*")
    assert not listed.stdout.strip()


def test_a_unit_that_refuses_to_stop_is_killed(services: LinuxServices, machine: Host) -> None:
    assert services.act("mh-deaf", Action.START).result is JobResult.DONE
    wait_for(lambda: machine.run("test", "-e", "/run/mh-deaf", check=False).returncode == 0)
    outcome = services.act("mh-deaf", Action.STOP)
    assert failed(outcome) == (JobResult.DONE, "timeout", None)
    assert outcome.active_state == "failed"


def test_children_end_with_their_unit(services: LinuxServices, machine: Host) -> None:
    assert services.act("mh-forks", Action.START).active_state == "active"
    assert machine.run("pgrep", "-fc", "sleep 100[01]").stdout.strip() == "2"
    assert services.act("mh-forks", Action.STOP).result is JobResult.DONE
    assert machine.run("pgrep", "-fc", "sleep 1001", check=False).stdout.strip() == "0"


def test_reload(services: LinuxServices) -> None:
    services.act("mh-reloads", Action.START)
    assert services.reload("mh-reloads").result is JobResult.DONE
    services.act("mh-runs", Action.START)
    refused = services.reload("mh-runs")
    assert refused.result is JobResult.FAILED
    assert refused.reason is not None
    assert "not applicable" in refused.reason
    assert services.act("mh-runs", Action.RELOAD_OR_RESTART).result is JobResult.DONE
    services.act("mh-runs", Action.STOP)
    services.act("mh-runs", Action.TRY_RESTART)
    assert services.status("mh-runs", 0) == 3


def test_templates_and_aliases(services: LinuxServices) -> None:
    assert services.act("mh-many@a", Action.START).unit == "mh-many@a.service"
    assert services.act("dbus-org.freedesktop.login1", Action.TRY_RESTART).unit == "systemd-logind.service"
    assert services.act("dbus.socket", Action.START).active_state == "active"


def test_enable_and_disable(services: LinuxServices, machine: Host) -> None:
    def enabled() -> str:
        return machine.run("systemctl", "is-enabled", "mh-runs", check=False).stdout.strip()

    assert (services.enable("mh-runs"), enabled()) == (0, "enabled")
    assert (services.enable("mh-runs"), enabled()) == (0, "enabled")
    assert (services.disable("mh-runs"), enabled()) == (0, "disabled")
    assert services.enable("mh-fails") == 6
    assert services.enable("mh-absent") == 5
    assert services.disable("mh-absent") == 5


def test_mask_and_unmask(services: LinuxServices, machine: Host) -> None:
    unit = "systemd-localed"  # one in /usr/lib: what is in /etc itself cannot be masked
    masked = services.mask(unit)
    assert (masked.result, masked.load_state) == (JobResult.DONE, "masked")
    refused = services.act(unit, Action.START)
    assert refused.result is JobResult.FAILED
    assert refused.reason is not None
    assert "masked" in refused.reason
    assert services.unmask(unit).load_state == "loaded"
    in_the_way = services.mask("mh-runs")
    assert (in_the_way.result, in_the_way.load_state) == (JobResult.FAILED, "loaded")
    assert in_the_way.reason


def test_kill_and_reset(services: LinuxServices, machine: Host) -> None:
    services.act("mh-runs", Action.START)
    assert services.kill("mh-runs", "KILL", Whom.MAIN).result is JobResult.DONE
    wait_for(lambda: state(machine, "mh-runs") == "failed")
    assert services.reset_failed("mh-runs").active_state == "inactive"
    nobody = services.kill("mh-runs", "sigterm", Whom.MAIN)
    assert nobody.result is JobResult.FAILED
    assert nobody.reason
    for wrong in ("", "0", "65", "TERM;reboot", "-9"):
        with pytest.raises(InvalidArguments, match="signal"):
            services.kill("mh-runs", wrong)


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_is_no_name_reaches_nothing(services: LinuxServices, name: str) -> None:
    for verb in (services.restart, services.mask, services.kill, services.logs, services.describe):
        with pytest.raises(InvalidArguments, match="name"):
            verb(name)
    assert [services.start(name, 1000), services.enable(name), services.disable(name)] == [5, 5, 5]


def test_an_unknown_unit_is_not_found(services: LinuxServices) -> None:
    for verb in (services.restart, services.mask, services.kill, services.logs, services.describe):
        with pytest.raises(NotFound, match=r"mh-absent\.service"):
            verb("mh-absent")


def test_logs(services: LinuxServices, machine: Host) -> None:
    services.start("mh-fails", 5000)
    machine.run("journalctl", "--sync")
    lines = services.logs("mh-fails")
    assert [line.time for line in lines] == sorted(line.time for line in lines)
    spoken = next(line for line in reversed(lines) if line.message == "no such luck")
    assert (spoken.identifier, spoken.priority) == ("sh", 6)
    assert spoken.pid
    assert len(services.logs("mh-fails", 2)) == 2
    assert services.logs("mh-fails", 2)[-1] == lines[-1]
    assert services.logs("mh-fails", 10, time.time_ns()) == []
    assert services.logs("mh-fails", 10, lines[-1].time)[-1] == lines[-1]


def test_description_as_meta_data(services: LinuxServices) -> None:
    agent = ET.fromstring(services.describe("mh-reloads").encode())
    assert agent.attrib["name"] == "mh-reloads"
    actions = {each.attrib["name"] for each in agent.iter("action")}
    assert actions == {"start", "stop", "restart", "reload", "status"}
    runs = ET.fromstring(services.describe("mh-runs").encode())
    assert runs.findtext("shortdesc") == "Runs"
    assert "reload" not in {each.attrib["name"] for each in runs.iter("action")}
