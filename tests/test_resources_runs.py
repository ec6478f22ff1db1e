"""One run of an agent: its time, its children, its end by a signal, and what it prints."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents import Machine, machine, put
from libmh.errors import Timeout, Unavailable
from libmh.guard import Guard
from libmh.linux.descendants import MARK, kill_marked
from libmh.linux.resource_agents import operations
from libmh.linux.runner import Calling, Command, Ending, Runner
from waiting import wait_for

# each of them leaves the group in its own way, and sleeps for a time of its own
HANG = """echo before
sleep "$OCF_RESKEY_for" &
setsid sleep "$OCF_RESKEY_for" &
(setsid setsid sh -c "sleep $OCF_RESKEY_for; :" &)
nohup sh -c "trap '' TERM HUP; sleep $OCF_RESKEY_for; :" &
trap '' TERM
sleep "$OCF_RESKEY_for"; :"""


def hang(here: Machine, seconds: str) -> int:
    return here.resources.invoke("r", "ocf", "test", "Hang", "start", 0, {"for": seconds})[0]


def sleeping(seconds: str) -> list[int]:
    """Processes with that argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if f"\0{seconds}\0".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    ("body", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 194), ("kill -TERM $$", 194)],
)
def test_the_code_is_the_agents_own(tmp_path: Path, body: str, code: int) -> None:
    put(tmp_path, "Agent", body)
    with machine(tmp_path) as here:
        assert here.run("Agent") == code


@pytest.mark.parametrize(
    ("text", "code"), [("#!/nonexistent/sh\n", 5), ("no program at all", 1), ("#!/etc/passwd\n", 4)]
)
def test_what_cannot_be_run_has_a_code(tmp_path: Path, text: str, code: int) -> None:
    put(tmp_path, "Agent", "").write_text(text)
    with machine(tmp_path) as here:
        done = here.resources.run("r", "start", {}, "Agent", provider="test")
    assert (done.rc, "cannot be run" in done.stderr) == (code, True)


def test_what_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    put(tmp_path, "Hang", HANG)
    seconds = f"97.{os.getpid()}1"
    with machine(tmp_path) as here:
        began = time.monotonic()
        done = here.resources.run("r", "start", {"for": seconds}, "Hang", provider="test", timeout=400)
        took = time.monotonic() - began
        assert (done.rc, done.stdout) == (198, "before\n")
        assert 0.4 <= took < 60
        wait_for(lambda: not sleeping(seconds))


def test_what_is_left_running_by_a_good_start_stays(tmp_path: Path) -> None:
    put(tmp_path, "Daemon", 'sleep "$OCF_RESKEY_for" &\necho started')
    seconds = f"60.{os.getpid()}2"
    with machine(tmp_path) as here:
        began = time.monotonic()
        done = here.resources.run("r", "start", {"for": seconds}, "Daemon", provider="test")
        assert (done.rc, done.stdout, time.monotonic() - began < 40) == (0, "started\n", True)
        [pid] = wait_for(lambda: sleeping(seconds))
    assert sleeping(seconds) == [pid]
    os.kill(pid, 9)


def test_output_is_kept_up_to_a_limit_and_the_rest_is_drained(tmp_path: Path) -> None:
    put(tmp_path, "Much", "yes x | head -c 5000000; yes y | head -c 5000000 >&2; exit 3")
    with machine(tmp_path) as here:
        done = here.resources.run("r", "monitor", {}, "Much", provider="test")
    assert (done.rc, done.truncated) == (3, True)
    assert (done.stdout[:4], done.stderr[:4]) == ("x\nx\n", "y\ny\n")
    assert 60_000 < len(done.stdout) <= 65_535
    assert 60_000 < len(done.stderr) <= 65_535


def test_any_bytes_come_as_text(tmp_path: Path) -> None:
    put(tmp_path, "Bytes", r"printf 'a\000b\377\303\274'; exit 0")
    with machine(tmp_path) as here:
        done = here.resources.run("r", "monitor", {}, "Bytes", provider="test")
    assert (done.stdout, done.truncated) == ("a\ufffdb\ufffdü", False)


