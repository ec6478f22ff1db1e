"""Services under the real OpenRC of Debian: its own tools run them, in a root that it manages."""

import json
from typing import Any

import pytest

from testbed.machine import booted_host, with_packages

ROOT = "/srv/root"
PREPARE = f"""set -e
mkdir -p {ROOT}
mount --bind / {ROOT}
mount --make-private {ROOT}
mount -t tmpfs tmpfs {ROOT}/run
for directory in dev proc sys; do mount --rbind /$directory {ROOT}/$directory; done
mkdir -p {ROOT}/run/openrc
touch {ROOT}/run/openrc/softlevel
chroot {ROOT} rc-status default
"""
"""As OpenRC itself prepares a root in which it is not the first process."""
SCRIPTS = {
    "runs": """#!/sbin/openrc-run
description="Sleeps"
command=/bin/sleep
command_args=1000
command_background=yes
pidfile=/run/mh-runs.pid
""",
    "fails": """#!/sbin/openrc-run
start() { eerror "no such luck"; return 1; }
""",
    "slow": """#!/sbin/openrc-run
start() { sleep 60; }
""",
    "clings": """#!/sbin/openrc-run
start() { true; }
stop() { test -e /run/let-go || sleep 60; }
""",
    "crashed": """#!/sbin/openrc-run
start() { true; }
status() { return 32; }
""",
}
ASK = f"""
import json
from pathlib import Path
from libmh.api.services import Action
from libmh.context import Context, Root
from libmh.linux.services import LinuxServices

services = LinuxServices(Context(root=Root(Path("{ROOT}"))))

def shown(name):
    (unit,) = services.units(name)
    return [unit.active_state, unit.sub_state, unit.enablement]

def acted(name, verb, timeout=20_000):
    told = services.act(name, verb, timeout)
    return [told.result, told.active_state, told.sub_state, told.exit_status, told.reason]

def code(name):
    return services.status(name, 9000)

def twice(do, name):
    return [do(name), do(name), shown(name)]

told = dict(
    listed="mh-runs" in services.list_services(),
    before=[code("mh-runs"), shown("mh-runs")],
    start=[services.start("mh-runs", 9000), code("mh-runs"), shown("mh-runs")],
    restart=acted("mh-runs", Action.RESTART),
    active=[each.name for each in services.units("mh-*", "active")],
    reload=acted("mh-runs", Action.RELOAD),
    stop=[services.stop("mh-runs", 9000), code("mh-runs"), shown("mh-runs")],
    enable=twice(services.enable, "mh-runs"),
    disable=twice(services.disable, "mh-runs"),
    fails=[services.start("mh-fails", 9000), acted("mh-fails", Action.START)],
    said=[each.message.strip(" *") for each in services.act("mh-fails", Action.START).log],
    slow=[acted("mh-slow", Action.START, 700), code("mh-slow")],
    after=[services.stop("mh-slow", 9000), shown("mh-slow")],
    clings=[services.start("mh-clings", 9000), acted("mh-clings", Action.STOP, 700), code("mh-clings")],
    crashed=[services.start("mh-crashed", 9000), code("mh-crashed")],
    absent=[services.start("mh-absent", 9000), code("mh-absent"), services.enable("mh-absent")],
)
Path("{ROOT}/run/let-go").touch()
told["let go"] = [services.stop("mh-clings", 9000), shown("mh-clings")]
print(json.dumps(told))
"""
STOPPED = ["inactive", "stopped", "disabled"]
STARTED = ["active", "started", "disabled"]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    files = {f"/etc/init.d/mh-{name}": text for name, text in SCRIPTS.items()} | {"/srv/ask.py": ASK}
    with booted_host("openrc", files=files, layers=[with_packages("openrc")]) as host:
        host.run("sh", "-c", PREPARE)
        done = host.python("/srv/ask.py", seconds=90, check=False)
        assert not done.returncode, done.stderr
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers


def test_a_service_starts_and_stops(told: dict[str, Any]) -> None:
    assert told["listed"]
    assert told["before"] == [3, STOPPED]
    assert told["start"] == [0, 0, STARTED]
    assert told["restart"] == ["done", "active", "started", None, None]
    assert told["active"] == ["mh-runs.service"]
    assert told["stop"] == [0, 3, STOPPED]
    assert told["absent"] == [5, 4, 5]


def test_runlevels_say_what_starts_with_the_machine(told: dict[str, Any]) -> None:
    assert told["enable"] == [0, 0, ["inactive", "stopped", "enabled"]]
    assert told["disable"] == [0, 0, STOPPED]


def test_a_failure_says_why(told: dict[str, Any]) -> None:
    reason = "could not start 'mh-fails': its script ended with 1"
    assert told["fails"] == [1, ["failed", "inactive", "stopped", 1, reason]]
    assert told["said"] == ["no such luck", "ERROR: mh-fails failed to start"]
    assert told["reload"][:3] == ["failed", "active", "started"]


def test_what_is_killed_on_its_way_can_be_had_to_go_on(told: dict[str, Any]) -> None:
    reason = "the time to {} 'mh-{}' has passed: its script was killed"
    slow = ["timeout", "activating", "starting", 198, reason.format("start", "slow")]
    assert told["slow"] == [slow, 3]
    assert told["after"] == [0, STOPPED]
    clings = ["timeout", "deactivating", "stopping", 198, reason.format("stop", "clings")]
    assert told["clings"] == [0, clings, 0]
    assert told["let go"] == [0, STOPPED]


def test_its_codes_are_told_as_those_of_lsb(told: dict[str, Any]) -> None:
    assert told["crashed"] == [0, 1]
