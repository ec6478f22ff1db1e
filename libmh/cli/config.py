"""`mhctl config`: configuration that is looked at, applied whole or not at all, and can be undone."""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from libmh.api.sysconfig import RunResult, Sysconfig
from libmh.call import Verb
from libmh.cli.completing import FromHost, words
from libmh.cli.diffs import changes_nothing, kept_until, show_diff, show_output, show_plan
from libmh.cli.members import agree
from libmh.cli.render import as_json, harmless, moment
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import Conflict, InvalidArguments, NotFound
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Sysconfig)
MAX_TEXT = 16 << 20
MAX_CONFIRM = 86_400
UNKNOWN = "unknown"
STDIN = "-"
OK = "OK"
RUN_ANYWAY = 1
GOOD = frozenset({RunResult.APPLIED, RunResult.UNCHANGED, RunResult.PENDING})
COLOURS: Mapping[str, str] = {
    RunResult.APPLIED: "green",
    RunResult.UNCHANGED: "green",
    RunResult.PENDING: "yellow",
}
AGAIN = "plan it again, and look at what becomes of it now"
DRIFTED = "`mhctl config drift` shows what was changed since"


def _runs(wanted: frozenset[str], answer: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    return (
        (str(each["id"]), f"{moment(each['time'])} {each['scheme']}: {', '.join(each['files'])}")
        for each in answer
        if each["result"] in wanted
    )


AppliedRun = partial(FromHost, "run", INTERFACE, "history", partial(_runs, frozenset({RunResult.APPLIED})))
"""A run that can be undone, completed from those of the host."""
PendingRun = partial(FromHost, "run", INTERFACE, "history", partial(_runs, frozenset({RunResult.PENDING})))
"""A run that waits to be confirmed."""
PlanId = partial(FromHost, "plan", INTERFACE, "plans", words)
"""A plan that waits to be applied."""

SCHEME = click.argument("scheme")
SOURCE = click.argument("source", metavar="FILE|-|URI", type=click.Path(allow_dash=True))


def _ask(session: Session, member: str, given: dict[str, Plain]) -> dict[str, Any]:
    answer = session.ask(INTERFACE, member, Verb.CALL, given)
    return answer if isinstance(answer, dict) else {}


def _records(session: Session, member: str, given: dict[str, Plain]) -> list[dict[str, Any]]:
    answer = session.ask(INTERFACE, member, Verb.CALL, given)
    return [each for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _how(session: Session, *words: str) -> str:
    return shlex.join(["mhctl", "--on", session.url, "config", *words])


@contextmanager
def _hinted(hint: str) -> Iterator[None]:
    """Say what to do about a file that somebody else has changed."""
    try:
        yield
    except Conflict as problem:
        raise Conflict(problem.message, **{"hint": hint, **problem.details}) from problem


# --- plans ---


def text_of(source: str) -> str:
    """The text of a file of this machine, or of what is piped in; at most 16 MiB."""
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(MAX_TEXT + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise InvalidArguments(f"'{source}' is more than {MAX_TEXT >> 20} MiB", argument="text")
        return content.decode()
    except OSError as error:
        raise InvalidArguments(f"cannot read '{source}': {error.strerror}", argument="text") from error
    except UnicodeDecodeError as error:
        raise InvalidArguments(f"'{source}' is not UTF-8 text: {error.reason}", argument="text") from error


def _given(source: str) -> dict[str, Plain]:
    return {"uri": source} if "://" in source else {"text": text_of(source)}


@click.command("plan")
@SCHEME
@SOURCE
@pass_session
def plan_command(session: Session, scheme: str, source: str) -> None:
    """Show what a text would change, and keep that as a plan for `apply`.

    SCHEME is augeas, puppet or ansible. The text is in a file of this machine, in what is piped in, or at a
    URI, from which the host fetches it itself.
    """

    def work() -> None:
        plan = _ask(session, "plan", {"scheme": scheme, **_given(source)})
        if session.json:
            print(as_json(plan))
            return
        show_plan(plan)
        if changes_nothing(plan):
            click.echo("nothing to change")
            return
        click.echo(harmless(f"{kept_until(plan)}: '{_how(session, 'apply', str(plan['id']))}' applies it"))

    reported(session, work)


# --- applying ---


def _applying(function: Callable[..., None]) -> Callable[..., None]:
    """The options of whatever applies a plan."""
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option(
            "--confirm",
            type=click.IntRange(0, MAX_CONFIRM),
            default=0,
            metavar="SECONDS",
            help="Have it undone unless 'config confirm' comes within this time.",
        ),
        click.option("--key", default="", help="Keep the outcome under this key, for 'is_configured'."),
    ):
        function = option(function)
    return function


def _look_and_apply(session: Session, plan: Mapping[str, Any], *, key: str, confirm: int, yes: bool) -> None:
    """Show a plan, ask, and apply it. Nothing is asked of nothing."""
    show_plan(plan, err=session.json)
    if changes_nothing(plan) and not key:
        if session.json:
            _print_json(plan, None)
        else:
            click.secho("nothing to change", fg="green")
        return
    if not (yes or changes_nothing(plan)):
        agree(f"this changes {_what(plan)} of {session.url}")
    _apply(session, plan, key=key, confirm=confirm)


def _what(plan: Mapping[str, Any]) -> str:
    files = plan["files"]
    if not files:
        return "what cannot be told before"
    return f"'{files[0]['path']}'" if len(files) == 1 else f"{len(files)} files"


def _apply(session: Session, plan: Mapping[str, Any], *, key: str, confirm: int) -> None:
    with _hinted(AGAIN):
        run = _ask(session, "apply", {"plan": str(plan["id"]), "key": key, "confirm": confirm})
    if session.json:
        _print_json(plan, run)
    else:
        _tell(session, run)
    if run.get("result") not in GOOD:
        raise click.exceptions.Exit(1)


def _print_json(plan: Mapping[str, Any], run: Mapping[str, Any] | None) -> None:
    print(as_json({"plan": plan, "run": run}))


def _tell(session: Session, run: Mapping[str, Any]) -> None:
    result = str(run["result"])
    click.secho(harmless(_sentence(session, run)), fg=COLOURS.get(result, "red"))
    if result not in GOOD:
        show_output(str(run["output"]))


def _sentence(session: Session, run: Mapping[str, Any]) -> str:
    name = str(run["id"])
    files = ", ".join(run["files"])
    match run["result"]:
        case RunResult.APPLIED:
            said = f"applied: {files}" if files else "applied"
            return f"{said}; '{_how(session, 'undo', name)}' shows the way back"
        case RunResult.UNCHANGED:
            return "nothing to change"
        case RunResult.PENDING:
            when = moment(run["confirm_by"]) if run.get("confirm_by") else "in time"
            return (
                f"applied: {files}; undone at {when} unless '{_how(session, 'confirm', name)}' comes before"
            )
        case result:
            return f"{result}: {run['reason']}" if run.get("reason") else f"{result}: see the output"


@click.command("apply")
@click.argument("plan", metavar="PLAN|SCHEME", type=PlanId())
@click.argument("source", metavar="[FILE|-|URI]", default="", type=click.Path(allow_dash=True))
@_applying
@pass_session
def apply_command(session: Session, /, plan: str, source: str, *, yes: bool, key: str, confirm: int) -> None:
    """Do what a plan shows, whole or not at all.

    A plan's id names one that was made before; with a scheme and a text it is made now. It is shown, and
    applied when that is agreed to. What was shown is what is done: a file that has changed since ends it as
    a conflict.
    """

    def work() -> None:
        if source:
            made = _ask(session, "plan", {"scheme": plan, **_given(source)})
            _look_and_apply(session, made, key=key, confirm=confirm, yes=yes)
            return
        _look_and_apply(session, _ask(session, "planned", {"plan": plan}), key=key, confirm=confirm, yes=yes)

    reported(session, work)


@click.command("set")
@click.argument("file")
@click.argument("setting", metavar="KEY")
@click.argument("value", required=False)
@click.option("--remove", is_flag=True, help="Remove the setting instead.")
@_applying
@pass_session
def set_command(
    session: Session, /, file: str, setting: str, value: str | None, *, remove: bool, **how: Any
) -> None:
    """Set one value of a configuration file: plan it, show it, ask, apply it.

    mhctl config set /etc/ssh/sshd_config PermitRootLogin no

    A value that begins with a dash stands behind `--`.
    """
    if remove == (value is not None):
        raise click.UsageError("name a VALUE, or say --remove: one of the two")

    def work() -> None:
        plan = _ask(session, "plan_setting", {"file": file, "key": setting, "value": value})
        _look_and_apply(session, plan, **how)

    reported(session, work)


@click.command("undo")
@click.argument("run", type=AppliedRun())
@_applying
@pass_session
def undo_command(session: Session, /, run: str, **how: Any) -> None:
    """Take back what a run did: show the way back, ask, apply it."""

    def work() -> None:
        with _hinted(DRIFTED):
            plan = _ask(session, "undo", {"run": run})
        _look_and_apply(session, plan, **how)

    reported(session, work)


@click.command("confirm")
@click.argument("run", type=PendingRun())
@pass_session
def confirm_command(session: Session, run: str) -> None:
    """Keep what a run did that would be undone otherwise."""

    def work() -> None:
        kept = _ask(session, "confirm", {"run": run})
        if session.json:
            print(as_json(kept))
        else:
            _tell(session, kept)

    reported(session, work)


@click.command("run")
@SCHEME
@SOURCE
@click.option("--key", required=True, help="The status is kept under this key.")
@click.option("--again", is_flag=True, help="Run it although the key has a status already.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@pass_session
def run_command(session: Session, /, scheme: str, source: str, *, key: str, again: bool, yes: bool) -> None:
    """Plan and apply a text at once, unless that was done under this key before; ends with 0 where the
    status is OK."""

    def work() -> None:
        if not yes:
            agree(f"running {scheme} changes {session.url}, and what it changes is not shown before")
        member = "run_uri" if "://" in source else "run_string"
        given = {**_given(source), "flags": RUN_ANYWAY if again else 0, "scheme": scheme, "key": key}
        status = str(session.ask(INTERFACE, member, Verb.CALL, given))
        good = status.partition("\n")[0] == OK
        if session.json:
            print(as_json({"key": key, "status": status}))
        else:
            click.secho(harmless(status), fg="green" if good else "red")
        if not good:
            raise click.exceptions.Exit(1)

    reported(session, work)


# --- looking ---


@click.command("history")
@click.option("--key", default="", help="Runs under this key alone.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@pass_session
def history_command(session: Session, key: str, limit: int) -> None:
    """What was run, when and by whom; the newest first."""

    def work() -> None:
        found = session.ask(INTERFACE, "history", Verb.CALL, {"key": key, "limit": limit})
        session.print(INTERFACE.members["history"].results[0].type, found)

    reported(session, work)


@click.command("drift")
@pass_session
def drift_command(session: Session) -> None:
    """Files that are no longer what the last run left; ends with 1 where there are any."""

    def work() -> None:
        drifts = _records(session, "drift", {})
        if session.json:
            print(as_json(drifts))
        for each in () if session.json else drifts:
            show_diff(str(each["path"]), str(each["diff"]), "is gone" if each["missing"] else "has changed")
            key = f", key {each['key']}" if each["key"] else ""
            click.echo(harmless(f"  since run {each['run']} of {moment(each['time'])}{key}"))
        if drifts:
            raise click.exceptions.Exit(1)

    reported(session, work)


@click.command("query")
@click.argument("expression", metavar="PATH")
@click.option("--scheme", default="augeas", show_default=True)
@pass_session
def query_command(session: Session, expression: str, scheme: str) -> None:
    """The value at a path of augeas, as /files/etc/hosts/1/ipaddr; ends with 1 where there is none, or more
    than one."""

    def work() -> None:
        given: dict[str, Plain] = {"query": expression, "flags": 0, "scheme": scheme}
        data = session.ask(INTERFACE, "query", Verb.CALL, given)
        session.print(INTERFACE.members["query"].results[0].type, data)
        if data == UNKNOWN:
            raise click.exceptions.Exit(1)

    reported(session, work)


@click.command("get")
@click.argument("file")
@click.argument("setting", metavar="[KEY]", default="")
@pass_session
def get_command(session: Session, file: str, setting: str) -> None:
    """The values of a configuration file, or those of one key."""

    def work() -> None:
        found = _records(session, "settings", {"file": file, "key": setting})
        if setting and not found:
            raise NotFound(f"'{file}' does not set '{setting}'", hint="'config get FILE' lists what it sets")
        if setting and len(found) == 1 and not session.json:
            click.echo(harmless(str(found[0].get("value") or "")))
        else:
            session.print(INTERFACE.members["settings"].results[0].type, list(found))

    reported(session, work)


COMMANDS: tuple[click.Command, ...] = (
    plan_command,
    apply_command,
    set_command,
    undo_command,
    confirm_command,
    run_command,
    history_command,
    drift_command,
    query_command,
    get_command,
)
