"""What a disk does to an apply: full, read-only, immutable or mounted files. Nothing changes by halves."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config_schemes import Machine, furnished, text
from deaths import lived
from libmh.api.sysconfig import RunResult, Sysconfig
from libmh.errors import BackendFailed, Conflict, Problem
from libmh.linux.config import applying, recovery
from libmh.spec import interface_of
from libmh.wire import MAX_STRING, dump
from testbed import needs
from waiting import wait_for

CHANGE = {"/etc/a": "uno\n", "/etc/b": None, "/etc/small/c": "tre\n" * 5000}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    """Its /etc/small is a filesystem of 64 KiB."""
    needs.root("mount")
    made = furnished(tmp_path)
    small = made.path("/etc/small")
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    (small / "c").write_text("three\n")
    try:
        yield made
    finally:
        made.sysconfig.close()
        subprocess.run(["umount", "-l", str(small)], check=True)


def refused(host: Machine, wanted: dict[str, str | None], why: str) -> None:
    """It fails, says why, and has changed nothing."""
    before = host.tree()
    plan = host.sysconfig.plan("augeas", text(wanted))
    run = host.sysconfig.apply(plan.id, "key")
    assert run.result is RunResult.FAILED
    assert why in (run.reason or "")
    assert "nothing was changed" in (run.reason or "")
    assert host.tree() == before
    assert host.sysconfig.is_configured("key").startswith("FAILED\n6\n")
    assert host.sysconfig.history() == [run]
    assert host.sysconfig.drift() == []


def test_a_full_disk(host: Machine) -> None:
    (host.path("/etc/small") / "fill").write_bytes(b"x" * 50_000)
    refused(host, CHANGE, "No space left on device")


def test_a_read_only_filesystem(host: Machine) -> None:
    small = str(host.path("/etc/small"))
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    refused(host, CHANGE, "Read-only file system")


def test_an_immutable_file(host: Machine) -> None:
    chattr = needs.command("chattr", "e2fsprogs")
    path = str(host.path("/etc/b"))
    if subprocess.run([chattr, "+i", path], capture_output=True).returncode:
        needs.missing("a filesystem with flags")
    try:
        refused(host, CHANGE, "immutable")
    finally:
        subprocess.run([chattr, "-i", path], check=True)


def test_a_file_that_is_mounted(host: Machine) -> None:
    """As containers have their /etc/hosts: it cannot be replaced."""
    path = host.path("/etc/b")
    subprocess.run(["mount", "--bind", str(host.path("/etc/c")), str(path)], check=True)
    try:
        refused(host, CHANGE, "/etc/b")
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_the_record_cannot_be_kept(host: Machine) -> None:
    """What a file was must be kept for its undoing: without room for that, nothing is done."""
    host.path("/etc/b").write_text("x" * 1_000_000)
    before = host.tree()
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n", "/etc/b": None}))
    with host.sysconfig._runs.store.transaction() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Problem, match="full"):
        host.sysconfig.apply(plan.id, "key")
    assert host.tree() == before
    assert host.sysconfig.is_configured("key") == "unknown"


@pytest.mark.parametrize("switched", [0, 1, 2])
def test_a_name_that_cannot_be_taken_gives_the_others_back(
    host: Machine, monkeypatch: pytest.MonkeyPatch, switched: int
) -> None:
    rename, count = os.rename, [0]

    def failing(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        count[0] += 1
        if count[0] == switched + 1:
            raise OSError(5, "Input/output error", old)
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", failing)
    wanted: dict[str, str | None] = {"/etc/a": "uno\n", "/etc/new": "n", "/etc/b": None, "/etc/c": "tre\n"}
    refused(host, wanted, "Input/output error")


def changed_late(host: Machine, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act when all is staged and committed, just before the names are taken."""
    switch = applying.switch

    def late(*arguments: object) -> None:
        act()
        switch(*arguments)  # type: ignore[arg-type]  # whatever it was called with

    monkeypatch.setattr(applying, "switch", late)


