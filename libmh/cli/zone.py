"""`mhctl zone`: availability zones."""

from typing import Any

import click

from libmh.api.aggregates import Aggregates
from libmh.call import Verb
from libmh.cli.render import as_json, table, word
from libmh.cli.session import Session, pass_session, reported
from libmh.spec import interface_of

INTERFACE = interface_of(Aggregates)


@click.group("zone")
def zone_group() -> None:
    """Availability zones: the aggregates that name one, with the hosts in them."""


@zone_group.command("list")
@click.option("--long", "with_hosts", is_flag=True, help="A line for each host.")
@pass_session
def list_command(session: Session, *, with_hosts: bool) -> None:
    """The availability zones, the default one with them."""

    def work() -> None:
        answer = session.ask(INTERFACE, "zones", Verb.CALL)
        zones: list[dict[str, Any]] = (
            [each for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []
        )
        if session.json:
            print(as_json(zones))
        elif with_hosts:
            rows = [(zone["name"], host, word(up)) for zone in zones for host, up in zone["hosts"].items()]
            table(("zone", "host", "up"), [tuple(map(word, row)) for row in rows])
        else:
            table(
                ("zone", "available", "hosts", "up", "aggregates"),
                [
                    [
                        word(zone["name"]),
                        word(zone["available"]),
                        str(len(zone["hosts"])),
                        str(sum(map(bool, zone["hosts"].values()))),
                        word(", ".join(zone["aggregates"])),
                    ]
                    for zone in zones
                ],
            )

    reported(session, work)
