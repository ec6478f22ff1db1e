"""AMQP before D-Bus: an agent without privileges hands on what it has authorised to one that has them."""

import asyncio
import importlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from dbus_serving import serving
from libmh.api.agent import Agent, ConnectionState
from libmh.api.host import FactStatus, Host
from libmh.api.network import Network
from libmh.api.services import Services
from libmh.call import Request, Verb
from libmh.capability import build
from libmh.client import Connection, connect
from libmh.connections import Connections
from libmh.context import Context, Settings
from libmh.dispatch import Elsewhere
from libmh.errors import (
    BY_WORD,
    NotAuthorized,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)
from libmh.events import Event, Hub
from libmh.spec import U32, Interface, interface, interface_of, prop
from libmh.via import Lines, Neighbour, Via, host_interfaces, shipped_here
from mh_dbus.files import polkit_policy
from probe import OUTER, Probe
from processes import agent, command, ready_line
from source_tree import ROOT
from testbed.bus import BusDaemon, bus_daemon, private_bus
from testbed.callers import NOBODY, as_uid
from testbed.child import spawn, stop
from testbed.polkit import Polkit, polkit_bus
from transports import OPERATOR, plug_in
from waiting import eventually, wait_for

PROBE = interface_of(Probe).name
HOST = interface_of(Host).name
RULE = (ROOT / "packaging/polkit-1/rules.d/50-matahari.rules").read_text().replace('"matahari"', '"nobody"')
PLUGIN_RULE = """polkit.addRule(function(action, subject) {
    if (subject.user != "nobody" || action.lookup("unit") == "no") return polkit.Result.NOT_HANDLED;
    if (action.id.indexOf("org.example.Probe.") == 0)
        return polkit.Result.YES;
});"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment in which the probe is found, here and by the agents."""
    directory = tmp_path_factory.mktemp("plugins")
    environment = plug_in(directory)
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    yield environment
    sys.path.remove(str(directory))


@contextmanager
def front(
    address: str, state: Path, environment: Mapping[str, str], *options: str, uid: int = 0
) -> Iterator[Connection]:
    """A console's connection to a listening agent that hands everything on."""
    state.mkdir()
    state.chmod(0o777)
    (state / "roles.toml").write_text(OPERATOR)
    given = ["--via", address, "--listen", "127.0.0.1:0", "--state", str(state), *options]
    program = [command("mh-amqp"), *given, "--config", str(state / "roles.toml")]
    process = spawn(as_uid(program, uid) if uid else program, env=environment, stdout=subprocess.PIPE)
    try:
        url = "amqp://" + ready_line(process).partition("listening on ")[2].split()[0]
        with connect(url) as connection:
            yield connection
    finally:
        stop(process)


def failure(ask: Any, *arguments: Any) -> Problem:
    """What a call fails with."""
    with pytest.raises(Problem) as met:
        ask(*arguments)
    return met.value


@dataclass
class Heard:
    """Events as they come, in a thread of their own until the block ends."""

    connection: Connection
    events: list[Event] = field(default_factory=list)

    def listen(self) -> None:
        try:
            for event in self.connection.events():
                self.events.append(event)
        except Problem:
            return

    def fields(self, interface_: str, member: str) -> list[Mapping[str, Any]]:
        return [
            each.fields
            for each in list(self.events)
            if (each.interface, each.member) == (interface_, member)
        ]


@contextmanager
def hearing(connection: Connection) -> Iterator[Heard]:
    heard = Heard(connection)
    thread = threading.Thread(target=heard.listen, daemon=True)
    thread.start()
    # nobody says when a subscription is in force: ask for events until one comes
    probe = connection.proxy(Probe)

    def comes() -> bool:
        probe.announce(OUTER, "begin")
        return bool(heard.fields(PROBE, "announced"))

    wait_for(comes)
    yield heard


