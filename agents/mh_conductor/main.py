"""`mh-conductor`: serves `Aggregates` and `Reports` at a broker, from one store and one set of rules."""

import argparse
import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from libmh.api.agent import Agent
from libmh.api.aggregates import Aggregates, Reports
from libmh.api.conductor import Conductor
from libmh.api.sinks import Sinks
from libmh.context import Context, Settings
from libmh.dispatch import Everybody
from libmh.errors import InvalidArguments
from libmh.providers import Providers
from libmh.serve import Command, Process, server_for, with_agent
from libmh.serve import main as run
from libmh.spec import interface_of
from mh_conductor import clockwork
from mh_conductor.conductor_service import FleetConductor
from mh_conductor.depth import Depth
from mh_conductor.governing import tell
from mh_conductor.identity import senders
from mh_conductor.intake import Intake
from mh_conductor.limits import DEFAULT_ZONE
from mh_conductor.placing import Placing
from mh_conductor.policies import policies
from mh_conductor.reporting import ReportIntake
from mh_conductor.rest import options as rest
from mh_conductor.rules import DEFAULT
from mh_conductor.rulesfile import NONE, RulesFile
from mh_conductor.service import FleetAggregates
from mh_conductor.silence import Silence
from mh_conductor.sinks.service import FleetSinks
from mh_conductor.sinks.settings import sinks
from mh_conductor.store import open_store
from mh_conductor.workers import Tally, beat, farewell, keep

REQUESTS, REPORTS = "mh.conductor", "mh.report"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker", metavar="URL", action="append", default=[], help="amqp://host:port; tried in this order"
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="sqlite:///PATH or postgresql+psycopg://HOST/NAME; conductor.db in the state directory",
    )
    parser.add_argument(
        "--rules", metavar="FILE", default=DEFAULT, help="TOML; 'default': the ones that are shipped"
    )
    parser.add_argument(
        "--default-zone",
        metavar="NAME",
        default=DEFAULT_ZONE,
        help="the availability zone of hosts which no aggregate gives one; the same for all processes on a "
        f"store; '{DEFAULT_ZONE}'",
    )
    rest.add_options(parser)


async def body(process: Process) -> None:
    """Open, reconcile, serve until told to stop."""
    urls = process.options.broker
    if not urls:
        raise InvalidArguments("--broker is missing: expected amqp://host:port", argument="broker")
    serve = server_for(urls[0])
    configured, by = sinks(process.config.get("sink", {})), policies(process.config)
    state = process.state.absolute()
    store = await asyncio.to_thread(
        open_store,
        process.options.store or f"sqlite:///{state / 'conductor.db'}",
        process.options.default_zone,
    )
    tally = Tally()
    try:
        await asyncio.to_thread(beat, store, tally)
        file = RulesFile(store, process.options.rules)
        opened = await asyncio.to_thread(file.open)
        intake = Intake(store, NONE, senders=senders(process.config))
        context = Context(settings=Settings(process.state / "conductor.json"))
        providers = Providers()
        providers.add(ReportIntake(intake, context.events, tally))
        providers.add(FleetAggregates(store, NONE, context.events, Placing(store, by)))
        depth = Depth()
        providers.add(FleetConductor(store, NONE, context.events, depth))
        providers.add(FleetSinks(store, configured))
        agent = with_agent(process, context, providers, Everybody())
        depth.of(agent.connections, REPORTS)
        if opened:
            tell(context.events, opened)
        silence = Silence(store, NONE, tally.id, lambda: clockwork.hears(agent.connections))
        process.beside(clockwork.run(file, silence, context.events))
        requests = tuple(interface_of(each).name for each in (Aggregates, Conductor, Sinks, Agent))
        addresses = {REQUESTS: requests, REPORTS: (interface_of(Reports).name,)}
        async with rest.web(process, agent.dispatcher):
            serving = serve(process, urls, agent.dispatcher, addresses, agent.connections)
            await until_displaced(process, serving, keep(store, tally))
    finally:
        await asyncio.to_thread(farewell, store, tally)
        store.close()


async def until_displaced(
    process: Process, serving: Coroutine[Any, Any, None], alive: Coroutine[Any, Any, None]
) -> None:
    """Serve until told to stop, or until this process may not work on its store any more: that is raised."""
    living, served = asyncio.ensure_future(alive), asyncio.ensure_future(serving)
    await asyncio.wait({living, served}, return_when=asyncio.FIRST_COMPLETED)
    process.stop.set()
    await served
    living.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await living


COMMAND = Command(
    "mh-conductor",
    "Makes host aggregates from the capability reports of hosts.",
    body,
    add_options,
    rest.TABLES | {"authority", "roles", "signing", "amqp", "tls", "reports", "sink", "policy"},
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(COMMAND, argv)
