"""Introspection data (D-Bus specification, "Introspection Data Format"), derived from the declaration."""

import html
from collections.abc import Iterable, Sequence

from libmh.spec import Field, Interface, Kind, Member
from mh_dbus.signatures import property_type, signature_of

DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
EMITS_CHANGED = "org.freedesktop.DBus.Property.EmitsChangedSignal"

INTROSPECTABLE = """  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
"""
PEER = """  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
"""
PROPERTIES = """  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
"""
OBJECT_MANAGER = """  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
"""


def quoted(text: str) -> str:
    """An attribute's value. (The standard library's XML helpers load an HTTP client.)"""
    return f'"{html.escape(text)}"'


def emits_changed(member: Member) -> str:
    """When PropertiesChanged tells of a property: `const` never, `true` always, `false` not to be relied on,
    as for a gauge."""
    if member.constant:
        return "const"
    if member.setter is not None or not (member.max_age or member.inline):
        return "true"
    return "false"


def interface_xml(interface: Interface) -> str:
    """The `<interface>` element of a declared interface."""
    lines = [f"  <interface name={quoted(interface.name)}>"]
    for member in interface.members.values():
        lines += {Kind.METHOD: _method, Kind.PROPERTY: _property, Kind.EVENT: _signal}[member.kind](member)
    lines.append("  </interface>")
    return "\n".join(lines) + "\n"


def _method(member: Member) -> list[str]:
    arguments = [
        f'      <arg name={quoted(each.name)} type="{signature_of(each.type)}" direction="in"/>'
        for each in member.arguments
    ]
    return _element("method", member.name, [*arguments, *_results(member.results)])


def _results(results: Sequence[Field]) -> list[str]:
    return [
        f'      <arg name={quoted(each.name)} type="{signature_of(each.type)}" direction="out"/>'
        for each in results
    ]


def _property(member: Member) -> list[str]:
    access = "read" if member.setter is None else "readwrite"
    kind = signature_of(property_type(member))
    return [
        f'    <property name={quoted(member.name)} type="{kind}" access="{access}">',
        f'      <annotation name="{EMITS_CHANGED}" value="{emits_changed(member)}"/>',
        "    </property>",
    ]


def _signal(member: Member) -> list[str]:
    arguments = [
        f'      <arg name={quoted(each.name)} type="{signature_of(each.type)}"/>'
        for each in member.arguments
    ]
    return _element("signal", member.name, arguments)


def _element(tag: str, name: str, inside: list[str]) -> list[str]:
    if not inside:
        return [f"    <{tag} name={quoted(name)}/>"]
    return [f"    <{tag} name={quoted(name)}>", *inside, f"    </{tag}>"]


def object_xml(interfaces: Iterable[Interface], children: Iterable[str], *, manager: bool) -> str:
    """The answer of Introspect for one path: its interfaces, the standard ones and the names below it."""
    declared = [interface_xml(interface) for interface in interfaces]
    return "".join(
        [
            DOCTYPE,
            "<node>\n",
            INTROSPECTABLE,
            PEER,
            PROPERTIES if declared else "",
            OBJECT_MANAGER if manager else "",
            *declared,
            *(f"  <node name={quoted(child)}/>\n" for child in children),
            "</node>\n",
        ]
    )


def installed_xml(interfaces: Iterable[Interface]) -> str:
    """The file that is installed for a bus name under dbus-1/interfaces."""
    return DOCTYPE + "<node>\n" + "".join(interface_xml(interface) for interface in interfaces) + "</node>\n"
