"""Running what may never come back: limits, keys, stuck threads."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from libmh.errors import Timeout, Unavailable
from libmh.guard import Guard
from waiting import wait_for


class Gate:
    """A function that comes back when it is let, and counts those inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most = self.runs = 0

    def __call__(self) -> int:
        with self.lock:
            self.inside += 1
            self.runs += 1
            self.most = max(self.most, self.inside)
        try:
            self.open.wait(20)
            return self.runs
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def raise_error() -> None:
    raise ValueError("its own")


def time_out() -> None:
    raise TimeoutError("its own")


def test_an_answer_and_an_error_come_back() -> None:
    guard = Guard()
    assert guard.call("key", lambda: 3, 5) == 3
    with pytest.raises(ValueError, match="its own"):
        guard.call("key", raise_error, 5)
    with pytest.raises(TimeoutError, match="its own"):
        guard.call("key", time_out, 5)


def test_even_an_exit_belongs_to_whoever_waits() -> None:
    guard = Guard(max_threads=1)
    with pytest.raises(SystemExit):
        guard.call("key", sys.exit, 5)
    assert guard.call("key", lambda: 3, 5) == 3


def test_a_source_that_hangs_is_refused_at_once_until_it_comes_back(gate: Gate) -> None:
    guard = Guard()
    with pytest.raises(Timeout, match=r"'disk' did not answer within 0\.05 s"):
        guard.call("disk", gate, 0.05)
    assert guard.stuck == 1
    with pytest.raises(Timeout, match="'disk' has not come back for 0 s"):
        guard.call("disk", lambda: 3, 60)
    assert guard.call("another", lambda: 3, 5) == 3
    gate.open.set()
    wait_for(lambda: guard.stuck == 0)
    assert guard.call("disk", lambda: 3, 5) == 3


def test_a_source_holds_one_thread_however_many_ask(gate: Gate) -> None:
    guard = Guard()
    asked = [guard.submit("disk", gate) for _ in range(50)]
    wait_for(lambda: gate.inside == 1)
    guard.abandon("disk", asked[0])
    for future in asked[1:]:
        assert isinstance(future.exception(5), Timeout)
    assert (gate.most, gate.runs, guard.stuck) == (1, 1, 1)


def test_calls_of_one_key_run_in_turn_and_of_many_side_by_side(gate: Gate) -> None:
    guard = Guard(max_threads=8)
    futures = [guard.submit(f"key {number % 4}", gate) for number in range(8)]
    wait_for(lambda: gate.inside == 4)
    gate.open.set()
    assert max(future.result(5) for future in futures) == 8


def test_a_caller_that_went_away_leaves_no_hole(gate: Gate) -> None:
    guard = Guard()
    guard.submit("disk", gate, 0.01)
    wait_for(lambda: gate.inside == 1)
    threading.Event().wait(0.02)
    with pytest.raises(Timeout, match="has not come back"):
        guard.submit("disk", gate)
    assert guard.stuck == 1


def test_what_waits_and_is_given_up_never_begins(gate: Gate) -> None:
    guard = Guard(max_threads=1)
    guard.submit("one", gate)
    wait_for(lambda: gate.inside == 1)
    waiting = guard.submit("two", gate)
    guard.abandon("two", waiting)
    gate.open.set()
    assert guard.call("three", lambda: 3, 5) == 3
    assert waiting.cancelled()
    assert gate.runs == 1


def test_stuck_threads_are_replaced_for_those_who_wait(gate: Gate) -> None:
    guard = Guard(max_threads=2)
    stuck = [guard.submit(f"disk {number}", gate) for number in range(2)]
    waiting = guard.submit("another", lambda: 3)
    wait_for(lambda: gate.inside == 2)
    for number, future in enumerate(stuck):
        guard.abandon(f"disk {number}", future)
    assert waiting.result(5) == 3
    with pytest.raises(Unavailable):
        guard.submit("one more", gate)


def until_refused(guard: Guard, gate: Gate) -> Iterator[Future[int]]:
    for number in range(100):
        try:
            yield guard.submit(f"key {number}", gate)
        except Unavailable:
            return


def test_the_number_of_threads_and_of_those_who_wait_is_bounded(gate: Gate) -> None:
    guard = Guard(max_threads=3, max_waiting=10)
    before = threading.active_count()
    futures = list(until_refused(guard, gate))
    wait_for(lambda: gate.inside == 3)
    assert 10 <= len(futures) <= 13
    assert threading.active_count() - before <= 3
    gate.open.set()
    assert [future.result(5) > 0 for future in futures] == [True] * len(futures)


def test_a_call_inside_a_call_does_not_wait_for_itself() -> None:
    guard = Guard(max_threads=1)

    def outer() -> int:
        return guard.call("inner", lambda: guard.call("innermost", lambda: 3, 5), 5)

    assert guard.call("outer", outer, 5) == 3


def test_a_very_long_key_is_shortened(gate: Gate) -> None:
    guard = Guard()
    with pytest.raises(Timeout) as late:
        guard.call("k" * 100_000, gate, 0.02)
    assert len(late.value.message) < 2000
    assert len(late.value.details["source"]) <= 2000


def test_a_hung_thread_does_not_keep_a_process_from_ending() -> None:
    program = """
import threading
from libmh.errors import Timeout
from libmh.guard import Guard
try:
    Guard().call("disk", threading.Event().wait, 0.05)
except Timeout:
    print("given up")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "given up\n")
