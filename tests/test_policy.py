"""Roles and rules: who may do what, and why."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from libmh import watched
from libmh.api.host import Host
from libmh.api.network import Network
from libmh.api.services import Services
from libmh.call import Request, Verb
from libmh.caller import Caller
from libmh.dispatch import no_objects
from libmh.errors import InvalidArguments, NotAuthorized
from libmh.policy import Asked, Decision, NeedsObjects, Policy, asked, policy
from libmh.spec import Interface, Plain, interface_of
from mh_amqp.authority import roles
from waiting import wait_for

SERVICES, HOST, NETWORK = (interface_of(each) for each in (Services, Host, Network))
ONLY_NGINX = {"allow": "Services.restart", "on": {"name": ["nginx.service", "php*"]}}


def one_role(*rules: Mapping[str, Any]) -> Policy:
    return policy({"authority": {"*": "mine"}, "roles": {"mine": {"rules": list(rules)}}}, {})


def decided(
    rules: Policy,
    interface: Interface,
    name: str,
    verb: Verb = Verb.CALL,
    objects: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Decision:
    return rules.decide(
        "somebody", Asked(interface, interface.members[name], verb, objects or {}, arguments)
    )


def test_nothing_is_allowed_by_default() -> None:
    said = decided(one_role(), HOST, "hostname", Verb.GET)
    assert said == Decision(allowed=False, reason="'somebody' has the role 'mine'; no rule fits")
    nobody = policy({"authority": {}}, {})
    assert not decided(nobody, HOST, "hostname", Verb.GET).allowed
    assert decided(nobody, HOST, "reboot").reason == "'somebody' has no role; no rule fits"


def test_the_first_rule_that_fits_decides() -> None:
    rules = one_role({"deny": "Host.reboot"}, {"allow": "Host.*"}, {"deny": "Host.shutdown"})
    assert not decided(rules, HOST, "reboot").allowed
    assert decided(rules, HOST, "shutdown").allowed
    assert not decided(rules, SERVICES, "list").allowed
    assert decided(rules, HOST, "reboot").reason == (
        "'somebody' has the role 'mine'; rule mine 1: deny Host.reboot"
    )


def test_an_interface_is_named_in_full_or_by_its_last_word() -> None:
    for pattern in ("org.matahariproject.Host.reboot", "Host.reboot", "org.matahariproject.*.reboot", "*"):
        assert decided(one_role({"allow": pattern}), HOST, "reboot").allowed
    assert not decided(one_role({"allow": "Hos.reboot"}), HOST, "reboot").allowed


def test_a_rule_is_about_what_is_acted_on() -> None:
    rules = one_role(ONLY_NGINX)
    for name, allowed in (("nginx.service", True), ("php8.service", True), ("ssh.service", False)):
        assert decided(rules, SERVICES, "restart", objects={"name": name}).allowed is allowed
    assert not decided(rules, SERVICES, "stop", objects={"name": "nginx.service"}).allowed
    assert not decided(rules, SERVICES, "restart").allowed
    with pytest.raises(NeedsObjects):
        rules.decide("x", Asked(SERVICES, SERVICES.members["restart"], Verb.CALL))
    # who it is about is asked only where a rule looks
    assert rules.decide("x", Asked(SERVICES, SERVICES.members["stop"], Verb.CALL)).allowed is False


def test_a_rule_is_about_arguments() -> None:
    rules = one_role(
        {"allow": "Network.set_mtu", "where": {"mtu": "<= 9000", "iface": "<or> eth1 <or> eth2"}}
    )
    assert decided(rules, NETWORK, "set_mtu", mtu=1500, iface="eth1").allowed
    assert not decided(rules, NETWORK, "set_mtu", mtu=9001, iface="eth1").allowed
    assert not decided(rules, NETWORK, "set_mtu", mtu=1500, iface="eth0").allowed
    assert not decided(rules, NETWORK, "set_mtu", mtu=1500).allowed


def test_a_call_is_decided_once_unless_a_rule_looks_at_it() -> None:
    rules = one_role(ONLY_NGINX, {"allow": "Services.*"}, {"deny": "*", "where": {"timeout": "< 10"}})
    members = SERVICES.members
    assert rules.decide_whatever("somebody", SERVICES, members["restart"]) is None
    assert rules.decide_whatever("somebody", SERVICES, members["stop"]) is None
    plain = one_role(ONLY_NGINX, {"allow": "Services.*"})
    assert plain.decide_whatever("somebody", SERVICES, members["restart"]) is None
    assert plain.decide_whatever("somebody", SERVICES, members["stop"]) == decided(plain, SERVICES, "stop")
    assert plain.decide_whatever("somebody", HOST, HOST.members["reboot"]) == decided(plain, HOST, "reboot")


def test_what_a_rule_looks_at_is_looked_at_each_time() -> None:
    found = roles({"authority": {"*": "mine"}, "roles": {"mine": {"rules": [ONLY_NGINX]}}})

    def may(name: str, who: str) -> bool:
        async def objects() -> Mapping[str, str]:
            return {"name": name}

        request = Request(SERVICES.name, "restart", arguments={"name": name}, caller=Caller("amqp", who))
        try:
            asyncio.run(found.authorise(request, SERVICES, SERVICES.members["restart"], objects))
        except NotAuthorized:
            return False
        return True

    for who in ("somebody", "x" * 5000):
        for _ in range(2):
            assert may("nginx.service", who)
            assert not may("ssh.service", who)


def test_arguments_are_named_however_they_were_given() -> None:
    member = NETWORK.members["set_mtu"]
    ways: list[list[Plain] | dict[str, Plain]] = [["eth1", 1500], {"iface": "eth1", "mtu": 1500}]
    for given in ways:
        found = asked(Request(NETWORK.name, "set_mtu", Verb.CALL, given), NETWORK, member, {})
        assert found.arguments == {"iface": "eth1", "mtu": 1500, "confirm": 60}


def test_effect_and_access_take_in_members_alike() -> None:
    reads = one_role({"allow": "*", "effect": "reads"})
    assert decided(reads, SERVICES, "logs").allowed
    assert decided(reads, HOST, "update_interval", Verb.GET).allowed
    assert not decided(reads, HOST, "update_interval", Verb.SET).allowed
    assert not decided(reads, HOST, "hostname", Verb.SET).allowed
    assert not decided(reads, SERVICES, "restart").allowed
    everybody = one_role({"allow": "*", "access": "open"})
    assert decided(everybody, HOST, "hostname", Verb.GET).allowed
    assert not decided(everybody, SERVICES, "logs").allowed


def test_all_properties_are_read_where_each_may_be() -> None:
    assert one_role({"allow": "Host.*"}).decide_all("x", HOST).allowed
    assert not one_role({"allow": "Host.hostname"}).decide_all("x", HOST).allowed
    hidden = one_role({"deny": "Host.custom_uuid"}, {"allow": "Host.*"})
    assert "deny Host.custom_uuid" in hidden.decide_all("x", HOST).reason


def test_a_role_takes_in_another() -> None:
    rules = policy(
        {
            "authority": {"*": "web"},
            "roles": {
                "web": {"rules": [{"deny": "Host.hostname"}, {"use": "base"}]},
                "base": {"rules": [{"use": "read-only"}, ONLY_NGINX]},
            },
        },
        {},
    )
    assert not decided(rules, HOST, "hostname", Verb.GET).allowed
    assert decided(rules, HOST, "memory", Verb.GET).allowed
    assert decided(rules, SERVICES, "restart", objects={"name": "nginx.service"}).allowed
    assert not decided(rules, SERVICES, "stop", objects={"name": "nginx.service"}).allowed


def test_what_no_member_is_called_is_told() -> None:
    rules = one_role({"allow": "Service.restart"}, {"allow": "Host.*"})
    assert list(rules.idle([HOST, SERVICES])) == ["rule mine 1: nothing is called 'Service.restart'"]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("allow", "expected a table with one of allow, deny and use"),
        ({}, "expected a table with one of allow, deny and use"),
        ({"allow": "*", "deny": "*"}, "expected a table with one of"),
        ({"allow": 1}, "which is a string"),
        ({"allow": "Host"}, "expected Interface.member"),
        ({"allow": "a." + "x" * 400}, "expected Interface.member"),
        ({"allow": "*", "onn": {}}, "there is no 'onn' in a rule"),
        ({"allow": "*", "on": "x"}, "on: expected a table"),
        ({"allow": "*", "on": {"name": 7}}, "on: expected a pattern"),
        ({"allow": "*", "on": {"name": []}}, "on: expected a pattern"),
        ({"allow": "*", "where": {"mtu": 9000}}, "where: expected a requirement"),
        ({"allow": "*", "effect": "harms"}, "expected one of reads, changes, disrupts, got 'harms'"),
        ({"allow": "*", "access": "root"}, "expected one of open, admin, got 'root'"),
        ({"use": "mine"}, "use: expected another role"),
        ({"use": "other"}, "use: expected another role"),
        ({"use": "guest", "effect": "reads"}, "use: expected another role"),
    ],
)
def test_a_bad_rule_is_named(rule: Any, why: str) -> None:
    with pytest.raises(InvalidArguments, match=r"rule mine 2: ") as refused:
        one_role({"allow": "*"}, rule)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"authority": {"*": "root"}}, r"expected one of none, guest, read-only, operator, got 'root'"),
        ({"authority": {"*": ["operator"]}}, "expected one of none"),
        ({"authority": {"*": ""}}, "expected one of none"),
        ({"roles": {"operator": {"rules": []}}}, r"\[roles.operator\]: this role is built in"),
        ({"roles": {"mine": {"rule": []}}}, r"\[roles.mine\]: expected rules"),
        ({"roles": {"mine": {"rules": {}}}}, r"\[roles.mine\]: expected rules"),
    ],
)
def test_a_bad_table_is_named(tables: Any, why: str) -> None:
    with pytest.raises(InvalidArguments, match=why):
        policy(tables, {})


def test_the_policy_is_read_again_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def may() -> bool:
        request = Request(HOST.name, "reboot", caller=Caller("amqp", "CN=console"))
        try:
            asyncio.run(found.authorise(request, HOST, HOST.members["reboot"], no_objects))
        except NotAuthorized:
            return False
        return True

    monkeypatch.setattr(watched, "LOOK_SECONDS", 0.0)
    file = tmp_path / "amqp.toml"
    file.write_text('[authority]\n"*" = "guest"\n')
    found = roles({"authority": {"*": "guest"}}, str(file))
    assert not may()
    written = tmp_path / "new"
    written.write_text('[authority]\n"*" = "operator"\n')
    written.replace(file)
    wait_for(may)
    too_long = '[authority]\n"*" = "none"\n' + "#" * watched.MAX_FILE
    for broken in ("[authority", '[authority]\n"*" = "root"\n', too_long):
        written.write_text(broken)
        written.replace(file)
        assert may()
        assert "the policy stays as it was" in caplog.text
        caplog.clear()
