"""What runs unless it is disarmed: by a process of its own, and by a real systemd."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmh.context import Root
from libmh.errors import InvalidArguments, Problem
from libmh.linux.deadman import arm, disarm
from libmh.linux.descendants import MARK
from service_units import context_of, machine_with_units
from testbed.machine import Host
from waiting import wait_for


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with machine_with_units("deadman") as host:
        yield host


@pytest.fixture(params=["process", "systemd"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    if request.param == "process":
        return Root(tmp_path)
    return context_of(request.getfixturevalue("machine")).root


def place(root: Root, name: str) -> tuple[Path, str]:
    """A file as we see it, and as what is armed does."""
    seen = root.path(f"/run/{name}")
    seen.parent.mkdir(exist_ok=True)
    return seen, f"/run/{name}" if root.path("/run/systemd/system").exists() else str(seen)


def test_it_runs_when_its_time_has_come(root: Root) -> None:
    ran, named = place(root, "ran")
    arm(root, "runs", 0.2, ["/usr/bin/touch", named])
    assert not ran.exists()
    wait_for(ran.exists)


def test_it_does_not_run_when_it_is_disarmed(root: Root) -> None:
    early, named_early = place(root, "early")
    late, named_late = place(root, "late")
    arm(root, "disarmed", 0.4, ["/usr/bin/touch", named_early])
    arm(root, "left", 0.8, ["/usr/bin/touch", named_late])
    disarm(root, "disarmed")
    wait_for(late.exists)
    assert not early.exists()


def test_to_disarm_what_is_not_armed_is_no_error(root: Root) -> None:
    disarm(root, "never-armed")
    ran, named = place(root, "again")
    arm(root, "again", 0.0, ["/usr/bin/touch", named])
    wait_for(ran.exists)
    disarm(root, "again")
    arm(root, "again", 60, ["/usr/bin/touch", named])  # its name is free
    disarm(root, "again")


def processes_with(mark: str) -> list[Path]:
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended
            if f"{MARK}={mark}".encode() in place.read_bytes().split(b"\0"):
                found.append(place)
    return found


def test_the_process_is_nobodys_child_and_goes_when_it_is_disarmed(tmp_path: Path) -> None:
    arm(Root(tmp_path), "alone", 60, ["/usr/bin/touch", str(tmp_path / "never")])
    assert len(processes_with("matahari-alone")) >= 1
    disarm(Root(tmp_path), "alone")
    wait_for(lambda: not processes_with("matahari-alone"))


def test_a_program_that_is_not_there_fails_at_its_time_alone(root: Root) -> None:
    arm(root, "missing", 0.05, ["/no/such/program"])
    disarm(root, "missing")


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", "x" * 101])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArguments):
        arm(Root(tmp_path), name, 1, ["/bin/true"])


def test_two_of_one_name_are_refused_by_systemd(machine: Host) -> None:
    root = context_of(machine).root
    arm(root, "twice", 60, ["/bin/true"])
    with pytest.raises(Problem, match="matahari-twice"):
        arm(root, "twice", 60, ["/bin/true"])
    disarm(root, "twice")
