"""`mhctl hosts`: the fleet at a glance."""

import time
from collections.abc import Iterator
from typing import Any

import click

from libmh.api.aggregates import Aggregates, HostState
from libmh.api.conductor import Conductor
from libmh.call import Verb
from libmh.cli.aggregate import HostName
from libmh.cli.members import agree
from libmh.cli.render import as_json, table, word
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import InvalidArguments, NotFound
from libmh.spec import Plain, interface_of

AGGREGATES, CONDUCTOR = interface_of(Aggregates), interface_of(Conductor)
PAGE = 1000
MAX_PAGES = 1000
AGES = (("d", 86_400), ("h", 3600), ("m", 60))
HEADS = (
    "hostname",
    "state",
    "version",
    "cpus",
    "memory",
    "system",
    "arch",
    "zone",
    "seen",
    "aggregates",
)


def fleet(session: Session) -> Iterator[dict[str, Any]]:
    """Every host of the inventory once, a page at a time."""
    ends: list[str] = []
    told: set[str] = set()
    for _ in range(MAX_PAGES):
        try:
            page = session.ask(
                AGGREGATES, "hosts", Verb.CALL, {"after": ends[-1] if ends else "", "limit": PAGE}
            )
        except NotFound:  # who ended the last page was forgotten meanwhile: some of its hosts come again
            if not ends:
                raise
            ends.pop()
            continue
        rows = [each for each in page if isinstance(each, dict)] if isinstance(page, list) else []
        yield from (each for each in rows if each["uuid"] not in told)
        told.update(str(each["uuid"]) for each in rows)
        if len(rows) < PAGE:
            return
        ends.append(str(rows[-1]["uuid"]))


STATE = click.option("--state", type=click.Choice([each.value for each in HostState]), help="Only those.")


@click.group("hosts", invoke_without_command=True)
@STATE
@click.pass_context
def hosts_group(context: click.Context, state: str | None) -> None:
    """The hosts of the fleet: which are up, which are silent, what they are."""
    if context.invoked_subcommand is None:
        _list(context.ensure_object(Session), state)
    elif state is not None:
        raise click.UsageError("--state stands behind 'list', and no other command takes it", context)


@hosts_group.command("list")
@STATE
@pass_session
def list_command(session: Session, state: str | None) -> None:
    """The hosts, by name."""
    _list(session, state)


def _list(session: Session, state: str | None) -> None:
    def work() -> None:
        rows = [each for each in fleet(session) if state in (None, each["state"])]
        if session.json:
            print(as_json(rows))
        else:
            table(HEADS, [_row(each) for each in rows])

    reported(session, work)


def _age(nanoseconds: int) -> str:
    """How long ago that was, in the largest unit of which it is some: `40s ago`, `3d ago`."""
    if not nanoseconds:
        return "never"
    seconds = max(0, (time.time_ns() - nanoseconds) // 10**9)
    unit, size = next(((unit, size) for unit, size in AGES if seconds >= 2 * size), ("s", 1))
    return f"{seconds // size}{unit} ago"


def _row(host: dict[str, Any]) -> list[str]:
    known: dict[str, Any] = host["summary"]
    memory = f"{word(known['memory_gib'])} GiB" if "memory_gib" in known else "-"
    system = word(known.get("os_name") or known.get("os_id") or "-")
    return [
        *(word(host["hostname"]), word(host["state"]), word(host["agent_version"] or "-")),
        *(word(known.get("cpu_count", "-")), memory, system, word(known.get("arch", "-"))),
        *(word(host["zone"]), _age(int(host["last_seen"])), word(", ".join(host["aggregates"]) or "-")),
    ]


@hosts_group.command("show")
@click.argument("host", type=HostName())
@pass_session
def show_command(session: Session, host: str) -> None:
    """The last report of a host: every fact and trait."""
    reported(session, lambda: session.show(AGGREGATES, "report", {"host": host}))


@hosts_group.command("history")
@click.argument("host", type=HostName())
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True)
@pass_session
def history_command(session: Session, host: str, lines: int) -> None:
    """Where a host came and went, the latest first."""
    reported(session, lambda: session.show(AGGREGATES, "history", {"host": host, "limit": lines}))


@hosts_group.command("register")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--uuid", default="", help="The host's UUID, where it is known.")
@click.option("--identity", default="", help="The only identity that may report for it.")
@pass_session
def register_command(session: Session, names: tuple[str, ...], uuid: str, identity: str) -> None:
    """Make hosts known ahead of their first report, so that they can be put into aggregates."""

    def work() -> None:
        if len(names) > 1 and (uuid or identity):
            raise InvalidArguments("--uuid and --identity are one host's: expected one NAME")
        made: list[Plain] = []
        for name in names:
            given: dict[str, Plain] = {"hostname": name, "uuid": uuid, "identity": identity}
            made.append(session.ask(CONDUCTOR, "register", Verb.CALL, given))
            if not session.json:
                click.echo(f"{word(name)}: registered")
        if session.json:
            print(as_json(made))

    reported(session, work)


@hosts_group.command("forget")
@click.argument("host", type=HostName())
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def forget_command(session: Session, host: str, *, yes: bool) -> None:
    """Take a host out of the inventory and out of every aggregate."""

    def work() -> None:
        if not yes:
            agree(f"this takes '{host}' out of every aggregate")
        session.show(CONDUCTOR, "forget", {"host": host})

    reported(session, work)
