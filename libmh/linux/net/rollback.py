"""Rolling back a change to the network: by the agent, or, when its time has come, by this program alone.

python -m libmh.linux.net.rollback STATE ID
"""

import logging
import os
import sys
import threading
from pathlib import Path

from libmh.api.network import Keeper
from libmh.context import Root
from libmh.errors import BackendFailed, Conflict, NotFound, Problem, Timeout
from libmh.linux.net import links, rtlinks
from libmh.linux.net.keeper import keeper_of
from libmh.linux.net.kernelnet import LinkState, state
from libmh.linux.net.netproof import came_back, wait_until
from libmh.linux.net.netrecord import Record, Records, Stage, boot_id, clock

log = logging.getLogger("libmh.linux.net.rollback")
LOCK_SECONDS = 10.0
UNDO_SECONDS = 30.0
SETTLE_SECONDS = 8.0
ATTEMPTS = 10
PAUSE = 3.0
EARLY = 0.2
UNREADABLE = "what was before is not known: its record is damaged, and the link is as it was left"
LATE = "it was not confirmed in time"
UNMADE = "it was not made to its end"
RESTARTED = "the host was restarted before it was confirmed"
ENDS = {Stage.FAILING: Stage.FAILED, Stage.ROLLING_BACK: Stage.ROLLED_BACK}


def undo(records: Records, record: Record, stage: Stage, reason: str) -> Record:
    """Bring back what was before a change that the caller holds, and say so. `stage` is `FAILING` or
    `ROLLING_BACK`, and is decided once this was called. Raises what the keeper raises; it can be called
    again then. A disk that takes nothing is a reason to call it again, not to leave a host cut off."""
    try:
        record = records.step(record, stage, reason)
    except BackendFailed as problem:
        log.warning("change '%s' is undone though %s", record.id, problem)
    root = Root(Path(record.root))
    link = _name_now(root, record)
    keeper = keeper_of(root, link, record.keeper)
    try:
        keeper.undo(record.saved)
        wait_until(keeper.done, UNDO_SECONDS, f"'{record.link}' did not come back to what it was")
        _settled(root, link, record)
    except NotFound as problem:
        if links.known(root, record.link):
            raise
        return records.step(record, ENDS[stage], f"{reason}; {problem.message}")
    except (KeyError, TypeError, ValueError) as error:
        log.warning("change '%s' of '%s' cannot be undone: %r", record.id, record.link, error)
        return records.step(record, Stage.FAILED, f"{reason}; {UNREADABLE}")
    return records.step(record, ENDS[stage], reason)


def _name_now(root: Root, record: Record) -> str:
    """A link that the kernel alone keeps is the same by another name, too; managers go by their own."""
    if record.keeper is not Keeper.KERNEL or links.known(root, record.link):
        return record.link
    return rtlinks.name_of(int(record.before.get("index") or 0)) or record.link


def _settled(root: Root, link: str, record: Record) -> None:
    """The keeper has what was; give the kernel's state a while to follow."""
    before = LinkState.of(record.before)
    try:
        wait_until(lambda: came_back(before, state(root, link)), SETTLE_SECONDS, "it is not all back")
    except Problem as problem:
        log.warning("change '%s' of '%s' was undone, but %s", record.id, record.link, problem)


def settle(records: Records, change: str, reason: str, seconds: float = LOCK_SECONDS) -> Record:
    """End a change that nobody confirmed, or finish what was begun with it. Answers how it ended; raises
    `timeout` when somebody holds it all the time."""
    with records.holding(change, seconds):
        return settle_held(records, records.get(change), reason)


def settle_held(records: Records, record: Record, reason: str) -> Record:
    if record.stage.ended:
        return record
    if record.boot != boot_id(Root(Path(record.root))):
        return _after_restart(records, record)
    if record.stage is Stage.CONFIRMING:
        return keep(records, record)
    if record.stage in (Stage.MAKING, Stage.FAILING):
        return undo(records, record, Stage.FAILING, record.reason or UNMADE)
    return undo(records, record, Stage.ROLLING_BACK, record.reason or reason)


def keep(records: Records, record: Record) -> Record:
    """Let a change last that has been decided to; what its manager undid meanwhile is undone whole."""
    record = records.step(record, Stage.CONFIRMING)
    try:
        keeper_of(Root(Path(record.root)), record.link, record.keeper).keep(record.saved)
    except Conflict as problem:
        return undo(records, record, Stage.ROLLING_BACK, problem.message)
    return records.step(record, Stage.CONFIRMED)


def _after_restart(records: Records, record: Record) -> Record:
    """Nothing that was unconfirmed is on the disk. What was being confirmed may be, and is made whole."""
    if record.stage is Stage.CONFIRMING and record.keeper is Keeper.NETWORKD:
        return keep(records, record)
    failed = record.stage in (Stage.MAKING, Stage.FAILING)
    return records.step(record, Stage.FAILED if failed else Stage.ROLLED_BACK, RESTARTED)


def main(state: str, change: str) -> int:
    """Roll it back unless it has ended; tried again while that cannot be."""
    records = Records(Path(state))
    try:
        record = records.get(change)
    except NotFound:
        return 0
    if record.bus:
        os.environ.setdefault("DBUS_SYSTEM_BUS_ADDRESS", record.bus)
    pause = threading.Event()
    if record.stage is Stage.PENDING and record.due - clock() > EARLY:
        pause.wait(record.due - clock())
    for _ in range(ATTEMPTS):
        try:
            ended = settle(records, change, LATE)
        except Timeout as problem:
            log.warning("%s: %s", change, problem)
            if _held_by_one_that_hangs(records, change):
                return 0
        except Problem as problem:
            log.warning("%s: %s", change, problem)
        else:
            log.warning("change '%s' of '%s' is %s", change, ended.link, ended.stage)
            return 0
        pause.wait(PAUSE)
    return 1


def _held_by_one_that_hangs(records: Records, change: str) -> bool:
    """Whoever makes a change has its own limit, which has passed: it hangs, and is not waited for."""
    try:
        record = records.get(change)
        if record.stage in (Stage.MAKING, Stage.FAILING, Stage.ROLLING_BACK) or record.due < clock():
            return settle_held(records, record, LATE).stage.ended
    except Problem as problem:
        log.warning("%s: %s", change, problem)
    return False


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    sys.exit(main(sys.argv[1], sys.argv[2]))
