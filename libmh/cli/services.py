"""`mhctl services`: the words of who keeps services running, beside the derived commands."""

import fnmatch
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click

from libmh.api.services import Action, Services, Whom
from libmh.call import Verb
from libmh.cli.completing import FromHost, words
from libmh.cli.members import confirm, show_properties
from libmh.cli.progress import shown
from libmh.cli.render import as_json, harmless, moment
from libmh.cli.session import Session, pass_session, reported
from libmh.cli.values import moment_of
from libmh.errors import InvalidArguments, Problem
from libmh.spec import Effect, Member, Plain, interface_of

INTERFACE = interface_of(Services)
LOCAL = "local:"
ALL_SERVICES = "*.service"
LIMIT_MS = 90_000
SHARE = 0.9  # of the time that the caller has: the outcome still has to be told
ERROR = 3  # of syslog's priorities
COLOURS: Mapping[str, str] = {
    "active": "green",
    "failed": "red",
    "activating": "yellow",
    "deactivating": "yellow",
    "reloading": "yellow",
}
GOOD = ("done", "skipped")
CODES: Mapping[int, str] = {5: "it is not installed", 6: "its unit file does not say what would start it"}


UnitName = partial(FromHost, "unit", INTERFACE, "list", words)
"""A unit, completed from those of the host."""


def _unit() -> click.Argument:
    return click.Argument(["name"], type=UnitName(), metavar="UNIT")


def _yes() -> click.Option:
    return click.Option(["--yes", "-y"], is_flag=True, help="Do not ask for confirmation.")


def _member(name: str) -> Member:
    return INTERFACE.members[name]


@click.command("list")
@click.argument("pattern", default="")
@click.option("--state", default="", help="Only those whose load, active or sub state is this word.")
@click.option("--all", "everything", is_flag=True, help="Units of every kind, not services alone.")
@pass_session
def list_command(session: Session, pattern: str, state: str, *, everything: bool) -> None:
    """The services with their states; those whose names match a shell pattern."""

    def work() -> None:
        wanted = pattern or ("" if everything else ALL_SERVICES)
        given: dict[str, Plain] = {"pattern": wanted, "state": state}
        units = session.ask(INTERFACE, "units", Verb.CALL, given, many=True)
        session.print(_member("units").results[0].type, units)

    reported(session, work)


@click.command("show")
@click.argument("name", type=UnitName(), metavar="[UNIT]", default="")
@pass_session
def show_command(session: Session, name: str) -> None:
    """One unit in full; without a name, the properties of the interface."""
    if not name:
        show_properties(session, INTERFACE, ())
        return

    def work() -> None:
        detail = session.ask(INTERFACE, "unit", Verb.CALL, {"name": name}, many=True)
        session.print(_member("unit").results[0].type, detail)

    reported(session, work)


def action_command(verb: str, effect: Effect, says: str) -> click.Command:
    """A command that has a unit do something, shows how it goes, and ends with 1 when it is not done."""

    @pass_session
    def callback(session: Session, /, name: str, *, yes: bool = False) -> None:
        def work() -> None:
            if effect is Effect.DISRUPTS and not yes:
                confirm(session, _member("act"))
            limit = LIMIT_MS if session.timeout is None else max(1, round(session.timeout * 1000 * SHARE))
            given: dict[str, Plain] = {"name": name, "verb": verb, "timeout": limit}
            ask = partial(session.ask, INTERFACE, "act", Verb.CALL, given, many=True, judge=_misdone)
            outcome = shown(session, name, verb, ask)
            _print_outcome(session, outcome if isinstance(outcome, dict) else {})

        reported(session, work)

    parameters: list[click.Parameter] = [_unit()]
    if effect is Effect.DISRUPTS:
        parameters.append(_yes())
    return click.Command(verb, callback=callback, params=parameters, help=says)


def _misdone(read: Callable[[], Plain]) -> str:
    """Why an outcome is a failure, one of many hosts'."""
    try:
        told = read()
    except Problem as problem:
        return problem.message
    outcome = told if isinstance(told, dict) else {}
    result = str(outcome.get("result", "no outcome"))
    return "" if result in GOOD else str(outcome.get("reason") or result)


def _print_outcome(session: Session, outcome: Mapping[str, Any]) -> None:
    good = outcome.get("result") in GOOD
    if session.json:
        print(as_json(dict(outcome)))
    else:
        state = f"{outcome.get('active_state')} ({outcome.get('sub_state')})"
        said = f"{outcome.get('verb')} {outcome.get('result')} in {float(outcome.get('seconds', 0)):.2f} s"
        line = f"{outcome.get('unit')}: {said}, now {state}"
        if outcome.get("reason"):
            line = f"{line}: {outcome['reason']}"
        click.secho(harmless(line), fg="green" if good else "red")
        for each in outcome.get("log") or ():
            _print_line(each, "  ")
    if not good:
        raise click.exceptions.Exit(1)


