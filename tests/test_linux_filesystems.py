"""Filesystems: what is listed, what is touched, and what a dead one costs."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from captured import captured, copy_of, put
from libmh.api.host import FactStatus, Filesystem
from libmh.context import Context, Root
from libmh.guard import CEILING, Guard
from libmh.linux.machine import filesystems, mounts
from libmh.linux.machine.mounts import Mount
from testbed import needs

SIZES = os.statvfs_result((4096, 4096, 1000, 600, 500, 100, 60, 50, 0, 255))


def listed(
    machine: str, statvfs: Callable[[str], os.statvfs_result] = lambda _: SIZES, deadline: float = 2.0
) -> dict[str, Filesystem]:
    found = filesystems.read(captured(machine).root, statvfs, Guard(max_threads=4), deadline)
    return {each.mount_point: each for each in found}


def test_what_holds_files_is_listed_once() -> None:
    found = listed("debian12-kvm")
    assert list(found) == ["/run", "/", "/srv/my data", "/mnt/nfs", "/mnt/ssh", "/mnt/old"]
    assert found["/"] == Filesystem(
        "/", "/dev/vda1", "ext4", False, FactStatus.OK, 4_096_000, 500 * 4096, 100, 50
    )
    assert found["/srv/my data"].read_only
    assert found["/mnt/old"].type == "cifs"  # what is mounted over another hides it


def test_subvolumes_are_listed_and_bind_mounts_of_them_are_not() -> None:
    assert list(listed("fedora-laptop")) == ["/", "/home", "/boot", "/boot/efi", "/run/user/1000/doc"]


def test_the_whole_filesystem_stands_for_its_bind_mounts() -> None:
    lines = ("1 0 8:1 /sub /a rw - ext4 /dev/sda1 rw", "2 0 8:1 / /b rw - ext4 /dev/sda1 rw")
    assert [mount.point for mount in mounts.distinct(mounts.parse_mountinfo("\n".join(lines)))] == ["/b"]


def test_network_and_user_space_are_never_touched() -> None:
    touched: list[str] = []

    def statvfs(path: str) -> os.statvfs_result:
        touched.append(path)
        return SIZES

    found = listed("debian12-kvm", statvfs)
    base = str(captured("debian12-kvm").root.base)
    assert sorted(path.removeprefix(base) for path in touched) == ["", "/run", "/srv/my data"]
    untouched = [each for each in found.values() if each.status is FactStatus.UNSUPPORTED]
    assert [each.type for each in untouched] == ["nfs4", "fuse.sshfs", "cifs"]
    assert {each.size for each in untouched} == {None}


def test_a_dead_one_costs_its_own_record() -> None:
    release = threading.Event()

    def statvfs(path: str) -> os.statvfs_result:
        if path.endswith("my data"):
            release.wait(30)
        return SIZES

    started = time.monotonic()
    guard = Guard(max_threads=4)
    root = captured("debian12-kvm").root
    found = {each.mount_point: each for each in filesystems.read(root, statvfs, guard, 0.2)}
    assert time.monotonic() - started < 20
    assert found["/srv/my data"].status is FactStatus.TIMEOUT
    assert found["/"].status is found["/run"].status is FactStatus.OK
    started = time.monotonic()
    again = {each.mount_point: each for each in filesystems.read(root, statvfs, guard, 5)}
    assert time.monotonic() - started < 20  # nobody waits for it a second time
    assert again["/srv/my data"].status is FactStatus.TIMEOUT
    assert guard.stuck == 1
    release.set()


def test_what_may_not_be_measured_and_what_is_broken() -> None:
    def statvfs(path: str) -> os.statvfs_result:
        if path.endswith("my data"):
            raise PermissionError(13, "no")
        if path.endswith("/run"):
            raise OSError(5, "a broken disk")
        return SIZES

    found = listed("debian12-kvm", statvfs)
    assert found["/srv/my data"].status is FactStatus.DENIED
    assert found["/run"].status is FactStatus.FAILED
    assert found["/"].status is FactStatus.OK


def test_without_a_table_of_inodes_none_are_told() -> None:
    sizes = os.statvfs_result((4096, 4096, 1000, 600, 500, 0, 0, 0, 0, 255))
    assert listed("arm64-pi", lambda _: sizes)["/"].inodes is None


def test_a_machine_full_of_mounts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = copy_of("debian12-kvm", tmp_path)
    lines = [
        f"{n} 1 0:{n} / /m/{n} rw,relatime shared:{n} - overlay overlay rw,lowerdir=/{'x' * 60}"
        for n in range(65_000)
    ]
    put(context, "/proc/self/mountinfo", "\n".join(lines))
    started = time.monotonic()
    found = filesystems.read(context.root, lambda _: SIZES, Guard(max_threads=4))
    assert time.monotonic() - started < 50
    assert len(found) == 1000
    assert {each.status for each in found} == {FactStatus.OK}
    assert "there are 65000 filesystems, listing 1000" in caplog.text


def test_more_dead_ones_than_threads_still_answer_in_time(tmp_path: Path) -> None:
    context = copy_of("debian12-kvm", tmp_path)
    put(
        context,
        "/proc/self/mountinfo",
        "\n".join(f"{n} 1 0:{n} / /m/{n} rw - ext4 /dev/x rw" for n in range(100)),
    )
    release = threading.Event()

    def statvfs(_: str) -> os.statvfs_result:
        release.wait(30)
        return SIZES

    guard, started = Guard(max_threads=4), time.monotonic()
    for _ in range(2):
        found = filesystems.read(context.root, statvfs, guard, 0.2)
        assert {each.status for each in found} == {FactStatus.TIMEOUT}
    assert time.monotonic() - started < 20
    # one that is given up makes room for another, which may have begun before it is given up, too
    assert guard.stuck <= 4 * CEILING
    release.set()


def test_a_mount_is_parsed() -> None:
    (mount,) = mounts.parse_mountinfo(r"60 27 254:2 / /srv/my\040data ro - xfs /dev/a\011b rw")
    assert mount == Mount("254:2", "/", "/srv/my data", "xfs", "/dev/a\tb", True, "rw")


REAL = """
    import ctypes, json, os, pathlib, sys, time
    from libmh.context import Root
    from libmh.linux.host import LinuxHost
    from libmh.linux.machine import filesystems

    libc = ctypes.CDLL(None, use_errno=True)
    device, place = os.open("/dev/fuse", os.O_RDWR), sys.argv[1]
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"dead", place.encode(), b"fuse", 0, options):
        sys.exit(os.strerror(ctypes.get_errno()))
    started = time.monotonic()
    mine = [each for each in LinuxHost().filesystems() if each.mount_point == place]
    untouched = time.monotonic() - started
    # the same mount, called ext4: as a disk that no longer answers
    found = filesystems.read(Root(pathlib.Path(sys.argv[2])), deadline=0.5)
    print(json.dumps({
        "mine": [each.status for each in mine],
        "untouched": untouched,
        "seconds": time.monotonic() - started,
        "statuses": {each.mount_point: each.status for each in found},
    }), flush=True)
    os._exit(0)
"""


def test_a_filesystem_that_really_hangs(tmp_path: Path) -> None:
    """A FUSE mount whose server never answers, in a mount namespace that ends with its process."""
    needs.root("mount a filesystem")
    needs.file("/dev/fuse")
    machine = tmp_path / "machine"
    dead = machine / "dead"
    dead.mkdir(parents=True)
    lines = ("1 0 8:1 / / rw - ext4 /dev/sda1 rw", "2 1 8:2 / /dead rw - ext4 /dev/sdb1 rw")
    put(Context(root=Root(machine)), "/proc/self/mountinfo", "\n".join(lines))
    snippet = textwrap.dedent(REAL)
    unshare = [needs.command("unshare", "util-linux"), "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", snippet, str(dead), str(machine)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["mine"] == ["unsupported"]
    assert told["untouched"] < 1
    assert told["statuses"] == {"/": "ok", "/dead": "timeout"}
    assert told["seconds"] < 3