# the user of the agent on AMQP, and what polkit makes of it


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("actions")
    for policy in (ROOT / "packaging/polkit-1/actions").glob("*.policy"):
        (directory / policy.name).write_text(policy.read_text())
    (directory / "probe.policy").write_text(polkit_policy(interface_of(Probe)))
    return directory


@pytest.fixture
def guarded(actions: Path) -> Iterator[Polkit]:
    with polkit_bus(actions, {"50-matahari": RULE, "60-probe": PLUGIN_RULE}) as polkit:
        yield polkit


def test_an_unprivileged_agent_does_what_polkit_lets_its_user(
    guarded: Polkit, tmp_path: Path, plugins: Mapping[str, str]
) -> None:
    back = ["--bus", guarded.address, "--state", str(tmp_path)]
    with (
        agent("mh-dbus", *back, env=plugins),
        connect(guarded.address) as here,
        front(guarded.address, tmp_path / "front", plugins, uid=NOBODY) as there,
    ):
        probe, host = there.proxy(Probe), there.proxy(Host)
        assert host.hostname() == here.proxy(Host).hostname()
        host.set_update_interval(77)
        assert here.proxy(Host).update_interval() == 77
        assert host.get_uuid("Custom") == here.proxy(Host).get_uuid("Custom")
        probe.set_number(5)
        assert (probe.number(), here.proxy(Probe).number()) == (5, 5)
        assert probe.guarded("u", "k", "v")
        refused = failure(probe.guarded, "no", "k", "v")
        assert (refused.word, "org.example.Probe.guarded" in refused.message) == ("not-authorized", True)
        guarded.drop_rule("50-matahari")
        wait_for(lambda: _refuses(host.set_update_interval, 78))
        assert host.hostname()
        guarded.write_rule("50-matahari", RULE)
        wait_for(lambda: not _refuses(host.set_update_interval, 78))
        assert here.proxy(Host).update_interval() == 78


def _refuses(ask: Any, *arguments: Any) -> bool:
    try:
        ask(*arguments)
    except NotAuthorized:
        return True
    return False


def test_the_rule_is_for_one_user_and_what_is_handed_on(
    guarded: Polkit, tmp_path: Path, plugins: Mapping[str, str]
) -> None:
    for user, action, expected in (
        ("nobody", "org.matahariproject.Host.set_uuid", 0),
        ("nobody", "org.matahariproject.Agent.set_log_level", 1),
        ("daemon", "org.matahariproject.Host.set_uuid", 1),
    ):
        # the question that mh-dbus asks, for a process of that user
        uid = subprocess.run(["id", "-u", user], capture_output=True, text=True, check=True).stdout.strip()
        sleeping = spawn(as_uid(["/bin/sleep", "60"], int(uid)))
        try:
            wait_for(partial(_belongs, sleeping.pid, int(uid)))
            ask = ["pkcheck", "--action-id", action, "--process", str(sleeping.pid)]
            done = subprocess.run(
                ask,
                env={"DBUS_SYSTEM_BUS_ADDRESS": guarded.address, "PATH": "/usr/bin"},
                capture_output=True,
                check=False,
                timeout=10,
            )
            assert (done.returncode != 0) == (expected != 0), (user, action, done.stderr)
        finally:
            stop(sleeping)


def _belongs(pid: int, uid: int) -> bool:
    return Path(f"/proc/{pid}").stat().st_uid == uid


# what goes through the hop


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, plugins: Mapping[str, str]
) -> Iterator[tuple[Connection, Connection]]:
    """A console's connection through the hop, and one to the bus behind it."""
    base = tmp_path_factory.mktemp("shared")
    with private_bus() as address:
        back = ["--bus", address, "--state", str(base)]
        with (
            agent("mh-dbus", *back, env=plugins),
            front(address, base / "front", plugins) as there,
            connect(address) as here,
        ):
            yield there, here


@pytest.mark.parametrize("word", sorted(BY_WORD))
def test_each_failure_keeps_its_word(shared: tuple[Connection, Connection], word: str) -> None:
    there, here = (failure(each.proxy(Probe).fail, word) for each in shared)
    assert type(there) is BY_WORD[word]
    assert (there.word, there.number, there.message) == (here.word, here.number, here.message)


