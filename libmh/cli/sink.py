"""`mhctl sink`: pushing aggregates elsewhere, after a look at what that changes there."""

from functools import partial
from typing import Any

import click

from libmh.api.sinks import Sinks, SinkStep
from libmh.call import Verb
from libmh.cli.aggregate import named
from libmh.cli.completing import FromHost
from libmh.cli.members import agree
from libmh.cli.render import as_json, harmless, show
from libmh.cli.session import Session, pass_session, reported
from libmh.declaration import type_of
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Sinks)
SinkName = partial(FromHost, "sink", INTERFACE, "list", partial(named, "name"))
"""A sink, completed from those that are configured."""
SINK = click.argument("sink", type=SinkName())
STEPS = type_of("steps", list[SinkStep])


@click.command("plan")
@SINK
@pass_session
def plan_command(session: Session, sink: str) -> None:
    """Show what has to be done there; nothing is done."""

    def work() -> None:
        plan = _record(session, "plan", {"sink": sink})
        if session.json:
            print(as_json(plan))
            return
        _tell(plan)
        if plan["steps"]:
            click.echo(harmless(f"plan {plan['id']}: `mhctl sink apply {sink} --plan {plan['id']}`"))

    reported(session, work)


@click.command("apply")
@SINK
@click.option("--plan", "identity", default="", metavar="ID", help="A plan that was shown; else a new one.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@pass_session
def apply_command(session: Session, sink: str, identity: str, *, yes: bool) -> None:
    """Show what has to be done there, ask, and do it; then read both sides back."""

    def work() -> None:
        number = identity
        if not number:
            plan = _record(session, "plan", {"sink": sink})
            _tell(plan, err=session.json)
            if not plan["steps"]:
                if session.json:
                    print(as_json({"done": 0, "failed": plan["conflicts"], "drift": []}))
                raise click.exceptions.Exit(1 if plan["conflicts"] else 0)
            number = str(plan["id"])
        if not yes:
            agree(f"this changes '{sink}'")
        _told(session, _record(session, "apply", {"sink": sink, "plan": number}))

    reported(session, work)


@click.command("drift")
@SINK
@pass_session
def drift_command(session: Session, sink: str) -> None:
    """Show what differs there from what is wanted; ends with 1 where something does."""

    def work() -> None:
        found = session.ask(INTERFACE, "drift", Verb.CALL, {"sink": sink})
        if session.json:
            print(as_json(found))
        elif found:
            show(STEPS, found)
        else:
            click.secho("no drift", fg="green")
        if found:
            raise click.exceptions.Exit(1)

    reported(session, work)


def _record(session: Session, member: str, given: dict[str, Plain]) -> dict[str, Any]:
    answer = session.ask(INTERFACE, member, Verb.CALL, given)
    return answer if isinstance(answer, dict) else {}


def _tell(plan: dict[str, Any], *, err: bool = False) -> None:
    for conflict in plan["conflicts"]:
        said = f"conflict: {conflict['action']} {conflict['target']} {conflict['detail']}: {conflict['why']}"
        click.secho(harmless(said), fg="red", err=True)
    if not plan["steps"]:
        click.secho("nothing to do", fg="green", err=err)
    elif err:
        for step in plan["steps"]:
            click.echo(harmless(f"{step['action']} {step['target']} {step['detail']}"), err=True)
    else:
        show(STEPS, plan["steps"])


def _told(session: Session, result: dict[str, Any]) -> None:
    if session.json:
        print(as_json(result))
    else:
        for what, fault in (("failed", "red"), ("drift", "yellow")):
            for step in result[what]:
                said = f"{what}: {step['action']} {step['target']} {step['detail']}: {step['why']}"
                click.secho(harmless(said), fg=fault)
        click.secho(f"{result['done']} steps done", fg="green" if not result["failed"] else "red")
    if result["failed"] or result["drift"]:
        raise click.exceptions.Exit(1)


COMMANDS: tuple[click.Command, ...] = (plan_command, apply_command, drift_command)
