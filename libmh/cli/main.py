"""`mhctl`: one grammar for this host, a host on a bus, a host far away, derived from the declaration."""

import io
import os
import sys
from collections.abc import Mapping

import click

from libmh.cli.session import Session, reported
from libmh.cli.values import Seconds
from libmh.cli.wide import hoisted, queued, wide_of
from libmh.providers import ELSEWHERE, SHIPPED, find_interface, plugin_interfaces, resolve
from libmh.spec import interface_of

PLURAL: Mapping[str, str] = {"aggregate": "Aggregates", "config": "Sysconfig", "sink": "Sinks"}
"""Groups that are not called what their interface is."""
AS_JSON = "--json"
HIDDEN = frozenset({"reports"})
OVERLAYS: Mapping[str, str] = {
    "aggregate": "libmh.cli.aggregate",
    "config": "libmh.cli.config",
    "network": "libmh.cli.network",
    "resources": "libmh.cli.resources",
    "services": "libmh.cli.services",
    "sink": "libmh.cli.sink",
}
"""Group -> module with `COMMANDS` that stand beside its derived commands, or in their place."""
VIEWS: Mapping[str, str] = {
    "flavor": "libmh.cli.flavor:flavor_group",
    "hosts": "libmh.cli.hosts:hosts_group",
    "rules": "libmh.cli.rules:rules_group",
    "select": "libmh.cli.selecting:select_command",
    "why": "libmh.cli.aggregate:why_command",
    "zone": "libmh.cli.zone:zone_group",
}
"""Command -> its place: the fleet's nouns, whose members belong to an interface of another name."""
GENERIC = ("get", "set", "call", "events", "policy", "key", "jobs", "api", "completion")


HELP = """Look at a host and manage it: this one, one on a bus, or one far away.

\b
mhctl host show                               this host, in this process
mhctl --on system: services list              through its agent on the system bus
mhctl --on amqp://broker:5672/UUID host show  through a broker
mhctl --on amqp://broker:5672 hosts           the fleet at a glance

\b
mhctl --on amqp://broker:5672 --where 'cpu_flags=<in> avx2' \\
      services restart nginx --canary 2 --batch 10% --stop-on-fail 5%

Exit codes: 0 done, 1 failed, 2 usage, 3 not authorised, 4 unreachable, 5 timeout; of many hosts the first of
1 3 5 4 that is so of any of them; 130 interrupted.
"""


def groups() -> dict[str, str]:
    """Group -> the place of its declaration, without importing it."""
    renamed = {declared.lower(): name for name, declared in PLURAL.items()}
    places = (*(shipped.declaration for shipped in SHIPPED), *ELSEWHERE)
    names = {place.rpartition(":")[2].lower(): place for place in places}
    return {renamed.get(name, name): place for name, place in names.items() if name not in HIDDEN}


class Derived(click.Group):
    """Makes the group of an interface when it is asked for: start-up pays for one, not for all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--json`, and which hosts are meant, count wherever they stand before a `--`."""
        words = args[: args.index("--")] if "--" in args else args
        rest = hoisted([word for word in words if word != AS_JSON]) + args[len(words) :]
        return super().parse_args(ctx, [AS_JSON] * (AS_JSON in words) + rest)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*groups(), *(each.short.lower() for each in plugin_interfaces()), *VIEWS, *GENERIC]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        from libmh.cli.members import group_for

        place = groups().get(cmd_name)
        if place is not None:
            group = group_for(interface_of(resolve(place)), cmd_name)
            for command in resolve(f"{OVERLAYS[cmd_name]}:COMMANDS") if cmd_name in OVERLAYS else ():
                group.replace(command)
            return group
        if cmd_name in VIEWS:
            view: click.Command = resolve(VIEWS[cmd_name])
            return view
        if cmd_name == "jobs":
            from libmh.cli.jobs import jobs_command

            return jobs_command
        if cmd_name in GENERIC:
            from libmh.cli.generic import COMMANDS

            return next(command for command in COMMANDS if command.name == cmd_name)
        interface = find_interface(cmd_name)
        return group_for(interface, cmd_name) if interface and cmd_name == interface.short.lower() else None


@click.command(
    cls=Derived,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 109},
)
@click.option(
    "--on",
    "url",
    envvar="MATAHARI_URL",
    default="local:",
    show_default=True,
    metavar="URL",
    help="Which host: local:, system:, unix:path=..., amqp://host:port[/HOST-UUID].",
)
@click.option(AS_JSON, "as_json", is_flag=True, help="Print JSON with stable keys.")
@click.option(
    "--timeout",
    type=Seconds(0.001),
    metavar="SECONDS",
    help="Give up after this time instead of each member's own.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="FACT=REQUIREMENT",
    help="Ask every host at the broker that --on names of which this is so; repeat it for more.",
)
@click.option("--all-hosts", is_flag=True, help="Ask every host at the broker that --on names.")
@click.option("--batch", metavar="N|N%", help="Of many hosts, ask so many at a time.")
@click.option(
    "--canary", type=click.IntRange(0, 1_000_000), default=0, metavar="N", help="Ask so many alone, first."
)
@click.option("--stop-on-fail", metavar="N|N%", help="Ask no further hosts once more than so many failed.")
@click.option(
    "--queue-for",
    metavar="TIME",
    help="Leave it at the broker for so long, 2h or 7d, for hosts that are off; see: mhctl jobs.",
)
@click.version_option(package_name="matahari", prog_name="mhctl")
@click.pass_context
def mhctl(
    context: click.Context,
    url: str,
    where: tuple[str, ...],
    batch: str | None,
    canary: int,
    stop_on_fail: str | None,
    queue_for: str | None,
    *,
    as_json: bool,
    all_hosts: bool,
    timeout: float | None,
) -> None:
    """The root of all commands."""
    session = Session(url, json=as_json, timeout=timeout)
    context.obj = session

    def widen() -> None:
        many = wide_of(url, where, batch, canary, stop_on_fail, every=all_hosts)
        session.widen(queued(url, many, queue_for))

    reported(session, widen)
    context.call_on_close(session.close)


def main() -> None:
    """The command. It leaves without the interpreter's clean-up, which can take longer than the answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # the terminal may know fewer characters than a host
    try:
        mhctl(prog_name="mhctl")
    except SystemExit as ended:
        os._exit(_flushed(ended.code if isinstance(ended.code, int) else int(ended.code is not None)))


def _flushed(code: int) -> int:
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed from the start
            stream.flush()
    except OSError:  # nobody reads it any more
        return code or 1
    return code
