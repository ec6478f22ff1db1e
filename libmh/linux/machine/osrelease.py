"""os-release(5): the installed system's name and version."""

import re
import shlex

from libmh.api.host import OperatingSystem
from libmh.context import Root
from libmh.errors import NotImplementedHere, Problem

MAX_VALUE = 4096
PLACES = ("/etc/os-release", "/usr/lib/os-release")
ASSIGNMENT = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(.*)")


def read(root: Root) -> OperatingSystem:
    """The first of the two places that can be read. Raises what reading the second raises."""
    first, second = PLACES
    try:
        text = root.read(first)
    except Problem:
        text = root.read(second)
    return parse_os_release(text)


def parse_os_release(text: str) -> OperatingSystem:
    """`not-implemented` when it names nothing."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = ASSIGNMENT.fullmatch(line.strip())
        if match:
            values[match[1]] = _unquote(match[2][:MAX_VALUE]).replace("\0", " ")
    name = values.get("PRETTY_NAME") or values.get("NAME")
    identifier = values.get("ID")
    if not name and not identifier:
        raise NotImplementedHere(
            "os-release names no system: it has neither ID nor PRETTY_NAME", source=PLACES[0]
        )
    return OperatingSystem(
        id=identifier or "linux",  # the manual's default
        name=name or str(identifier),
        version=values.get("VERSION_ID") or None,
        id_like=values.get("ID_LIKE", "").split() or None,
    )


def _unquote(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # a quote that is not closed: taken as it is
        return value
