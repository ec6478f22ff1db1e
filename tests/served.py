"""A command as small as it gets: what every agent process does is tried with it, as a program."""

import argparse
import asyncio
import sys
import threading

from gauges import TestBench
from libmh import serve
from libmh.call import Request, Verb
from libmh.context import Context
from libmh.dispatch import Everybody
from libmh.errors import Problem, Unavailable
from libmh.providers import Providers
from libmh.serve import Command, Process, heartbeats, host_agent, main, with_agent

MEASURE = Request("org.example.Gauges", "measure", Verb.CALL, ["sda"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="nobody")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--loud", action="store_true")
    parser.add_argument("--number", type=int, default=1)
    parser.add_argument("--mode", default="wait")


async def body(process: Process) -> None:
    """Do as `--mode` says."""
    options = process.options
    if options.mode == "fail":
        raise Unavailable("the bus is away")
    if options.mode == "refuse":
        raise OSError(98, "Address already in use")
    if options.mode == "heart":
        await _beat(process)
        return
    if options.mode == "silent":
        process.ready("silently")
        await process.stop.wait()
        return
    print(options.name, options.peer, options.loud, options.number, dict(process.config), flush=True)
    if options.mode == "end":
        return
    process.ready(f"as {options.name}")
    process.ready("again")
    await process.stop.wait()
    if options.mode == "hang":
        await asyncio.Event().wait()
    if options.mode == "stubborn":
        await _stubborn()
    if options.mode == "thread":
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    if options.mode == "drain":
        await _drain(process)


async def _stubborn() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("no", flush=True)


async def _drain(process: Process) -> None:
    """One call is in flight when the process is told to stop; another comes after that."""
    bench, providers, context = TestBench(), Providers(), Context()
    providers.add(bench)
    dispatcher = with_agent(process, context, providers, Everybody()).dispatcher
    calling = asyncio.ensure_future(dispatcher.call(MEASURE))
    await asyncio.sleep(0)
    draining = asyncio.ensure_future(dispatcher.drain(5))
    await asyncio.sleep(0)
    try:
        await dispatcher.call(MEASURE)
    except Problem as problem:
        print("late:", problem.word, flush=True)
    threading.Timer(0.05, bench.gate.set).start()
    print("in flight:", await calling, "drained:", await draining, flush=True)


async def _beat(process: Process) -> None:
    agent = host_agent(process, Everybody(), ["Host"])
    agent.context.settings.set("update_interval", process.options.number)
    agent.context.events.subscribe(lambda event: print(event.name, event.fields["sequence"], flush=True))
    process.ready("beating")
    await heartbeats(agent, process.stop)


COMMAND = Command("served", "For tests.", body, add_options, frozenset({"authority"}))

if __name__ == "__main__":
    serve.STOP_SECONDS = 1.0
    serve.CANCEL_SECONDS = 0.2
    if "thread" in sys.argv:  # others have to end in order, however slow the machine is
        serve.LEAVE_SECONDS = 0.2
    sys.exit(main(COMMAND))
