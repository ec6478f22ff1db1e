"""The scheme `ansible`: a real one in a booted machine, and one of ours for each way in which it can end."""

import json
from pathlib import Path

import pytest

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Timeout
from libmh.linux.config import ansible_callback
from libmh.linux.config.ansible import Ansible
from libmh.schemes import Edit
from programs_of_others import booted_with, left_in, plan_and_run_twice, put
from waiting import wait_for

PLAY = "- hosts: localhost\n  tasks: []\n"
DIFF = "--- before: /etc/a\n+++ after: /tmp/x\n@@ -1 +1 @@\n-old\n+new\n\n\n"
TOLD = (
    {"event": "changed", "task": "copy", "diffs": [{"path": "/etc/a", "text": DIFF}]},
    {
        "event": "changed",
        "task": "mode",
        "diffs": [{"path": "/etc/a", "text": "--- before\n+++ after\n@@\n"}],
    },
    {"event": "changed", "task": "apt", "message": "x", "diffs": [{"path": "", "text": "a package"}]},
    {"event": "changed", "task": "secret", "hidden": True, "diffs": []},
    {"event": "failed", "task": "last", "message": "no such user"},
)


def fake(root: Path, told: object, end: str) -> tuple[Ansible, Path]:
    """An ansible-playbook that tells this and ends so, and what it was asked."""
    (root / "etc").mkdir()
    (root / "etc/a").write_text("old\n")
    (root / "state").mkdir()
    lines = told if isinstance(told, tuple) else ()
    (root / "log").write_text("".join(json.dumps(each) + "\n" for each in lines) + '[]\n{"event":')
    script = (
        f'echo "$@" $ANSIBLE_STDOUT_CALLBACK >{root}/asked; cp {root}/log "$MATAHARI_ANSIBLE_LOG"; {end}'
    )
    put(root, "ansible-playbook", script)
    return Ansible(Root(root), root / "state"), root / "asked"


def test_check_mode_tells_of_each_file(tmp_path: Path) -> None:
    ansible, asked = fake(tmp_path, TOLD, "exit 2")
    forecast = ansible.forecast(PLAY, 20)
    named = "--- /etc/a\n+++ /etc/a\n"
    assert forecast.edits == (
        Edit("/etc/a", b"old\n", None, f"{named}@@ -1 +1 @@\n-old\n+new\n{named}@@\n"),
    )
    assert not forecast.exact
    assert (
        "changed: apt: x\na package\nchanged: secret: (hidden)\nfailed: last: no such user"
        in forecast.output
    )
    options = "--inventory localhost, --connection local --limit localhost --check --diff"
    assert asked.read_text().startswith(options)
    assert asked.read_text().endswith(" matahari\n")
    assert left_in(tmp_path / "state") == []


@pytest.mark.parametrize(("code", "failed"), [(0, False), (2, True), (4, True), (1, True), (250, True)])
def test_an_exit_code_says_whether_it_failed(tmp_path: Path, code: int, failed: bool) -> None:
    ansible, asked = fake(tmp_path, TOLD, f"exit {code}")
    execution = ansible.run(PLAY, 20)
    assert (execution.code, execution.failed, execution.changed) == (code, failed, True)
    assert "--check" not in asked.read_text()


def test_what_is_no_playbook_is_no_plan(tmp_path: Path) -> None:
    ansible, _ = fake(tmp_path, (), "echo 'ERROR! no YAML' >&2; exit 4")
    with pytest.raises(BackendFailed, match="ansible-playbook: ERROR! no YAML"):
        ansible.forecast(PLAY, 20)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- hosts: web\n", "line 1: 'hosts: web'"),
        (
            "- name: x\n  hosts: localhost,web\n  tasks:\n  - delegate_to: 'web'\n",
            "line 4: 'delegate_to: web'",
        ),
        ("- hosts: all\n  connection: ssh\n", "line 2: 'connection: ssh'"),
        ("- {hosts: [web]}", "line 1"),
        ("\0", "without NUL"),
    ],
)
def test_other_hosts_are_refused(tmp_path: Path, text: str, told: str) -> None:
    ansible, asked = fake(tmp_path, (), "exit 0")
    with pytest.raises(InvalidArguments, match=told):
        ansible.run(text, 20)
    assert not asked.exists()


def test_what_looks_like_other_hosts_is_not_refused(tmp_path: Path) -> None:
    ansible, asked = fake(tmp_path, (), "exit 0")
    text = "    - copy:\n        dest: /etc/nsswitch.conf\n        content: |\n          hosts: files dns\n"
    ansible.run(f"- name: x\n  hosts: localhost\n  connection: local\n  tasks:\n{text}", 20)
    assert asked.exists()


def test_a_play_for_nobody_here_is_refused(tmp_path: Path) -> None:
    ansible, _ = fake(tmp_path, ({"event": "nobody"},), "exit 0")
    with pytest.raises(InvalidArguments, match="not for localhost"):
        ansible.run("- hosts: all\n", 20)


def test_its_time_passes_for_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ansible, _ = fake(tmp_path, (), f"setsid sleep 60 & echo $! >{pids}; echo $$ >>{pids}; sleep 60")
    with pytest.raises(Timeout, match="did not end within"):
        ansible.forecast(PLAY, 0.7)
    assert len(pids.read_text().split()) == 2
    wait_for(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids.read_text().split()))
    assert left_in(tmp_path / "state") == []


def test_a_missing_one_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedHere, match="apt-get install ansible-core"):
        Ansible(Root(tmp_path)).forecast(PLAY, 5)


def test_the_plugin_finds_the_file_of_a_diff() -> None:
    path_of = ansible_callback.path_of
    assert path_of({"before_header": "/etc/a (content)"}, {}) == "/etc/a"
    assert path_of({"after_header": "/tmp/x"}, {"invocation": {"dest": "/etc/b"}}) == "/etc/b"
    assert path_of({}, {"invocation": {"module_args": {"path": "/etc/c"}}}) == "/etc/c"
    assert path_of({"prepared": "x"}, {"invocation": {"module_args": {"name": "vim"}}}) == ""


def test_a_real_one_in_a_booted_machine() -> None:
    playbook = """
- hosts: localhost
  gather_facts: false
  tasks:
    - copy: {dest: /etc/mh-a, content: "new\\n"}
    - copy: {dest: /etc/mh-secret, content: "hunter2"}
      no_log: true
    - command:
        cmd: "sh -c 'sleep 500 >/dev/null 2>&1 & cat /proc/self/cgroup >/etc/mh-unit'"
        creates: /etc/mh-unit
"""
    with booted_with("ansible-core", {"/etc/mh-a": "old\n", "/etc/mh.yml": playbook}) as host:
        forecast, run, again = plan_and_run_twice(host, "ansible:Ansible", "/etc/mh.yml")
        (edit,) = forecast["edits"]
        assert (edit["path"], edit["before"]) == ("/etc/mh-a", "old\n")
        assert edit["told"] == "--- /etc/mh-a\n+++ /etc/mh-a\n@@ -1 +1 @@\n-old\n+new\n"
        assert "hunter2" not in str([forecast, run, again])
        assert (run["code"], run["failed"], run["changed"], again["changed"]) == (0, False, True, False)
        assert host.run("cat", "/etc/mh-a").stdout == "new\n"
        assert "/matahari-run-" in host.run("cat", "/etc/mh-unit").stdout
        assert host.run("pgrep", "-x", "sleep", check=False).stdout == ""
