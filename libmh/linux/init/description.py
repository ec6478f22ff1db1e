"""Services in the form of OCF meta-data (the form that resource managers read), made from what there is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

LSB_ACTIONS = ("start", "stop", "restart", "force-reload", "status")
HEADER_BEGIN, HEADER_END = "### BEGIN INIT INFO", "### END INIT INFO"
MAX_HEADER_LINES = 200


@dataclass(frozen=True, slots=True)
class Described:
    """`actions` are names with time limits in seconds, None where there is none; `facts` are told as they
    are."""

    name: str
    summary: str
    text: str
    actions: Mapping[str, float | None]
    standard: str
    facts: Mapping[str, str]


def xml(described: Described) -> str:
    """The document."""
    agent = ET.Element("resource-agent", {"name": described.name, "version": "1.0"})
    ET.SubElement(agent, "version").text = "1.0"
    ET.SubElement(agent, "longdesc", {"lang": "en"}).text = clean(described.text or described.summary)
    ET.SubElement(agent, "shortdesc", {"lang": "en"}).text = clean(described.summary)
    ET.SubElement(agent, "parameters")
    actions = ET.SubElement(agent, "actions")
    for name, seconds in described.actions.items():
        limit = {} if seconds is None else {"timeout": f"{seconds:g}s"}
        ET.SubElement(actions, "action", {"name": name, **limit})
    special = ET.SubElement(agent, "special", {"tag": described.standard})
    for name, value in described.facts.items():
        ET.SubElement(special, name).text = clean(value)
    ET.indent(agent)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(agent, encoding="unicode")}\n'


def clean(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(each for each in text if each.isprintable() or each in "\n\t")


def header(script: str) -> dict[str, str]:
    """The fields of an init script's LSB header; Description goes on in indented lines."""
    fields: dict[str, str] = {}
    last = ""
    for line in _between(script.splitlines()):
        text = line.lstrip("#")
        name, colon, value = text.strip().partition(":")
        if colon and name and not text.startswith(("\t", "  ")) and " " not in name:
            last = name
            fields[last] = value.strip()
        elif last == "Description":
            fields[last] = f"{fields[last]} {text.strip()}".strip()
    return fields


def _between(lines: Iterable[str]) -> Iterable[str]:
    inside = False
    for number, line in enumerate(lines):
        if line.startswith(HEADER_END) or number > MAX_HEADER_LINES:
            return
        if inside and line.startswith("#"):
            yield line
        inside = inside or line.startswith(HEADER_BEGIN)


def of_script(name: str, script: str) -> Described:
    """An init script, by its LSB header."""
    fields = header(script)
    facts = {
        key: value
        for key, value in fields.items()
        if key not in ("Short-Description", "Description") and key.replace("-", "").isalnum()
    }
    return Described(
        name=name,
        summary=fields.get("Short-Description") or name,
        text=fields.get("Description", ""),
        actions=dict.fromkeys(LSB_ACTIONS),
        standard="LSB",
        facts={key: value for key, value in facts.items() if key[:1].isalpha() and key.isascii()},
    )


def of_unit(name: str, told: Mapping[str, object]) -> Described:
    """A unit, by its properties."""
    can = {"start": "CanStart", "stop": "CanStop", "restart": "CanStart", "reload": "CanReload"}
    limits = {"start": "TimeoutStartUSec", "stop": "TimeoutStopUSec", "restart": "TimeoutStartUSec"}
    actions = {verb: _limit(told.get(limits.get(verb, ""))) for verb, key in can.items() if told.get(key)}
    documentation = told.get("Documentation")
    facts = {
        "Id": name,
        "FragmentPath": str(told.get("FragmentPath") or ""),
        "Type": str(told.get("Type") or ""),
        "Documentation": " ".join(map(str, documentation)) if isinstance(documentation, list) else "",
    }
    return Described(
        name=name.removesuffix(".service"),
        summary=str(told.get("Description") or name),
        text="",
        actions={**actions, "status": None},
        standard="systemd",
        facts={key: value for key, value in facts.items() if value},
    )


def _limit(microseconds: object) -> float | None:
    if not isinstance(microseconds, int) or microseconds >= 2**63:
        return None
    return microseconds / 1e6
