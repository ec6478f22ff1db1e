"""One request to many hosts: how long until all have answered, and what a reply costs the console.

    .venv/bin/python tests/bench/bench_fleet.py [HOSTS [ROUNDS]]

Broker, hosts and console are a process each; the hosts are toys with the whole stack of an agent, each with
a connection of its own. A console may use 0.12 ms of CPU for each reply.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path[:0] = [str(ROOT), str(ROOT / "agents"), str(ROOT / "tests")]

from amqp_serving import TOY, broker_agent  # noqa: E402
from libmh.call import Request, Verb  # noqa: E402
from libmh.fleet import fan_out  # noqa: E402
from libmh.outcomes import Host, Plan, share  # noqa: E402
from libmh.selection import Where  # noqa: E402
from mh_amqp import fleet  # noqa: E402
from mh_amqp.events import Source  # noqa: E402
from waiting import eventually  # noqa: E402

OWED_MS = 0.12
AT_ONCE = 50


async def hosts(port: int, count: int) -> None:
    """Toys at a broker, until this process is ended."""
    async with contextlib.AsyncExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        async def host(number: int) -> None:
            source = Source(f"{number:032x}", f"node{number}", "boot")
            agent = await stack.enter_async_context(broker_agent(state / str(number), port, source=source))
            states = agent.connections.list
            await eventually(lambda: [str(each.state) for each in states()] == ["connected"], 30)

        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(host(each) for each in range(first, min(first + AT_ONCE, count))))
        os.write(sys.stderr.fileno(), b"hosts: all are connected\n")
        await asyncio.Event().wait()


@contextlib.contextmanager
def started(*command: str, until: str) -> Iterator[str]:
    """A process that has said that it is ready, and the line in which it did."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        yield next(line for line in process.stdout if until in line)
    finally:
        process.kill()
        process.wait()


async def console(url: str, count: int, rounds: int) -> None:
    """Ask everybody, again and again."""
    line = await fleet.connect(url)

    async def select(where: Where) -> list[Host]:
        return [Host(f"{number:032x}", f"node{number}") for number in range(count)]

    line.select = select  # type: ignore[method-assign]
    for name, plan in (("cast", Plan()), ("25 % at a time", Plan(batch=share("25%", "batch")))):
        took, cpu, answered = [], [], []
        for _ in range(rounds):
            asked = Request(TOY, "strike", Verb.CALL, {"what": "x"}, deadline=20.0)
            began, used = time.perf_counter(), time.process_time()
            account = await fan_out(line, asked, plan)
            took.append(time.perf_counter() - began)
            cpu.append((time.process_time() - used) / count * 1000)
            answered.append(account.good)
        told = f"median {statistics.median(took):.2f} s, most {max(took):.2f} s"
        mean = statistics.median(cpu)
        verdict = "kept" if mean <= OWED_MS else "NOT KEPT"
        print(f"{name}: {count} hosts, all answered in {sum(answered)} of {rounds} rounds, {told}")
        print(f"  console CPU per reply {mean:.3f} ms, owed {OWED_MS}: {verdict}", flush=True)
    await line.close()


def main(count: int = 500, rounds: int = 10) -> None:
    """Start all three."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as state:
        broker = [python, "-c", "import sys; from mh_amqp.broker_main import main; sys.exit(main())"]
        with started(*broker, "--listen", "127.0.0.1:0", "--state", state, until="ready:") as ready:
            port = ready.rpartition(":")[2].split()[0]
            with started(python, __file__, "--hosts", port, str(count), until="all are connected"):
                asyncio.run(console(f"amqp://127.0.0.1:{port}", count, rounds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--hosts"]:
        asyncio.run(hosts(int(sys.argv[2]), int(sys.argv[3])))
    else:
        main(*map(int, sys.argv[1:]))
