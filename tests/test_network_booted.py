"""The agent of a booted machine, in its sandbox: what it reads of the network, and what it tells of it."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from libmh.client import connect
from libmh.events import Event
from network_stage import KERNEL, Stage, stage
from waiting import wait_for


@pytest.fixture(scope="module")
def booted() -> Iterator[Stage]:
    with stage("reads") as staged:
        yield staged


def test_everything_is_read(booted: Stage) -> None:
    network = booted.network()
    link = network.link(KERNEL)
    assert (link.kind, link.up, link.operational_state, link.carrier) == ("veth", True, "up", True)
    (same,) = (each for each in network.links() if each.name == KERNEL)
    assert replace(same, counters=link.counters) == link
    assert "10.9.0.1" in {each.address for each in network.addresses(KERNEL)}
    assert network.get_ip_address(KERNEL) == "10.9.0.1"
    assert ("203.0.110.0/24", "10.9.0.2") in {(r.destination, r.gateway) for r in network.routes(KERNEL)}
    assert {each.source for each in network.dns()} <= {"NetworkManager", "/etc/resolv.conf"}


def test_changes_are_told(booted: Stage) -> None:
    heard: list[Event] = []
    listening = threading.Event()

    def listen() -> None:
        with connect(booted.host.bus_address()) as here:
            listening.set()
            for event in here.events("org.matahariproject.Network", "link_changed", 30):
                heard.append(event)
                if event.fields["iface"] == "end":
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    sizes = iter(range(1400, 1500))
    wait_for(lambda: resized(booted, next(sizes)) and heard, seconds=20)
    booted.host.run("ip", "-n", "far", "link", "set", "k1", "down")
    wait_for(lambda: last(heard, KERNEL, "carrier") is False)
    booted.host.run("ip", "-n", "far", "link", "set", "k1", "up")
    wait_for(lambda: last(heard, KERNEL, "carrier") is True)
    booted.host.run("ip", "address", "add", "10.9.0.7/24", "dev", KERNEL)
    wait_for(lambda: "10.9.0.7/24" in str(last(heard, KERNEL, "addresses")))
    booted.host.run("ip", "link", "add", "end", "type", "bridge")
    thread.join(10)
    assert heard[-1].fields["change"] == "added"


def resized(booted: Stage, mtu: int) -> bool:
    return not booted.host.run("ip", "link", "set", KERNEL, "mtu", str(mtu)).returncode


def last(heard: list[Event], link: str, field: str) -> object:
    return next((each.fields[field] for each in reversed(heard) if each.fields["iface"] == link), None)
