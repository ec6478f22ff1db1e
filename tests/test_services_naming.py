"""Rules are about what the host itself calls a thing: units, agents and their standards by any of their
names, in the details of polkit and in the policy over AMQP alike."""

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from libmh.api.services import Services
from libmh.call import Bound, Request
from libmh.caller import Caller
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import NotAuthorized
from libmh.linux.resources import LinuxResources
from libmh.linux.services import LinuxServices
from libmh.spec import Plain, interface_of
from mh_amqp.authority import roles
from service_units import context_of, machine_with_units
from testbed.machine import Host

SERVICES = interface_of(Services)
CALLER = Caller("amqp", "CN=console")
ALIASES = {"mh-alias": "mh-runs", "mh-lots@": "mh-many@"}
SCRIPT = "#!/bin/sh\nexit 0\n"


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with machine_with_units("naming", {"/etc/init.d/mh-script": SCRIPT}) as machine:
        aliased(machine)
        yield context_of(machine)


def aliased(machine: Host) -> None:
    for alias, unit in ALIASES.items():
        machine.run("ln", "-s", f"{unit}.service", f"/etc/systemd/system/{alias}.service")
    machine.run("systemctl", "daemon-reload")


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ("mh-runs", "mh-runs.service"),
        ("mh-runs.service", "mh-runs.service"),
        ("mh-alias", "mh-runs.service"),
        ("mh-alias.service", "mh-runs.service"),
        ("mh-lots@1", "mh-many@1.service"),
        ("mh-lots@", "mh-many@.service"),
        ("dbus.socket", "dbus.socket"),
        ("mh-absent", "mh-absent.service"),
        ("../mh-runs", "../mh-runs"),
        ("", ""),
    ],
)
def test_units_have_one_name(context: Context, given: str, own: str) -> None:
    services = LinuxServices(context)
    assert services.canonical("restart", {"name": given}) == {"name": own}


def test_signals_have_one_name(context: Context) -> None:
    services = LinuxServices(context)
    for given, own in (("SIGKILL", "KILL"), ("9", "KILL"), ("kill", "KILL"), ("35", "35"), ("no", "no")):
        assert services.canonical("kill", {"signal": given}) == {"signal": own}


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (("OCF", "", "Dummy"), ("ocf", "heartbeat", "Dummy")),
        (("ocf", "pacemaker", "Dummy"), ("ocf", "pacemaker", "Dummy")),
        (("Service", "", "mh-alias"), ("systemd", "", "mh-runs.service")),
        (("SYSTEMD", "heartbeat", "mh-runs"), ("systemd", "", "mh-runs.service")),
        (("LSB", "", "mh-script"), ("lsb", "", "mh-script")),
        (("UPSTART", "", "x"), ("upstart", "", "x")),
    ],
)
def test_agents_have_one_name(
    context: Context, given: tuple[str, str, str], own: tuple[str, str, str]
) -> None:
    names = ("standard", "provider", "agent")
    resources = LinuxResources(context)
    found = resources.canonical("invoke", dict(zip(names, given, strict=True)) | {"name": "r"})
    assert found == dict(zip(names, own, strict=True)) | {"name": "r"}
    # an agent that is left out is the one that the resource is named after
    short: Mapping[str, str] = {"standard": given[0], "provider": given[1], "agent": "", "name": given[2]}
    assert resources.canonical("run", short)["agent"] == own[2]


@pytest.mark.parametrize("name", ["mh-runs", "mh-runs.service", "mh-alias", "mh-alias.service"])
def test_the_policy_over_amqp_is_passed_by_no_alias(context: Context, name: str) -> None:
    def asked(*rules: Mapping[str, Plain]) -> str:
        config = {"authority": {"CN=*": "mine"}, "roles": {"mine": {"rules": list(rules)}}}
        bound = {SERVICES.name: Bound(SERVICES, LinuxServices(context))}
        dispatcher = Dispatcher(bound, context, roles(config))
        request = Request(SERVICES.name, "start", arguments=[name, 9000], caller=CALLER)
        try:
            return str(asyncio.run(dispatcher.call(request)))
        except NotAuthorized:
            return NotAuthorized.word

    of_it: dict[str, Plain] = {"name": "mh-runs.service"}
    assert asked({"deny": "Services.*", "on": of_it}, {"allow": "*"}) == NotAuthorized.word
    assert asked({"allow": "Services.start", "on": of_it}) == "0"
    assert asked({"allow": "Services.start", "on": {"name": "mh-alias*"}}) == NotAuthorized.word
