"""The typed client half: a remote object that *is* a `Probe`, a `Host`, with the same errors as in
process."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dbus_serving import Serving, serving
from libmh.api.agent import Agent
from libmh.api.host import Host
from libmh.call import Request, Verb
from libmh.client import Connection, connect
from libmh.errors import PROBLEMS, Internal, InvalidArguments, NotFound, Timeout, Unavailable
from libmh.events import Event
from libmh.remote import connect_async
from libmh.spec import interface_of
from mh_dbus import client, files
from probe import OUTER, Colour, Inner, Outer, Probe, ProbeHost
from testbed.bus import bus_daemon, private_bus
from testbed.child import child
from waiting import wait_for


@pytest.fixture
def served(either: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Serving]]:
    """The probe on a bus, and known to the client as a plug-in's interface would be."""
    declared = interface_of(Probe)
    monkeypatch.setattr(client, "find_interface", lambda name: declared if name == declared.name else None)
    monkeypatch.setattr(files, "host_interfaces", lambda: (declared,))
    with private_bus() as address, serving(address, ProbeHost) as serving_:
        yield address, serving_


@pytest.fixture
def connection(served: tuple[str, Serving]) -> Iterator[Connection]:
    with connect(served[0]) as opened:
        yield opened


def test_typed_values_come_back(connection: Connection) -> None:
    probe = connection.proxy(Probe)
    assert Probe in type(probe).__mro__
    scalars = (
        True,
        255,
        65535,
        2**32 - 1,
        2**64 - 1,
        -(2**15),
        -(2**31),
        -(2**63),
        -0.5,
        "ü",
        b"\x00\xff",
        1,
    )
    assert probe.scalars(*scalars) == scalars
    outer = Outer(Inner("n", Colour.RED, free={"a": [None, 1]}), [], {"x": -1}, flag=False)
    for maybe in (None, 7):
        given = (["a"], {"k": -1}, outer, Colour.GREEN, maybe, [None, {"k": b"x"}])
        assert probe.shapes(*given) == given
    assert probe.outer() == OUTER
    assert probe.release() is None
    assert probe.wait("x") is True  # the default is sent


def test_properties_read_and_written(connection: Connection) -> None:
    probe = connection.proxy(Probe)
    probe.set_number(7)
    assert probe.number() == 7
    assert probe.maybe() is None
    with pytest.raises(NotFound):
        connection.request(Request("org.example.Probe", "maybe", Verb.GET))
    probe.set_maybe("x")
    assert probe.maybe() == "x"
    everything = connection.request(Request("org.example.Probe", verb=Verb.GET_ALL))
    assert isinstance(everything, dict)
    assert everything["maybe"] == "x"
    assert everything.keys() == {"gauge", "outer", "maybe", "number"}


def test_problems_are_the_same(connection: Connection) -> None:
    probe = connection.proxy(Probe)
    for problem in PROBLEMS:
        with pytest.raises(problem, match=f"as asked: {problem.word}"):
            probe.fail(problem.word)
    with pytest.raises(Internal, match="journal"):
        probe.fail("a bug")


REFUSED = [
    (Request("org.example.Probe", "fail", Verb.CALL, [5]), InvalidArguments, "word: expected string"),
    (Request("org.example.Probe", "fail", Verb.CALL, []), InvalidArguments, "word: is missing"),
    (Request("org.example.Probe", "fail", Verb.CALL, ["a", "b"]), InvalidArguments, "takes 1 arguments"),
    (Request("org.example.Probe", "fail", Verb.CALL, {"no": 1}), InvalidArguments, "no argument 'no'"),
    (Request("org.example.Probe", "number", Verb.SET, [True]), InvalidArguments, "number: expected u32"),
    (Request("org.example.Probe", "gauge", Verb.SET, [1]), InvalidArguments, "read-only"),
    (Request("org.example.Probe", "nothing", Verb.CALL), NotFound, "nothing"),
    (Request("org.example.Probe", "wait", Verb.GET), NotFound, "wait"),
    (Request("org.example.Nothing", "x", Verb.GET), NotFound, "org.example.Nothing"),
]


