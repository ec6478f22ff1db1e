"""What a resource agent prints for `meta-data`: OCF's XML, as a record."""

import re
from collections.abc import Callable
from typing import TypeVar
from xml.etree import ElementTree as ET

from libmh.api.resources import AgentAction, AgentMetadata, AgentParameter
from libmh.errors import BackendFailed

T = TypeVar("T")
TRUE = ("1", "true", "yes")
DURATION = re.compile(r"([0-9]{1,9})(?:\.[0-9]+)?\s*([a-z]*)", re.IGNORECASE)
MILLISECONDS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1000),
    **dict.fromkeys(("ms", "msec"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3_600_000),
}


def parse(xml: str, agent: str) -> AgentMetadata:
    """Read the meta-data of an agent. `backend-failed` when it is no XML, or of something else."""
    try:
        tree = ET.fromstring(xml.strip())  # noqa: S314 - expat limits what entities may grow to
    except ET.ParseError as error:
        raise BackendFailed(
            f"the meta-data of '{agent}' is not well-formed: {error}", source=agent
        ) from error
    if tree.tag != "resource-agent":
        raise BackendFailed(
            f"the meta-data of '{agent}' is a '{tree.tag}', expected a 'resource-agent'", source=agent
        )
    return AgentMetadata(
        name=tree.get("name") or agent,
        version=tree.get("version") or _text(tree, "version"),
        summary=" ".join(_text(tree, "shortdesc").split()),
        description=_text(tree, "longdesc"),
        parameters=_each(tree, "parameters/parameter", _parameter),
        actions=_each(tree, "actions/action", _action),
    )


def _each(tree: ET.Element, path: str, read: "Callable[[ET.Element], T]") -> list[T]:
    return [read(element) for element in tree.iterfind(path) if element.get("name")]


def _parameter(element: ET.Element) -> AgentParameter:
    content = element.find("content")
    found = content if content is not None else ET.Element("content")
    choices = [value for option in found.iterfind("option") if (value := option.get("value")) is not None]
    return AgentParameter(
        name=element.get("name", ""),
        type=found.get("type") or "string",
        required=element.get("required", "").lower() in TRUE,
        # OCF 1.1 has groups of parameters that are unique together
        unique=element.get("unique", "").lower() in TRUE or "unique-group" in element.attrib,
        description=" ".join((_text(element, "shortdesc") or _text(element, "longdesc")).split()),
        default=found.get("default"),
        choices=choices or None,
    )


def _action(element: ET.Element) -> AgentAction:
    depth = element.get("depth", "")
    return AgentAction(
        name=element.get("name", ""),
        timeout=duration(element.get("timeout")),
        interval=duration(element.get("interval")),
        depth=int(depth) if depth.isdecimal() and depth.isascii() and len(depth) < 10 else None,
        role=element.get("role") or None,
    )


def duration(text: str | None) -> int | None:
    """Milliseconds of `20s`, `1min`, `500ms`, `20` (seconds); None for what is no time."""
    found = DURATION.fullmatch((text or "").strip())
    unit = MILLISECONDS.get(found[2].lower()) if found else None
    return int(found[1]) * unit if found and unit else None


def _text(element: ET.Element, name: str) -> str:
    """Of an element in several languages: the first, which is English."""
    return (element.findtext(name) or "").strip()
