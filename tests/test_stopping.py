"""Stopping what runs: whoever does the work hears of it, whoever asked is told so."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents import counted, machine, put
from libmh.caller import LOCAL, Stop, answering, stoppable
from libmh.context import Root
from libmh.errors import Failed
from libmh.linux import ownunit
from libmh.linux.runner import CANCELLED
from waiting import wait_for


def test_who_attends_is_told_once_and_only_while_he_does() -> None:
    stop, told = Stop(), list[str]()
    with answering(LOCAL, stop=stop):
        with stoppable(lambda: told.append("early")):
            pass
        assert stop.pull() is False
        with stoppable(lambda: told.append("one")) as seen, stoppable(lambda: told.append("two")):
            assert stop.pull() is True
            assert stop.pull() is True
        assert seen.pulled
    assert told == ["one", "two"]
    with stoppable(lambda: told.append("nobody")) as own:  # outside of a call there is nobody to stop it
        assert not own.pulled


def test_a_program_is_killed_with_what_it_started(tmp_path: Path) -> None:
    stop, begun = Stop(), tmp_path / "begun"

    def run() -> None:
        with answering(LOCAL, stop=stop):
            ownunit.run(Root(tmp_path), ("/bin/sh", "-c", f"sleep 600 & touch {begun}; wait"), 600)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        wait_for(begun.exists, seconds=60)
        assert stop.pull()
        with pytest.raises(Failed, match="'/bin/sh' was cancelled, and was killed"):
            running.result(60)


def test_an_action_of_a_resource_is_killed(tmp_path: Path) -> None:
    put(tmp_path, "Web", 'echo run >>"${0%/*}/runs"; sleep 600')
    stop, done = Stop(), list[int]()
    with machine(tmp_path) as here:

        def run() -> None:
            with answering(LOCAL, stop=stop):
                done.append(here.run("Web"))

        running = threading.Thread(target=run)
        running.start()
        wait_for(lambda: counted(tmp_path / "usr/lib/ocf/resource.d/test/runs")() == 1, seconds=60)
        assert stop.pull()
        running.join(60)
    assert done == [CANCELLED]


def test_what_recurs_does_not_go_on(tmp_path: Path) -> None:
    put(tmp_path, "Web", 'echo run >>"${0%/*}/runs"; sleep 600')
    stop, done = Stop(), list[int]()
    with machine(tmp_path) as here:

        def run() -> None:
            with answering(LOCAL, stop=stop):
                done.append(here.recur("Web", 50, timeout=300_000))

        running = threading.Thread(target=run)
        running.start()
        wait_for(lambda: counted(tmp_path / "usr/lib/ocf/resource.d/test/runs")() == 1, seconds=60)
        assert stop.pull()
        running.join(60)
        assert here.resources.operations() == []
    assert done == [CANCELLED]