def test_properties_are_read_through_and_not_held_twice(shared: tuple[Connection, Connection]) -> None:
    there, here = shared
    here.proxy(Probe).set_maybe("a")
    assert there.proxy(Probe).maybe() == "a"
    here.proxy(Probe).set_maybe(None)
    assert there.proxy(Probe).maybe() is None
    everything = there.request(Request(PROBE, verb=Verb.GET_ALL))
    assert isinstance(everything, dict)
    assert everything.keys() == {"gauge", "outer", "number"}


def test_each_agent_tells_about_itself(shared: tuple[Connection, Connection]) -> None:
    there, here = (each.proxy(Agent) for each in shared)
    assert (there.name(), here.name()) == ("mh-amqp", "mh-dbus")
    served = [{each.name for each in agent_.interfaces()} for agent_ in (there, here)]
    assert served[0] == served[1]
    states = {each.url.partition(":")[0]: each.state for each in there.connections()}
    assert states["unix"] is ConnectionState.CONNECTED


def test_each_event_comes_once_with_its_fields(shared: tuple[Connection, Connection]) -> None:
    there, here = shared
    with hearing(there) as heard:
        here.proxy(Probe).announce(OUTER, "said once")
        there.proxy(Probe).set_maybe("changed here")
        here.proxy(Probe).set_maybe("changed there")
        here.proxy(Host).set_update_interval(1)
        wait_for(lambda: len(heard.fields(HOST, "heartbeat")) >= 2, seconds=15)
        there.proxy(Probe).announce(OUTER, "the end")
        wait_for(lambda: [each for each in heard.fields(PROBE, "announced") if each["maybe"] == "the end"])
        here.proxy(Host).set_update_interval(60)
        announced = [each["maybe"] for each in heard.fields(PROBE, "announced")]
        assert announced.count("said once") == 1
        changed = [each["maybe"] for each in heard.fields(PROBE, "") if "maybe" in each]
        assert changed == ["changed here", "changed there"]
        beats = [each["sequence"] for each in heard.fields(HOST, "heartbeat")]
        assert beats == sorted(set(beats))
        assert {each["uuid"] for each in heard.fields(HOST, "heartbeat")} == {there.proxy(Host).uuid()}
        numbers = [each.sequence for each in heard.events]
        assert numbers == sorted(set(numbers))


# when the other agent is away, slow, or another one


def test_it_heals_when_the_agent_is_killed(tmp_path: Path, plugins: Mapping[str, str]) -> None:
    with private_bus() as address, front(address, tmp_path / "front", plugins) as there:
        probe = there.proxy(Probe)
        back = ["--bus", address, "--state", str(tmp_path)]
        assert failure(probe.number).word == "unavailable"
        with agent("mh-dbus", *back, env=plugins) as first:
            assert probe.number() == 1
            with hearing(there):
                first.process.kill()
                first.process.wait(5)
                wait_for(lambda: failure(probe.number).word == "unavailable")
                assert there.proxy(Agent).ping("here") == "here"
        with agent("mh-dbus", *back, env=plugins):
            assert probe.number() == 1
            with hearing(there) as heard:
                probe.announce(OUTER, "again")
                wait_for(lambda: [f for f in heard.fields(PROBE, "announced") if f["maybe"] == "again"])
                assert [f["maybe"] for f in heard.fields(PROBE, "announced")].count("again") == 1


def test_it_heals_when_the_bus_is_restarted(tmp_path: Path, plugins: Mapping[str, str]) -> None:
    def with_agent(daemon: BusDaemon) -> None:
        with agent("mh-dbus", "--bus", daemon.address, "--state", str(tmp_path), env=plugins):
            wait_for(lambda: not _away(there), seconds=15)
            with hearing(there) as heard:
                assert heard.events

    with bus_daemon() as daemon, front(daemon.address, tmp_path / "front", plugins) as there:
        with_agent(daemon)
        daemon.stop()
        assert wait_for(lambda: _away(there))
        assert there.proxy(Agent).ping("here") == "here"
        daemon.start()
        with_agent(daemon)


