"""`mhctl select`: where something fits, and why not elsewhere."""

from collections import Counter
from typing import Any

import click

from libmh.api.aggregates import Aggregates
from libmh.api.placement import Candidate, Rejected
from libmh.call import Verb
from libmh.cli.flavor import FlavorName
from libmh.cli.properties import properties_of
from libmh.cli.render import as_json, harmless, show
from libmh.cli.session import Session, pass_session, reported
from libmh.declaration import type_of
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Aggregates)
MAX_REASONS = 5
HELP = """Where something fits: the hosts, the best first.

\b
mhctl select 'cpu_flags=<in> avx2' 'memory=>= 8000000'
mhctl select --flavor gpu.large --zone az1 --rejected

Ends with 1 where nothing fits, and says what stands in the way.
"""


@click.command("select", help=HELP)
@click.argument("where", nargs=-1, metavar="[FACT=REQUIREMENT]...")
@click.option("--flavor", default="", type=FlavorName(), help="What it needs.")
@click.option("--zone", default="", help="Only this availability zone.")
@click.option("--project", default="", help="On behalf of this project.")
@click.option("--policy", default="", help="By this policy; `mhctl aggregate policies` shows them.")
@click.option("--hint", "hints", multiple=True, metavar="KEY=VALUE", help="As the policy understands it.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many hosts.")
@click.option("--rejected", is_flag=True, help="Tell of every host that does not fit why not.")
@pass_session
def select_command(session: Session, /, *, rejected: bool, hints: tuple[str, ...], **given: Any) -> None:

    def work() -> None:
        asked: dict[str, Plain] = {**given, "where": list(given["where"]), "rejected": rejected}
        asked["hints"] = {**properties_of(hints, "hint")}
        found = _selection(session, asked)
        if not found["hosts"] and not rejected:
            found = _selection(session, {**asked, "rejected": True})
        if session.json:
            print(as_json(found))
        else:
            _tell(found, in_full=rejected)
        if not found["hosts"]:
            raise click.exceptions.Exit(1)

    reported(session, work)


def _selection(session: Session, asked: dict[str, Plain]) -> dict[str, Any]:
    answer = session.ask(INTERFACE, "select", Verb.CALL, asked)
    return answer if isinstance(answer, dict) else {}


def _tell(found: dict[str, Any], *, in_full: bool) -> None:
    for warning in found["warnings"]:
        click.secho(harmless(str(warning)), fg="yellow", err=True)
    refused = found.get("rejected") or []
    if found["hosts"]:
        show(type_of("hosts", list[Candidate]), found["hosts"])
    if in_full and refused:
        print()
        show(type_of("rejected", list[Rejected]), refused)
    said = f"{len(found['hosts'])} of {found['considered']} hosts, by policy '{found['policy']}'"
    click.secho(harmless(said), bold=True, err=True)
    if not found["hosts"]:
        _sum_up(refused)


def _sum_up(refused: list[dict[str, Any]]) -> None:
    """What stands in the way of most hosts."""
    counted = Counter((str(each["requirement"]), str(each["filter"])) for each in refused)
    for (requirement, filtered), count in counted.most_common(MAX_REASONS):
        example = next(str(each["reason"]) for each in refused if each["requirement"] == requirement)
        click.echo(harmless(f"{count} hosts: {filtered}: {requirement}: {example}"), err=True)
