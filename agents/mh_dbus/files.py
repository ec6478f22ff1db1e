"""The files that a system bus and polkit want installed, derived from the declaration of what is served."""

import html
from collections.abc import Iterable, Mapping, Sequence

from libmh.api.aggregates import Aggregates, Reports
from libmh.api.broker import Broker
from libmh.api.conductor import Conductor
from libmh.api.sinks import Sinks
from libmh.providers import all_interfaces
from libmh.spec import Access, Interface, Kind, Member, interface_of
from mh_dbus.introspection import installed_xml, quoted

VENDOR = "Matahari"
PROGRAM = "/usr/bin/mh-dbus"
UNIT = "mh-dbus.service"
STANDARD = ("Introspectable", "Peer", "Properties", "ObjectManager")
FLEET = frozenset(interface_of(each).name for each in (Aggregates, Broker, Conductor, Reports, Sinks))
"""Answered for by conductors and brokers, which are on no system bus."""

BUS_DOCTYPE = (
    '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
)
POLKIT_DOCTYPE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD polkit Policy Configuration 1.0//EN"\n'
    ' "http://www.freedesktop.org/software/polkit/policyconfig-1.dtd">\n'
)


def host_interfaces() -> tuple[Interface, ...]:
    """What a host's agent can serve on D-Bus: ours, and those of plug-ins."""
    return tuple(interface for interface in all_interfaces() if interface.name not in FLEET)


def by_bus(interfaces: Iterable[Interface]) -> Mapping[str, tuple[Interface, ...]]:
    """Interfaces by the bus name under which they are served."""
    found: dict[str, tuple[Interface, ...]] = {}
    for interface in interfaces:
        found[interface.bus] = (*found.get(interface.bus, ()), interface)
    return found


def bus_policy(bus: str, interfaces: Sequence[Interface]) -> str:
    """dbus-1/system.d: root alone owns the name; everybody may send to what is declared, and polkit
    decides about that."""
    allowed = [
        *(interface.name for interface in interfaces),
        *(f"org.freedesktop.DBus.{name}" for name in STANDARD),
    ]
    rules = "".join(
        f"    <allow send_destination={quoted(bus)}\n           send_interface={quoted(name)}/>\n"
        for name in allowed
    )
    return (
        f"{BUS_DOCTYPE}<busconfig>\n"
        f'  <policy user="root">\n    <allow own={quoted(bus)}/>\n'
        f"    <allow send_destination={quoted(bus)}/>\n  </policy>\n"
        f'  <policy context="default">\n{rules}  </policy>\n</busconfig>\n'
    )


def activation(bus: str) -> str:
    """dbus-1/system-services: the first call starts the agent."""
    return f"[D-BUS Service]\nName={bus}\nExec={PROGRAM}\nUser=root\nSystemdService={UNIT}\n"


def polkit_policy(interface: Interface) -> str:
    """polkit-1/actions: one action for each property and method; events ask nobody."""
    actions = "".join(
        _action(member) for member in interface.members.values() if member.kind is not Kind.EVENT
    )
    return f"{POLKIT_DOCTYPE}<policyconfig>\n  <vendor>{VENDOR}</vendor>\n{actions}</policyconfig>\n"


def _action(member: Member) -> str:
    opened = member.access is Access.OPEN
    allowed = ("yes", "yes", "yes") if opened else ("no", "no", Access.ADMIN.value)
    defaults = "".join(
        f"      <{name}>{word}</{name}>\n"
        for name, word in zip(("allow_any", "allow_inactive", "allow_active"), allowed, strict=True)
    )
    return (
        f"  <action id={quoted(member.action)}>\n"
        f"    <description>{html.escape(member.summary.replace('`', ''), quote=False)}</description>\n"
        f"    <message>{_text(_message(member))}</message>\n"
        f"    <defaults>\n{defaults}    </defaults>\n  </action>\n"
    )


def _text(words: str) -> str:
    return html.escape(words.replace("`", ""), quote=False)


def _message(member: Member) -> str:
    verb = "change" if member.kind is Kind.PROPERTY and member.setter else "use"
    short = member.interface.rpartition(".")[2]
    return f"Authentication is required to {verb} {short}.{member.name}"


def installed(interfaces: Sequence[Interface]) -> Mapping[str, str]:
    """Every file by its path below /usr/share, as the tree under packaging/ has them."""
    files: dict[str, str] = {}
    for bus, served in by_bus(interfaces).items():
        files[f"dbus-1/interfaces/{bus}.xml"] = installed_xml(served)
        files[f"dbus-1/system.d/{bus}.conf"] = bus_policy(bus, served)
        files[f"dbus-1/system-services/{bus}.service"] = activation(bus)
    for interface in interfaces:
        files[f"polkit-1/actions/{interface.name}.policy"] = polkit_policy(interface)
    return files
