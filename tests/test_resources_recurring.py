"""Operations that recur: the first result, events, replacing, cancelling, failing, outliving the agent."""

import itertools
import json
import os
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents import Machine, counted, machine, put
from libmh.errors import BackendFailed, Conflict, NotFound
from libmh.linux.resource_agents.operations import Action, Operations
from libmh.linux.resource_agents.opstore import Memo, Store, kept
from libmh.linux.runner import Calling, Runner
from waiting import wait_for

FROM_FILE = 'echo run >>"${0%/*}/../../../../../runs"; exit "$(cat "${0%/*}/../../../../../code")"'


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """What the agent `Web` answers; it counts its runs in `runs` beside it."""
    put(tmp_path, "Web", FROM_FILE)
    file = tmp_path / "code"
    file.write_text("0")
    return file


def ids(here: Machine) -> list[str]:
    return [each.id for each in here.resources.operations()]


def test_the_first_result_answers_and_is_no_event(tmp_path: Path, code: Path) -> None:
    code.write_text("7")
    with machine(tmp_path) as here:
        assert here.recur("Web", 50) == 7
        assert here.heard.codes() == []
        [operation] = here.resources.operations()
    assert (operation.id, operation.last_rc, operation.expected) == ("r_monitor_50", 7, 0)
    assert (operation.userdata, operation.provider, operation.interrupted) == ("mine", "test", None)


