"""Making a plan: what a scheme foretells, looked at file by file, as a person and `apply` need it."""

from collections.abc import Sequence
from dataclasses import replace

from libmh.api.sysconfig import FileChange, Plan, Run, RunResult
from libmh.context import Root
from libmh.errors import BackendFailed, Conflict, InvalidArguments
from libmh.linux.config import plans, runs
from libmh.linux.config.confstore import Store, content_of, digest
from libmh.linux.config.diffs import MAX_DIFF, unified
from libmh.linux.config.masking import masked
from libmh.linux.config.places import Place, check, locate, look
from libmh.linux.config.plans import Prepared, Step
from libmh.linux.config.runs import Change
from libmh.schemes import Edit, Forecast
from libmh.wire import MAX_STRING

MAX_TEXT = 16 << 20
MAX_FILES = 1000
MAX_BYTES = 64 << 20
MAX_DIFFS = 4 << 20
MAX_OUTPUT = MAX_STRING
UNDO = "undo"
CUT = "(not shown: there are more than 4 MiB of diffs)\n"
BLANK = Plan("", "", 0, 0, "", "", exact=True, files=[], output="")


def check_text(text: str) -> None:
    """`invalid-arguments` for none, for more than 16 MiB, and for NUL."""
    if not text.strip():
        raise InvalidArguments("text: expected something to do, got nothing", argument="text")
    if len(text) > MAX_TEXT or len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT:
        raise InvalidArguments("text: expected at most 16 MiB", argument="text")
    if "\0" in text:
        raise InvalidArguments("text: expected no NUL", argument="text")


def foretold(
    root: Root, forecast: Forecast, *, scheme: str, text: str, source: str | None, by: str, forbidden: str
) -> Prepared:
    """The plan that a forecast makes. `conflict` where a file changed while it was made,
    `invalid-arguments` for a file that nothing is written to, `backend-failed` for too much."""
    if len(forecast.edits) > MAX_FILES:
        raise BackendFailed(f"it would change {len(forecast.edits)} files: expected at most {MAX_FILES}")
    steps, changes, notes = [], [], []
    places: set[Place] = set()
    budget = MAX_DIFFS
    for edit in forecast.edits:
        check(edit.path)
        place = locate(root, edit.path, forbidden)
        if place in places:
            raise BackendFailed(f"it would change '{place.path}' under two names", source=place.path)
        places.add(place)
        now = look(root, place)
        step = _step(edit, now.content, exact=forecast.exact)
        if step is None:
            continue
        diff = _diff(edit) if budget > 0 else CUT
        budget -= len(diff)
        steps.append(step)
        changes.append(FileChange(edit.path, diff, step.before, step.after))
        if now.links > 1:
            notes.append(f"'{edit.path}' has {now.links} names; under the others it stays as it is\n")
    _refuse_too_much(steps)
    plan = plans.as_made(
        BLANK,
        scheme=scheme,
        by=by,
        digest=digest(text.encode("utf-8", "surrogateescape")),
        exact=forecast.exact,
        files=changes,
        output="".join(notes) + masked(forecast.output, MAX_OUTPUT),
        source=source,
    )
    return Prepared(replace(plan, output=plan.output[:MAX_OUTPUT]), tuple(steps), text)


def _step(edit: Edit, now: bytes | None, *, exact: bool) -> Step | None:
    """None where nothing changes."""
    before = None if now is None else digest(now)
    if edit.told is not None or not exact:
        return Step(edit.path, before, None, told=True)
    if now != edit.before:
        raise Conflict(f"'{edit.path}' changed while it was looked at", path=edit.path)
    if edit.after == now:
        return None
    return Step(edit.path, before, None if edit.after is None else digest(edit.after), edit.after)


def _diff(edit: Edit) -> str:
    if edit.told is not None:
        return masked(edit.told, MAX_DIFF)
    return unified(edit.path, edit.before, edit.after)


def _refuse_too_much(steps: Sequence[Step]) -> None:
    if sum(len(step.content or b"") for step in steps) > MAX_BYTES:
        raise BackendFailed(f"it would write more than {MAX_BYTES >> 20} MiB")


def reverse(root: Root, store: Store, run: Run, by: str, *, forced: bool = False) -> Prepared:
    """The plan that takes back what a run did. `conflict` where the run does not stand, or a file has
    changed since; `forced`: that one, too, gets the bytes back that it had."""
    if run.result not in (RunResult.APPLIED, RunResult.PENDING):
        raise Conflict(f"run {run.id} is {run.result}: there is nothing to take back", run=run.id)
    with store.transaction(durable=False) as connection:
        changes = runs.changes_of(connection, run.id)
        directories = runs.directories_of(connection, run.id)
        contents = {each.path: content_of(connection, each.before) for each in changes}
    steps, shown = [], []
    for change in changes:
        made = _back(root, run, change, contents[change.path], forced=forced)
        if made is not None:
            steps.append(made[0])
            shown.append(made[1])
    plan = plans.as_made(BLANK, scheme=UNDO, by=by, digest=run.digest, exact=True, files=shown, output="")
    return Prepared(plan, tuple(steps), undoes=run.id, directories=directories)


def _back(
    root: Root, run: Run, change: Change, content: bytes | None, *, forced: bool
) -> tuple[Step, FileChange] | None:
    now = look(root, locate(root, change.path)).content
    before = None if now is None else digest(now)
    if before != change.after and not forced:
        raise Conflict(f"'{change.path}' has changed since run {run.id}", path=change.path, run=run.id)
    if change.before is not None and content is None:
        raise Conflict(f"what '{change.path}' was before run {run.id} is kept no longer", run=run.id)
    if before == change.before:
        return None
    step = Step(change.path, before, change.before, content, change.look)
    return step, FileChange(change.path, unified(change.path, now, content), before, change.before)


def emptied(prepared: Prepared) -> Prepared:
    """For a text that does not mean to write: what it printed is all."""
    return replace(prepared, plan=replace(prepared.plan, files=[]), steps=())
