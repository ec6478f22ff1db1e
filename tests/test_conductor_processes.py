"""Several conductors on one store and one broker: whichever is killed, nothing is lost or doubled."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

import fleet
from libmh.api.aggregates import Aggregates, CapabilityReport, Reports
from libmh.api.conductor import Conductor, Status
from libmh.call import Request
from libmh.client import connect
from libmh.errors import Conflict, NotFound, Timeout, Unavailable
from libmh.remote import AsyncConnection, connect_async
from libmh.spec import interface_of
from mh_conductor.store import open_store
from mh_conductor.tables import FLEET, HISTORY, HOSTS, MEMBERS
from processes import Agent, agent
from waiting import eventually, wait_for

HOSTS_IN_ALL = 90
EDITS = 8
KILLS = 2
PATIENCE = 120.0


class Processes:
    """A broker, and as many conductors as are wanted."""

    def __init__(self, stack: ExitStack, directory: Path, store: str) -> None:
        self.stack, self.directory, self.store = stack, directory, store
        self.rules = directory / "rules.toml"
        self.rules.write_text(fleet.RULES)
        self.config = directory / "conductor.toml"
        self.config.write_text('[authority]\nanonymous = "operator"\n')
        options = ("--listen", "127.0.0.1:0", "--state", str(directory / "broker"))
        self.broker = stack.enter_context(agent("mh-broker", *options)).url
        self.started = 0

    def start(self) -> Agent:
        self.started += 1
        state = self.directory / f"conductor{self.started}"
        options = ["--broker", self.broker, "--state", str(state), "--store", self.store]
        options += ["--rules", str(self.rules), "--config", str(self.config), "--log-level", "warning"]
        return self.stack.enter_context(agent("mh-conductor", *options))

    def status(self) -> Status:
        with connect(self.broker) as connection:
            return connection.proxy(Conductor).status()


@pytest.fixture
def processes(tmp_path: Path, store_url: str) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack, tmp_path, store_url)


async def sent(connection: AsyncConnection, number: int) -> int:
    """Two reports of a host, each until it was answered, as agents do."""
    for sequence in (1, 2):
        report = fleet.report(number, sequence, memory_gib=64 if sequence == 2 else 16)
        generation = await answered(connection, report)
        assert generation == sequence
    return number


async def answered(connection: AsyncConnection, report: CapabilityReport) -> int:
    while True:
        with suppress(Timeout, Unavailable):
            return (await connection.call(Reports.report, report)).generation


async def edited(connection: AsyncConnection, number: int) -> None:
    """An aggregate is made, and looked for where the answer does not come."""
    name = f"mine{number}"
    making = Request(interface_of(Aggregates).name, "create", arguments=[name], deadline=15)
    while True:
        with suppress(Timeout, Unavailable):
            with suppress(Conflict):  # another process has done it
                await connection.request(making)
            with suppress(NotFound):
                await connection.call(Aggregates.show, name)
                return


def enough(reports: list["asyncio.Task[int]"], wanted: int) -> bool:
    return sum(each.done() for each in reports) >= wanted


async def work(processes: Processes, conductors: list[Agent]) -> None:
    async with asyncio.timeout(PATIENCE), await connect_async(processes.broker) as connection:
        reports = [asyncio.create_task(sent(connection, number)) for number in range(HOSTS_IN_ALL)]
        edits = [asyncio.create_task(edited(connection, number)) for number in range(EDITS)]
        for number in range(1, KILLS + 1):
            await eventually(partial(enough, reports, number * HOSTS_IN_ALL // (KILLS + 2)), PATIENCE)
            leaving = conductors.pop(0).process
            if number % 2:
                leaving.kill()
            else:  # as an update does
                leaving.terminate()
            conductors.append(await asyncio.to_thread(processes.start))
        await asyncio.gather(*reports, *edits)


def test_killed_processes_lose_and_double_nothing(processes: Processes) -> None:
    conductors = [processes.start() for _ in range(3)]
    asyncio.run(work(processes, conductors))
    store = open_store(processes.store)
    with store.read() as connection:
        rows = connection.execute(select(HOSTS.c.sequence, HOSTS.c.generation)).all()
        assert Counter(tuple(row) for row in rows) == {(2, 2): HOSTS_IN_ALL}
        assert connection.execute(select(func.count()).select_from(MEMBERS)).scalar() == 3 * HOSTS_IN_ALL
        told = connection.execute(
            select(HISTORY.c.aggregate, HISTORY.c.change, func.count()).group_by(
                HISTORY.c.aggregate, HISTORY.c.change
            )
        )
        counted = {(name, change): count for name, change, count in told}
    store.close()
    ruled = ("arch-x86_64", "avx512", "big")
    assert {name: counted[name, "host-added"] for name in ruled} == dict.fromkeys(ruled, HOSTS_IN_ALL)
    made = [name for name, change in counted if change == "created"]
    assert sorted(made) == sorted([*ruled, *(f"mine{number}" for number in range(EDITS))])
    assert all(counted[name, "created"] == 1 for name in made)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_processes_share_the_work_and_know_of_each_other(processes: Processes) -> None:
    conductors = [processes.start() for _ in range(2)]

    async def report() -> None:
        async with asyncio.timeout(PATIENCE), await connect_async(processes.broker) as connection:
            await asyncio.gather(*(sent(connection, number) for number in range(40)))

    asyncio.run(report())
    wait_for(lambda: sum(each.reports for each in processes.status().workers) == 80, 60)
    status = processes.status()
    assert len(status.workers) == 2
    assert all(each.reports > 0 for each in status.workers)
    assert status.hosts == {"up": 40}
    assert (status.rate > 0, status.queued) == (True, 0)
    conductors[0].process.terminate()
    assert conductors[0].process.wait(60) == 0
    assert [each.id.split(":")[1] for each in processes.status().workers] == [str(conductors[1].process.pid)]
    displace(processes)
    assert conductors[1].process.wait(60) == 1


def displace(processes: Processes) -> None:
    """Let programs of another major version take the store over."""
    store = open_store(processes.store)
    with store.write() as connection:
        connection.execute(update(FLEET).values(protocol="2.0"))
    store.close()
    with pytest.raises(RuntimeError, match="ended with 1"):
        processes.start()
