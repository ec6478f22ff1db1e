"""`mhctl flavor`: what something that is placed needs."""

from functools import partial

import click

from libmh.api.aggregates import Aggregates
from libmh.call import Verb
from libmh.cli.aggregate import named
from libmh.cli.completing import FromHost
from libmh.cli.properties import KEYS, PROPERTIES, properties_of
from libmh.cli.render import as_json, harmless
from libmh.cli.session import Session, pass_session, reported
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Aggregates)
FlavorName = partial(FromHost, "flavor", INTERFACE, "flavors", partial(named, "name"))
"""A flavor, completed from those there are."""
FLAVOR = click.argument("name", type=FlavorName(), metavar="FLAVOR")


@click.group("flavor")
def flavor_group() -> None:
    """What something that is placed needs: processors, memory, disk, and what it asks of a host."""


@flavor_group.command("list")
@pass_session
def list_command(session: Session) -> None:
    """All flavors."""
    reported(session, lambda: session.show(INTERFACE, "flavors"))


@flavor_group.command("show")
@FLAVOR
@pass_session
def show_command(session: Session, name: str) -> None:
    """One flavor in full."""
    reported(session, lambda: session.show(INTERFACE, "flavor", {"name": name}))


@flavor_group.command("create")
@click.argument("name")
@click.option("--id", "identity", default="", help="Its id; without one, a new UUID.")
@click.option("--vcpus", type=click.IntRange(1), default=1, show_default=True)
@click.option("--ram", type=click.IntRange(1), default=256, show_default=True, help="MiB.")
@click.option("--disk", type=click.IntRange(0), default=0, show_default=True, help="GiB.")
@PROPERTIES
@pass_session
def create_command(
    session: Session, name: str, identity: str, vcpus: int, ram: int, disk: int, properties: tuple[str, ...]
) -> None:
    """Make a flavor; its properties are what it asks of a host."""

    def work() -> None:
        size: dict[str, Plain] = {"vcpus": vcpus, "ram": ram, "disk": disk, "id": identity}
        session.show(
            INTERFACE, "create_flavor", {"name": name, **size, "extra_specs": {**properties_of(properties)}}
        )

    reported(session, work)


@flavor_group.command("set")
@FLAVOR
@PROPERTIES
@pass_session
def set_command(session: Session, name: str, properties: tuple[str, ...]) -> None:
    """Set what a flavor asks of a host; keys that are not named stay."""

    def work() -> None:
        session.show(
            INTERFACE, "set_extra_specs", {"name": name, "extra_specs": {**properties_of(properties)}}
        )

    reported(session, work)


@flavor_group.command("unset")
@FLAVOR
@KEYS
@pass_session
def unset_command(session: Session, name: str, keys: tuple[str, ...]) -> None:
    """Take away what a flavor asks of a host."""
    given: dict[str, Plain] = {"name": name, "extra_specs": {}, "remove": list(keys)}
    reported(session, lambda: session.show(INTERFACE, "set_extra_specs", given))


@flavor_group.command("delete")
@click.argument("names", type=FlavorName(), metavar="FLAVOR...", nargs=-1, required=True)
@pass_session
def delete_command(session: Session, names: tuple[str, ...]) -> None:
    """Delete flavors."""

    def work() -> None:
        for name in names:
            session.ask(INTERFACE, "delete_flavor", Verb.CALL, {"name": name})
            if not session.json:
                click.echo(harmless(f"{name}: deleted"))
        if session.json:
            print(as_json(list(names)))

    reported(session, work)
