"""The agent's life: getting ready, losing its broker in every way, coming back, and leaving."""

import asyncio
import json
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from amqp_serving import (
    HOST,
    UUID,
    ask,
    asking,
    broker_agent,
    command,
    port_of,
    request,
    run,
    running_broker,
    value,
)
from libmh.connections import Connections
from libmh.events import Hub
from mh_amqp import agent as agent_module
from mh_amqp import upkeep
from mh_amqp.agent import who
from mh_amqp.main import main
from mh_amqp.names import host_address, place
from mh_amqp.server import identity_at, is_local
from mh_amqp.upkeep import Pace, Upkeep, login_of
from processes import agent as started
from waiting import eventually, wait_for

AGENT = "mh_amqp.main"
BROKER = "mh_amqp.broker_main"


def states(agent: Any) -> list[str]:
    return [str(each.state) for each in agent.connections.list()]


def uuid_of(line: str) -> str:
    return line.partition("host ")[2].split()[0]


def test_it_is_ready_through_a_broker_and_answers(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port), asking(port) as console:
            url = f"amqp://{HOST}:{port}"
            with ExitStack() as stack:
                agent, line = await asyncio.to_thread(
                    stack.enter_context, command(AGENT, "--broker", url, "--state", str(tmp_path))
                )
                uuid = uuid_of(line)
                assert line == f"ready: mh-amqp host {uuid} via {url}"
                reply = await ask(
                    console, request("READ", "org.matahariproject.Host", to=host_address(uuid)), 10
                )
                assert value(reply)["memory"] > 0
                own = request("connections", "org.matahariproject.Agent", to=host_address(uuid))
                shown = value(await ask(console, own))["connections"]
                assert [(each["url"], each["state"]) for each in shown] == [(url, "connected")]
                agent.terminate()
                assert await asyncio.to_thread(agent.wait, 8) == 0

    run(test(), 60)


