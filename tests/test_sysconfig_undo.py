"""Taking runs back: by hand, by a deadline that the agent need not outlive; and what drifted meanwhile."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config_schemes import Machine, furnished, machine, text
from deaths import lived
from libmh.api.sysconfig import Run, RunResult
from libmh.errors import Conflict, InvalidArguments, NotFound
from libmh.linux import deadman
from libmh.linux.config import configuring
from waiting import wait_for

CHANGE = {"/etc/a": "uno\n", "/etc/b": None, "/etc/new/sub/d": "four\n"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    made = furnished(tmp_path)
    made.path("/etc/b").chmod(0o600)
    yield made
    for run in made.sysconfig.history("", 1000):
        made.sysconfig._runs._performer.disarm(run.id)
    made.sysconfig.close()


def applied(host: Machine, confirm: int = 0, key: str = "key") -> Run:
    return host.sysconfig.apply(host.sysconfig.plan("augeas", text(CHANGE)).id, key, confirm)


def results(host: Machine) -> list[object]:
    return [event.fields["result"] for event in host.events]


def test_an_undone_run_leaves_no_trace_on_the_host(host: Machine) -> None:
    before = host.tree()
    run = applied(host)
    plan = host.sysconfig.undo(run.id)
    assert plan.scheme == "undo"
    assert [file.path for file in plan.files] == ["/etc/a", "/etc/b", "/etc/new/sub/d"]
    assert "-uno\n+one\n" in plan.files[0].diff
    assert host.tree() != before
    undoing = host.sysconfig.apply(plan.id)
    assert host.tree() == before
    assert undoing.result is RunResult.APPLIED
    undone = host.sysconfig.configured("key")
    assert undone.result is RunResult.UNDONE
    assert undone.undone_by == undoing.id
    assert host.sysconfig.is_configured("key") == "unknown"
    assert results(host) == ["applied", "applied", "undone"]
    with pytest.raises(Conflict, match="undone"):
        host.sysconfig.undo(run.id)


def test_an_undoing_can_be_undone(host: Machine) -> None:
    run = applied(host)
    after = host.tree()
    undoing = host.sysconfig.apply(host.sysconfig.undo(run.id).id)
    host.sysconfig.apply(host.sysconfig.undo(undoing.id).id)
    assert host.tree() == after


def test_the_key_has_the_status_from_before_again(host: Machine) -> None:
    host.sysconfig.run_string(text({"/etc/c": "tre\n"}, output="first"), 0, "augeas", "key")
    run = applied(host)
    host.sysconfig.apply(host.sysconfig.undo(run.id).id)
    assert host.sysconfig.is_configured("key") == "OK\nfirst"


def test_a_file_that_changed_since_is_not_undone(host: Machine) -> None:
    run = applied(host)
    plan = host.sysconfig.undo(run.id)
    host.path("/etc/a").write_text("by hand\n")
    before = host.tree()
    with pytest.raises(Conflict, match="has changed since"):
        host.sysconfig.apply(plan.id)
    with pytest.raises(Conflict, match="has changed since"):
        host.sysconfig.undo(run.id)
    assert host.tree() == before
    assert host.sysconfig.history()[-1].result is RunResult.APPLIED


def test_two_undo_plans_of_one_run(host: Machine) -> None:
    run = applied(host)
    first, second = host.sysconfig.undo(run.id), host.sysconfig.undo(run.id)
    host.sysconfig.apply(first.id)
    with pytest.raises(Conflict):
        host.sysconfig.apply(second.id)


@pytest.mark.parametrize("name", ["", "0" * 16, "../../x", "x" * 9999])
def test_a_run_that_is_none(host: Machine, name: str) -> None:
    for member in (host.sysconfig.undo, host.sysconfig.confirm):
        with pytest.raises(NotFound):
            member(name)


def test_confirmed_in_time_it_stays(host: Machine) -> None:
    run = applied(host, confirm=60)
    assert run.result is RunResult.PENDING
    assert run.confirm_by is not None
    assert 55 < (run.confirm_by - run.time) / 1e9 < 65
    confirmed = host.sysconfig.confirm(run.id)
    assert confirmed.result is RunResult.APPLIED
    assert confirmed.confirm_by is None
    assert host.sysconfig.confirm(run.id) == confirmed
    assert host.sysconfig._runs._performer.expire(run.id) is None
    assert host.path("/etc/a").read_text() == "uno\n"
    assert results(host) == ["pending", "applied"]


def test_not_confirmed_it_is_undone_and_that_is_told(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "GRACE", 0.5)
    before = host.tree()
    run = applied(host, confirm=1)
    wait_for(lambda: "undone" in results(host), seconds=10)
    assert host.tree() == before
    with pytest.raises(Conflict, match="undone"):
        host.sysconfig.confirm(run.id)
    undone = host.sysconfig.configured("key")
    assert undone.reason == "it was not confirmed in time"
    assert host.sysconfig.is_configured("key") == "unknown"


def test_not_confirmed_it_is_undone_though_the_agent_is_dead(host: Machine) -> None:
    before = host.tree()

    def die() -> None:
        applied(machine(host.base), confirm=1)
        signal.raise_signal(signal.SIGKILL)

    assert not lived(die, kill="truncate:1")
    assert host.path("/etc/a").read_text() == "uno\n"
    wait_for(lambda: not host.path("/etc/new").exists(), seconds=15)  # the last thing that it does
    assert host.tree() == before
    assert wait_for(lambda: host.sysconfig.configured("key").result is RunResult.UNDONE, seconds=5)


def test_without_a_process_left_the_next_agent_undoes_it(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the host."""
    before = host.tree()
    monkeypatch.setattr(configuring, "GRACE", 0.0)
    monkeypatch.setattr(deadman, "arm", lambda *_arguments: None)
    run = applied(host, confirm=1)
    host.sysconfig.close()
    again = machine(host.base)
    again.sysconfig.watch()
    wait_for(lambda: "undone" in results(again), seconds=10)
    assert again.tree() == before
    assert again.sysconfig.configured("key").id == run.id
    again.sysconfig.close()