def test_it_runs_again_an_interval_after_its_end(tmp_path: Path) -> None:
    put(tmp_path, "Web", 'date +%s.%N >>"${0%/*}/times"; sleep 0.2')
    times = tmp_path / "usr/lib/ocf/resource.d/test/times"
    with machine(tmp_path) as here:
        here.recur("Web", 200)
        wait_for(lambda: counted(times)() >= 4)
    began = [float(line) for line in times.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert min(gaps) >= 0.39


def test_a_change_is_told_once_when_the_new_code_is_expected(tmp_path: Path, code: Path) -> None:
    code.write_text("7")
    with machine(tmp_path) as here:
        here.recur("Web", 50, expected=0)
        before = here.resources.operations()[0].sequence
        code.write_text("0")
        wait_for(lambda: 0 in here.heard.codes())
        told = len(here.heard.codes())
        runs = counted(tmp_path / "runs")
        enough = runs() + 8
        wait_for(lambda: runs() >= enough)
        assert len(here.heard.codes()) == told
        event = here.heard.events[-1]
    assert event.name == "org.matahariproject.Resources.resource_op"
    fields = dict(event.fields)
    moment, sequence = fields.pop("timestamp"), fields.pop("sequence")
    assert isinstance(moment, int)
    assert abs(moment - time.time_ns()) < 60 * 10**9
    assert isinstance(sequence, int)
    assert sequence > before
    assert fields == {
        "name": "r",
        "standard": "ocf",
        "provider": "test",
        "agent": "Web",
        "action": "monitor",
        "interval": 50,
        "rc": 0,
        "expected-rc": 0,
        "userdata": "mine",
    }


def test_what_is_not_expected_is_told_again_but_not_in_a_storm(tmp_path: Path, code: Path) -> None:
    code.write_text("1")
    with machine(tmp_path) as here:
        here.recur("Web", 1)
        runs = counted(tmp_path / "runs")
        began = time.monotonic()
        wait_for(lambda: runs() >= 15)
        took = time.monotonic() - began
        assert 1 <= len(here.heard.codes()) <= took / 0.2 + 2
        code.write_text("0")
        wait_for(lambda: here.heard.codes()[-1] == 0)


def test_one_with_the_same_id_takes_the_place_of_the_old(tmp_path: Path, code: Path) -> None:
    put(tmp_path, "Slow", f'echo run >>"{tmp_path}/slow"; [ -e "{tmp_path}/hang" ] && sleep 60; exit 0')
    with machine(tmp_path) as here:
        here.recur("Slow", 60)
        (tmp_path / "hang").touch()
        wait_for(lambda: here.resources.operations()[0].running)
        began = time.monotonic()
        assert here.recur("Web", 60) == 0
        assert time.monotonic() - began < 40
        assert [each.agent for each in here.resources.operations()] == ["Web"]
        slow, runs = counted(tmp_path / "slow")(), counted(tmp_path / "runs")
        enough = runs() + 5
        wait_for(lambda: runs() >= enough)
        assert counted(tmp_path / "slow")() == slow
        here.recur("Web", 70)
        assert ids(here) == ["r_monitor_60", "r_monitor_70"]


def test_cancel_ends_it_and_kills_a_run(tmp_path: Path, code: Path) -> None:
    hang = tmp_path / "hang"
    put(tmp_path, "Slow", f'[ -e "{hang}" ] && {{ echo $$ >"{tmp_path}/pid"; exec sleep 60; }}; exit 0')
    with machine(tmp_path) as here:
        here.recur("Slow", 60)
        hang.touch()
        pid = wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        here.resources.cancel("r", "monitor", 60, 0)
        assert not Path("/proc", str(pid)).exists()
        assert ids(here) == []
        with pytest.raises(NotFound, match="r_monitor_60"):
            here.resources.cancel("r", "monitor", 60, 0)
        with pytest.raises(NotFound):
            here.resources.cancel("r", "monitor", 0, 0)


def test_cancelling_the_first_run_answers_its_caller(tmp_path: Path) -> None:
    put(tmp_path, "Slow", "sleep 60")
    with machine(tmp_path) as here, ThreadPoolExecutor(1) as pool:
        first = pool.submit(here.recur, "Slow", 60)
        wait_for(lambda: ids(here))
        here.resources.cancel("r", "monitor", 60, 0)
        assert first.result(5) == 197


def test_a_chain_of_replacements_answers_every_caller(tmp_path: Path) -> None:
    put(tmp_path, "Slow", f'echo run >>"{tmp_path}/runs"; sleep 60')
    put(tmp_path, "Quick", "exit 0")
    with machine(tmp_path) as here, ThreadPoolExecutor(6) as pool:
        slow = [pool.submit(here.recur, "Slow", 60) for _ in range(5)]
        wait_for(lambda: sum(each.done() for each in slow) == 4, seconds=10)
        assert here.recur("Quick", 60) == 0
        assert [each.result(5) for each in slow] == [197] * 5
        assert ids(here) == ["r_monitor_60"]
        here.resources.cancel("r", "monitor", 60, 0)


def test_fail_tells_the_code_and_the_next_run_the_truth(tmp_path: Path, code: Path) -> None:
    with machine(tmp_path) as here:
        here.recur("Web", 300)
        here.resources.fail("r", 9)
        assert here.heard.codes() == [9]
        wait_for(lambda: here.heard.codes() == [9, 0])
        with pytest.raises(NotFound, match="other"):
            here.resources.fail("other", 1)


def test_it_goes_on_in_the_next_agent(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here:
        here.recur("Web", 100)
    assert stat.S_IMODE((state / "operations.json").stat().st_mode) == 0o600
    code.write_text("7")
    with machine(tmp_path, state) as here:
        assert ids(here) == ["r_monitor_100"]
        assert here.resources.operations()[0].last_rc == 0
        here.resources.watch()
        wait_for(lambda: here.heard.codes()[:1] == [7])
        assert here.resources.operations()[0].interrupted is None
        here.resources.cancel("r", "monitor", 100, 0)
    with machine(tmp_path, state) as here:
        assert ids(here) == []


def test_an_agent_with_nothing_to_go_on_with_leaves_no_trace(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here:
        here.resources.watch()
        assert here.run("Web") == 0
        assert here.resources.operations() == []
    assert not state.exists()


def test_two_agents_do_not_run_the_same_operations(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here, machine(tmp_path, state) as other:
        here.recur("Web", 100)
        assert ids(other) == ["r_monitor_100"]
        for change in (
            lambda: other.recur("Web", 200),
            lambda: other.resources.cancel("r", "monitor", 100, 0),
            lambda: other.resources.fail("r", 1),
            other.resources.watch,
        ):
            with pytest.raises(Conflict, match=f"process {os.getpid()}"):
                change()
        assert other.run("Web") == 0  # what runs once is nobody's
        here.resources.close()
        other.resources.watch()
        other.resources.cancel("r", "monitor", 100, 0)


def test_death_in_the_middle_is_told(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here:
        here.recur("Web", 3_600_000)
    store = Store(state)
    assert store.own()
    [(slot, _, memo)] = store.definitions()
    assert (memo.running, memo.rc) == (False, 0)
    store.running(slot)
    store.release()
    with machine(tmp_path, state) as here:
        assert here.resources.operations()[0].running
        here.resources.watch()
        wait_for(lambda: here.resources.operations()[0].interrupted)


def test_what_the_dead_left_running_does_not_run_beside_its_successor(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here:
        here.recur("Web", 3_600_000)
    store = Store(state)
    assert store.own()
    store.running(0)
    store.release()
    mark = {"MATAHARI_RUN": f"{state}:3600000:monitor:r"}
    with subprocess.Popen(["sleep", "60"], env=mark) as left, machine(tmp_path, state) as here:
        here.resources.watch()
        assert left.wait(5) == -signal.SIGKILL


def test_an_agent_that_is_gone_is_not_installed(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    with machine(tmp_path, state) as here:
        here.recur("Web", 100)
    (tmp_path / "usr/lib/ocf/resource.d/test/Web").unlink()
    with machine(tmp_path, state) as here:
        here.resources.watch()
        wait_for(lambda: here.heard.codes()[:1] == [5])


WRITTEN = {"name": "r", "standard": "ocf", "provider": "test", "agent": "Web", "action": "monitor"}


@pytest.mark.parametrize(
    "text",
    [
        *("no json", "[1]", '[{"slot": 0, "operation": {"new": 1}}]', "{}", "[" * 100_000),
        '[{"slot": 1e999, "operation": {}}]',
        json.dumps([{"slot": 0, "operation": {**WRITTEN, "interval": "often"}}]),
        json.dumps([{"slot": 0, "operation": {**WRITTEN, "interval": -1}}]),
        json.dumps([{"slot": 0, "operation": {**WRITTEN, "parameters": ["a"]}}]),
        json.dumps([{"slot": 0, "operation": {**WRITTEN, "parameters": {"a": 1}}}]),
    ],
)
def test_a_broken_state_is_told_and_kept(tmp_path: Path, code: Path, text: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "operations.json").write_text(text)
    with machine(tmp_path, state) as here:
        if text == "{}":
            assert here.resources.operations() == []
            return
        with pytest.raises(BackendFailed):
            here.resources.operations()
        with pytest.raises(BackendFailed):
            here.resources.watch()
        assert here.run("Web") == 0
    assert (state / "operations.json").read_text() == text


def test_a_parameter_that_no_environment_carries_ends_nothing(tmp_path: Path, code: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    bad = {**WRITTEN, "interval": 100, "parameters": {"a": "\0"}}
    (state / "operations.json").write_text(json.dumps([{"slot": 0, "operation": bad}]))
    with machine(tmp_path, state) as here:
        here.resources.watch()
        wait_for(lambda: here.heard.codes()[:1] == [1])
        assert here.run("Web") == 0


def test_resources_with_like_names_do_not_meet(tmp_path: Path, code: Path) -> None:
    with machine(tmp_path) as here:
        here.recur("Web", 3_600_000, name="web_x")
        with pytest.raises(NotFound):
            here.resources.cancel("web", "x_monitor", 3_600_000, 1000)
        here.resources.invoke("web", "ocf", "test", "Web", "x_monitor", 3_600_000, {}, 5000)
        assert [each.name for each in here.resources.operations()] == ["web_x", "web"]
        here.resources.cancel("web", "x_monitor", 3_600_000, 1000)
        assert [each.name for each in here.resources.operations()] == ["web_x"]


def test_the_end_of_an_agent_is_no_news_of_a_resource(tmp_path: Path, code: Path) -> None:
    state, ran = tmp_path / "state", tmp_path / "ran"
    put(tmp_path, "Web", f'echo run >>"{ran}"; [ "$(wc -l <"{ran}")" = 1 ] || exec sleep 60')
    with machine(tmp_path, state) as here:
        here.recur("Web", 50)
        wait_for(lambda: counted(ran)() == 2)
        here.resources.close()
        assert here.heard.events == []
        [operation] = here.resources.operations()
        assert (operation.last_rc, operation.running, operation.interrupted) == (0, False, None)


def test_replacing_again_and_again_leaves_nothing_behind(tmp_path: Path, code: Path) -> None:
    runner = Runner()
    operations = Operations(runner, Store(None), lambda _: Calling("k", lambda _: 0, 5.0), lambda *_: None)
    asked = Action("r", "ocf", "test", "Web", "monitor", 2**31)
    for _ in range(20):
        operations.run(asked)
    assert runner.timers <= 1
    operations.close()


def test_a_memo_is_its_own_inverse(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.own()
    memo = Memo(running=True, known=True, rc=2**32 - 1, sequence=2**32 - 1, time=2**63, interrupted=2**62)
    store.remember(1999, memo)
    assert store.memo(1999) == memo
    assert store.memo(0) == Memo()
    store.define([kept(1999, {"name": "x"})])
    assert json.loads((tmp_path / "operations.json").read_text()) == [
        {"slot": 1999, "operation": {"name": "x"}}
    ]
    assert store.definitions() == [(1999, {"name": "x"}, memo)]
    store.release()


def test_many_recur_side_by_side(tmp_path: Path) -> None:
    put(tmp_path, "Web", 'echo "$OCF_RESOURCE_INSTANCE" >>"${0%/*}/ran"; exit 0')
    ran = tmp_path / "usr/lib/ocf/resource.d/test/ran"
    with machine(tmp_path) as here, ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda n: here.recur("Web", 500, name=f"r{n}"), range(100)))
        assert codes == [0] * 100
        wait_for(lambda: min((ran.read_text().split()).count(f"r{n}") for n in range(100)) >= 3, seconds=20)
        assert here.heard.events == []
