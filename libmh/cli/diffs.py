"""A plan for a person's eyes: what each file loses and gains, coloured where that is a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from libmh.cli.render import harmless, moment

COLOURS: Mapping[str, Mapping[str, Any]] = {
    "+++": {"bold": True},
    "---": {"bold": True},
    "@@": {"fg": "cyan"},
    "+": {"fg": "green"},
    "-": {"fg": "red"},
    "\\": {"dim": True},
}
"""By how a line begins; the first that fits."""
INDENT = "  "


def show_plan(plan: Mapping[str, Any], *, err: bool = False) -> None:
    """What a plan does, file by file. Control characters are spelled: nobody
    agrees to what he cannot see."""
    if not plan["exact"]:
        click.echo(
            f"what {harmless(str(plan['scheme']))} says it would do; it makes the change itself:", err=err
        )
        show_output(str(plan["output"]), err=err)
    for file in plan["files"]:
        show_diff(str(file["path"]), str(file["diff"]), _without_diff(file), err=err)


def _without_diff(file: Mapping[str, Any]) -> str:
    if file.get("after") is None and file.get("before") is not None:
        return "is removed, or changes in a way that cannot be told"
    return "is made" if file.get("before") is None else "changes in a way that cannot be told"


def show_diff(path: str, diff: str, otherwise: str, *, err: bool = False) -> None:
    """A unified diff, or a sentence where there is none."""
    if not diff:
        click.secho(harmless(f"{path} {otherwise}"), bold=True, err=err)
    in_head = True
    for line in diff.removesuffix("\n").split("\n") if diff else ():
        in_head = in_head and not line.startswith("@@")  # further down, --- is a line that goes
        click.secho(harmless(line), err=err, **_style(line, in_head=in_head))


def _style(line: str, *, in_head: bool) -> Mapping[str, Any]:
    signs = COLOURS if in_head else {sign: COLOURS[sign] for sign in ("@@", "+", "-", "\\")}
    return next((style for sign, style in signs.items() if line.startswith(sign)), {})


def show_output(output: str, *, err: bool = False) -> None:
    """What a program printed, set off from what is said of it."""
    for line in lines_of(output):
        click.echo(harmless(INDENT + line), err=err)


def lines_of(output: str) -> Iterable[str]:
    return output.removesuffix("\n").split("\n") if output else ()


def changes_nothing(plan: Mapping[str, Any]) -> bool:
    """Whether that is certain: what another program says of its own change need not be all of it."""
    return bool(plan["exact"]) and not plan["files"]


def kept_until(plan: Mapping[str, Any]) -> str:
    return f"plan {plan['id']} ({plan['scheme']}), kept until {moment(plan['expires'])}"
