"""`mhctl resources`: the short words of who works with a cluster, beside the derived commands."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import click

from libmh.api.resources import Resources
from libmh.call import Verb
from libmh.cli.completing import FromHost, words
from libmh.cli.members import call_with_texts, confirm
from libmh.cli.render import as_json
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import InvalidArguments
from libmh.spec import Member, Plain, interface_of

INTERFACE = interface_of(Resources)
LOOKING = frozenset({"monitor", "status", "meta-data", "validate-all"})
LOCAL = "local:"
MEANINGS: Mapping[int, str] = {
    0: "ok",
    1: "generic error",
    2: "wrong arguments",
    3: "not implemented by the agent",
    4: "insufficient privileges",
    5: "not installed",
    6: "not configured",
    7: "not running",
    8: "running, promoted",
    9: "failed, promoted",
    194: "ended by a signal",
    197: "cancelled",
    198: "timed out",
    199: "other error",
}
"""What return codes of OCF agents mean, and the ancestor's own."""


def _provider(standard: str, provider: str | None) -> str:
    return provider if provider is not None else "heartbeat" if standard.lower() == "ocf" else ""


def _of_standard(typed: Mapping[str, Any]) -> Mapping[str, Plain]:
    return {"standard": typed.get("standard") or "ocf"}


def _of_provider(typed: Mapping[str, Any]) -> Mapping[str, Plain]:
    standard = typed.get("standard") or "ocf"
    return {"standard": standard, "provider": _provider(standard, typed.get("provider"))}


