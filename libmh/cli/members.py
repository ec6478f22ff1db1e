"""Commands derived from the declaration: a group for each interface, a command for each method.

The properties of an interface are its command `show`.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from libmh.call import Verb
from libmh.cli.render import cell, harmless, show_fields, table
from libmh.cli.session import Session, pass_session, reported, results_type
from libmh.cli.values import from_text, placeholder, spelled
from libmh.errors import InvalidArguments, Problem
from libmh.spec import Argument, Effect, Interface, Kind, Member, Plain, Scalar, Type, Word

UNREAD = "-"


class Members(click.Group):
    """Commands by the names of members, whether they are spelled `roll_back` or `roll-back`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        spellings = (cmd_name, cmd_name.replace("_", "-"), cmd_name.replace("-", "_"))
        return next(filter(None, (super(Members, self).get_command(ctx, each) for each in spellings)), None)

    def replace(self, command: click.Command) -> None:
        """Add a command, in the place of one of that name in either spelling."""
        self.commands.pop((command.name or "").replace("-", "_"), None)
        self.add_command(command)


def group_for(interface: Interface, name: str) -> Members:
    """The group of an interface. Without a command it shows the properties."""
    group = Members(
        name,
        help=interface.doc,
        short_help=interface.doc.partition("\n")[0],
        invoke_without_command=True,
        callback=_show_by_default(interface),
    )
    if interface.of(Kind.PROPERTY):
        group.add_command(_show_command(interface))
    for member in interface.of(Kind.METHOD):
        group.add_command(method_command(interface, member))
    return group


def _show_by_default(interface: Interface) -> Callable[..., None]:
    @click.pass_context
    def callback(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            if not interface.of(Kind.PROPERTY):
                raise click.UsageError(f"name a command: see '{context.command_path} --help'", context)
            show_properties(context.ensure_object(Session), interface, ())

    return callback


def _show_command(interface: Interface) -> click.Command:
    @click.command("show", help="Show the properties, or those that are named.")
    @click.argument("names", nargs=-1, metavar="[PROPERTY]...")
    @pass_session
    def command(session: Session, names: tuple[str, ...]) -> None:
        show_properties(session, interface, names)

    if "show" in interface.members:
        command.name = "properties"  # the interface has a `show` of its own
    return command


def show_properties(session: Session, interface: Interface, names: tuple[str, ...]) -> None:
    """Print the properties of an interface, or those that are named."""

    def work() -> None:
        members = [property_of(interface, name) for name in names] or list(interface.of(Kind.PROPERTY))
        found = session.ask(interface, "", Verb.GET_ALL, many=not names)
        values: dict[str, Plain] = found if isinstance(found, dict) else {}
        if session.json:
            session.print(members[0].type, {m.name: values[m.name] for m in members if m.name in values})
            return
        show_fields("property", [_with_value(session, interface, member, values) for member in members])

    reported(session, work)


def _with_value(
    session: Session, interface: Interface, member: Member, values: dict[str, Plain]
) -> tuple[str, Type, Plain]:
    if member.name in values:
        return member.name, member.type, values[member.name]
    try:  # absent from the answer for all: asked alone, it says why
        return member.name, member.type, session.ask(interface, member.name, Verb.GET)
    except Problem as problem:
        return member.name, Scalar(Word.STRING), f"{UNREAD} ({problem.word}: {problem.message})"


def property_of(interface: Interface, name: str) -> Member:
    """The property of that name; a problem names those that there are."""
    member = interface.members.get(name.replace("-", "_"))
    if member is None or member.kind is not Kind.PROPERTY:
        known = ", ".join(each.name for each in interface.of(Kind.PROPERTY))
        raise InvalidArguments(f"'{interface.short}.{name}' is not a property; there are {known}")
    return member


def method_command(
    interface: Interface, member: Member, words: Mapping[str, click.ParamType[str]] | None = None
) -> click.Command:
    """The command of a method: required arguments by position, optional ones by position or by name. `words`
    completes arguments by their names."""
    parameters: list[click.Parameter] = []
    for argument in member.arguments:
        kind = placeholder(argument.type)
        known = (words or {}).get(argument.name)
        metavar = argument.name.upper()
        parameters.append(
            click.Argument([_slot(argument)], required=argument.required, metavar=metavar, type=known)
        )
        if not argument.required:
            option = [_slot(argument) + "_named", f"--{argument.name.replace('_', '-')}"]
            parameters.append(click.Option(option, metavar=kind, help=argument.doc, type=known))
    if member.effect is Effect.DISRUPTS:
        parameters.append(click.Option(["--yes", "-y"], is_flag=True, help="Do not ask for confirmation."))

    @pass_session
    def callback(session: Session, /, **given: Any) -> None:
        reported(session, lambda: _call(session, interface, member, given))

    return click.Command(member.name, callback=callback, params=parameters, help=_help(member))


def _slot(argument: Argument) -> str:
    return "arg_" + argument.parameter


def _help(member: Member) -> str:
    lines = [member.doc]
    if member.arguments:
        described = (
            f"  {a.name.upper()}  {a.doc or spelled(a.type)} [{spelled(a.type)}]" for a in member.arguments
        )
        lines.append("\b\n" + "\n".join(described))
    if member.results:
        answers = ", ".join(f"{result.name} ({spelled(result.type)})" for result in member.results)
        lines.append(f"Answers {answers}.")
    return "\n\n".join(lines)


def _call(session: Session, interface: Interface, member: Member, given: dict[str, Any]) -> None:
    if member.effect is Effect.DISRUPTS and not given.get("yes"):
        confirm(session, member)
    texts = {
        argument.name: text for argument in member.arguments if (text := _text(argument, given)) is not None
    }
    call_with_texts(session, interface, member, texts)


def _text(argument: Argument, given: dict[str, Any]) -> str | None:
    named, placed = given.get(_slot(argument) + "_named"), given.get(_slot(argument))
    if named is not None and placed is not None:
        raise InvalidArguments(
            f"{argument.name}: given twice, by position and by name", argument=argument.name
        )
    text: str | None = placed if named is None else named
    return text


def call_with_texts(session: Session, interface: Interface, member: Member, texts: dict[str, str]) -> None:
    """Call a method with arguments as they were typed, and print what it answers."""
    types = {argument.name: argument.type for argument in member.arguments}
    arguments = {name: from_text(types[name], text, name) for name, text in texts.items()}
    answer = session.ask(interface, member.name, Verb.CALL, arguments, many=True)
    declared = results_type(member)
    if declared is not None:
        session.print(declared, answer)
    elif isinstance(answer, list):
        _print_results(session, member, answer)
    elif session.json:
        print("null")


def _print_results(session: Session, member: Member, answer: list[Any]) -> None:
    named = dict(zip((result.name for result in member.results), answer, strict=True))
    if session.json:
        session.print(member.results[0].type, named)
        return
    table(("result", "value"), [(r.name, cell(r.type, named[r.name])) for r in member.results])


def confirm(session: Session, member: Member) -> None:
    """Ask whether to disrupt the host; `invalid-arguments` where nobody can be asked."""
    agree(f"'{member.name}' disrupts {session.target}")


def agree(statement: str) -> None:
    """Ask whether to go on with what a statement says; `invalid-arguments` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise InvalidArguments(f"{statement}: say --yes where nobody can be asked")
    if not click.confirm(f"{harmless(statement)}. Go on?", err=True):
        raise click.Abort
