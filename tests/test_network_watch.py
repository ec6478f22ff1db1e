"""Links followed: what happens to them is told in time, a storm in few words and to the end, and nothing
that comes in on the socket ends it."""

import asyncio
import errno
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmh.linux.net import addresses, linktable, linkwatch, netlink, routes, rtlinks
from libmh.linux.net.linktable import LinkState, LinkTable, Tables
from libmh.linux.net.linkwatch import LinkChange, LinkWatch
from namespaces import Namespace, namespace
from processes import Agent, ready_line
from testbed.child import child
from waiting import wait_for

LISTENER = str(Path(__file__).with_name("link_listener.py"))
STORM = 1000
SETTLED = 0.3  # a pause is over


class Heard:
    """The events that a listener prints."""

    def __init__(self, agent: Agent) -> None:
        self.pid = agent.process.pid
        self.events: list[dict[str, Any]] = []
        self._lines = agent.process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._lines or ():
            self.events.append(json.loads(line))

    def of(self, link: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["iface"] == link]

    def changes(self, link: str) -> list[str]:
        return [str(each["change"]) for each in self.of(link)]

    def last(self, link: str) -> dict[str, Any]:
        return (self.of(link) or [{}])[-1]


@contextmanager
def listening(net: Namespace) -> Iterator[Heard]:
    with child(net.command(sys.executable, LISTENER), stdout=PIPE) as process:
        yield Heard(Agent(process, ready_line(process)))


@pytest.fixture(scope="module")
def net() -> Iterator[Namespace]:
    with namespace() as made:
        # without it an IPv6 address comes with each carrier, whenever that is settled
        made.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        yield made


@pytest.fixture
def heard(net: Namespace) -> Iterator[Heard]:
    with listening(net) as found:
        yield found


@pytest.fixture
def pair(net: Namespace, heard: Heard) -> Iterator[None]:
    """v0, which is up, and v1 at its other end."""
    net.batch(["link add v0 type veth peer name v1", "link set v1 up", "link set v0 up"])
    wait_for(lambda: heard.last("v0").get("operational_state") == "up")
    yield
    net.run("sh", "-c", "ip link delete v0 2>/dev/null || true")


@pytest.mark.usefixtures("pair")
def test_a_carrier_that_goes_and_comes(net: Namespace, heard: Heard) -> None:
    net.ip("link set v1 down")
    wait_for(lambda: heard.last("v0")["carrier"] is False)
    last = heard.last("v0")
    assert (last["change"], last["up"], last["operational_state"]) == ("changed", True, "lowerlayerdown")
    net.ip("link set v1 up")
    wait_for(lambda: (heard.last("v0")["carrier"], heard.last("v0")["operational_state"]) == (True, "up"))


@pytest.mark.usefixtures("pair")
def test_addresses_and_size(net: Namespace, heard: Heard) -> None:
    net.ip("address add 192.0.2.1/24 dev v0")
    wait_for(lambda: heard.last("v0")["addresses"] == ["192.0.2.1/24"])
    net.ip("address add 192.0.2.9/32 peer 198.51.100.1/32 dev v0")
    wait_for(lambda: heard.last("v0")["addresses"] == ["192.0.2.1/24", "192.0.2.9/32"])
    net.ip("address delete 192.0.2.1/24 dev v0")
    wait_for(lambda: heard.last("v0")["addresses"] == ["192.0.2.9/32"])
    net.ip("link set v0 mtu 1400")
    wait_for(lambda: heard.last("v0")["mtu"] == 1400)


def test_links_that_come_are_renamed_and_go(net: Namespace, heard: Heard) -> None:
    net.ip("link add d0 type bridge")
    wait_for(lambda: heard.changes("d0") == ["added"])
    net.ip("link set d0 name d1")
    wait_for(lambda: (heard.changes("d0"), heard.changes("d1")) == (["added", "removed"], ["added"]))
    net.ip("link delete d1")
    wait_for(lambda: heard.changes("d1") == ["added", "removed"])
    last = heard.last("d1")
    assert (last["up"], last["carrier"], last["operational_state"]) == (False, False, "notpresent")
    assert last["addresses"] == []