def test_a_reason_with_a_hole_costs_no_time(tmp_path: Path) -> None:
    put(tmp_path, "Says", "printf 'ocf-exit-reason:a%60000sb \\n' '' >&2; exit 1")
    with machine(tmp_path) as here:
        began = time.monotonic()
        reason = here.resources.run("r", "start", {}, "Says", provider="test").reason
        assert reason == f"a{' ' * 60_000}b"
        assert time.monotonic() - began < 20


def test_an_environment_of_any_size_hides_nobody() -> None:
    full = {**{f"a{n}": "x" * 60_000 for n in range(20)}, MARK: f"of-{os.getpid()}"}
    with subprocess.Popen(["/bin/sleep", "10"], env=full) as left:
        assert kill_marked({full[MARK]}) == 1
        assert left.wait(5) == -signal.SIGKILL


def test_what_had_no_turn_in_time_never_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "GRACE", 0.0)
    ran = tmp_path / "ran"
    put(tmp_path, "Slow", "sleep 1")
    put(tmp_path, "Late", f'echo >"{ran}"')
    runner = Runner(max_running=1)
    monkeypatch.setattr("libmh.linux.resources.Runner", lambda: runner)
    with machine(tmp_path) as here, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(runner.start, Command(("/bin/sleep", "1"), {}, 5.0), lambda _: None)
        slow.result(5)
        with pytest.raises(Timeout):
            here.resources.run("r", "start", {}, "Late", provider="test", timeout=100)
        wait_for(lambda: not runner._running)
        assert here.run("Slow") == 0
        assert not ran.exists()


def test_the_reason_is_the_last_that_was_said(tmp_path: Path) -> None:
    body = (
        "echo 'ocf-exit-reason:first' >&2; echo noise >&2; echo 'ocf-exit-reason: disk is full ' >&2; exit 1"
    )
    put(tmp_path, "Says", body)
    with machine(tmp_path) as here:
        done = here.resources.run("r", "start", {}, "Says", provider="test", userdata="mine")
    assert (done.rc, done.reason, done.userdata) == (1, "disk is full", "mine")
    assert 0 < done.duration < 5


def test_runs_are_numbered_from_one(tmp_path: Path) -> None:
    put(tmp_path, "Agent", "exit 0")
    with machine(tmp_path) as here:
        for number in (1, 2, 3):
            answer = here.resources.invoke("r", "ocf", "test", "Agent", "start", 0, {}, 1000, 0, "u")
            assert answer == (0, number, "u")


def test_a_run_is_cancelled(tmp_path: Path) -> None:
    put(tmp_path, "Hang", HANG)
    seconds = f"96.{os.getpid()}3"
    with machine(tmp_path) as here, ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: hang(here, seconds))
        wait_for(lambda: len(sleeping(seconds)) >= 4)
        here.resources.cancel("r", "start", 0, 0)
        assert running.result(5) == 197
        wait_for(lambda: not sleeping(seconds))


def test_runs_go_side_by_side(tmp_path: Path) -> None:
    put(tmp_path, "Slow", "sleep 0.5")
    with machine(tmp_path) as here, ThreadPoolExecutor(20) as pool:
        began = time.monotonic()
        codes = list(pool.map(lambda _: here.run("Slow"), range(20)))
        assert codes == [0] * 20
        assert time.monotonic() - began < 9


def test_an_ending_agent_leaves_nothing_running(tmp_path: Path) -> None:
    put(tmp_path, "Hang", HANG)
    seconds = f"95.{os.getpid()}4"
    with machine(tmp_path) as here, ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: hang(here, seconds))
        wait_for(lambda: len(sleeping(seconds)) >= 4)
        here.resources.close()
        assert running.result(5) == 197
        wait_for(lambda: not sleeping(seconds))


