"""`mhctl policy`: what an agent's policy lets somebody do."""

import click

from libmh.api.agent import Agent
from libmh.call import Verb
from libmh.cli.render import as_json, harmless
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import InvalidArguments
from libmh.spec import Plain, interface_of

AGENT = interface_of(Agent)
DENIED = 3


@click.group("policy")
def policy_group() -> None:
    """Who may do what over AMQP."""


@policy_group.command("explain")
@click.argument("identity")
@click.argument("member", metavar="INTERFACE.MEMBER")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@pass_session
def explain_command(session: Session, identity: str, member: str, arguments: tuple[str, ...]) -> None:
    """Whether somebody may do something, and which rule says so.

    Asks the agent that --on names. Ends with 3 when it is not allowed.
    """

    def work() -> None:
        given: dict[str, Plain] = {}
        for each in arguments:
            name, equals, value = each.partition("=")
            if not equals:
                raise InvalidArguments(f"'{each}': expected NAME=VALUE", argument="arguments")
            given[name] = value
        asked: dict[str, Plain] = {"identity": identity, "member": member, "arguments": given}
        told = session.ask(AGENT, "explain", Verb.CALL, asked)
        found = told if isinstance(told, dict) else {}
        allowed = found.get("allowed") is True
        if session.json:
            print(as_json(found))
        else:
            said = f"{'allowed' if allowed else 'denied'}: {found.get('reason', '')}"
            click.secho(harmless(said), fg="green" if allowed else "red")
        if not allowed:
            raise SystemExit(DENIED)

    reported(session, work)