def _away(there: Connection) -> bool:
    try:
        there.proxy(Probe).number()
    except Unavailable:
        return True
    return False


def test_an_agent_that_hangs_costs_one_answer_each(tmp_path: Path, plugins: Mapping[str, str]) -> None:
    with (
        private_bus() as address,
        front(address, tmp_path / "front", plugins) as there,
        agent("mh-dbus", "--bus", address, "--state", str(tmp_path), env=plugins) as back,
    ):
        assert there.proxy(Probe).number() == 1
        back.process.send_signal(signal.SIGSTOP)
        try:
            slow: list[Problem] = []

            def ask() -> None:
                slow.append(failure(there.request, Request(PROBE, "number", Verb.GET, deadline=1.5)))

            began = time.monotonic()
            asking = [threading.Thread(target=ask) for _ in range(5)]
            for thread in asking:
                thread.start()
            assert there.proxy(Agent).ping("here") == "here"
            assert len(slow) < 5  # it did not wait behind them
            for thread in asking:
                thread.join(30)
            assert [type(each) for each in slow] == [Timeout] * 5
            assert 1.0 < time.monotonic() - began < 25.0
        finally:
            back.process.send_signal(signal.SIGCONT)
        assert there.proxy(Probe).number() == 1


@interface(PROBE, version="1.0")
class OldProbe(Protocol):
    """The same of an older agent."""

    @prop()
    def number(self) -> U32:
        """The only one that there was."""
        ...


class OldProbeHost(OldProbe):
    def __init__(self, context: Context) -> None:
        del context

    def number(self) -> int:
        return 7


def test_what_an_older_agent_lacks_is_not_implemented(tmp_path: Path, plugins: Mapping[str, str]) -> None:
    with (
        private_bus() as address,
        serving(address, OldProbeHost),
        front(address, tmp_path / "front", plugins) as there,
    ):
        probe = there.proxy(Probe)
        assert probe.number() == 7
        for ask, arguments in ((probe.release, ()), (probe.outer, ()), (probe.fail, ("failed",))):
            assert type(failure(ask, *arguments)) is NotImplementedHere
        assert failure(there.proxy(Host).hostname).word == "unavailable"
        assert failure(there.proxy(Network).hostname).word == "unavailable"