def test_descriptors_are_closed(tmp_path: Path) -> None:
    put(tmp_path, "Agent", "ls /proc/self/fd | wc -l")
    with machine(tmp_path) as here:
        here.run("Agent")
        before = len(list(Path("/proc/self/fd").iterdir()))
        done = [
            here.resources.run("r", "monitor", {}, "Agent", provider="test").stdout.strip()
            for _ in range(20)
        ]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert set(done) == {"4"}  # three, and the directory


def test_only_so_many_run_and_wait() -> None:
    runner = Runner(max_running=1, max_waiting=2)
    ended: list[Ending] = []
    first = runner.start(Command(("/bin/sleep", "60"), {}, 60.0), ended.append)
    wait_for(lambda: first.pid)
    waiting = [runner.start(Command(("/bin/true",), {}, 60.0), ended.append) for _ in range(2)]
    wait_for(lambda: len(runner._waiting) == 2)
    with pytest.raises(Unavailable):
        runner.start(Command(("/bin/true",), {}, 60.0), ended.append)
    runner.stop(waiting[0])
    wait_for(lambda: [each.rc for each in ended] == [197])
    runner.stop(first)
    wait_for(lambda: [each.rc for each in ended] == [197, 197, 0])
    runner.close()


@pytest.mark.parametrize(("seconds", "code"), [(5.0, 3), (0.2, 198)])
def test_a_function_has_a_time_limit_too(seconds: float, code: int) -> None:
    runner = Runner()
    release = threading.Event()
    ended: list[Ending] = []

    def work(_: float) -> int:
        release.wait(0.0 if code == 3 else 5)
        return 3

    runner.start(Calling(f"test:{seconds}", work, seconds), ended.append)
    wait_for(lambda: ended)
    release.set()
    assert [each.rc for each in ended] == [code]
    runner.close()


def test_a_function_that_fails_is_another_error() -> None:
    runner = Runner()
    ended: list[Ending] = []

    def work(_: float) -> int:
        raise Unavailable("the manager is away")

    runner.start(Calling("test:fails", work, 5.0), ended.append)
    wait_for(lambda: ended)
    assert (ended[0].rc, ended[0].stderr) == (199, b"the manager is away")
    runner.close()


def test_so_many_callers_wait_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAX_CALLERS", 2)
    monkeypatch.setattr(operations, "CALLER_SECONDS", 0.05)
    put(tmp_path, "Slow", "sleep 1")
    with machine(tmp_path) as here, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(here.run, "Slow") for _ in range(2)]
        wait_for(lambda: here.resources._operations._callers._value == 0)
        with pytest.raises(Unavailable, match="2 callers"):
            here.run("Slow")
        assert [each.result(5) for each in slow] == [0, 0]
        assert here.run("Slow") == 0


def test_waiting_callers_leave_their_places(tmp_path: Path) -> None:
    """Twenty slow actions through the guard of sixteen threads, and something quick beside them."""
    guard = Guard(max_threads=4)
    put(tmp_path, "Slow", "sleep 1")
    with machine(tmp_path) as here, pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "SHARED", guard)
        slow = [guard.submit(f"slow:{n}", lambda: here.run("Slow"), 20) for n in range(10)]
        assert guard.call("quick", lambda: "at once", 0.8) == "at once"
        assert [each.result(10) for each in slow] == [0] * 10


def test_the_end_of_a_script_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    ready = Runner._ready

    def counted(runner: Runner, fd: int) -> None:
        told.append(fd)
        ready(runner, fd)

    monkeypatch.setattr(Runner, "_ready", counted)
    runner, ended = Runner(), list[Ending]()
    for _ in range(400):  # some begin while others end
        runner.start(Command(("/bin/true",), {}, 20.0), ended.append)
    wait_for(lambda: len(ended) == 400, seconds=20)
    runner.close()
    assert all(each.rc == 0 for each in ended)
    assert len(told) <= 2 * 400