@pytest.mark.parametrize(("request_", "kind", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused(
    connection: Connection, request_: Request, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        connection.request(request_)


def test_a_deadline_is_kept(connection: Connection) -> None:
    with pytest.raises(Timeout):
        connection.request(Request("org.example.Probe", "wait", Verb.CALL, ["x", 1.0], deadline=0.2))
    assert connection.proxy(Probe).blob(1) == ["x" * 1024]


def test_events_arrive_typed(served: tuple[str, Serving], connection: Connection) -> None:
    events = connection.events("org.example.Probe", timeout=5)
    with connect(served[0]) as second:
        first = wait_for_event(events, lambda: second.proxy(Probe).set_number(3))
        assert (first.interface, first.member) == ("org.example.Probe", "")
        second.proxy(Probe).announce(OUTER, None)
        second.proxy(Probe).set_maybe(None)
        announced = next(event for event in events if event.member == "announced")
        assert announced.fields["count"] == 1
        assert announced.fields["maybe"] is None
        assert announced.time > 0
        gone = next(event for event in events if "maybe" in event.fields)
        assert dict(gone.fields) == {"maybe": None}


def wait_for_event(events: Iterator[Event], write: Callable[[], None]) -> Event:
    """The first event of a stream: something is written until it is heard."""
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(next, events)

        def written() -> bool:
            write()
            return heard.done()

        wait_for(written)
        return heard.result()


def test_signals_of_others_are_not_believed(served: tuple[str, Serving], connection: Connection) -> None:
    events = connection.events("org.example.Probe", timeout=0.5)
    forge = f"""
import asyncio
from libmh.bus import connect, variant
async def case():
    bus = await connect({served[0]!r})
    for _ in range(20):
        body = ["org.example.Probe", {{"number": variant("u", 666)}}, []]
        properties = "org.freedesktop.DBus.Properties"
        bus.signal("/org/example/Probe", properties, "PropertiesChanged", "sa{{sv}}as", body)
        bus.signal("/org/example/Probe", "org.example.Probe", "announced", "s", ["forged"])
        await bus.ask("GetId")
        await asyncio.sleep(0.02)
asyncio.run(case())
"""
    process = subprocess.Popen([sys.executable, "-c", forge])
    try:
        with pytest.raises(Timeout):
            print(next(events))
    finally:
        assert process.wait(10) == 0


def test_nobody_there(either: str) -> None:
    with private_bus() as address, connect(address) as nobody:
        with pytest.raises(Unavailable):
            nobody.proxy(Host).memory()
        with pytest.raises(Unavailable, match="no agent is on the bus"):
            next(nobody.events())


def test_an_agent_that_dies(either: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mh_dbus.main", "--state", str(tmp_path), "--bus"]
    with private_bus() as address, child([*command, address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        with connect(address) as connection:
            assert connection.proxy(Agent).ping("x") == "x"
            events = connection.events(timeout=5)
            first = wait_for_event(events, lambda: connection.proxy(Host).set_update_interval(9))
            assert first.interface.startswith("org.matahariproject.")
            process.kill()
            with pytest.raises(Unavailable, match="left the bus"):
                list(events)
            with pytest.raises(Unavailable):
                connection.proxy(Agent).ping("x")


def test_a_bus_that_dies(either: str) -> None:
    with bus_daemon() as daemon, connect(daemon.address) as connection:
        daemon.stop()
        with pytest.raises(Unavailable):
            connection.proxy(Host).memory()


@pytest.mark.parametrize("url", ["system:elsewhere", "unix:nothing=1"])
def test_a_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises(InvalidArguments):
        connect(url)


def test_for_asyncio(served: tuple[str, Serving]) -> None:
    async def case() -> None:
        async with asyncio.timeout(10), await connect_async(served[0]) as connection:
            assert await connection.call(Probe.number) == 1
            assert await connection.call(Probe.blob, 1) == ["x" * 1024]
            many = await asyncio.gather(*(connection.call(Probe.blob, 1) for _ in range(300)))
            assert many == [["x" * 1024]] * 300

    asyncio.run(case())
