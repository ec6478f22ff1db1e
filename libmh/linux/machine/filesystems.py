"""Mounted filesystems with their sizes. A dead one costs its own record, never the others'."""

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent import futures
from dataclasses import replace

from libmh.api.host import FactStatus, Filesystem
from libmh.context import Root
from libmh.errors import Problem
from libmh.guard import Guard
from libmh.linux.machine import mounts
from libmh.linux.machine.mounts import Mount

log = logging.getLogger("libmh.linux")
MAX_LISTED = 1000
MAX_TEXT = 4096  # PATH_MAX
DEADLINE = 2.0  # for all together

StatVfs = Callable[[str], os.statvfs_result]

PROBES = Guard(max_threads=8)
"""Threads of their own: whoever waits for a probe may hold one of `guard.SHARED`'s."""


def read(
    root: Root, statvfs: StatVfs = os.statvfs, guard: Guard = PROBES, deadline: float = DEADLINE
) -> list[Filesystem]:
    """In the order in which they were mounted. Raises what `Root.read` raises for mountinfo alone: a
    filesystem that does not answer says so in its record."""
    found = mounts.read(root)
    if len(found) > MAX_LISTED:
        log.warning("there are %d filesystems, listing %d", len(found), MAX_LISTED)
    listed = found[:MAX_LISTED]
    probes = [_Probe(mount, root, statvfs, guard, deadline) for mount in listed]
    asked = [probe.future for probe in probes if probe.future is not None]
    _, late = futures.wait(asked, deadline)
    for future in late:
        future.cancel()  # what has not begun: else each would hang in its turn when one is given up
    return [probe.record() for probe in probes]


class _Probe:
    """One statvfs(3) under way, under its own key: while it hangs, no second one starts."""

    def __init__(self, mount: Mount, root: Root, statvfs: StatVfs, guard: Guard, deadline: float) -> None:
        self.future: futures.Future[os.statvfs_result] | None = None
        self._mount = mount
        self._guard = guard
        self._key = f"statvfs {mount.point}"
        self._status = FactStatus.UNSUPPORTED if mount.untouchable else FactStatus.TIMEOUT
        if not mount.untouchable:
            place = str(root.path(mount.point))
            with contextlib.suppress(Problem):  # an earlier one still hangs, or too many do
                self.future = guard.submit(self._key, lambda: statvfs(place), deadline)

    def record(self) -> Filesystem:
        """What is known now."""
        mount = self._mount
        listed = Filesystem(
            mount.point[:MAX_TEXT], mount.source[:MAX_TEXT], mount.type, mount.read_only, self._status
        )
        if self.future is None or self.future.cancelled():
            return listed
        if not self.future.done():
            self._guard.abandon(self._key, self.future)
            return listed
        match self.future.exception():
            case None:
                return measured(listed, self.future.result())
            case Problem():  # refused while it stood in line behind one that hangs
                return listed
            case PermissionError():
                return replace(listed, status=FactStatus.DENIED)
            case error:  # gone meanwhile, or a broken disk
                log.info("'%s' cannot be measured: %s", mount.point, error)
                return replace(listed, status=FactStatus.FAILED)


def measured(listed: Filesystem, sizes: os.statvfs_result) -> Filesystem:
    """A record with its sizes; btrfs and others without a table of inodes say 0 of them."""
    return replace(
        listed,
        status=FactStatus.OK,
        size=sizes.f_blocks * sizes.f_frsize,
        free=sizes.f_bavail * sizes.f_frsize,
        inodes=sizes.f_files or None,
        inodes_free=sizes.f_favail if sizes.f_files else None,
    )
