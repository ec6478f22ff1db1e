"""Changes of the network that undo themselves unless they are confirmed."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from libmh.api.network import Keeper, Network, NetworkChange
from libmh.caller import asking
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotFound, Problem
from libmh.linux.net import links, rollback
from libmh.linux.net.keeper import LinkKeeper, keeper_of, who
from libmh.linux.net.kernelnet import LinkState, state
from libmh.linux.net.netproof import check, taken, wait_for_truth, wait_until
from libmh.linux.net.netrecord import Record, Records, Stage, boot_id, clock, new_id
from libmh.linux.net.netwish import SetAddresses, Turn, Wish, described

log = logging.getLogger("libmh.linux.network")
MAX_CONFIRM = 3600
BEGIN_SECONDS = 15.0
HOLD_SECONDS = 45.0
MODULE = "libmh.linux.net.rollback"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long a change may take to be made, and what is added for those who look after it."""

    make: float = 20.0
    lease: float = 45.0  # what DHCP clients wait for an answer
    spare: float = 5.0
    manager: float = 15.0  # a manager's own timer comes after ours

    def of(self, wish: Wish) -> float:
        leasing = wish is Turn.RESTART or wish is Turn.UP or (isinstance(wish, SetAddresses) and wish.dhcp)
        return self.lease if leasing else self.make


