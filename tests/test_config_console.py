"""`mhctl config` on a booted machine: through its agent on the system bus, and over AMQP."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from source_tree import ROOT
from testbed.machine import Host, booted_host
from waiting import wait_for

PORT = 5698
BUS, AMQP = "system:", f"amqp://127.0.0.1:{PORT}"
MHCTL = "import sys; from libmh.cli.main import main; sys.argv[0] = 'mhctl'; main()"
SSHD = "/etc/ssh/sshd_config"
BEFORE = "Port 22\n# nobody comes in as root\nPermitRootLogin yes\n"
AGENT = f"""[Service]
Group=root
ExecStart=
ExecStart={sys.prefix}/bin/mh-dbus --state /var/lib/matahari --only Sysconfig
"""
OVER_AMQP = f"""[Service]
Type=notify
ExecStart={sys.prefix}/bin/mh-amqp --listen 127.0.0.1:{PORT} --state /var/lib/matahari --only Sysconfig \
--config /etc/console.toml
"""
FILES = {
    SSHD: BEFORE,
    "/etc/console.toml": '[authority]\n"*" = "operator"\n',
    "/etc/systemd/system/mh-dbus.service.d/test.conf": AGENT,
    "/etc/systemd/system/over-amqp.service": OVER_AMQP,
}


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    files = dict(FILES)
    for pattern, below in (
        ("dbus-1/system.d/*.conf", "/usr/share"),
        ("polkit-1/actions/*.policy", "/usr/share"),
        ("systemd/mh-dbus.service", "/etc"),
    ):
        for path in (ROOT / "packaging").glob(pattern):
            inside = f"{below}/{path.relative_to(ROOT / 'packaging')}"
            files[inside.replace("/etc/systemd/", "/etc/systemd/system/")] = path.read_text("utf-8")
    with booted_host("config", files=files) as host:
        host.run("systemctl", "start", "mh-dbus.service", "over-amqp.service")
        yield host


def console(machine: Host, url: str, *words: str, piped: str = "") -> "subprocess.CompletedProcess[str]":
    command = shlex.join([sys.executable, "-c", MHCTL, "--on", url, *words])
    return machine.run("sh", "-c", f"printf %s {shlex.quote(piped)} | {command}", check=False)


def content(machine: Host, path: str = SSHD) -> str:
    return machine.run("cat", path).stdout


@pytest.mark.parametrize("url", [BUS, AMQP])
def test_a_setting_is_shown_applied_and_undone(machine: Host, url: str) -> None:
    done = console(machine, url, "--json", "config", "set", SSHD, "PermitRootLogin", "no", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(done.stdout)["run"]
    assert (run["result"], run["files"]) == ("applied", [SSHD])
    assert "-PermitRootLogin yes\n+PermitRootLogin no\n" in done.stderr
    assert content(machine) == BEFORE.replace("Login yes", "Login no")
    assert console(machine, url, "config", "get", SSHD, "PermitRootLogin").stdout == "no\n"
    again = console(machine, url, "config", "set", SSHD, "PermitRootLogin", "no", "--yes")
    assert again.stdout == "nothing to change\n"
    undone = console(machine, url, "config", "undo", run["id"], "--yes")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert content(machine) == BEFORE


@pytest.mark.parametrize("url", [BUS, AMQP])
def test_a_plan_is_what_is_applied_or_nothing(machine: Host, url: str) -> None:
    text = "set /files/etc/hosts/1/alias[1] console\nsave\n"
    plan = json.loads(console(machine, url, "--json", "config", "plan", "augeas", "-", piped=text).stdout)
    hosts = content(machine, "/etc/hosts")
    machine.run("sh", "-c", "echo 192.0.2.1 somebody >>/etc/hosts")
    refused = console(machine, url, "config", "apply", plan["id"], "--yes")
    assert refused.returncode == 1
    assert "hint: plan it again" in refused.stderr
    assert content(machine, "/etc/hosts") == hosts + "192.0.2.1 somebody\n"
    machine.run("sed", "-i", "$d", "/etc/hosts")
    used = console(machine, url, "config", "apply", plan["id"], "--yes")
    assert "it was applied, or has expired (not-found)" in used.stderr


def test_what_nobody_confirms_is_undone(machine: Host) -> None:
    words = ("config", "set", SSHD, "Port", "2222", "--confirm", "2", "--yes")
    done = console(machine, BUS, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unless 'mhctl --on system: config confirm " in done.stdout
    wait_for(lambda: content(machine) == BEFORE, 20, "it was undone")
    wait_for(lambda: "not confirmed in time" in console(machine, BUS, "config", "history").stdout, 10)
    kept = json.loads(console(machine, BUS, "--json", *words[:-3], "--confirm", "60", "--yes").stdout)["run"]
    confirmed = console(machine, BUS, "config", "confirm", kept["id"])
    assert confirmed.stdout.startswith(f"applied: {SSHD}"), confirmed.stderr
    assert console(machine, BUS, "config", "undo", kept["id"], "--yes").returncode == 0


def test_drift_is_an_exit_code(machine: Host) -> None:
    console(machine, BUS, "config", "set", SSHD, "X11Forwarding", "no", "--yes", "--key", "x11")
    assert console(machine, BUS, "config", "drift").returncode == 0
    assert console(machine, BUS, "config", "is_configured", "x11").stdout.startswith("OK")
    machine.run("sh", "-c", f"printf 'Banner \\033[2Jx\\n' >>{SSHD}")
    drifted = console(machine, BUS, "config", "drift")
    assert drifted.returncode == 1
    assert "+Banner \\x1b[2Jx\n" in drifted.stdout
    machine.run("sed", "-i", "$d", SSHD)


def test_a_value_is_found_by_its_path(machine: Host) -> None:
    assert console(machine, AMQP, "config", "query", f"/files{SSHD}/Port").stdout == "22\n"
    assert console(machine, BUS, "config", "query", f"/files{SSHD}/Absent").returncode == 1