@pytest.mark.usefixtures("pair")
def test_what_happens_to_a_port_happens_to_the_port(net: Namespace, heard: Heard) -> None:
    """A bridge tells of its ports in messages of its own, which look like the end of the link."""
    net.batch(["link add br0 type bridge", "link set v0 master br0", "link set v0 nomaster", "link del br0"])
    wait_for(lambda: heard.changes("br0")[-1:] == ["removed"])
    assert "removed" not in heard.changes("v0")


@pytest.mark.usefixtures("pair")
def test_a_storm_is_told_in_few_words_and_to_the_end(net: Namespace, heard: Heard) -> None:
    before, began = len(heard.of("v0")), time.monotonic()
    many = [f"10.{n >> 8}.{n & 255}.1/32" for n in range(STORM)]
    net.batch([f"address add {each} dev v0" for each in many])
    net.batch([f"address delete {each} dev v0" for each in many[1:]])
    wait_for(lambda: heard.last("v0")["addresses"] == many[:1], seconds=15)
    took = time.monotonic() - began
    assert len(heard.of("v0")) - before <= 2 + 5 * took


@pytest.mark.usefixtures("pair")
def test_what_was_lost_is_read_anew(net: Namespace, heard: Heard) -> None:
    """The kernel drops what a stopped process does not read, and says so."""
    many = [f"10.{n >> 8}.{n & 255}.1/32" for n in range(STORM)]
    net.run("kill", "-STOP", str(heard.pid))
    for _ in range(4):
        net.batch([f"address add {each} dev v0" for each in many])
        net.batch([f"address delete {each} dev v0" for each in many])
    net.ip("address add 192.0.2.1/24 dev v0")
    net.run("kill", "-CONT", str(heard.pid))
    wait_for(lambda: heard.last("v0")["addresses"] == ["192.0.2.1/24"], seconds=15)


