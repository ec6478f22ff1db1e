"""Who may have what done to a configuration, and what becomes of it when they wait no more."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_schemes import Machine, furnished, text
from libmh import caller
from libmh.api.sysconfig import RunResult, Sysconfig
from libmh.call import Verb
from libmh.caller import LOCAL
from libmh.context import Root
from libmh.errors import Timeout, Unavailable
from libmh.linux.config import applying
from libmh.policy import Asked, policy
from libmh.spec import Kind, interface_of
from waiting import wait_for


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    made = furnished(tmp_path)
    yield made
    made.sysconfig.close()


def test_who_may_only_read_may_not_have_texts_run() -> None:
    """A manifest and a playbook can run commands in their dry run, as root."""
    sysconfig = interface_of(Sysconfig)
    read_only = policy({"authority": {"reader": "read-only"}}, {})
    allowed = {
        member.name
        for member in sysconfig.of(Kind.METHOD)
        if read_only.decide("reader", Asked(sysconfig, member, Verb.CALL, {})).allowed
    }
    assert {"query", "history", "planned", "drift"} <= allowed
    assert not {"plan", "apply", "run_uri", "run_string", "confirm"} & allowed


def test_a_run_is_not_applied_after_its_caller_gave_up(host: Machine) -> None:
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n"}))
    soon = time.monotonic() + 0.05
    held = host.another().sysconfig._runs.store.locked(0)
    with held, caller.answering(LOCAL, soon), pytest.raises(Unavailable):
        host.sysconfig.apply(plan.id)
    with caller.answering(LOCAL, time.monotonic()), pytest.raises(Timeout, match="nothing was changed"):
        host.sysconfig.apply(plan.id)
    assert host.path("/etc/a").read_text() == "one\n"
    assert host.sysconfig.apply(plan.id).result is RunResult.APPLIED  # it was not used up


def test_a_run_that_takes_longer_than_its_caller_waits_changes_nothing(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = host.sysconfig.plan("augeas", text({"/etc/a": "uno\n"}))
    stage = applying.stage

    def slow(root: Root, target: applying.Target, content: bytes | None) -> None:
        stage(root, target, content)
        wait_for(lambda: not caller.time_left())

    monkeypatch.setattr(applying, "stage", slow)
    before = host.tree()
    with caller.answering(LOCAL, time.monotonic() + 0.3), pytest.raises(Timeout):
        host.sysconfig.apply(plan.id)
    assert host.tree() == before
    assert host.sysconfig.history()[0].result is RunResult.FAILED


def test_a_program_has_as_long_as_its_caller_waits(host: Machine) -> None:
    given: list[float] = []
    host.scheme.act = lambda _text, seconds: given.append(seconds)
    with caller.answering(LOCAL, time.monotonic() + 100):
        host.sysconfig.run_string(text({"/etc/a": "uno\n"}, told=True), 0, "puppet", "key")
    assert 90 < given[0] <= 100
