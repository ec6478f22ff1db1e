"""Where names are looked up: the real systemd-resolved and NetworkManager of a booted machine, and files of
every shape."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captured import copy_of, put
from libmh.api.network import Dns
from libmh.linux.net import dns
from libmh.linux.network import LinuxNetwork
from testbed.machine import Host, booted_host, with_packages

PROFILE = """[connection]
id=wired
uuid=11111111-2222-3333-4444-555555555555
type=ethernet
interface-name=m0
[ipv4]
method=manual
address1=10.9.2.1/24
dns=192.0.2.53;192.0.2.54;
dns-search=example.test;~routed.test;
[ipv6]
method=ignore
"""
MANAGER = "[main]\nplugins=keyfile\nno-auto-default=*\ndns=none\nsystemd-resolved=false\n"
FILES = {
    "/etc/systemd/resolved.conf": "[Resolve]\nDNS=192.0.2.1 2001:db8::1\nDomains=all.test\n",
    "/etc/NetworkManager/conf.d/90-test.conf": MANAGER,
    "/etc/NetworkManager/system-connections/wired.nmconnection": PROFILE,
}
PATIENCE = 1.0  # in the place of `dns.SECONDS`
ASK = f"""
import json, sys, time
from dataclasses import asdict
from libmh.errors import Problem
from libmh.linux.net import dns
from libmh.linux.network import LinuxNetwork
dns.SECONDS = {PATIENCE}
began = time.monotonic()
try:
    told = [asdict(each) for each in LinuxNetwork().dns()]
except Problem as problem:
    told = [problem.word]
print(json.dumps([told, time.monotonic() - began]))
"""
BY_FILE = {"source": "/etc/resolv.conf", "servers": ["192.0.2.9"], "search": ["file.test"], "link": None}


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    layers = [
        with_packages("systemd-resolved"),
        with_packages("network-manager"),
    ]
    with booted_host("dns", files=FILES, layers=layers) as host:
        host.run("sh", "-c", "chmod 600 /etc/NetworkManager/system-connections/*")
        host.run(
            "sh",
            "-c",
            "rm /etc/resolv.conf; printf 'nameserver 192.0.2.9\\nsearch file.test\\n' >/etc/resolv.conf",
        )
        host.run("sh", "-c", "ip link add m0 type veth peer name m1; ip link set m0 up; ip link set m1 up")
        yield host


def asked(machine: Host, bus: str = "") -> tuple[list[Any], float]:
    words = ["env", f"DBUS_SYSTEM_BUS_ADDRESS={bus}"] if bus else ["env"]
    done = machine.run(*words, sys.executable, "-c", ASK, seconds=30)
    told, seconds = json.loads(done.stdout)
    return told, seconds


def test_the_file_answers_where_nobody_keeps_it(machine: Host) -> None:
    machine.run("systemctl", "stop", "systemd-resolved", "NetworkManager")
    assert asked(machine)[0] == [BY_FILE]
    states = machine.run("systemctl", "is-active", "systemd-resolved", "NetworkManager", check=False)
    assert "active" not in states.stdout.split()  # the question started neither
    assert asked(machine, "unix:path=/no/such/socket")[0] == [BY_FILE]


def test_networkmanager_answers(machine: Host) -> None:
    machine.run("systemctl", "stop", "systemd-resolved")
    machine.run("systemctl", "start", "NetworkManager")
    machine.run("nmcli", "--wait", "20", "connection", "up", "wired")
    own = {"servers": ["192.0.2.53", "192.0.2.54"], "search": ["example.test"], "link": "m0"}
    assert {"source": "NetworkManager", **own} in asked(machine)[0]


def test_resolved_answers_first(machine: Host) -> None:
    machine.run("systemctl", "start", "systemd-resolved")
    machine.run("resolvectl", "dns", "m1", "192.0.2.60")
    machine.run("resolvectl", "domain", "m1", "corp.test", "~secret.test")
    told, _ = asked(machine)
    source = {"source": "systemd-resolved"}
    whole = {"servers": ["192.0.2.1", "2001:db8::1"], "search": ["all.test"], "link": None}
    assert told[0] == source | whole
    assert source | {"servers": ["192.0.2.60"], "search": ["corp.test"], "link": "m1"} in told


def test_one_that_hangs_costs_one_answer(machine: Host) -> None:
    machine.run("systemctl", "start", "systemd-resolved")
    machine.run("systemctl", "kill", "-s", "STOP", "systemd-resolved")
    told, seconds = asked(machine)
    assert told == ["timeout"]
    assert PATIENCE <= seconds < PATIENCE + 3
    machine.run("systemctl", "kill", "-s", "CONT", "systemd-resolved")
    assert asked(machine)[0][0]["source"] == "systemd-resolved"


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        ("nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", ["192.0.2.1", "fe80::1%eth0"], []),
        ("search a.test b.test\ndomain c.test\n", [], ["c.test"]),
        ("domain c.test\nsearch a.test b.test", [], ["a.test", "b.test"]),
        ("# nameserver 192.0.2.1\n; search x\n nameserver\t192.0.2.2 rest", ["192.0.2.2"], []),
        ("nameserver\nnameserver no\nsearch\ndomain\noptions ndots:2 edns0\nsortlist 192.0.2.0", [], []),
    ],
)
def test_the_file_as_the_library_reads_it(text: str, servers: list[str], search: list[str]) -> None:
    assert dns.resolv_conf(text) == Dns("/etc/resolv.conf", servers, search)


def test_a_stub_is_said_plainly() -> None:
    told = dns.resolv_conf("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n")
    assert told == Dns("/etc/resolv.conf, a stub of systemd-resolved", ["127.0.0.53"], ["."])


def test_a_captured_machine_has_its_file(tmp_path: Path) -> None:
    context = copy_of("container", tmp_path)
    put(context, "/etc/resolv.conf", "nameserver 192.0.2.7\n")
    assert LinuxNetwork(context).dns() == [Dns("/etc/resolv.conf", ["192.0.2.7"], [])]
    put(context, "/etc/resolv.conf", "")
    assert LinuxNetwork(context).dns() == []


@given(st.text(max_size=300))
def test_no_file_is_too_odd(text: str) -> None:
    told = dns.resolv_conf(text)
    assert all(word.isprintable() for word in (*told.servers, *told.search))


def anything() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-3, 12) | st.text(max_size=8) | st.binary(max_size=17)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(anything(), anything(), anything())
def test_no_answer_is_too_odd(first: Any, second: Any, third: Any) -> None:
    for told in dns.resolved({"DNS": first, "FallbackDNS": second, "Domains": third}):
        assert told.source == "systemd-resolved"
    entry = {"nameservers": first, "domains": second, "interface": third}
    for told in dns.network_manager({"Configuration": [entry, first]}):
        assert told.servers or told.search