class Played:
    """A watch whose socket is the test's, and whose kernel has what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tables: list[Tables]) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(0)
        self.changes: list[LinkChange] = []
        self.fills = 0
        self.fault: list[bytes | OSError | None] = []
        self._theirs = theirs

        def read() -> Tables:
            self.fills += 1
            return tables[min(self.fills, len(tables)) - 1]

        monkeypatch.setattr(netlink, "listen", lambda _groups: theirs)
        monkeypatch.setattr(netlink, "hear", self._hear)
        monkeypatch.setattr(linktable, "read", read)
        self.watch = LinkWatch(self.changes.append)

    def _hear(self, line: socket.socket) -> bytes | None:
        data = line.recv(65536)
        if data != b"?" or not self.fault:
            return data
        fault = self.fault.pop()
        if isinstance(fault, OSError):
            raise fault
        return fault


def told(index: int, name: str, *, up: bool = True) -> rtlinks.Told:
    return rtlinks.Told(index, name, 1, up=up, carrier=up, operational_state="up", mtu=1500)


@pytest.mark.parametrize("fault", [OSError(errno.ENOBUFS, "lost"), None])
def test_what_is_lost_or_cut_off_is_read_anew(
    monkeypatch: pytest.MonkeyPatch, fault: OSError | None
) -> None:
    played = Played(monkeypatch, [Tables([told(5, "a")], []), Tables([told(5, "b")], [])])
    played.fault.append(fault)
    played.watch.start()
    wait_for(lambda: played.watch.current)
    assert played.changes == []
    played.ours.send(b"?")
    wait_for(lambda: len(played.changes) == 2)
    assert {(each.name, each.new is None) for each in played.changes} == {("a", True), ("b", False)}
    played.watch.close()


def test_a_socket_that_fails_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, [Tables([told(5, "a")], []), Tables([], [])])
    opened = iter([played._theirs])
    monkeypatch.setattr(netlink, "listen", lambda _groups: next(opened, None) or socket.socketpair()[0])
    monkeypatch.setattr(linkwatch, "FIRST_WAIT", 0.01)
    played.fault.append(OSError(errno.EIO, "broken"))
    played.watch.start()
    wait_for(lambda: played.watch.current)
    played.ours.send(b"?")
    wait_for(lambda: [(each.name, each.new) for each in played.changes] == [("a", None)])
    played.watch.close()


def message(kind: int, payload: bytes) -> bytes:
    data = netlink.HEADER.pack(netlink.HEADER.size + len(payload), kind, 0, 0, 0) + payload
    return data + b"\0" * (-len(data) % 4)


def link_message(index: int, name: str, flags: int = 1) -> bytes:
    own = netlink.attribute(rtlinks.IFLA_IFNAME, name.encode() + b"\0")
    return rtlinks.HEADER.pack(0, 1, index, flags, 0) + own


def address_message(index: int, last: int) -> bytes:
    own = netlink.attribute(addresses.IFA_LOCAL, bytes((10, 0, 0, last)))
    return addresses.HEADER.pack(socket.AF_INET, 8, 0, 0, index) + own


def test_the_table_follows_messages() -> None:
    table = LinkTable()
    assert (
        table.heard(message(netlink.RTM_NEWADDR, address_message(3, 1))) == set()
    )  # of no link that we know
    assert table.heard(message(netlink.RTM_NEWLINK, link_message(3, "a"))) == {"a"}
    both = message(netlink.RTM_NEWADDR, address_message(3, 1)) + message(
        netlink.RTM_NEWADDR, address_message(3, 2)
    )
    assert table.heard(both) == {"a"}
    assert table.state("a") == LinkState(
        3, up=True, carrier=False, operational_state="unknown", mtu=0, addresses=("10.0.0.1/8", "10.0.0.2/8")
    )
    assert table.heard(message(netlink.RTM_NEWLINK, link_message(3, "b", 0))) == {"a", "b"}
    assert table.state("a") is None
    renamed = table.state("b")
    assert renamed is not None
    assert (renamed.up, renamed.addresses) == (False, ("10.0.0.1/8", "10.0.0.2/8"))
    # one of the same name comes before the old one's end was told
    table.heard(message(netlink.RTM_NEWLINK, link_message(4, "b")))
    table.heard(message(netlink.RTM_DELLINK, link_message(3, "b")))
    replaced = table.state("b")
    assert replaced is not None
    assert replaced.index == 4


def attribute_lists() -> st.SearchStrategy[bytes]:
    one = st.builds(
        lambda length, kind, value: struct.pack("=HH", length, kind) + value,
        st.one_of(st.integers(0, 40), st.integers(0, 65535)),
        st.one_of(st.integers(0, 40), st.integers(0, 65535)),
        st.binary(max_size=40),
    )
    return st.lists(one, max_size=8).map(b"".join)


def payloads() -> st.SearchStrategy[bytes]:
    header = st.builds(
        lambda family, rest: bytes((family,)) + rest,
        st.sampled_from([0, socket.AF_INET, socket.AF_INET6, 7, 255]),
        st.binary(min_size=7, max_size=15),
    )
    return st.builds(lambda start, rest: start + rest, header, attribute_lists())


def datagrams() -> st.SearchStrategy[bytes]:
    one = st.builds(
        message,
        st.sampled_from(
            [netlink.RTM_NEWLINK, netlink.RTM_DELLINK, netlink.RTM_NEWADDR, netlink.RTM_DELADDR, 2, 3, 24]
        ),
        st.one_of(
            payloads(),
            st.binary(max_size=64),
            st.builds(link_message, st.integers(-2, 5), st.text(max_size=20)),
            st.builds(address_message, st.integers(0, 5), st.integers(0, 255)),
        ),
    )
    whole = st.lists(one, max_size=6).map(b"".join)
    return st.one_of(whole, st.binary(max_size=200), st.tuples(whole, st.integers(0, 300)).map(_cut))


def _cut(given: tuple[bytes, int]) -> bytes:
    return given[0][: given[1]]


@settings(max_examples=200, deadline=None)
@given(st.lists(datagrams(), max_size=5))
def test_no_datagram_is_too_odd(heard: list[bytes]) -> None:
    table = LinkTable()
    for data in heard:
        for name in table.heard(data):
            state = table.state(name)
            assert state is None or (state.index > 0 and name.isprintable())


@settings(max_examples=200, deadline=None)
@given(payloads())
def test_no_route_is_too_odd(payload: bytes) -> None:
    for index, route in routes.parse(payload, lambda index: f"link{index}"):
        assert index >= 0
        assert route.destination


def test_it_ends_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, [Tables([], [])])
    played.watch.start()
    wait_for(lambda: played.watch.current)
    task = played.watch._task
    assert isinstance(task, asyncio.Task)
    played.watch.close()
    wait_for(task.done)
    assert played.watch.current is False