def outcome_command(name: str, *more: click.Parameter) -> click.Command:
    """A method that answers an outcome: ends with 1 when it is not done."""
    member = _member(name)

    @pass_session
    def callback(session: Session, /, **given: Any) -> None:
        def work() -> None:
            if not given.pop("yes", True):
                confirm(session, member)
            outcome = session.ask(INTERFACE, name, Verb.CALL, given, many=True, judge=_misdone)
            _print_outcome(session, outcome if isinstance(outcome, dict) else {})

        reported(session, work)

    parameters = [_unit(), *more, *([_yes()] if member.effect is Effect.DISRUPTS else [])]
    return click.Command(name, callback=callback, params=parameters, help=member.doc)


def file_command(verb: str, says: str) -> click.Command:
    """`enable` and `disable`."""

    @pass_session
    def callback(session: Session, /, name: str) -> None:
        def work() -> None:
            rc = session.ask(INTERFACE, verb, Verb.CALL, {"name": name}, many=True)
            if session.json:
                print(as_json({"rc": rc}))
            elif rc == 0:
                click.secho(f"{name}: {verb}d", fg="green")
            else:
                code = rc if isinstance(rc, int) else 1
                why = CODES.get(code, f"the service manager answered {code}")
                click.secho(harmless(f"{name}: cannot {verb}: {why}"), fg="red")
            if rc != 0:
                raise click.exceptions.Exit(1)

        reported(session, work)

    return click.Command(verb, callback=callback, params=[_unit()], help=says)


@click.command("logs")
@click.argument("name", type=UnitName(), metavar="UNIT")
@click.option(
    "-n", "--lines", type=click.IntRange(1, 1000), default=20, show_default=True, help="The last so many."
)
@click.option(
    "--since", default="", metavar="TIME", help="None that are older: 10m, 2h, 1d, or an ISO time."
)
@pass_session
def logs_command(session: Session, name: str, lines: int, since: str) -> None:
    """What a unit has logged last."""

    def work() -> None:
        given: dict[str, Plain] = {"name": name, "lines": lines, "since": moment_of(since)}
        found = session.ask(INTERFACE, "logs", Verb.CALL, given, many=True)
        if session.json:
            print(as_json(found))
            return
        for each in found if isinstance(found, list) else ():
            _print_line(each, "")

    reported(session, work)


def _print_line(line: Mapping[str, Any], indent: str) -> None:
    who = str(line.get("identifier") or "")
    who += f"[{line['pid']}]" if line.get("pid") else ""
    text = f"{indent}{moment(int(line.get('time', 0)))} {who}: {line.get('message', '')}"
    priority = line.get("priority")
    click.secho(harmless(text), fg="red" if isinstance(priority, int) and priority <= ERROR else None)


@click.command("watch")
@click.argument("pattern", default="*")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@pass_session
def watch_command(session: Session, pattern: str, count: int | None) -> None:
    """Show services, sockets, timers ... as they change; those whose names match a shell pattern."""

    def work() -> None:
        if session.url == LOCAL:
            raise InvalidArguments("'local:' raises no events; name an agent, such as --on system:")
        left = count
        for event in session.connection().events(INTERFACE.name, "", session.timeout):
            unit = str(event.fields.get("unit", ""))
            if not any(fnmatch.fnmatchcase(each, pattern) for each in (unit, unit.removesuffix(".service"))):
                continue
            _print_event(session, event.member, event.time, event.fields)
            left = None if left is None else left - 1
            if left == 0:
                return

    reported(session, work)


def _print_event(session: Session, member: str, time: int, fields: Mapping[str, Any]) -> None:
    if session.json:
        print(as_json({"event": member, "time": time, "fields": dict(fields)}, lines=True), flush=True)
        return
    if member == "job_changed":
        said = f"{fields['verb']} {fields['state']} for {float(fields['seconds']):.0f} s"
        click.echo(harmless(f"{moment(time)}  {fields['unit']}  {said}"))
        return
    new = str(fields.get("new_state", ""))
    why = f": {fields['why']}" if fields.get("why") else ""
    head = f"{moment(time)}  {fields.get('unit')}  {fields.get('old_state')} -> "
    tail = f" ({fields.get('sub_state')}){why}"
    click.echo(harmless(head) + click.style(harmless(new), fg=COLOURS.get(new)) + harmless(tail))


COMMANDS: tuple[click.Command, ...] = (
    list_command,
    show_command,
    action_command("start", Effect.CHANGES, "Start a unit, and wait until it runs."),
    action_command("stop", Effect.DISRUPTS, "Stop a unit, and wait until it has ended."),
    action_command(
        "restart", Effect.DISRUPTS, "Stop a unit and start it again; one that does not run is started."
    ),
    action_command("reload", Effect.CHANGES, "Have a service read its configuration again."),
    outcome_command("act", click.Argument(["verb"], type=click.Choice([each.value for each in Action]))),
    outcome_command("mask"),
    outcome_command("unmask"),
    outcome_command("reset_failed"),
    outcome_command(
        "kill",
        click.Argument(["signal"], default="TERM"),
        click.Option(
            ["--whom"],
            type=click.Choice([each.value for each in Whom]),
            default=Whom.ALL.value,
            help="Of its processes.",
        ),
    ),
    file_command("enable", "Have a service started with the machine."),
    file_command("disable", "Have a service no longer started with the machine."),
    logs_command,
    watch_command,
)
