"""SIGKILL at every system call by which an apply changes the disk: the old state or the new one, whole."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from config_schemes import close_all, furnished, machine, text, tree
from deaths import calls, lived
from libmh.api.sysconfig import RunResult
from testbed import needs

FILES = {f"/etc/{name}": f"{name} before\n" for name in ("a", "b", "c")}
CHANGE = {"/etc/a": "a after\n", "/etc/b": None, "/etc/new/sub/d": "d after\n"}
BY_PROGRAM = {"/etc/a": "a after\n", "/etc/b": None}
Work = Callable[[Path], object]


def prepared(base: Path) -> None:
    """A host on which something was run before, so that its record is there."""
    needs.root("trace a process")
    host = furnished(base, FILES)
    (base / "etc/a").chmod(0o640)
    host.sysconfig.run_string(text({"/etc/c": "c before\n", "/etc/z": "z"}), 0, "augeas", "first")
    host.sysconfig.close()


def copied(original: Path, base: Path) -> Path:
    shutil.copytree(original, base, symlinks=True)
    os.setxattr(base / "etc/a", "user.note", b"kept")
    return base


def deaths(
    tmp_path: Path, original: Path, work: Work, chosen: slice = slice(None)
) -> Iterator[tuple[str, Path]]:
    """Hosts on which some work died at each of its calls, or of those that are chosen, in their order; in
    `whole` it has lived."""
    whole = copied(original, tmp_path / "whole")
    every = calls(partial(work, whole), tmp_path / "trace")
    assert len(every) > 20
    for number, call in enumerate(every[chosen]):
        base = copied(original, tmp_path / str(number))
        assert not lived(partial(work, base), kill=call), call
        yield call, base
        close_all()
        shutil.rmtree(base)


def apply(base: Path, wanted: Mapping[str, str | None] = CHANGE, scheme: str = "augeas") -> None:
    machine(base).sysconfig.run_string(text(wanted, told=scheme == "puppet"), 1, scheme, "key")


def recover(base: Path) -> None:
    machine(base).sysconfig._runs._performer.recover()


@pytest.mark.parametrize(("scheme", "wanted"), [("augeas", CHANGE), ("puppet", BY_PROGRAM)])
def test_killed_anywhere_it_is_all_old_or_all_new(
    tmp_path: Path, scheme: str, wanted: Mapping[str, str | None]
) -> None:
    original = tmp_path / "original"
    prepared(original)
    old = tree(original)
    seen = []
    for call, base in deaths(tmp_path, original, partial(apply, wanted=wanted, scheme=scheme)):
        recover(base)
        state, new = tree(base), tree(tmp_path / "whole")
        assert state in (old, new), call
        assert os.getxattr(base / "etc/a", "user.note") == b"kept", call
        host = machine(base)
        run = host.sysconfig.history()[0]
        status = host.sysconfig.is_configured("key")
        if state == new:
            assert (run.result, status) == (RunResult.APPLIED, "OK"), call
        else:
            assert run.result is RunResult.INTERRUPTED or run.key == "first", call
            assert status == "unknown", call
        host.sysconfig.close()
        seen.append(state == new)
    assert seen == sorted(seen)  # once it counts, it counts
    assert True in seen
    assert False in seen


@pytest.mark.slow
def test_killed_anywhere_while_it_is_recovered(tmp_path: Path) -> None:
    """The recovery itself dies, and another one comes."""
    original = tmp_path / "original"
    prepared(original)
    old = tree(original)
    count = 0
    for call, base in deaths(tmp_path, original, apply, slice(8, None, 14)):
        again = base.with_name("again")
        for death in calls(partial(recover, shutil.copytree(base, again)), tmp_path / "trace"):
            shutil.rmtree(again)
            shutil.copytree(base, again)
            assert not lived(partial(recover, again), kill=death)
            recover(again)
            assert tree(again) in (old, tree(tmp_path / "whole")), (call, death)
            count += 1
        shutil.rmtree(again)
    assert count > 10


@pytest.mark.slow
def test_killed_anywhere_while_it_is_undone(tmp_path: Path) -> None:
    original = tmp_path / "original"
    prepared(original)
    host = machine(original)
    before = host.tree()
    run = host.sysconfig.apply(host.sysconfig.plan("augeas", text(CHANGE)).id, "key", 86_000)
    host.sysconfig._runs._performer.disarm(run.id)
    after = host.tree()
    host.sysconfig.close()

    def expire(base: Path) -> None:
        machine(base).sysconfig._runs._performer.expire(run.id)

    results = set()
    for call, base in deaths(tmp_path, original, expire):
        recover(base)
        found = machine(base).sysconfig.history()
        result = next(each.result for each in found if each.id == run.id)
        results.add(result)
        if result is RunResult.PENDING:
            assert tree(base) == after, call
            expire(base)
        state = tree(base)
        for directory in ("/etc/new", "/etc/new/sub"):  # an empty one may stay
            state.pop(directory, None)
        assert state == before, call
    assert results == {RunResult.PENDING, RunResult.UNDONE}