def test_without_a_broker_it_is_ready_and_waits(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            pass
        with ExitStack() as stack:
            url = f"amqp://{HOST}:{port}"
            agent, line = await asyncio.to_thread(
                stack.enter_context, command(AGENT, "--broker", url, "--state", str(tmp_path))
            )
            assert line == f"ready: mh-amqp host {uuid_of(line)} waiting for {url}"
            async with running_broker(port), asking(port) as console:
                asked = request(
                    "ping",
                    "org.matahariproject.Agent",
                    {"payload": "x"},
                    to=host_address(uuid_of(line)),
                    ttl=30_000,
                )
                assert value(await ask(console, asked, 30)) == {"payload": "x"}
            agent.terminate()
            assert await asyncio.to_thread(agent.wait, 8) == 0

    run(test(), 60)


def test_it_comes_back_after_a_broker_was_killed(tmp_path: Path) -> None:
    async def test() -> None:
        with command(BROKER, "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (broker, line):
            port = port_of(line)
            async with broker_agent(tmp_path, port) as agent:
                await eventually(lambda: states(agent) == ["connected"])
                broker.kill()
                await asyncio.to_thread(broker.wait)
                await eventually(lambda: states(agent) == ["waiting"])
                assert agent.connections.list()[0].last_error
                with command(BROKER, "--listen", f"{HOST}:{port}", "--state", str(tmp_path)):
                    await eventually(lambda: states(agent) == ["connected"], 20)
                    async with asking(port) as console:
                        assert value(await ask(console, request("level", to=host_address(UUID)))) == {
                            "level": 1
                        }

    run(test(), 60)


def test_a_silent_broker_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "IDLE_SECONDS", 1.0)

    async def test() -> None:
        with command(BROKER, "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (broker, line):
            async with broker_agent(tmp_path, port_of(line)) as agent:
                agent.served.pace = Pace(first=0.1, most=0.2)
                await eventually(lambda: states(agent) == ["connected"])
                os.kill(broker.pid, signal.SIGSTOP)
                try:
                    await eventually(lambda: states(agent) != ["connected"], 10)
                finally:
                    os.kill(broker.pid, signal.SIGCONT)
                await eventually(lambda: states(agent) == ["connected"], 30)

    run(test(), 90)


def test_a_lost_link_makes_a_new_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (broker, port), broker_agent(tmp_path, port) as agent:
            agent.served.pace = Pace(first=0.05, most=0.1)
            seen: list[str] = []
            await eventually(lambda: states(agent) == ["connected"])
            agent.context.events.subscribe(
                lambda event: seen.append(str(event.fields.get("connection", event.fields)))
            )
            for queue in list(broker.queues.values()):
                for consumer in list(queue.consumers):
                    consumer.close("amqp:internal-error", "for the test")
            await eventually(lambda: any("for the test" in each or "ended" in each for each in seen), 10)
            await eventually(lambda: states(agent) == ["connected"], 10)

    run(test())


def test_the_first_broker_that_answers_is_taken(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, dead):
            pass
        async with running_broker() as (_, port):
            urls = [f"amqp://{HOST}:{dead}", f"amqp://{HOST}:{port}"]
            with ExitStack() as stack:
                words = [word for url in urls for word in ("--broker", url)]
                _, line = await asyncio.to_thread(
                    stack.enter_context, command(AGENT, *words, "--state", str(tmp_path))
                )
                async with asking(port) as console:
                    own = request(
                        "connections",
                        "org.matahariproject.Agent",
                        to=host_address(uuid_of(line)),
                        ttl=20_000,
                    )
                    shown = value(await ask(console, own, 20))["connections"]
                    assert [each["state"] for each in shown] == ["waiting", "connected"]

    run(test(), 60)


def test_a_refused_login_waits_longer_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            connections, stop = Connections(Hub()), asyncio.Event()
            pauses: list[float] = []

            class Noted(Pace):
                def pause(self, failures: int, *, refused: bool) -> float:
                    pauses.append(Pace.pause(self, failures, refused=refused))
                    return 0.01

            async def never(*_: object) -> None:
                raise AssertionError

            url = f"amqp://me:secret@{HOST}:{port}"
            task = asyncio.create_task(Upkeep([url], "test", connections, stop, never, pace=Noted()).run())
            await eventually(lambda: len(pauses) >= 2)
            stop.set()
            await task
            assert min(pauses) >= 15
            status = connections.list()[0]
            assert "secret" not in str(connections.list())
            assert "unauthorized" in str(status.last_error)

    run(test())


def test_pauses_grow_with_full_jitter() -> None:
    random.seed(1)
    pace = Pace()
    for failures, most in ((1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (1000, 60.0)):
        drawn = [pace.pause(failures, refused=False) for _ in range(200)]
        assert max(drawn) <= most
        assert min(drawn) < most / 4
        assert max(drawn) > most * 3 / 4


def test_a_host_without_identity_is_known_by_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"uuid": "not-available", "hostname": "h", "boot_id": "b"}

    async def known(_agent: object, name: str) -> str:
        return told[name]

    monkeypatch.setattr(agent_module, "_known", known)
    found = asyncio.run(who(None))  # type: ignore[arg-type]  # nothing else is asked of it
    assert (found.host, found.hostname, found.boot_id) == ("b", "h", "b")


def test_nobody_is_anonymous_beyond_this_machine() -> None:
    class At:
        def __init__(self, peer: str) -> None:
            self.peer = peer

    from mh_amqp.messages import Message

    def identity(peer: str, user: bytes | None) -> str:
        return identity_at(At(peer))(Message(user_id=user))  # type: ignore[arg-type]  # only the peer is asked

    assert identity("127.0.0.1:5672", None) == "anonymous"
    assert identity("[::1]:5672", b"") == "anonymous"
    assert identity("10.0.0.7:5672", None) == "anonymous@10.0.0.7"
    assert identity("10.0.0.7:5672", b"anonymous") == "anonymous@10.0.0.7"
    assert identity("10.0.0.7:5672", b"CN=console") == "CN=console"
    assert identity("10.0.0.7:5672", b"\xff") == "anonymous@10.0.0.7"
    assert identity("127.0.0.1:5672", b"key:ops") == "anonymous"  # who has a key signs
    unchecked = identity_at(At("127.0.0.1:5672"), believed=False)  # type: ignore[arg-type]
    assert unchecked(Message(user_id=b"otto")) == "anonymous"
    assert is_local("fe80::1%lo") is False
    assert login_of(place("amqp://h")).mechanisms == ("ANONYMOUS",)


def test_a_listening_agent_says_where(tmp_path: Path) -> None:
    with command(AGENT, "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (agent, line):
        assert line == f"ready: mh-amqp listening on {HOST}:{port_of(line)} host {uuid_of(line)}"
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(8) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "10.1.2.3:0"], "not a loopback address"),
        (["--listen", "nowhere"], "expected HOST:PORT"),
        (["--broker", "http://h"], "expected amqp://host:port"),
        (["--broker", "amqp://h", "--listen", f"{HOST}:0"], "exclude each other"),
        (["--only", "Nothing", "--listen", f"{HOST}:0"], "there is no interface 'Nothing'"),
        (["--print-schema", "Nothing"], "there is no interface 'Nothing'"),
    ],
)
def test_what_cannot_be_started_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main([*words, "--state", str(tmp_path)]) == 1
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in shown