def test_only_what_was_wanted_is_handed_on(tmp_path: Path) -> None:
    with (
        private_bus() as address,
        agent("mh-dbus", "--bus", address, "--state", str(tmp_path)),
        front(address, tmp_path / "front", {}, "--only", "Network") as there,
    ):
        assert there.proxy(Network).hostname()
        assert failure(there.proxy(Host).hostname).word == "not-found"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--via", "amqp://127.0.0.1:1/x"], "leads to no agent of this host"),
        (["--via", "nonsense"], "leads to no agent of this host"),
        (["--via", "unix:nonsense"], "is not a D-Bus address"),
        (["--via", "unix:path=/no/such", "--only", "Nothing"], "there is no interface 'Nothing'"),
    ],
)
def test_what_leads_nowhere_is_refused_at_the_start(tmp_path: Path, options: list[str], words: str) -> None:
    started = [command("mh-amqp"), "--listen", "127.0.0.1:0", "--state", str(tmp_path), *options]
    done = subprocess.run(started, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert words in done.stderr


# what an agent reports of a host that it does not read itself


def test_facts_are_those_of_the_other_agent(tmp_path: Path) -> None:
    async def case(address: str) -> None:
        hub = Hub()
        via = Via(address, host_interfaces(["Host"]), hub)
        host: Any = via.proxy(Host)
        async with via.kept(Connections(hub)):
            report = await asyncio.to_thread(build, host, Settings(tmp_path / "reports.json"))
            facts = await asyncio.to_thread(host.facts)
        assert facts["memory"].status is FactStatus.OK
        assert report.facts["memory"].value == facts["memory"].value
        assert report.facts["memory"].observed <= facts["memory"].observed
        with pytest.raises(Unavailable):
            await via.hand_on(Request(HOST, "facts"))

    with private_bus() as address, agent("mh-dbus", "--bus", address, "--state", str(tmp_path)):
        asyncio.run(_within(case(address)))


async def _within(work: Any) -> None:
    async with asyncio.timeout(20):
        await work


@dataclass
class Line:
    """A neighbour that only remembers; it is lost when it is told to be."""

    events: Sequence[Event] = ()
    asked: list[str] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def call(self, request: Request) -> None:
        self.asked.append(request.member)

    async def close(self) -> None:
        self.closed = True

    async def follow(self, interfaces: Sequence[Interface]) -> AsyncIterator[Event]:
        if interfaces:
            for each in self.events:
                yield each
        await self.lost.wait()
        raise Unavailable("over")


@asynccontextmanager
async def over(quick: Line, patient: Line, only: str, hub: Hub) -> AsyncIterator[Via]:
    """What is handed on over two lines, for which there is no other way once they are lost."""
    via = Via("unix:path=/no/such/bus", host_interfaces([only]), hub)
    via._lines = Lines(cast("Neighbour", quick), cast("Neighbour", patient))
    keeping = asyncio.create_task(via._keep(Connections(Hub())))
    try:
        yield via
    finally:
        keeping.cancel()


def test_events_of_another_version_break_nothing() -> None:
    async def case() -> None:
        taken: list[Event] = []
        hub = Hub()
        hub.subscribe(taken.append)
        other = Event(HOST, "", {"hostname": "h", "unheard_of": 1}, 5, 1)
        async with over(Line([other]), Line(), "Host", hub):
            await eventually(lambda: taken)
        assert (taken[0].fields, taken[0].time) == ({"hostname": "h"}, 5)

    asyncio.run(_within(case()))


def test_what_takes_long_keeps_nothing_quick_waiting() -> None:
    async def case() -> None:
        quick, patient, name = Line(), Line(), interface_of(Services).name
        async with over(quick, patient, "Services", Hub()) as via:
            for member, verb in (("hostname", Verb.GET), ("", Verb.GET_ALL), ("start", Verb.CALL)):
                await via.hand_on(Request(name, member, verb))
            assert (quick.asked, patient.asked) == (["hostname", ""], ["start"])

    asyncio.run(_within(case()))


def test_who_decides_here_hears_the_names_that_the_host_uses() -> None:
    here = shipped_here(Context())
    bound = Via("unix:path=/none", host_interfaces(), Hub()).providers(here).bound
    named = {each.interface.short for each in bound.values() if hasattr(each.provider, "canonical")}
    assert named == {"Services", "Resources"}
    provider: Any = bound[interface_of(Services).name].provider
    assert provider.canonical("kill", {"signal": "9"}) == {"signal": "KILL"}
    assert all(isinstance(each.provider, Elsewhere) for each in bound.values())


@pytest.mark.parametrize("which", ["quick", "patient"])
def test_both_lines_are_made_again_when_one_is_lost(which: str) -> None:
    async def case() -> None:
        quick, patient = Line(), Line()
        async with over(quick, patient, "Host", Hub()) as via:
            assert await via.hand_on(Request(HOST, "hostname", Verb.GET)) is None
            (quick if which == "quick" else patient).lost.set()
            await eventually(lambda: quick.closed and patient.closed)
            with pytest.raises(Unavailable):
                await via.hand_on(Request(HOST, "hostname", Verb.GET))

    asyncio.run(_within(case()))


def test_the_shipped_rule_names_its_user() -> None:
    text = (ROOT / "packaging/polkit-1/rules.d/50-matahari.rules").read_text()
    unit = (ROOT / "packaging/systemd/mh-amqp.service").read_text()
    assert 'subject.user == "matahari"' in text
    assert "User=matahari" in unit
    assert "--via system" in unit
