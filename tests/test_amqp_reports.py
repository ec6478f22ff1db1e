"""Capability reports: each is taken in once, whoever dies in between."""

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import HOST, SOURCE, UUID, asking, command, port_of, process, run, running_broker
from libmh.api.aggregates import Accepted, CapabilityReport, Reports
from libmh.api.host import Fact, FactStatus, Host
from libmh.call import Bound
from libmh.capability import Reporter
from libmh.connections import Connections
from libmh.context import Context, Settings
from libmh.dispatch import Dispatcher
from libmh.errors import Failed, InvalidArguments, Problem, Unavailable
from libmh.spec import interface_of
from mh_amqp import messages, status, types
from mh_amqp.authority import Roles
from mh_amqp.names import REPORT
from mh_amqp.reports import Pace, Sending, report_message
from mh_amqp.server import serving
from waiting import eventually

REPORTS = interface_of(Reports).name
FAST = Pace(interval=30.0, answer=2.0, again=0.05, again_most=0.2)


class Machine:
    """A host that tells just enough."""

    def __init__(self) -> None:
        self.memory = 16 << 20

    def facts(self) -> dict[str, Fact]:
        told = {"uuid": UUID, "hostname": "testhost", "boot_id": "boot-1", "arch": "x86_64"}
        values: dict[str, Any] = {**told, "memory": self.memory}
        return {
            name: Fact(status=FactStatus.OK, source="a test", observed=time.time_ns(), value=value)
            for name, value in values.items()
        }


@dataclass
class Conductor(Reports):
    """Takes reports in, by their identity; `fail` is raised first, once for each element."""

    taken: list[CapabilityReport] = field(default_factory=list)
    seen: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    fail: list[Problem] = field(default_factory=list)

    def report(self, report: CapabilityReport) -> Accepted:
        if self.fail:
            raise self.fail.pop(0)
        key = (report.uuid, report.boot_id, report.sequence)
        self.seen[key] += 1
        if self.seen[key] == 1:
            self.taken.append(report)
        return Accepted(generation=report.generation, changed=self.seen[key] == 1, aggregates=[])


def at_boot() -> float:
    """No time has passed since boot: the numbers of reports count from 1."""
    return 0.0


def sending(state: Path, machine: Machine | None = None, pace: Pace = FAST) -> Sending:
    return Sending(Reporter(machine or Machine(), Settings(state / "settings.json"), at_boot), pace)


@asynccontextmanager
async def conducting(state: Path, port: int, conductor: Conductor) -> Any:
    """A conductor at a broker."""
    bound = {REPORTS: Bound(interface_of(Reports), conductor)}
    context = Context()
    run_ = process(state, "conductor")
    served = serving(
        run_, Dispatcher(bound, context, Roles()), {REPORT: [REPORTS]}, replace(SOURCE, host="")
    )
    connections = Connections(context.events)
    task = asyncio.create_task(served.run([f"amqp://{HOST}:{port}"], connections))
    await eventually(lambda: [each.state for each in connections.list()] == ["connected"])
    try:
        yield served
    finally:
        run_.stop.set()
        await task
        served.outbox.close()


def test_a_report_crosses_whole(tmp_path: Path) -> None:
    async def test() -> None:
        conductor = Conductor()
        async with (
            running_broker() as (_, port),
            conducting(tmp_path, port, conductor),
            asking(port) as asker,
        ):
            out = sending(tmp_path)
            work = asyncio.create_task(out.run(asker))
            await eventually(lambda: out.counters.answered == 1)
            work.cancel()
            taken = conductor.taken[0]
            assert (taken.uuid, taken.boot_id, taken.sequence, taken.generation) == (UUID, "boot-1", 1, 1)
            assert taken.facts["arch"].value == "x86_64"
            assert taken.facts["arch"].status is FactStatus.OK

    run(test())


def test_an_unanswered_report_is_sent_again_unchanged(tmp_path: Path) -> None:
    async def test() -> None:
        conductor = Conductor(fail=[Unavailable("busy"), Failed("a full disk")])
        async with (
            running_broker() as (_, port),
            conducting(tmp_path, port, conductor),
            asking(port) as asker,
        ):
            out = sending(tmp_path)
            work = asyncio.create_task(out.run(asker))
            await eventually(lambda: out.counters.answered == 1, 10)
            work.cancel()
            assert [report.sequence for report in conductor.taken] == [1]
            assert (out.counters.made, out.counters.repeated) == (1, 1)

    run(test())


def test_a_report_that_is_refused_is_not_sent_for_ever(tmp_path: Path) -> None:
    async def test() -> None:
        conductor = Conductor(fail=[InvalidArguments("schema 9.0 is not 1.0")])
        async with (
            running_broker() as (_, port),
            conducting(tmp_path, port, conductor),
            asking(port) as asker,
        ):
            out = sending(tmp_path)
            work = asyncio.create_task(out.run(asker))
            await eventually(lambda: out.counters.refused == 1)
            out.again.set()
            await eventually(lambda: out.counters.answered == 1)
            work.cancel()
            assert [report.sequence for report in conductor.taken] == [2]

    run(test())