def test_a_file_that_changes_in_the_last_moment_is_a_conflict(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n", "/etc/b": None, "/etc/c": "tre\n"}))
    changed_late(host, monkeypatch, lambda: host.path("/etc/c").write_text("by hand\n"))
    with pytest.raises(Conflict):
        host.sysconfig.apply(plan.id, "key", 60)
    monkeypatch.undo()
    assert host.path("/etc/a").read_text() == "one\n"
    assert host.path("/etc/b").read_text() == "two\n"
    assert host.path("/etc/c").read_text() == "by hand\n"
    assert sorted(path.name for path in host.path("/etc").iterdir()) == ["a", "b", "c", "small"]
    assert host.sysconfig.history()[0].result is RunResult.FAILED
    assert host.sysconfig.drift() == []


def test_a_text_of_ones_own_is_planned_again_when_a_file_changes(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, count = applying.verify, [0]

    def late(*arguments: object) -> object:
        count[0] += 1
        if count[0] == 1:
            host.path("/etc/a").write_text("by hand\n")
        return verify(*arguments)  # type: ignore[arg-type]  # whatever it was called with

    monkeypatch.setattr(applying, "verify", late)
    assert host.sysconfig.run_string(text({"/etc/a": "uno\n"}), 0, "augeas", "key") == "OK"
    assert host.path("/etc/a").read_text() == "uno\n"


def test_a_crash_of_the_program_s_own_scheme_is_recovered(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = host.tree()

    def broken(text: str, seconds: float) -> None:
        host.path("/etc/a").write_text("half")
        raise RuntimeError("a bug")

    wanted = text({"/etc/a": "uno\n"}, told=True)
    monkeypatch.setattr(type(host.scheme), "run", lambda _self, text, seconds: broken(text, seconds))
    with pytest.raises(RuntimeError):
        host.sysconfig.run_string(wanted, 0, "puppet", "key")
    monkeypatch.undo()
    assert host.sysconfig.run_string(text({"/etc/z": "z"}), 0, "augeas", "key") == "OK"
    host.path("/etc/z").unlink()
    assert host.tree() == before
    assert [run.result for run in host.sysconfig.history()] == ["applied", "interrupted"]
    assert recovery.DIED in (host.sysconfig.history()[1].reason or "")


def test_what_a_dead_agent_left_running_is_ended_first(host: Machine) -> None:
    """It would go on changing what was restored."""
    before = host.tree()
    writes = f"while :; do echo half >{host.path('/etc/a')}; sleep 0.01; done"

    def run_and_die(text: str, seconds: float) -> None:
        mark = {"MATAHARI_RUN": f"{os.getpid()}-1", "PATH": os.environ["PATH"]}
        subprocess.Popen(["sh", "-c", writes], env=mark, start_new_session=True)
        wait_for(lambda: host.path("/etc/a").read_text() == "half\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        another = host.another()
        another.scheme.act = run_and_die
        another.sysconfig.run_string(text({"/etc/a": "uno\n"}, told=True), 0, "puppet", "key")

    assert not lived(work, kill="truncate:1")
    wait_for(lambda: host.path("/etc/a").read_text() == "half\n")  # else it is just being written
    host.sysconfig._runs._performer.recover()
    assert host.tree() == before
    with pytest.raises(TimeoutError):
        wait_for(lambda: host.tree() != before, seconds=0.3)


def test_a_record_that_is_damaged_inside_is_put_aside(tmp_path: Path) -> None:
    host = furnished(tmp_path)
    for number in range(20):
        host.sysconfig.run_string(text({"/etc/a": f"{number}{'x' * 3000}"}), 1, "augeas", "key")
    host.sysconfig.close()
    other = host.another()
    assert len(other.sysconfig.history()) == 20
    record = host.state / "sysconfig/runs.sqlite"
    damaged = bytearray(record.read_bytes())
    for page in range(3 * 4096, len(damaged), 4096):
        damaged[page : page + 200] = b"\xff" * 200
    record.write_bytes(damaged)
    host = host.another()
    with pytest.raises(BackendFailed, match="malformed"):
        host.sysconfig.drift()
    assert host.sysconfig.run_string(text({"/etc/a": "uno\n"}), 1, "augeas", "key") == "OK"
    assert len(other.sysconfig.history()) == 1
    assert record.with_name("runs.damaged").read_bytes() == damaged
    for each in (host, other):
        each.sysconfig.close()


@pytest.mark.parametrize("what", ["gone", "a link", "a directory"])
def test_a_run_that_died_does_not_keep_others_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Somebody else changed the place before the agent came back."""
    host = furnished(tmp_path, {"/etc/a": "one\n", "/etc/sub/b": "two\n"})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(applying, "switch", die)
        with pytest.raises(KeyboardInterrupt):
            host.sysconfig.run_string(text({"/etc/a": "uno\n", "/etc/sub/b": "due\n"}), 0, "augeas", "died")
    if what == "gone":
        shutil.rmtree(host.path("/etc/sub"))
    else:
        host.path("/etc/sub/b").unlink()
    if what == "a link":
        host.path("/etc/sub/b").symlink_to("../a")
    elif what == "a directory":
        host.path("/etc/sub/b").mkdir()
    assert host.sysconfig.run_string(text({"/etc/c": "tre\n"}), 0, "augeas", "next") == "OK"
    run = host.sysconfig.history("died")[0]
    assert (run.result, host.path("/etc/a").read_text()) == (RunResult.APPLIED, "uno\n")
    assert "'/etc/sub/b' had changed when the agent came back" in (run.reason or "")
    assert not list(host.path("/etc").rglob(".mh-*"))
    host.sysconfig.close()


@pytest.mark.parametrize("told", [False, True])
def test_more_than_can_be_shown_is_cut(tmp_path: Path, told: bool) -> None:
    """No bus carries a string of more than 65,535 characters, or half of a character."""
    host = furnished(tmp_path, {"/etc/a": "one\n" * 20_000})
    after = "".join(f"line {number}\n" for number in range(20_000))
    wanted = text({"/etc/a": after}, told=told, output="\ud800" + "said\n" * 14_000)
    plan = host.sysconfig.plan("puppet", wanted)
    run = host.sysconfig.apply(plan.id, "key")
    assert (run.result, host.path("/etc/a").read_text()) == (RunResult.APPLIED, after)
    assert host.sysconfig.history() == [run]
    host.path("/etc/a").write_text("two\n" * 20_000)
    (drift,) = host.sysconfig.drift()
    for shown in (plan.files[0].diff, drift.diff, run.output):
        assert 60_000 < len(shown) <= MAX_STRING
    dump(interface_of(Sysconfig).members["drift"].results[0].type, [drift], "drift")
    host.sysconfig.close()
