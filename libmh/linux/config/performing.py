"""Carrying out a plan: one run at a time on a host, whole or not at all, whoever dies in between."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from libmh.api.sysconfig import Run, RunResult
from libmh.caller import time_left
from libmh.context import Root
from libmh.errors import BackendFailed, Conflict, Failed, Problem, Timeout
from libmh.linux import deadman
from libmh.linux.config import applying, places, planning, recovery, runs
from libmh.linux.config.applying import Target
from libmh.linux.config.confstore import Store, digest, keep
from libmh.linux.config.masking import masked
from libmh.linux.config.places import Found
from libmh.linux.config.plans import Prepared, Step, new_id
from libmh.linux.config.recovery import COMMITTED, REVERTING, RUNNING, STAGED, Entry
from libmh.linux.config.runs import Change
from libmh.schemes import Execution, Scheme

log = logging.getLogger("libmh.linux.config.performing")
LOCK_SECONDS = 600.0
RUN_SECONDS = 1500.0
SECOND = 10**9
MAX_STATUS = 65_535
SPOKEN = ("augeas",)
"""Schemes whose output is part of the status under a key."""
NOT_CONFIRMED = "it was not confirmed in time"


@dataclass(frozen=True, slots=True)
class Order:
    """What to carry out, for whom. `confirm`: seconds until it is undone; 0 keeps it. `overdue`: it takes
    back a run that nobody confirmed, and only if it still is not."""

    take: Callable[[], Prepared]
    by: str
    key: str = ""
    confirm: int = 0
    overdue: bool = False


@dataclass(slots=True)
class Performer:
    """Carries out plans on a host. `tell` hears of every run that ended, in whatever way."""

    root: Root
    store: Store
    scheme: Callable[[str], Scheme]
    tell: Callable[[Run], None] = lambda _run: None
    forbidden: str = field(default="")

    def perform(self, order: Order, wait: float = LOCK_SECONDS) -> Run:
        """Take a plan and do it. A run that failed is an answer, too; `conflict`, `not-found`, `unavailable`
        and `timeout` (whoever asked waits no more) are raised, and nothing was changed then."""
        with self.store.locked(min(wait, time_left())):
            self.recover_locked()
            _awaited()
            prepared = order.take()
            began = time.time_ns(), time.monotonic()
            run = _begun(prepared, order, began[0])
            try:
                run = self._carried_out(prepared, order, run, began[1])
            except Problem as problem:
                self._note_refused(run, problem, began[1])
                raise
            except OSError as error:  # past the point where it is a run that failed
                raise BackendFailed(f"run {run.id} is for the recovery to end: {error}") from error
        self.tell(run)
        if prepared.undoes and run.result is RunResult.APPLIED:
            self.tell(runs.find(self.store, prepared.undoes))
        return run

    def recover(self) -> None:
        """Finish or take back what died; nothing where somebody is at work."""
        with self.store.locked(0.0):
            self.recover_locked()

    def recover_locked(self) -> None:
        for run in recovery.recover(self.root, self.store):
            self.tell(run)

    def expire(self, name: str) -> Run | None:
        """Take back a run that was not confirmed; None where it was, or does not stand for another reason.
        A file that changed since gets its old bytes back all the same: what it had is kept with this run."""
        by = f"the deadline of run {name}"

        def take() -> Prepared:
            run = runs.find(self.store, name)
            if run.result is not RunResult.PENDING:
                raise Conflict(f"run {name} is {run.result}", run=name)
            return planning.reverse(self.root, self.store, run, by, forced=True)

        try:
            self.perform(Order(take, by, overdue=True))
        except Conflict as problem:
            log.info("%s: nothing is undone", problem)
            return None
        return runs.find(self.store, name)

    def _carried_out(self, prepared: Prepared, order: Order, run: Run, began: float) -> Run:
        if not prepared.plan.exact:
            return self._by_program(prepared, order, run, began)
        if not prepared.steps and not prepared.undoes:
            ended = _ended(run, RunResult.UNCHANGED, began)
            recovery.drop(self.root, self.store, Entry(ended, ()))
            recovery.keep_status(self.root, self.store, Entry(ended, ()))
            return ended
        targets = self._targets(prepared.steps, run.id)
        missing = list(
            dict.fromkeys(
                each
                for target in targets
                if target.after is not None
                for each in places.missing_directories(self.root, target.directory)
            )
        )
        entry = Entry(run, targets, tuple(missing), prepared.undoes)
        return self._exactly(entry, prepared, order, began)

    def _targets(self, steps: tuple[Step, ...], run: str) -> tuple[Target, ...]:
        targets = []
        for number, step in enumerate(steps):
            place = places.locate(self.root, step.path, self.forbidden)
            token = f"mh-{run}-{number}"
            targets.append(
                Target(
                    step.path, place.directory, place.name, step.before, step.after, token, look=step.look
                )
            )
        return tuple(targets)

    def _exactly(self, entry: Entry, prepared: Prepared, order: Order, began: float) -> Run:
        """Write what was planned. Until it is committed nothing has changed; from there on it counts."""
        found = applying.verify(self.root, entry.targets)
        with self.store.transaction() as connection:
            for now in found:
                if now.content is not None:
                    keep(connection, now.content)
            for step in prepared.steps:
                if step.content is not None:
                    keep(connection, step.content)
            recovery.write(connection, entry, STAGED)
        armed = False
        try:
            applying.make_directories(self.root, entry.directories)
            for target, step in zip(entry.targets, prepared.steps, strict=True):
                applying.stage(self.root, target, step.content)
            looks = [self._looked(target) for target in entry.targets]
            found = applying.verify(self.root, entry.targets)
            _awaited()
            if order.confirm:
                self.arm(entry.run.id, order.confirm)
                armed = True
            entry = self._committed(entry, order, looks, began)
        except (OSError, Problem) as error:
            if armed:
                self.disarm(entry.run.id)
            return self._failed(entry, error, began)
        return self._switched(entry, prepared, found, began)

    def _looked(self, target: Target) -> dict[str, object] | None:
        if target.before is None:
            return None
        with places.opened(self.root, target.directory) as directory:
            return applying.look_of(directory, target.name)

    def _committed(
        self, entry: Entry, order: Order, looks: list[dict[str, object] | None], began: float
    ) -> Entry:
        result = RunResult.PENDING if order.confirm else RunResult.APPLIED
        run = _ended(entry.run, result, began, confirm=order.confirm)
        run = replace(run, files=[target.path for target in entry.targets])
        changes = [
            Change(target.path, target.before, target.after, look)
            for target, look in zip(entry.targets, looks, strict=True)
        ]
        with self.store.transaction() as connection:
            stood: RunResult | None = None
            if entry.undoes:
                reason = NOT_CONFIRMED if order.overdue else None
                stood = runs.mark_undone(connection, entry.undoes, run.id, reason)
                if stood is None or (order.overdue and stood is not RunResult.PENDING):
                    raise Conflict(f"run {entry.undoes} does not stand any more", run=entry.undoes)
            entry = replace(entry, run=run, stood=stood or "")
            runs.save(connection, run, entry.directories)
            runs.save_changes(connection, run.id, changes)
            recovery.write(connection, entry, COMMITTED)
        return entry

    def _switched(self, entry: Entry, prepared: Prepared, found: list[Found], began: float) -> Run:
        try:
            applying.switch(self.root, entry.targets, found)
        except (OSError, Problem) as error:
            run = _ended(entry.run, RunResult.FAILED, began, problem=error)
            failed = replace(entry, run=replace(run, files=[]))
            with self.store.transaction() as connection:
                recovery.write(connection, failed, REVERTING)
            recovery.take_back(self.root, self.store, failed)
            self.disarm(run.id)
            if isinstance(error, Problem):
                raise
            recovery.keep_status(self.root, self.store, Entry(failed.run, ()))
            return failed.run
        try:
            recovery.finish(self.root, self.store, entry)
        except (OSError, Problem) as error:  # the files are what they are to be; the journal knows the rest
            log.warning("run %s is done and leaves something behind: %s, ignoring", entry.run.id, error)
        if entry.undoes:
            applying.remove_directories(self.root, prepared.directories)
            if entry.stood == RunResult.PENDING:
                self.disarm(entry.undoes)
        return entry.run

    def _failed(self, entry: Entry, error: OSError | Problem, began: float) -> Run:
        """Nothing has been changed; what was laid beside goes."""
        run = _ended(entry.run, RunResult.FAILED, began, problem=error)
        recovery.drop(self.root, self.store, replace(entry, run=run))
        if isinstance(error, Problem):
            raise error
        recovery.keep_status(self.root, self.store, Entry(run, ()))
        return run

    def _note_refused(self, run: Run, problem: Problem, began: float) -> None:
        """For the history: somebody tried."""
        try:
            with self.store.transaction() as connection:
                runs.save(connection, _ended(run, RunResult.FAILED, began, problem=problem))
        except Problem as another:  # the first one is what the caller has to hear
            log.warning("run %s is not in the history: %s, ignoring", run.id, another)

    def _by_program(self, prepared: Prepared, order: Order, run: Run, began: float) -> Run:
        """Let another program make the change. The files that it told of get their bytes back if it
        fails."""
        targets = self._targets(prepared.steps, run.id)
        found = applying.verify(self.root, targets)
        targets = tuple(replace(target, look=self._looked(target)) for target in targets)
        entry = Entry(run, targets)
        with self.store.transaction() as connection:
            for now in found:
                if now.content is not None:
                    keep(connection, now.content)
            recovery.write(connection, entry, RUNNING)
        try:
            if order.confirm:  # should the agent not live to see its end
                self.arm(run.id, order.confirm + RUN_SECONDS)
            execution = self.scheme(prepared.plan.scheme).run(prepared.text, min(RUN_SECONDS, _awaited()))
            if order.confirm and not execution.failed:
                self.disarm(run.id)
                self.arm(run.id, order.confirm)
        except Problem as problem:
            self._restored(entry, _ended(run, RunResult.FAILED, began, problem=problem))
            raise
        return self._program_ended(entry, order, execution, began)

    def _program_ended(self, entry: Entry, order: Order, execution: Execution, began: float) -> Run:
        run = replace(entry.run, output=masked(execution.output, planning.MAX_OUTPUT))
        if execution.failed:
            run = _ended(run, RunResult.FAILED, began, code=execution.code)
            return self._restored(entry, run)
        changes, contents = self._changed(entry)
        changed = bool(changes) or execution.changed
        result = RunResult.UNCHANGED if not changed else RunResult.APPLIED
        if changes and order.confirm:
            result = RunResult.PENDING
        run = _ended(run, result, began, confirm=order.confirm if changes else 0)
        run = replace(run, files=[each.path for each in changes])
        with self.store.transaction() as connection:
            for content in contents:
                keep(connection, content)
            runs.save(connection, run)
            runs.save_changes(connection, run.id, changes)
            done = Entry(run, ())  # from here on it counts, and none of its files is for us to write
            recovery.write(connection, done, COMMITTED)
        recovery.finish(self.root, self.store, done)
        if order.confirm and not changes:
            self.disarm(run.id)
        return run

    def _changed(self, entry: Entry) -> tuple[list[Change], list[bytes]]:
        changes, contents = [], []
        for target in entry.targets:
            try:
                now = places.look(self.root, target.place).content
            except Problem as problem:
                log.warning("'%s' cannot be looked at after a run: %s, ignoring", target.path, problem)
                continue
            after = None if now is None else digest(now)
            if after != target.before:
                changes.append(Change(target.path, target.before, after, target.look))
                contents += [] if now is None else [now]
        return changes, contents

    def _restored(self, entry: Entry, run: Run) -> Run:
        missed = recovery.restore(self.root, self.store, entry.targets)
        if missed:
            run = replace(run, reason=f"{run.reason}; {missed}")
        recovery.drop(self.root, self.store, replace(entry, run=run))
        recovery.keep_status(self.root, self.store, Entry(run, ()))
        self.disarm(run.id)
        return run

    def arm(self, name: str, seconds: float) -> None:
        """Undo a run at a time, whatever becomes of this process."""
        base = [] if str(self.root.base) == "/" else [str(self.root.base)]
        command = [sys.executable, "-m", "libmh.linux.config.undoing", str(self.store.state), name, *base]
        deadman.arm(self.root, f"undo-{name}", seconds, command)

    def disarm(self, name: str) -> None:
        try:
            deadman.disarm(self.root, f"undo-{name}")
        except Problem as problem:  # it finds nothing to undo when its time comes
            log.warning("the undoing of run %s is not called off: %s, ignoring", name, problem)


def _awaited() -> float:
    """Seconds for which whoever asked still waits. `timeout` when he does not: he has heard so already."""
    left = time_left()
    if not left:
        raise Timeout("nobody waits for this run any more; nothing was changed")
    return left


def _begun(prepared: Prepared, order: Order, now: int) -> Run:
    plan = prepared.plan
    return Run(
        new_id(),
        plan.id,
        plan.scheme,
        order.key,
        order.by,
        now,
        0.0,
        RunResult.FAILED,
        "",
        [],
        plan.output,
        plan.digest,
        plan.source,
    )


def _ended(
    run: Run,
    result: RunResult,
    began: float,
    *,
    confirm: int = 0,
    problem: OSError | Problem | None = None,
    code: int = 0,
) -> Run:
    reason: str | None = None
    if isinstance(problem, OSError):
        named = f"'{problem.filename}': " if problem.filename else ""
        problem = Failed(f"{named}{problem.strerror}; nothing was changed")
    if problem is not None:
        reason, code = problem.message, problem.number
    elif result is RunResult.FAILED:
        reason = f"'{run.scheme}' ended with {code}; the files that it told of are as before"
    spoken = run.output if run.scheme in SPOKEN and problem is None else reason if problem else ""
    first = f"FAILED\n{code}" if result is RunResult.FAILED else "OK"
    return replace(
        run,
        result=result,
        duration=time.monotonic() - began,
        status=(f"{first}\n{spoken}" if spoken else first)[:MAX_STATUS],
        confirm_by=time.time_ns() + confirm * SECOND if confirm else None,
        reason=reason,
    )