def test_a_configuration_gives_brokers_and_roles(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port), asking(port) as console:
            config = tmp_path / "amqp.toml"
            config.write_text(
                f'broker = ["amqp://{HOST}:{port}"]\n[authority]\n"anonymous" = "operator"\n', "utf-8"
            )
            with ExitStack() as stack:
                _, line = await asyncio.to_thread(
                    stack.enter_context, command(AGENT, "--config", str(config), "--state", str(tmp_path))
                )
                host = host_address(uuid_of(line))
                asked = request("UPDATE", "org.matahariproject.Host", {"update_interval": 7}, to=host)
                assert value(await ask(console, asked, 10)) == {"update_interval": 7}

    run(test(), 60)


def test_a_word_that_is_no_role_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "amqp.toml"
    config.write_text('[authority]\n"anonymous" = "root"\n', "utf-8")
    assert main(["--config", str(config), "--listen", f"{HOST}:0", "--state", str(tmp_path)]) == 1
    assert "expected one of none, guest, read-only, operator" in capsys.readouterr().err


def test_it_is_small_when_idle_and_stays_so(tmp_path: Path) -> None:
    """45 MB are owed; many calls add nothing."""

    async def test() -> None:
        with ExitStack() as stack:
            agent, line = await asyncio.to_thread(
                stack.enter_context, command(AGENT, "--listen", f"{HOST}:0", "--state", str(tmp_path))
            )
            process = psutil.Process(agent.pid)
            async with asking(port_of(line)) as console:

                async def many() -> int:
                    for _ in range(45):  # more than the record of answers holds
                        some = [request("uptime", "org.matahariproject.Agent", ttl=5000) for _ in range(100)]
                        await asyncio.gather(*(ask(console, each) for each in some))
                    return process.memory_info().rss

                for _ in range(300):
                    await ask(console, request("READ", "org.matahariproject.Host"))
                assert process.memory_info().rss < 45e6
                before = await many()
                assert await many() - before < 3e6

    run(test(), 90)


@pytest.mark.slow
def test_it_hardly_uses_the_processor_when_idle(tmp_path: Path) -> None:
    """0.1 % of a core over two minutes with heartbeats on."""
    with command(BROKER, "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (_, line):
        url = f"amqp://{HOST}:{port_of(line)}"
        with command(AGENT, "--broker", url, "--state", str(tmp_path)) as (agent, _):
            process = psutil.Process(agent.pid)
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 10, 20)
            before = sum(process.cpu_times()[:2])
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 120, 130)
            used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
            print(json.dumps({"core": used, "rss": process.memory_info().rss}))
            assert used <= 0.001


def test_an_agent_that_does_not_serve_its_host_knows_which_it_is(tmp_path: Path) -> None:
    found = []
    for only in ("Network", "Host,Network"):
        options = ("--listen", f"{HOST}:0", "--state", f"{tmp_path}/{only}", "--only", only)
        with started("mh-amqp", *options) as running:
            found.append(running.ready.split("host ")[1])
    assert found[0] == found[1]
