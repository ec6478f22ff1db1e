"""Run by a test: a host that notes what it has done, or a console that asks it to, until it has done enough.

    python striking.py host PORT STATE
    python striking.py console PORT PREFIX COUNT

What is asked for is not idempotent; the host writes the name of each thing that it strikes to STATE/ran, and
the console prints the name of each for which it has an answer.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from amqp_serving import EVERYBODY, HOST, SOURCE, TOY, UUID, CountingToy, toys
from libmh.call import Request
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import Problem
from libmh.serve import Process
from mh_amqp.client import connect
from mh_amqp.names import host_address
from mh_amqp.server import serving
from mh_amqp.upkeep import Pace

log = logging.getLogger(__name__)
AT_ONCE = 8
DEADLINE = 6.0


class Noting(CountingToy):
    """Writes down what it strikes before it answers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def strike(self, what: str) -> int:
        with self.path.open("a") as file:
            file.write(what + "\n")
        return super().strike(what)


async def host(port: int, state: Path) -> None:
    context = Context()
    process = Process("striking", argparse.Namespace(state=str(state), config=None), {})
    dispatcher = Dispatcher(toys(Noting(state / "ran")), context, EVERYBODY)
    served = serving(process, dispatcher, {host_address(UUID): [TOY]}, SOURCE)
    served.pace = Pace(first=0.1, most=0.3)
    await served.run([f"amqp://{HOST}:{port}"], Connections(context.events))


async def console(port: int, prefix: str, count: int) -> None:
    transport = await connect(f"amqp://{HOST}:{port}/{UUID}")
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> None:
        what = f"{prefix}-{number}"
        async with turns:
            try:
                await transport.call(Request(TOY, "strike", arguments={"what": what}, deadline=DEADLINE))
            except Problem as problem:
                log.info("%s: %s", what, problem)
            else:
                print(what, flush=True)

    await asyncio.gather(*(ask(number) for number in range(count)))
    await transport.close()


if __name__ == "__main__":
    logging.basicConfig(level="ERROR")
    if sys.argv[1] == "host":
        asyncio.run(host(int(sys.argv[2]), Path(sys.argv[3])))
    else:
        asyncio.run(console(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
