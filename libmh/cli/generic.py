"""Commands that name a member themselves: `get`, `set`, `call`, `events`, `api`, `completion`."""

import click
from click.shell_completion import CompletionItem

from libmh.call import Verb
from libmh.cli.keys import key_group
from libmh.cli.members import call_with_texts, property_of
from libmh.cli.policy import policy_group
from libmh.cli.render import as_json, cell, moment, table, word
from libmh.cli.session import Session, pass_session, reported
from libmh.cli.values import Seconds, from_text, spelled
from libmh.errors import InvalidArguments, NotFound
from libmh.events import Event
from libmh.providers import all_interfaces, find_interface
from libmh.spec import Interface, Kind, Member


class MemberName(click.ParamType[str]):
    """`Interface.member`, completed from what is declared."""

    name = "member"

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - the signature is click's
        param: click.Parameter,  # noqa: ARG002 - the signature is click's
        incomplete: str,
    ) -> list[CompletionItem]:
        names = (
            (f"{interface.short}.{member.name}", member.summary)
            for interface in all_interfaces()
            for member in interface.of(self.kind)
        )
        return [
            CompletionItem(name, help=doc)
            for name, doc in names
            if name.lower().startswith(incomplete.lower())
        ]


def find_member(text: str, kind: Kind) -> tuple[Interface, Member]:
    """The member that `Interface.member` names; the interface by its full name or its last word."""
    interface_name, _, name = text.rpartition(".")
    interface = find_interface(interface_name)
    if interface is None:
        raise NotFound(f"there is no interface '{interface_name}'; expected Interface.member, got '{text}'")
    if kind is Kind.PROPERTY:
        return interface, property_of(interface, name)
    member = interface.members.get(name)
    if member is None or member.kind is not kind:
        known = ", ".join(each.name for each in interface.of(kind))
        raise NotFound(f"'{interface.short}.{name}' is not a {kind}; there are {known or 'none'}")
    return interface, member


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


@click.command("events")
@click.argument("what", default="", metavar="[INTERFACE[.EVENT]]", type=MemberName(Kind.EVENT))
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@click.option("--for", "seconds", type=Seconds(0.1), help="Fail when none comes for so many seconds.")
@pass_session
def events_command(session: Session, what: str, count: int | None, seconds: float | None) -> None:
    """Show events as they come: all, those of an interface, or one. JSON is one object a line."""

    def work() -> None:
        interface, member = _asked(what)
        if session.url == "local:":
            raise InvalidArguments(
                "'local:' raises no events; name an agent with --on, such as --on system:"
            )
        stream = session.connection().events(interface, member, seconds or session.timeout)
        for number, event in enumerate(stream, 1):
            _print_event(session, event)
            if number == count:
                return

    reported(session, work)


def _asked(what: str) -> tuple[str, str]:
    if not what:
        return "", ""
    interface = find_interface(what)
    if interface is not None:
        return interface.name, ""
    declared, member = find_member(what, Kind.EVENT)
    return declared.name, member.name


def _print_event(session: Session, event: Event) -> None:
    if session.json:
        plain = {
            "interface": event.interface,
            "event": event.member,
            "host": event.host,
            "time": event.time,
            "sequence": event.sequence,
            "fields": dict(event.fields),
        }
        print(as_json(plain, lines=True), flush=True)
        return
    interface = find_interface(event.interface)
    declared = interface.members.get(event.member) if interface else None
    types = {argument.name: argument.type for argument in declared.arguments} if declared else {}
    fields = " ".join(
        f"{name}={cell(types[name], value) if name in types else word(value)}"
        for name, value in event.fields.items()
    )
    print(
        f"{moment(event.time)}  {event.name if event.member else event.interface + ' changed'}  {fields}",
        flush=True,
    )


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