def test_a_change_is_reported_soon(tmp_path: Path) -> None:
    async def test() -> None:
        conductor, machine = Conductor(), Machine()
        hub = Context().events
        async with (
            running_broker() as (_, port),
            conducting(tmp_path, port, conductor),
            asking(port) as asker,
        ):
            out = sending(tmp_path, machine)
            end = out.watch(hub)
            work = asyncio.create_task(out.run(asker))
            await eventually(lambda: out.counters.answered == 1)
            machine.memory = 32 << 20
            hub.changed(Host, custom_uuid="x")
            await eventually(lambda: len(conductor.taken) == 2, 10)
            end()
            work.cancel()
            assert [(each.sequence, each.generation) for each in conductor.taken] == [(1, 1), (2, 2)]

    run(test())


def test_numbers_go_on_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    async def test() -> None:
        conductor = Conductor()
        async with running_broker() as (_, port), conducting(tmp_path, port, conductor):
            for _ in range(3):
                async with asking(port) as asker:
                    out = sending(tmp_path)
                    work = asyncio.create_task(out.run(asker))
                    await eventually(lambda out=out: out.counters.answered == 1)  # type: ignore[misc]  # now
                    work.cancel()
        assert [(each.sequence, each.generation) for each in conductor.taken] == [(1, 1), (2, 1), (3, 1)]

    run(test())


def test_every_copy_has_the_same_id_and_lives_as_long_as_the_wait() -> None:
    report = Reporter(Machine(), Settings(), at_boot).report()
    message = report_message(report, 30.0)
    assert message == report_message(report, 30.0)
    assert (message.ttl, message.to, message.content_type) == (30_000, REPORT, messages.JSON)
    assert message.id_text() == f"{UUID}:boot-1:1"
    body = types.load_json(types.inflated(message.data or b"", message.content_encoding))
    assert body["report"]["uuid"] == UUID
    assert status.form_of(message) is status.Form.JSON


def test_without_a_conductor_the_report_stays_owed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            out = sending(tmp_path, pace=replace(FAST, answer=0.2))
            async with asking(port) as asker:
                work = asyncio.create_task(out.run(asker))
                await eventually(lambda: out.counters.repeated == 1)
                asker.connection.abort()
                with pytest.raises(Unavailable):
                    await work
            assert out.owed is not None
            conductor = Conductor()
            async with conducting(tmp_path, port, conductor), asking(port) as asker:
                work = asyncio.create_task(out.run(asker))
                await eventually(lambda: out.counters.answered == 1)
                work.cancel()
            assert [each.sequence for each in conductor.taken] == [1]
            assert out.counters.made == 1

    run(test())


def test_a_host_without_identity_keeps_trying(tmp_path: Path) -> None:
    class Nobody(Machine):
        def facts(self) -> dict[str, Fact]:
            return {}

    async def test() -> None:
        async with running_broker() as (_, port), asking(port) as asker:
            out = sending(tmp_path, Nobody(), replace(FAST, interval=0.01))
            work = asyncio.create_task(out.run(asker))
            await asyncio.wait({work}, timeout=0.2)
            assert not work.done()
            assert out.owed is None
            work.cancel()

    run(test())


def test_a_broker_that_is_killed_loses_and_doubles_no_report(tmp_path: Path) -> None:
    """The broker dies with a report unanswered; the same report is answered through the next one, once."""

    async def test() -> None:
        conductor = Conductor(fail=[Unavailable("not yet")] * 3)
        out = sending(tmp_path)
        for attempt in range(2):
            with command("mh_amqp.broker_main", "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (
                broker,
                line,
            ):
                async with conducting(tmp_path, port_of(line), conductor), asking(port_of(line)) as asker:
                    work = asyncio.create_task(out.run(asker))
                    if attempt == 0:
                        await eventually(lambda: len(conductor.fail) < 3)
                        broker.kill()
                        with pytest.raises(Problem):
                            await work
                    else:
                        await eventually(lambda: out.counters.answered == 1, 10)
                        work.cancel()
        assert [each.sequence for each in conductor.taken] == [1]
        assert out.counters.made == 1

    run(test(), 60)


def test_a_conductor_that_is_killed_takes_each_report_in_once(tmp_path: Path) -> None:
    """kill -9 in the middle of a report: the broker delivers it to the next conductor, the store has it
    once."""

    async def test() -> None:
        state = str(tmp_path)
        with command("mh_amqp.broker_main", "--listen", f"{HOST}:0", "--state", state) as (_, line):
            broker = f"amqp://{HOST}:{port_of(line)}"
            out = sending(tmp_path, pace=replace(FAST, interval=0.05, answer=5.0))
            async with asking(port_of(line)) as asker:
                work = asyncio.create_task(out.run(asker))
                for _ in range(3):
                    answered = out.counters.answered
                    with command("mh_conductor.main", "--broker", broker, "--state", state) as (
                        conductor,
                        _,
                    ):
                        await eventually(lambda now=answered: out.counters.answered > now, 20)  # type: ignore[misc]
                        conductor.kill()
                        await asyncio.to_thread(conductor.wait)
                with command("mh_conductor.main", "--broker", broker, "--state", state):
                    before = out.counters.answered
                    await eventually(lambda: out.counters.answered > before, 20)
                    work.cancel()
                    await asyncio.wait({work})
                    async with asking(port_of(line), "reader") as reader:
                        known = await fleet(reader)
                        assert [host["hostname"] for host in known] == ["testhost"]
                        assert known[0]["sequence"] <= out.counters.made
                        assert out.counters.refused == 0

    run(test(), 120)


async def fleet(asker: Any) -> Any:
    from amqp_serving import ask, request, value

    reply = await ask(asker, request("hosts", "org.matahariproject.Aggregates", to="mh.conductor"), 10)
    return value(reply)["hosts"]