def test_of_confirm_and_undo_exactly_one_wins(host: Machine) -> None:
    import threading

    for turn in range(8):
        before = host.tree()
        run = applied(host, confirm=600, key=f"k{turn}")
        after = host.tree()
        other = host.another()
        won: list[str] = []

        def confirm(other: Machine = other, run: Run = run, won: list[str] = won) -> None:
            try:
                won.append(other.sysconfig.confirm(run.id).result)
            except Conflict:
                won.append("conflict")

        thread = threading.Thread(target=confirm)
        thread.start()
        undone = host.sysconfig._runs._performer.expire(run.id)
        thread.join(10)
        other.sysconfig.close()
        assert (won == ["conflict"]) is (undone is not None)
        assert host.tree() == (after if undone is None else before)
        if undone is None:
            host.sysconfig.apply(host.sysconfig.undo(run.id).id)


def test_a_deadline_takes_back_what_somebody_changed_meanwhile_and_keeps_it(host: Machine) -> None:
    before = host.tree()
    run = applied(host, confirm=600)
    host.path("/etc/a").write_text("by hand\n")
    host.sysconfig._runs._performer.expire(run.id)
    assert host.tree() == before
    undoing = host.sysconfig.history()[0]
    host.sysconfig.apply(host.sysconfig.undo(undoing.id).id)
    assert host.path("/etc/a").read_text() == "by hand\n"


def test_a_program_that_runs_must_be_confirmed_too(host: Machine) -> None:
    before = host.tree()
    plan = host.sysconfig.plan("puppet", text({"/etc/a": "uno\n", "/etc/b": None}, told=True))
    run = host.sysconfig.apply(plan.id, "", 600)
    assert run.result is RunResult.PENDING
    host.sysconfig._runs._performer.expire(run.id)
    assert host.tree() == before


def test_a_time_that_is_too_long_is_refused(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text(CHANGE))
    with pytest.raises(InvalidArguments, match="86400"):
        host.sysconfig.apply(plan.id, "", 86_401)
    assert host.sysconfig.apply(plan.id, "", 0).result is RunResult.APPLIED


def test_what_is_armed_says_what_is_wrong(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "libmh.linux.config.undoing"]
    done = subprocess.run([*program, str(tmp_path), "0" * 16, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no run" in done.stderr
    assert subprocess.run(program, capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("meanwhile", "path", "missing", "diff"),
    [
        (lambda etc: (etc / "a").write_text("by hand\n"), "/etc/a", False, "-uno\n+by hand\n"),
        (lambda etc: (etc / "a").unlink(), "/etc/a", True, "-uno\n"),
        (lambda etc: (etc / "b").write_text("back\n"), "/etc/b", True, "+back\n"),
        (lambda etc: ((etc / "a").unlink(), (etc / "a").mkdir()), "/etc/a", True, ""),
        (lambda etc: (etc / "new/sub/d").write_bytes(b"\0\xff"), "/etc/new/sub/d", False, "Binary files"),
    ],
)
def test_what_drifted_is_seen(
    host: Machine, meanwhile: Callable[[Path], object], path: str, missing: bool, diff: str
) -> None:
    run = applied(host)
    host.sysconfig.run_string(text({"/etc/c": "x"}), 0, "augeas", "other")
    assert host.sysconfig.drift() == []
    meanwhile(host.path("/etc"))
    (drift,) = host.sysconfig.drift()
    assert (drift.path, drift.run, drift.key, drift.time) == (path, run.id, "key", run.time)
    assert drift.missing is missing
    assert diff in drift.diff
    assert bool(diff) is bool(drift.diff)


def test_the_last_run_is_what_a_file_is_held_against(host: Machine) -> None:
    applied(host)
    run = host.sysconfig.apply(host.sysconfig.plan("augeas", text({"/etc/a": "dos\n"})).id)
    assert host.sysconfig.drift() == []
    host.sysconfig.apply(host.sysconfig.undo(run.id).id)
    assert host.sysconfig.drift() == []
