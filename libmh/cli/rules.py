"""`mhctl rules`: what makes aggregates of facts; looked at before it is put in force."""

from typing import Any

import click

from libmh.api.conductor import Conductor
from libmh.call import Verb
from libmh.cli.config import text_of
from libmh.cli.members import agree
from libmh.cli.render import as_json, harmless, moment, show
from libmh.cli.session import Session, pass_session, reported
from libmh.spec import Plain, RecordOf, interface_of

INTERFACE = interface_of(Conductor)
FILE = click.argument("file", metavar="FILE|-", type=click.Path(allow_dash=True))
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.group("rules")
def rules_group() -> None:
    """The rules that make aggregates of what hosts report."""


@rules_group.command("show")
@pass_session
def show_command(session: Session) -> None:
    """The rules in force, as they were loaded."""

    def work() -> None:
        rules = _record(session, "rules", {})
        if session.json:
            print(as_json(rules))
            return
        click.echo(harmless(f"# loaded {moment(rules['loaded'])} by {rules['who']}, {rules['digest']}"))
        click.echo(harmless(str(rules["text"])))

    reported(session, work)


@rules_group.command("test")
@FILE
@pass_session
def test_command(session: Session, file: str) -> None:
    """Show what rules would change, held against the fleet as it is; nothing is changed."""

    def work() -> None:
        _print(session, _record(session, "test_rules", {"text": text_of(file)}))

    reported(session, work)


@rules_group.command("load")
@FILE
@click.option("--approve", is_flag=True, help="However many hosts it affects.")
@YES
@pass_session
def load_command(session: Session, file: str, *, approve: bool, yes: bool) -> None:
    """Put rules in force. What affects too much of the fleet at once is held, for `approve`."""

    def work() -> None:
        text = text_of(file)
        if not yes:
            forecast = _record(session, "test_rules", {"text": text})
            _tell(forecast, err=session.json)
            agree(f"this changes the places of {forecast['affected']} hosts")
        loaded = _record(session, "load_rules", {"text": text, "approve": approve})
        if session.json:
            print(as_json(loaded))
        elif loaded["large"] and not approve:
            click.secho(
                "held: `mhctl rules held` shows it, `mhctl rules approve ID` carries it out", fg="yellow"
            )
        else:
            click.secho(f"in force: {loaded['rules']} rules, {loaded['affected']} hosts changed", fg="green")

    reported(session, work)


@rules_group.command("held")
@pass_session
def held_command(session: Session) -> None:
    """Changes of so much of the fleet at once that they wait for a word."""
    reported(session, lambda: session.show(INTERFACE, "held"))


@rules_group.command("approve")
@click.argument("identity", metavar="ID")
@YES
@pass_session
def approve_command(session: Session, identity: str, *, yes: bool) -> None:
    """Carry out a change that is held."""

    def work() -> None:
        if not yes:
            agree(f"this carries out '{identity}'")
        session.show(INTERFACE, "approve", {"id": identity})

    reported(session, work)


@rules_group.command("refuse")
@click.argument("identity", metavar="ID")
@pass_session
def refuse_command(session: Session, identity: str) -> None:
    """Drop a change that is held."""
    reported(session, lambda: session.show(INTERFACE, "refuse", {"id": identity}))


def _record(session: Session, member: str, given: dict[str, Plain]) -> dict[str, Any]:
    answer = session.ask(INTERFACE, member, Verb.CALL, given)
    return answer if isinstance(answer, dict) else {}


def _print(session: Session, forecast: dict[str, Any]) -> None:
    if session.json:
        print(as_json(forecast))
    else:
        _tell(forecast, err=False)


def _tell(forecast: dict[str, Any], *, err: bool) -> None:
    for warning in forecast["warnings"]:
        click.secho(harmless(str(warning)), fg="yellow", err=True)
    declared = INTERFACE.members["test_rules"].results[0].type
    if forecast["steps"] and not err and isinstance(declared, RecordOf):
        show(next(field.type for field in declared.fields if field.name == "steps"), forecast["steps"])
    if forecast["left"]:
        click.echo(f"... and {forecast['left']} more", err=err)
    said = f"{forecast['rules']} rules, {forecast['hosts']} hosts, {forecast['affected']} come or go"
    click.secho(f"{said}{': a large change' if forecast['large'] else ''}", bold=True, err=err)
