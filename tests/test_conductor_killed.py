"""kill -9 in the middle of a report: it is kept whole or not at all, and comes in once when redelivered."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import select, text

import fleet
from libmh.api.aggregates import Accepted, Aggregates, Reports
from libmh.client import connect
from libmh.remote import connect_async
from libmh.spec import Plain
from mh_conductor.intake import Intake
from mh_conductor.store import open_store
from mh_conductor.tables import AGGREGATES, FLEET, HISTORY, HOSTS, MEMBERS, VALUES
from processes import Agent, agent
from waiting import wait_for

SCRIPT = Path(__file__).with_name("killed_intake.py")
FIRST = fleet.report(1, 1)
SECOND = fleet.report(1, 2, memory_gib=64, cpu_flags=[])


def state(path: Path) -> list[Plain]:
    """Everything in a store but times and random names."""
    store = open_store(f"sqlite:///{path}")
    columns = (
        (HOSTS.c.uuid, HOSTS.c.sequence, HOSTS.c.generation, HOSTS.c.digest),
        (AGGREGATES.c.name, AGGREGATES.c.owner, AGGREGATES.c.generation),
        (MEMBERS.c.host, MEMBERS.c.owner, MEMBERS.c.evidence),
        (VALUES.c.aggregate, VALUES.c.key, VALUES.c.value),
        (HISTORY.c.change, HISTORY.c.aggregate, HISTORY.c.why),
        (FLEET.c.generation,),
    )
    with store.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        rows: list[Plain] = [
            [list(row) for row in connection.execute(select(*of).order_by(*of))] for of in columns
        ]
    store.close()
    return rows


def run(path: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path), str(fatal)], capture_output=True, text=True, timeout=240
    )


def prepared(path: Path) -> Path:
    path.mkdir()
    intake = fleet.new_intake(path)
    intake.take(FIRST)
    intake._store.close()
    return path / "conductor.db"


def test_a_report_is_whole_or_absent_wherever_the_process_dies(tmp_path: Path) -> None:
    before = prepared(tmp_path / "before")
    survivor = prepared(tmp_path / "survivor")
    done = run(survivor, 0)
    assert done.returncode == 0, done.stderr
    statements = int(done.stdout)
    assert statements > 8
    absent, whole = state(before), state(survivor)
    assert absent != whole
    # the first statement, the last before the commit, the commit itself, and some between
    for fatal in sorted({1, 2, 5, statements // 2, statements - 2, statements - 1, statements}):
        copy = tmp_path / f"killed{fatal}"
        shutil.copytree(before.parent, copy)
        assert run(copy / "conductor.db", fatal).returncode == -9
        assert state(copy / "conductor.db") == absent
        redeliver(copy / "conductor.db")
        assert state(copy / "conductor.db") == whole


def redeliver(path: Path) -> None:
    """As a broker does, and once more, as a host does that got no answer."""
    store = open_store(f"sqlite:///{path}")
    intake = Intake(store, fleet.rules())
    changed = [intake.take(SECOND).accepted.changed for _ in range(2)]
    assert changed == [True, False]
    store.close()


HOSTS_IN_ALL = 400


def conductor(stack: ExitStack, broker: str, directory: Path) -> Agent:
    rules = directory / "rules.toml"
    rules.write_text(fleet.RULES)
    options = ("--broker", broker, "--state", str(directory), "--rules", str(rules))
    return stack.enter_context(agent("mh-conductor", *options))


def hosts_in(directory: Path) -> int:
    with sqlite3.connect(f"file:{directory / 'conductor.db'}?mode=ro", uri=True, timeout=60) as connection:
        (count,) = connection.execute("SELECT count(*) FROM hosts").fetchone()
    connection.close()
    return int(count)


async def send_all(broker: str) -> list[Accepted]:
    async with await connect_async(broker) as connection:
        reports = [fleet.report(number) for number in range(HOSTS_IN_ALL)]
        async with asyncio.timeout(90):
            return list(await asyncio.gather(*(connection.call(Reports.report, each) for each in reports)))


def test_reports_in_flight_outlive_a_killed_conductor(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(
            agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker"))
        ).url
        first = conductor(stack, broker, tmp_path)
        with asyncio.Runner() as runner:
            sending = runner.get_loop().create_task(send_all(broker))
            runner.run(asyncio.to_thread(wait_for, lambda: hosts_in(tmp_path) > 5, 60))
            first.process.kill()
            assert 0 < hosts_in(tmp_path) < HOSTS_IN_ALL
            conductor(stack, broker, tmp_path)
            accepted = runner.run(asyncio.wait_for(sending, 180))
        assert {each.generation for each in accepted} == {1}
        assert hosts_in(tmp_path) == HOSTS_IN_ALL
        with connect(broker) as connection:
            aggregates = connection.proxy(Aggregates)
            assert len(aggregates.show("avx512").hosts) == HOSTS_IN_ALL
            # one change for every host, one for each member: nothing was done twice
            assert aggregates.generation() == HOSTS_IN_ALL * 3 + 1 + 4