def _resources(operations: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """Each resource once, with what runs again of it."""
    actions: dict[str, list[str]] = {}
    for each in operations:
        actions.setdefault(str(each["name"]), []).append(f"{each['action']} {each['interval']}")
    return ((name, ", ".join(found)) for name, found in actions.items())


StandardName = partial(FromHost, "standard", INTERFACE, "list_standards", words)
"""A standard, completed from those of the host, as the rest is."""
ProviderName = partial(FromHost, "provider", INTERFACE, "list_providers", words, _of_standard)
"""A provider of the standard that was typed."""
AgentName = partial(FromHost, "agent", INTERFACE, "list", words, _of_provider)
"""An agent of the standard and the provider that were typed."""
ResourceName = partial(FromHost, "name", INTERFACE, "operations", _resources)
"""A resource of which something runs again."""
STANDARD = click.option(
    "-s",
    "--standard",
    type=StandardName(),
    default="ocf",
    show_default=True,
    help="ocf, lsb, systemd or service.",
)
PROVIDER = click.option(
    "-p", "--provider", type=ProviderName(), help="Of an OCF agent; heartbeat when left out."
)


def _member(name: str) -> Member:
    return INTERFACE.members[name]


def _call(session: Session, member: str, /, **texts: str) -> None:
    reported(session, lambda: call_with_texts(session, INTERFACE, _member(member), texts))


@click.command("standards")
@pass_session
def standards_command(session: Session) -> None:
    """What kinds of agents the host has."""
    _call(session, "list_standards")


@click.command("providers")
@click.argument("standard", type=StandardName(), default="ocf")
@pass_session
def providers_command(session: Session, standard: str) -> None:
    """Who provides agents of a standard."""
    _call(session, "list_providers", standard=standard)


@click.command("list")
@click.argument("standard", type=StandardName(), default="ocf")
@click.argument("provider", type=ProviderName(), default="")
@pass_session
def list_command(session: Session, standard: str, provider: str) -> None:
    """Agents, scripts or units of a standard; of ocf those of heartbeat, or of another provider."""
    _call(session, "list", standard=standard, provider=provider)


@click.command("describe")
@click.argument("agent", type=AgentName())
@STANDARD
@PROVIDER
@click.option("--xml", is_flag=True, help="Print the agent's own meta-data.")
@pass_session
def describe_command(
    session: Session, agent: str, standard: str, provider: str | None, *, xml: bool
) -> None:
    """What an agent is for, its parameters and its actions."""
    given = {"standard": standard, "provider": _provider(standard, provider), "agent": agent}
    _call(session, "describe" if xml else "metadata", **given)


@click.command("invoke")
@click.argument("name")
@click.argument("action")
@STANDARD
@PROVIDER
@click.option(
    "-a",
    "--agent",
    type=AgentName(),
    default="",
    help="The agent, script or unit; the resource's name when left out.",
)
@click.option(
    "-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="A parameter; repeat it."
)
@click.option(
    "-i", "--interval", type=click.IntRange(0), default=0, help="Run it again, milliseconds after."
)
@click.option("-t", "--timeout", type=click.IntRange(0), default=60_000, help="Milliseconds it may take.")
@click.option(
    "--expected-rc", type=click.IntRange(0), default=0, help="The code that is success, and no news."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def invoke_command(session: Session, /, name: str, action: str, *, yes: bool, **given: Any) -> None:
    """Run an action of a resource's agent, once or, with --interval, again and again.

    Ends with 0 when the return code is the expected one, else with 1.
    """

    def work() -> None:
        if given["interval"] and session.url == LOCAL:
            raise InvalidArguments(
                f"with '{LOCAL}' nothing runs again once mhctl has ended: name an agent, as --on system:"
            )
        if action not in LOOKING and not yes:
            confirm(session, _member("run"))
        answer = session.ask(INTERFACE, "run", Verb.CALL, _asked(name, action, given))
        _print_result(session, answer if isinstance(answer, dict) else {}, given["expected_rc"])

    reported(session, work)


def _asked(name: str, action: str, given: Mapping[str, Any]) -> dict[str, Plain]:
    return {
        "name": name,
        "action": action,
        "parameters": parameters(given["options"]),
        "agent": given["agent"],
        "standard": given["standard"],
        "provider": _provider(given["standard"], given["provider"]),
        "interval": given["interval"],
        "timeout": given["timeout"],
        "expected-rc": given["expected_rc"],
    }


def parameters(options: Sequence[str]) -> dict[str, Plain]:
    """`key=value` words; the values stay the text that they are."""
    found: dict[str, Plain] = {}
    for option in options:
        key, given, value = option.partition("=")
        if not given:
            raise InvalidArguments(f"--option: expected KEY=VALUE, got '{option}'", argument="option")
        found[key] = value
    return found


def _print_result(session: Session, result: Mapping[str, Any], expected: int) -> None:
    rc = int(result.get("rc", 0))
    good = rc == expected
    if session.json:
        print(as_json(dict(result)))
    else:
        meaning = MEANINGS.get(rc, "the agent's own code")
        said = result.get("reason") or meaning
        line = f"rc {rc} ({meaning}) in {float(result.get('duration', 0)):.3f} s"
        click.secho(line if said == meaning else f"{line}: {said}", fg="green" if good else "red")
        for stream in ("stdout", "stderr"):
            for text in str(result.get(stream, "")).splitlines():
                click.echo(f"  {text}")
    if not good:
        raise click.exceptions.Exit(1)


@click.command("ops")
@pass_session
def ops_command(session: Session) -> None:
    """What runs again and again."""

    def work() -> None:
        member = _member("operations")
        session.print(member.results[0].type, session.ask(INTERFACE, member.name, Verb.CALL))

    reported(session, work)


@click.command("cancel")
@click.argument("name", type=ResourceName())
@click.argument("action")
@click.argument("interval", type=click.IntRange(0), default=0)
@click.option("-t", "--timeout", type=click.IntRange(0), default=0, help="Milliseconds to wait for its end.")
@pass_session
def cancel_command(session: Session, name: str, action: str, interval: int, timeout: int) -> None:
    """End what runs again at an interval, or, without one, what runs now."""
    _call(session, "cancel", name=name, action=action, interval=str(interval), timeout=str(timeout))


COMMANDS = (
    standards_command,
    providers_command,
    list_command,
    describe_command,
    invoke_command,
    ops_command,
    cancel_command,
)
