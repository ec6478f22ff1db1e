"""`Interface.member`, as people name what is declared."""

import click
from click.shell_completion import CompletionItem

from libmh.cli.members import property_of
from libmh.errors import NotFound
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
