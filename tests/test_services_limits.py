"""What the edges of `Services` say: names too long, a reload refused, more actions than fit."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from libmh.api.services import Action, JobResult
from libmh.errors import InvalidArguments, Unavailable
from libmh.linux import services as linux
from libmh.linux.services import LinuxServices
from service_units import context_of, machine_with_units
from source_tree import ROOT
from testbed.machine import Host
from waiting import wait_for

NO_NAMES = ["x" * 248, "x" * 300, f"{'x' * 248}.service", "-x", "a b", "../runs", "@.service", "ä", "many@@"]
SLOW = "[Service]\nType=oneshot\nExecStart=/bin/sleep 20\n"
DENY = """<busconfig><policy context="mandatory">
<deny send_interface="org.freedesktop.systemd1.Manager" send_member="Reload"/></policy></busconfig>"""
AGENT = "[Service]\nType=notify\nExecStart={} -m mh_dbus.main --state /var/lib/mh\n"
CLIENTS = 60
CONSOLE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from libmh.api.host import Host
from libmh.api.services import Services
from libmh.client import connect
from libmh.errors import Problem

def act(number):
    with connect("system:") as there:
        try:
            return there.proxy(Services).restart(f"mh-waits@{number}", 40_000).result
        except Problem as problem:
            return f"{problem.word}: {problem}"

def timed(ask):
    began = time.monotonic()
    ask()
    return time.monotonic() - began

with ThreadPoolExecutor(int(sys.argv[1])) as pool, connect("system:") as there:
    services, host = there.proxy(Services), there.proxy(Host)
    services.units(), host.hostname
    asked = [pool.submit(act, number) for number in range(int(sys.argv[1]))]
    end = time.monotonic() + 15
    while len(services.units("mh-waits@[0-9]*", "activating")) < int(sys.argv[2]) and time.monotonic() < end:
        pass
    print(len(services.units("mh-waits@[0-9]*", "activating")))
    reads = (services.units, lambda: host.hostname, lambda: services.status("mh-runs", 0))
    print(max(timed(read) for _ in range(5) for read in reads))
    for each in asked:
        print(each.result())
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    files = {
        "/etc/systemd/system/mh-waits@.service": SLOW,
        "/etc/systemd/system/agent.service": AGENT.format(sys.executable),
        "/srv/console.py": CONSOLE,
        "/usr/lib/systemd/system/mh-reloads-not.service": "[Service]\nExecStart=/bin/sleep 9\n",
    }
    for path in (ROOT / "packaging").glob("dbus-1/system.d/*.conf"):
        files[f"/usr/share/dbus-1/system.d/{path.name}"] = path.read_text("utf-8")
    with machine_with_units("limits", files) as host:
        host.run("systemctl", "reload", "dbus")
        yield host


@pytest.fixture(scope="module")
def services(machine: Host) -> LinuxServices:
    return LinuxServices(context_of(machine))


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_no_unit_can_have_is_not_installed(services: LinuxServices, name: str) -> None:
    assert [services.enable(name), services.disable(name)] == [5, 5]
    assert [services.start(name, 1000), services.stop(name, 1000), services.status(name, 0)] == [5, 5, 4]


def test_the_empty_name_is_a_mistake(services: LinuxServices) -> None:
    for ask in (services.enable, services.disable, services.start, services.stop, services.restart):
        with pytest.raises(InvalidArguments, match="got ''"):
            ask("")


def test_a_change_that_is_made_is_done_though_nobody_reloads(
    services: LinuxServices, machine: Host, caplog: pytest.LogCaptureFixture
) -> None:
    machine.run("sh", "-c", f"cat >/etc/dbus-1/system.d/deny.conf <<'end'\n{DENY}\nend")
    machine.run("systemctl", "reload", "dbus")
    try:
        assert services.enable("mh-runs") == 0
        assert "links of units are changed, but systemd has not read its files again" in caplog.text
        for act, link in ((services.mask, "/dev/null\n"), (services.unmask, "")):
            outcome = act("mh-reloads-not")
            assert outcome.result is JobResult.DONE
            assert outcome.reason is not None
            assert "is done on the disk, but systemd has not read its files again: " in outcome.reason
            read = machine.run("readlink", "/etc/systemd/system/mh-reloads-not.service", check=False)
            assert read.stdout == link
    finally:
        machine.run("rm", "/etc/dbus-1/system.d/deny.conf")
        machine.run("systemctl", "reload", "dbus")
    assert services.mask("mh-reloads-not").reason is None


def test_more_actions_than_there_is_room_for_are_refused_at_once(
    services: LinuxServices, monkeypatch: pytest.MonkeyPatch, machine: Host
) -> None:
    monkeypatch.setattr(linux, "MAX_ACTIONS", 2)
    few = LinuxServices(context_of(machine))
    few.status("mh-runs", 0)
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(few.act, f"mh-waits@{number}", Action.START, 3000) for number in "ab"]
        wait_for(lambda: few._places._value == 0)
        with pytest.raises(Unavailable, match="2 actions on services are under way"):
            few.restart("mh-runs")
        assert few.reset_failed("mh-runs").result is JobResult.DONE  # what is quick is always taken
        assert [each.result().result for each in begun] == [JobResult.TIMEOUT] * 2
    assert few.restart("mh-runs").result is JobResult.DONE


def test_long_starts_keep_no_reader_waiting(machine: Host) -> None:
    machine.run("systemctl", "start", "agent", seconds=60)
    said = console(machine).stdout.splitlines()
    under_way, slowest, results = int(said[0]), float(said[1]), said[2:]
    assert under_way == linux.MAX_ACTIONS, " ".join(said)
    assert slowest < 1
    assert results.count("done") == linux.MAX_ACTIONS
    refused = [each for each in results if each != "done"]
    assert len(refused) == CLIENTS - linux.MAX_ACTIONS
    assert all(each.startswith("unavailable: cannot restart 'mh-waits@") for each in refused)


def console(machine: Host) -> "subprocess.CompletedProcess[str]":
    began = time.monotonic()
    arguments = ("/srv/console.py", str(CLIENTS), str(linux.MAX_ACTIONS))
    done = machine.python(*arguments, seconds=90, check=False)
    assert not done.returncode, done.stderr
    assert time.monotonic() - began > 15
    return done
