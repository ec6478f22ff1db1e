"""Commands that name a member themselves: `get`, `set`, `call`, `events`, `api`, `completion`."""

import click

from libmh.call import Verb
from libmh.cli.events import events_command
from libmh.cli.keys import key_group
from libmh.cli.members import call_with_texts
from libmh.cli.naming import MemberName, find_member
from libmh.cli.policy import policy_group
from libmh.cli.render import as_json, table
from libmh.cli.session import Session, pass_session, reported
from libmh.cli.values import from_text, spelled
from libmh.errors import InvalidArguments, NotFound
from libmh.providers import all_interfaces, find_interface
from libmh.spec import Interface, Kind, Member


@click.command("get")
@click.argument("name", metavar="INTERFACE.PROPERTY", type=MemberName(Kind.PROPERTY))
@pass_session
def get_command(session: Session, name: str) -> None:
    """Read one property."""

    def work() -> None:
        interface, member = find_member(name, Kind.PROPERTY)
        session.print(member.type, session.ask(interface, member.name, Verb.GET, many=True))

    reported(session, work)


@click.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="INTERFACE.PROPERTY", type=MemberName(Kind.PROPERTY))
@click.argument("value")
@pass_session
def set_command(session: Session, name: str, value: str) -> None:
    """Write one property."""

    def work() -> None:
        interface, member = find_member(name, Kind.PROPERTY)
        given = {"value": from_text(member.type, value, member.name)}
        session.ask(interface, member.name, Verb.SET, given, many=True)

    reported(session, work)


@click.command("call", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="INTERFACE.METHOD", type=MemberName(Kind.METHOD))
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@pass_session
def call_command(session: Session, name: str, arguments: tuple[str, ...]) -> None:
    """Call a method with arguments in order.

    Lists, maps and records are given as JSON, a list of words also as `a,b`. It does not ask for
    confirmation.
    """

    def work() -> None:
        interface, member = find_member(name, Kind.METHOD)
        if len(arguments) > len(member.arguments):
            raise InvalidArguments(f"'{name}' takes {len(member.arguments)} arguments, got {len(arguments)}")
        texts = {a.name: text for a, text in zip(member.arguments, arguments, strict=False)}
        call_with_texts(session, interface, member, texts)

    reported(session, work)


@click.command("api")
@click.argument("name", default="", metavar="[INTERFACE]")
@pass_session
def api_command(session: Session, name: str) -> None:
    """List what is declared: properties, methods and events."""

    def work() -> None:
        interface = find_interface(name) if name else None
        if name and interface is None:
            raise NotFound(f"there is no interface '{name}'")
        interfaces = (interface,) if interface else all_interfaces()
        if session.json:
            print(as_json([_as_plain(each) for each in interfaces]))
            return
        rows = [
            (f"{each.short}.{member.name}", str(member.kind), signature(member), member.summary)
            for each in interfaces
            for member in each.members.values()
        ]
        table(("member", "kind", "takes and answers", "what it is"), rows)

    reported(session, work)


def signature(member: Member) -> str:
    """`(name: string, timeout: u32) -> rc: u32`."""
    takes = ", ".join(
        f"{a.name}: {spelled(a.type)}" + ("" if a.required else f" = {a.default!r}")
        for a in member.arguments
    )
    if member.kind is Kind.PROPERTY:
        return spelled(member.type) + (", writable" if member.setter else "")
    gives = ", ".join(f"{result.name}: {spelled(result.type)}" for result in member.results)
    return f"({takes})" + (f" -> {gives}" if gives else "")


def _as_plain(interface: Interface) -> dict[str, object]:
    return {
        "interface": interface.name,
        "version": interface.version,
        "doc": interface.doc,
        "members": [
            {
                "name": member.name,
                "kind": str(member.kind),
                "signature": signature(member),
                "access": str(member.access),
                "effect": str(member.effect),
                "deadline": member.deadline,
                "doc": member.doc,
            }
            for member in interface.members.values()
        ],
    }


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell: `eval "$(mhctl completion bash)"`."""
    from click.shell_completion import get_completion_class

    from libmh.cli.main import mhctl

    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"there is no completion for '{shell}'")
    print(maker(mhctl, {}, "mhctl", "_MHCTL_COMPLETE").source())


COMMANDS = (
    get_command,
    set_command,
    call_command,
    events_command,
    policy_group,
    key_group,
    api_command,
    completion_command,
)
