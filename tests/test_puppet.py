"""The scheme `puppet`: a real one in a booted machine, and one of ours for each way in which it can end."""

import json
import os
import time
from pathlib import Path

import pytest

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Timeout
from libmh.linux.config.puppet import Puppet
from libmh.schemes import Edit
from programs_of_others import booted_with, left_in, plan_and_run_twice, put
from testbed.machine import booted_host
from waiting import wait_for

FILE = "/Stage[main]/Main/File"
DIFF = "--- /etc/a\n+++ /etc/a\n@@ -1 +1 @@\n-old\n+new\n"
PRINTED = "\n--- /etc/a\t2026\n+++ /tmp/puppet-file1\t2026\n@@ -1 +1 @@\n-old\n+new\n"
ENTRIES = (
    ("notice", "Puppet", "Compiled catalog"),
    ("notice", f"{FILE}[/etc/a]/content", PRINTED),
    ("notice", f"{FILE}[/etc/a]/content", "current_value 'x', should be 'y' (noop)"),
    ("notice", f"{FILE}[/etc/a]/mode", "current_value '0644', should be '0600' (noop)"),
    ("notice", f"{FILE}[/etc/b]/ensure", "current_value 'absent', should be 'file' (noop)"),
    ("notice", "/Stage[main]/Main/Package[x]/ensure", "should be 'present' (noop)"),
    ("err", "Puppet", "Could not do it"),
)
NAMES = ("level", "source", "message")
LOG = (
    "[\n"
    + "\n,\n".join(json.dumps(dict(zip(NAMES, each, strict=True))) for each in ENTRIES)
    + '\n,\n{"level":'
)
FAKE = """
case $1 in --version) echo ${VERSION:-7.23.0}; exit;; esac
echo "$@" >ARGUMENTS
for last; do [ "$previous" = --logdest ] && [ "$last" != console ] && cp LOG "$last"; previous=$last; done
"""


def fake(root: Path, end: str) -> tuple[Puppet, Path]:
    """A puppet that tells LOG and ends so, and what it was asked."""
    (root / "etc").mkdir()
    (root / "etc/a").write_text("old\n")
    (root / "state").mkdir()
    (root / "log").write_text(LOG)
    script = FAKE.replace("ARGUMENTS", str(root / "asked")).replace("LOG", str(root / "log"))
    put(root, "puppet", script + end)
    return Puppet(Root(root), root / "state"), root / "asked"


def test_a_dry_run_tells_of_each_file(tmp_path: Path) -> None:
    puppet, asked = fake(tmp_path, "exit 0")
    forecast = puppet.forecast("file {}", 20)
    assert forecast.edits == (
        Edit("/etc/a", b"old\n", None, f"mode: current_value '0644', should be '0600' (noop)\n{DIFF}"),
        Edit("/etc/b", None, None, "ensure: current_value 'absent', should be 'file' (noop)\n"),
    )
    assert not forecast.exact
    assert "notice: /Stage[main]/Main/Package[x]/ensure: should be 'present' (noop)\n" in forecast.output
    assert asked.read_text().startswith("apply ")
    assert "--noop --show_diff --detailed-exitcodes" in asked.read_text()
    assert left_in(tmp_path / "state") == []


@pytest.mark.parametrize(
    ("code", "failed", "changed"),
    [(0, False, False), (2, False, True), (4, True, True), (6, True, True), (1, True, True)],
)
def test_exit_codes_are_detailed(tmp_path: Path, code: int, failed: bool, changed: bool) -> None:
    puppet, asked = fake(tmp_path, f"exit {code}")
    execution = puppet.run("file {}", 20)
    assert (execution.code, execution.failed, execution.changed) == (code, failed, changed)
    assert "--noop" not in asked.read_text()


def test_what_does_not_compile_is_no_plan(tmp_path: Path) -> None:
    puppet, _ = fake(tmp_path, "exit 1")
    with pytest.raises(BackendFailed, match="puppet: Could not do it"):
        puppet.forecast("file {", 20)
    with pytest.raises(InvalidArguments):
        puppet.forecast("file {}\0", 20)