class Changes:
    """Makes, confirms and rolls back changes, and tells of them. `limits` are for tests."""

    def __init__(self, context: Context, limits: Limits | None = None) -> None:
        self._context = context
        self._root = context.root
        self._limits = limits or Limits()
        self._records = Records(context.settings.directory)
        self._lock = threading.Lock()
        self._watched: dict[str, threading.Timer] = {}

    def keeper(self, iface: str) -> Keeper:
        return who(self._root, iface)

    def list_changes(self) -> list[NetworkChange]:
        return [each.shown for each in self._records.all()]

    def turn(self, iface: str, *, up: bool) -> None:
        """Bring a link up or down, unless it is; there is no way back. Returns once that has ended."""
        now = self._state_of(iface)
        if now.up is up:
            return
        wish = Turn.UP if up else Turn.DOWN
        check(iface, wish, now)
        keeper = keeper_of(self._root, iface, who(self._root, iface))
        with self._records.beginning(BEGIN_SECONDS):
            self._refuse_second(iface)
            keeper.turn(up=up)
        wait_for_truth(self._root, iface, wish, now, keeper.done, self._limits.of(wish))

    def make(self, iface: str, wish: Wish, confirm: int) -> NetworkChange:
        """Make a change, and answer how it stands: pending, confirmed, or failed."""
        if confirm > MAX_CONFIRM:
            raise InvalidArguments(
                f"confirm: expected at most {MAX_CONFIRM} s, got {confirm}", argument="confirm"
            )
        before = self._state_of(iface)
        check(iface, wish, before)
        kind = who(self._root, iface)
        keeper = keeper_of(self._root, iface, kind)
        other = taken(self._root, iface, wish, before)
        with ExitStack() as held:
            with self._records.beginning(BEGIN_SECONDS):
                self._refuse_second(iface)
                change = new_id()
                held.enter_context(self._records.holding(change, BEGIN_SECONDS))
                try:
                    record = self._begin(change, iface, wish, before, kind, keeper, confirm, other)
                except Problem:
                    self._records.drop(change)
                    raise
            if not record.stage.ended:
                record = self._carry_out(record, wish, before, keeper)
        self._tell(record)
        return record.shown

    def confirm(self, change: str) -> NetworkChange:
        """Keep it. `conflict` when it was rolled back, and while it is being made."""
        if self._records.get(change).stage is Stage.MAKING:  # who asks now has not yet met what it does
            raise Conflict(f"the change '{change}' is still being made", id=change)
        with self._records.holding(change, HOLD_SECONDS):
            record = self._records.get(change)
            if record.stage is Stage.CONFIRMED:
                return record.shown
            # what should have rolled it back may have been hindered, or the host have slept
            late = record.stage is Stage.PENDING and clock() > record.due + self._limits.spare
            keepable = record.stage in (Stage.PENDING, Stage.CONFIRMING) and not late
            if keepable and record.boot == boot_id(self._root):
                record = self._keep(record)
            else:  # it ended, or whoever made it or rolled it back died in that
                record = rollback.settle_held(self._records, record, rollback.LATE)
        self._forget(change)
        self._tell(record)
        if record.stage is not Stage.CONFIRMED:
            raise Conflict(f"the change '{change}' was not kept: {record.reason}", id=change)
        return record.shown

    def roll_back(self, change: str) -> NetworkChange:
        """Undo it now. `conflict` when it was confirmed."""
        if self._records.get(change).stage.ended:
            record = self._records.get(change)
        else:
            reason = f"{asking().described} asked for it"
            record = rollback.settle(self._records, change, reason, HOLD_SECONDS)
            self._forget(change)
            self._tell(record)
        if record.stage is Stage.CONFIRMED:
            raise Conflict(f"the change '{change}' was confirmed", id=change)
        return record.shown

    def watch(self) -> None:
        """Look after what was left pending, by an earlier agent too."""
        try:
            unfinished = self._records.unfinished()
        except Problem as problem:
            log.warning("%s, ignoring", problem)
            return
        for record in unfinished:
            waiting = record.stage is Stage.PENDING and record.boot == boot_id(self._root)
            left = max(record.due - clock(), 0.0) if waiting else 0.0
            self._look_at(record.id, left, patience=self._limits.spare if waiting else 0.0)

    def close(self) -> None:
        """Look after nothing any more; what is armed stays so."""
        with self._lock:
            timers, self._watched = list(self._watched.values()), {}
        for timer in timers:
            timer.cancel()

    def _state_of(self, iface: str) -> LinkState:
        if not links.known(self._root, iface):
            raise NotFound(f"there is no network link '{iface[:60]}'", link=iface[:60])
        return state(self._root, iface)

    def _refuse_second(self, iface: str) -> None:
        for each in self._records.unfinished():
            if each.link == iface:
                raise Conflict(f"'{iface}' has a pending change: '{each.id}', {each.what}", id=each.id)

    def _begin(
        self,
        change: str,
        iface: str,
        wish: Wish,
        before: LinkState,
        kind: Keeper,
        keeper: LinkKeeper,
        confirm: int,
        other: str | None,
    ) -> Record:
        """Write it down with what undoes it. An address that another host has ends it here."""
        limit = self._limits.of(wish)
        saved = {} if other else keeper.save(wish, before, limit + confirm + self._limits.manager)
        record = Record(
            id=change,
            link=iface,
            keeper=kind,
            what=described(wish),
            stage=Stage.FAILED if other else Stage.MAKING,
            time=time.time_ns(),
            by=asking().described,
            persistent=kind is not Keeper.KERNEL and not isinstance(wish, Turn),
            confirm=confirm,
            boot=boot_id(self._root),
            due=clock() + limit + confirm,
            confirm_by=time.time_ns() + round((limit + confirm) * 1e9),
            reason=f"another host has the address '{other}'" if other else None,
            bus=os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"),
            root=str(self._root.base),
            before={} if other else before.plain(),
            saved=saved,
        )
        try:
            # armed first: were we killed in between, a record without a timer would stay for ever
            if not other:
                self._arm(change, "making", limit + self._limits.spare)
            return self._records.put(record)
        except Problem:
            keeper.discard(saved)
            raise

    def _carry_out(self, record: Record, wish: Wish, before: LinkState, keeper: LinkKeeper) -> Record:
        """The caller holds it."""
        try:
            keeper.make(wish, record.saved)
            wait_for_truth(self._root, record.link, wish, before, keeper.done, self._limits.of(wish))
            record = self._made(record)
        except Problem as problem:
            record = self._fail(record, problem)
        if record.stage is Stage.PENDING or record.stage.ended:  # else it is still wanted, or at work
            self._disarm(record.id, "making")
        return record

    def _made(self, record: Record) -> Record:
        """From now on its time runs."""
        current = self._records.get(record.id)
        if current.stage is not Stage.MAKING:  # we took longer than our limit, and were overtaken
            return current
        if record.confirm == 0:
            return self._keep(record)
        self._arm(record.id, "pending", record.confirm)
        wall = time.time_ns() + record.confirm * 1_000_000_000
        record = self._records.step(record, Stage.PENDING, due=clock() + record.confirm, confirm_by=wall)
        self._look_at(record.id, record.confirm, patience=self._limits.spare)
        return record

    def _fail(self, record: Record, problem: Problem) -> Record:
        """What was before comes back; where even that fails, what is armed tries again."""
        try:
            return rollback.undo(self._records, record, Stage.FAILING, problem.message)
        except Problem as worse:
            log.warning("change '%s' of '%s' is not undone yet: %s", record.id, record.link, worse)
            self._look_at(record.id, 1.0, patience=0.0)
            return self._records.step(record, Stage.FAILING, f"{problem.message}; {worse.message}")

    def _keep(self, record: Record) -> Record:
        try:
            return rollback.keep(self._records, record)
        except Problem:
            if self._records.get(record.id).stage is Stage.CONFIRMING:
                self._records.step(record, Stage.PENDING)
            raise

    def _arm(self, change: str, stage: str, seconds: float) -> None:
        from libmh.linux.deadman import arm  # dear to import, for those who only read

        directory = self._records.directory.parent
        program = (sys.executable, "-P", "-m", MODULE, str(directory), change)
        arm(self._root, _armed(change, stage), seconds, program)

    def _disarm(self, change: str, stage: str) -> None:
        from libmh.linux.deadman import disarm

        disarm(self._root, _armed(change, stage))

    def _forget(self, change: str) -> None:
        with self._lock:
            timer = self._watched.pop(change, None)
        if timer is not None:
            timer.cancel()
        try:
            self._disarm(change, "pending")
        except Problem as problem:  # it finds the change ended
            log.warning("'%s' is not disarmed: %s, ignoring", change, problem)

    def _look_at(self, change: str, seconds: float, *, patience: float) -> None:
        """When its time has come, see how it ended, and tell; end it when what was armed does not."""
        timer = threading.Timer(seconds, self._overdue, (change, patience))
        timer.daemon = True
        with self._lock:
            earlier, self._watched[change] = self._watched.get(change), timer
        if earlier is not None:
            earlier.cancel()
        timer.start()

    def _overdue(self, change: str, patience: float) -> None:
        with self._lock:
            self._watched.pop(change, None)
        try:
            if patience and _ended(lambda: self._records.get(change).stage.ended, patience):
                record = self._records.get(change)
            else:
                record = rollback.settle(self._records, change, rollback.LATE, HOLD_SECONDS)
        except Problem as problem:
            log.warning("change '%s' cannot be ended: %s", change, problem)
        else:
            self._tell(record)

    def _tell(self, record: Record) -> None:
        self._context.events.emit(Network.network_changed, change=record.shown)


def _ended(condition: Callable[[], bool], seconds: float) -> bool:
    try:
        wait_until(condition, seconds, "it did not end")
    except Problem:
        return False
    return True


def _armed(change: str, stage: str) -> str:
    return f"network-{stage}-{change}"
