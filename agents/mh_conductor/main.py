"""`mh-conductor`: serves `Aggregates` and `Reports` at a broker, from one store and one set of rules."""

import argparse
import asyncio
import logging
from collections.abc import Sequence

from libmh.api.agent import Agent
from libmh.api.aggregates import Aggregates, Reports
from libmh.context import Context, Settings
from libmh.dispatch import Everybody
from libmh.errors import InvalidArguments
from libmh.providers import Providers
from libmh.serve import Command, Process, server_for, with_agent
from libmh.serve import main as run
from libmh.spec import interface_of
from mh_conductor.intake import Intake
from mh_conductor.rules import DEFAULT, load
from mh_conductor.service import FleetAggregates, ReportIntake, announce
from mh_conductor.store import open_store

log = logging.getLogger("mh_conductor")
REQUESTS, REPORTS = "mh.conductor", "mh.report"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker", metavar="URL", action="append", default=[], help="amqp://host:port; tried in this order"
    )
    parser.add_argument("--store", metavar="URL", help="sqlite:///PATH; conductor.db in the state directory")
    parser.add_argument(
        "--rules", metavar="FILE", default=DEFAULT, help="TOML; 'default': the ones that are shipped"
    )


async def body(process: Process) -> None:
    """Open, reconcile, serve until told to stop."""
    urls = process.options.broker
    if not urls:
        raise InvalidArguments("--broker is missing: expected amqp://host:port", argument="broker")
    serve = server_for(urls[0])
    rules = load(process.options.rules)
    for warning in rules.warnings:
        log.warning("%s", warning)
    state = process.state.absolute()
    store = await asyncio.to_thread(
        open_store, process.options.store or f"sqlite:///{state / 'conductor.db'}"
    )
    try:
        intake = Intake(store, rules)
        context = Context(settings=Settings(process.state / "conductor.json"))
        providers = Providers()
        providers.add(ReportIntake(intake, context.events))
        providers.add(FleetAggregates(store, rules, context.events))
        agent = with_agent(process, context, providers, Everybody())
        for outcome in await asyncio.to_thread(intake.reconcile):
            announce(context.events, outcome)
        aggregates, reports, own = (interface_of(each).name for each in (Aggregates, Reports, Agent))
        addresses = {REQUESTS: (aggregates, own), REPORTS: (reports,)}
        await serve(process, urls, agent.dispatcher, addresses, agent.connections)
    finally:
        store.close()


COMMAND = Command(
    "mh-conductor",
    "Makes host aggregates from the capability reports of hosts.",
    body,
    add_options,
    frozenset({"authority", "roles", "signing", "amqp", "tls"}),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(COMMAND, argv)
