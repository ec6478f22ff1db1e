"""The derived files are those that are kept, and the ancestor's contract is still in them."""

import configparser
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from dbus_golden import REGENERATE, expected, interfaces, kept
from libmh.spec import Access, Kind, interface_of
from mh_dbus.files import by_bus, installed
from mh_dbus.signatures import arguments_signature, property_type, results_signature, signature_of
from probe import Probe
from source_tree import ROOT

# Matahari 0.6: bus, interface, member, in, out; what this version does not serve yet is left out.
ANCESTOR = """
Host Host identify - -
Host Host shutdown - -
Host Host reboot - -
Host Host get_uuid s s
Host Host set_uuid ss i
Host Host set_power_profile s u
Host Host get_power_profile - s
Host Host list_power_profiles - as
Network Network list - as
Network Network status s u
Network Network get_ip_address s s
Network Network get_mac_address s s
Services Services list - as
Services Services enable s u
Services Services disable s u
Services Services start su u
Services Services stop su u
Services Services describe s s
Services Services status su u
Sysconfig Sysconfig is_configured s s
"""
ANCESTOR_PROPERTIES = {
    "Host": "hostname s, uuid s, custom_uuid s, os s, arch s, wordsize u, memory t, swap t, cpu_count u,"
    " cpu_cores u, cpu_model s, cpu_flags s, update_interval u, sequence u, free_mem t, free_swap t,"
    " load a{sd}, process_statistics a{si}",
    "Network": "uuid s, hostname s",
    "Services": "uuid s, hostname s",
    "Sysconfig": "uuid s, hostname s, is_postboot_configured u",
}
ANCESTOR_NAMES = {
    "get_uuid": ("lifetime", "uuid"),
    "set_uuid": ("lifetime", "uuid", "rc"),
    "set_power_profile": ("profile", "status"),
    "get_power_profile": ("profile",),
    "list_power_profiles": ("profiles",),
}
GUARDED_PROPERTIES = {"update_interval", "is_postboot_configured"}


def test_kept_files_are_the_derived_ones() -> None:
    files = expected()
    assert kept() == set(files), REGENERATE
    for path, text in files.items():
        assert path.read_text("utf-8") == text, f"{path.relative_to(ROOT)} is old: {REGENERATE}"


@pytest.mark.parametrize("line", ANCESTOR.split("\n")[1:-1])
def test_methods_of_the_ancestor(line: str) -> None:
    bus, short, name, takes, answers = line.split()
    (interface,) = (each for each in interfaces() if each.short == short)
    member = interface.members[name]
    assert (interface.bus, interface.path) == (f"org.matahariproject.{bus}", f"/org/matahariproject/{bus}")
    assert arguments_signature(member) == takes.strip("-")
    assert results_signature(member) == answers.strip("-")
    assert member.access is Access.ADMIN
    assert member.action == f"org.matahariproject.{short}.{name}"
    if short == "Host" and name in ANCESTOR_NAMES:
        names = [argument.name for argument in member.arguments] + [each.name for each in member.results]
        assert tuple(names) == ANCESTOR_NAMES[name]


@pytest.mark.parametrize("short", sorted(ANCESTOR_PROPERTIES))
def test_properties_of_the_ancestor(short: str) -> None:
    (interface,) = (each for each in interfaces() if each.short == short)
    for name, signature in (each.split() for each in ANCESTOR_PROPERTIES[short].split(",")):
        member = interface.members[name]
        assert signature_of(property_type(member)) == signature, name
        assert (member.setter is not None) == (name in GUARDED_PROPERTIES)


def test_files_parse_and_say_what_they_must() -> None:
    for path, text in installed((*interfaces(), interface_of(Probe))).items():
        if path.endswith(".service"):
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(text)
            assert parser["D-BUS Service"]["SystemdService"] == "mh-dbus.service"
            assert (ROOT / "packaging/systemd/mh-dbus.service").is_file()
        else:
            ET.fromstring(text)


def test_polkit_actions() -> None:
    for interface in (*interfaces(), interface_of(Probe)):
        text = installed([interface])[f"polkit-1/actions/{interface.name}.policy"]
        actions = {each.attrib["id"]: each for each in ET.fromstring(text).iter("action")}
        members = [each for each in interface.members.values() if each.kind is not Kind.EVENT]
        assert list(actions) == [each.action for each in members]
        for member in members:
            action = actions[member.action]
            assert (action.findtext("description") or "").strip()
            assert (action.findtext("message") or "").strip()
            words = [each.text for each in action.find("defaults") or ()]
            opened = member.access is Access.OPEN
            assert words == (["yes"] * 3 if opened else ["no", "no", "auth_admin"])


def test_bus_policy_opens_what_is_declared_and_no_more() -> None:
    for bus, served in by_bus(interfaces()).items():
        policy = ET.fromstring(installed(served)[f"dbus-1/system.d/{bus}.conf"])
        root, default = policy.findall("policy")
        assert root.attrib == {"user": "root"}
        assert [each.attrib["own"] for each in root.findall("allow") if "own" in each.attrib] == [bus]
        assert default.attrib == {"context": "default"}
        allowed = {each.attrib["send_interface"] for each in default.findall("allow")}
        standard = {"Introspectable", "Peer", "Properties", "ObjectManager"}
        assert allowed == {each.name for each in served} | {f"org.freedesktop.DBus.{x}" for x in standard}
        assert {each.attrib["send_destination"] for each in default} == {bus}


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--print-introspection", "dbus-1/interfaces/org.matahariproject.Network.xml"),
        ("--print-polkit", "polkit-1/actions/org.matahariproject.Network.policy"),
        ("--print-bus-policy", "dbus-1/system.d/org.matahariproject.Network.conf"),
        ("--print-activation", "dbus-1/system-services/org.matahariproject.Network.service"),
    ],
)
def test_the_command_prints_the_files(option: str, path: str) -> None:
    for name in ("Network", "org.matahariproject.Network"):
        done = command(option, name)
        assert done.stdout == (ROOT / "packaging" / path).read_text("utf-8")
        assert done.returncode == 0
    everything = command(option).stdout
    assert "org.matahariproject.Host" in everything
    assert "org.matahariproject.Agent" in everything
    refused = command(option, "Nonsense")
    assert refused.returncode == 1
    assert "there is no interface 'Nonsense'" in refused.stderr


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mh_dbus.main", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