def test_a_master_is_asked_by_its_uri(tmp_path: Path) -> None:
    puppet, asked = fake(tmp_path, "exit 2")
    assert not puppet.run("puppet://master.example", 20).failed
    assert asked.read_text().startswith("agent --test --server master.example --show_diff")
    puppet.forecast("puppet://master.example/", 20)
    assert "--noop" in asked.read_text()
    puppet.run("puppet://-x --evil", 20)
    assert asked.read_text().startswith("apply ")


def test_its_time_passes_for_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    end = f"setsid sleep 60 & echo $! >{pids}; echo $$ >>{pids}; sleep 60"
    puppet, _ = fake(tmp_path, end)
    with pytest.raises(Timeout, match="did not end within"):
        puppet.run("file {}", 0.7)
    assert len(pids.read_text().split()) == 2
    wait_for(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids.read_text().split()))
    assert left_in(tmp_path / "state") == []


def test_what_killed_runs_left_behind_goes(tmp_path: Path) -> None:
    puppet, _ = fake(tmp_path, "exit 0")
    for name, age in (("run-old", 10_000), ("run-new", 10), ("other", 10_000)):
        (tmp_path / "state" / name).mkdir()
        os.utime(tmp_path / "state" / name, (time.time() - age,) * 2)
    puppet.run("file {}", 20)
    assert [path.name for path in left_in(tmp_path / "state")] == ["other", "run-new"]


def test_a_missing_one_names_its_package_and_an_old_one_its_version(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedHere, match="apt-get install puppet-agent"):
        Puppet(Root(tmp_path)).forecast("", 5)
    put(tmp_path, "puppet", "echo 2.7.1")
    with pytest.raises(NotImplementedHere, match=r"puppet '2\.7\.1'"):
        Puppet(Root(tmp_path)).forecast("", 5)


SLOW = """#!/bin/sh
[ "$1" = --version ] && echo 7.23.0 && exit
(setsid sleep 321 &)
sleep 321
"""
KILLED = """
from libmh.context import Root
from libmh.errors import Timeout
from libmh.linux.config.puppet import Puppet
try:
    Puppet(Root()).run("file {}", 1.0)
except Timeout as problem:
    print(problem)
"""


def test_its_time_passes_for_its_unit() -> None:
    files = {"/usr/bin/puppet": SLOW, "/etc/killed.py": KILLED}
    with booted_host("killed", files=files) as host:
        assert "did not end within 1 s" in host.python("/etc/killed.py").stdout
        wait_for(lambda: not host.run("pgrep", "-fx", "sleep 321", check=False).stdout)
        units = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "matahari-run-*")
        wait_for(lambda: not host.run(*units).stdout.strip())


def test_a_real_one_in_a_booted_machine() -> None:
    manifest = """
file { '/etc/mh-a': content => "new\\n" }
exec { '/bin/sh -c "sleep 500 & cat /proc/self/cgroup >/etc/mh-unit"': creates => '/etc/mh-unit' }
"""
    with booted_with("puppet-agent", {"/etc/mh-a": "old\n", "/etc/mh.pp": manifest}) as host:
        forecast, run, again = plan_and_run_twice(host, "puppet:Puppet", "/etc/mh.pp")
        told = {edit["path"]: edit for edit in forecast["edits"]}
        assert told["/etc/mh-a"]["before"] == "old\n"
        assert told["/etc/mh-a"]["told"].endswith("@@ -1 +1 @@\n-old\n+new\n")
        assert (run["code"], run["failed"], again["code"], again["changed"]) == (2, False, 0, False)
        assert host.run("cat", "/etc/mh-a").stdout == "new\n"
        assert "/matahari-run-" in host.run("cat", "/etc/mh-unit").stdout
        assert host.run("pgrep", "-x", "sleep", check=False).stdout == ""
