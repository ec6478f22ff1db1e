"""`mhctl aggregate`: the words of who keeps host aggregates, beside the derived commands."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import click

from libmh.api.aggregates import Aggregates
from libmh.call import Verb
from libmh.cli.completing import FromHost
from libmh.cli.members import agree
from libmh.cli.properties import KEYS, PROPERTIES, properties_of
from libmh.cli.render import as_json, harmless
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import InvalidArguments, Problem
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Aggregates)


def named(key: str, answer: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """The words of an answer that is a list of records, by one of their fields."""
    return ((str(each[key]), "") for each in answer)


AggregateName = partial(FromHost, "aggregate", INTERFACE, "list", partial(named, "name"))
"""An aggregate, completed from those of the fleet."""
HostName = partial(FromHost, "host", INTERFACE, "hosts", partial(named, "hostname"))
"""A host, completed from the inventory."""
AGGREGATE = click.argument("name", type=AggregateName(), metavar="AGGREGATE")


@click.command("create")
@click.argument("name")
@click.option("--zone", default="", help="Make it this availability zone.")
@PROPERTIES
@pass_session
def create_command(session: Session, name: str, zone: str, properties: tuple[str, ...]) -> None:
    """Make an aggregate; with a zone, one that is an availability zone."""

    def work() -> None:
        metadata = properties_of(properties)
        made = session.ask(INTERFACE, "create", Verb.CALL, {"name": name, "zone": zone})
        aggregate = made if isinstance(made, dict) else {}
        if not metadata:
            session.print(INTERFACE.members["create"].results[0].type, made)
            return
        given: dict[str, Plain] = {"name": str(aggregate["uuid"]), "metadata": {**metadata}}
        try:
            session.show(INTERFACE, "set_metadata", given)
        except Problem:
            # whole or not at all, as far as this end of the line can see to it
            session.ask(INTERFACE, "delete", Verb.CALL, {"name": str(aggregate["uuid"])})
            raise

    reported(session, work)


@click.command("set")
@AGGREGATE
@click.option("--name", "new_name", help="Its new name.")
@click.option("--zone", help="Its availability zone.")
@PROPERTIES
@pass_session
def set_command(
    session: Session, name: str, new_name: str | None, zone: str | None, properties: tuple[str, ...]
) -> None:
    """Change an aggregate's name, zone or metadata; keys that are not named stay."""

    def work() -> None:
        metadata = properties_of(properties)
        if not metadata and new_name is None and zone is None:
            raise InvalidArguments("nothing to set: expected --name, --zone or --property")
        for option, value in (("--name", new_name), ("--zone", zone)):
            if value == "":  # to the conductor it means: as it is
                raise InvalidArguments(f"{option}: expected a name, got nothing", argument=option)
        if new_name is not None or zone is not None:
            given: dict[str, Plain] = {"name": name, "new_name": new_name or "", "zone": zone or ""}
            answer = session.ask(INTERFACE, "update", Verb.CALL, given)
        if metadata:
            given = {"name": new_name or name, "metadata": {**metadata}}
            answer = session.ask(INTERFACE, "set_metadata", Verb.CALL, given)
        session.print(INTERFACE.members["rename"].results[0].type, answer)

    reported(session, work)


@click.command("unset")
@AGGREGATE
@KEYS
@pass_session
def unset_command(session: Session, name: str, keys: tuple[str, ...]) -> None:
    """Take metadata away."""
    given: dict[str, Plain] = {"name": name, "metadata": {}, "remove": list(keys)}
    reported(session, lambda: session.show(INTERFACE, "set_metadata", given))


def _each(member: str, says: str) -> click.Command:
    @pass_session
    def callback(session: Session, name: str, hosts: tuple[str, ...]) -> None:
        def work() -> None:
            for host in hosts:
                answer = session.ask(INTERFACE, member, Verb.CALL, {"name": name, "host": host})
            session.print(INTERFACE.members[member].results[0].type, answer)

        reported(session, work)

    parameters = [
        click.Argument(["name"], type=AggregateName(), metavar="AGGREGATE"),
        click.Argument(["hosts"], type=HostName(), metavar="HOST...", nargs=-1, required=True),
    ]
    return click.Command(member.replace("_", "-"), callback=callback, params=list(parameters), help=says)


@click.command("delete")
@click.argument("names", type=AggregateName(), metavar="AGGREGATE...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def delete_command(session: Session, names: tuple[str, ...], *, yes: bool) -> None:
    """Delete aggregates; none may have hosts."""

    def work() -> None:
        if not yes:
            agree(f"this deletes {', '.join(names)}")
        for name in names:
            session.ask(INTERFACE, "delete", Verb.CALL, {"name": name})
            if not session.json:
                click.echo(harmless(f"{name}: deleted"))
        if session.json:
            print(as_json(list(names)))

    reported(session, work)


@click.command("why")
@click.argument("host", type=HostName())
@click.argument("name", type=AggregateName(), metavar="[AGGREGATE]", default="")
@pass_session
def why_command(session: Session, host: str, name: str) -> None:
    """Why a host is, or is not, in an aggregate: every requirement with the value that was seen."""
    reported(session, lambda: session.show(INTERFACE, "why", {"host": host, "name": name}))


COMMANDS: tuple[click.Command, ...] = (
    create_command,
    set_command,
    unset_command,
    _each("add_host", "Add hosts by hand; no rule takes them out again."),
    _each("remove_host", "Take hosts out."),
    delete_command,
    why_command,
)
