"""Many hosts in one process: `libmh.serve.Crowd`, for simulators.

Each host is served as an agent serves its own, with its own intake, links and upkeep of its connection; only
events are kept in memory alone, and what has to be known for casts is found out here, in turns.
"""

import asyncio
import gc
import itertools
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import cast

from libmh.api.agent import ConnectionState
from libmh.api.host import Host
from libmh.connections import Connections
from libmh.events import Hub
from libmh.serve import CrowdHost, Heart, Process
from libmh.spec import interface_of
from mh_amqp import dialects
from mh_amqp.asking import asker
from mh_amqp.authority import Roles, roles
from mh_amqp.casts import FRESH_SECONDS, Casts, Knowledge, cast_addresses
from mh_amqp.connection import Connection
from mh_amqp.events import Outbox, Source
from mh_amqp.intake import Intake
from mh_amqp.management import Management
from mh_amqp.names import host_address
from mh_amqp.post import Post
from mh_amqp.reports import Pace, Sending
from mh_amqp.server import Serving
from mh_amqp.tls import Tls, files_of
from mh_amqp.upkeep import Upkeep

log = logging.getLogger(__name__)
HOST = interface_of(Host).name
LOOK_SECONDS = 0.2
TELL_SECONDS = 10.0
STEP_SECONDS = 0.05
COLLECT_AFTER = 50_000
"""New objects that may be garbage."""

Member = tuple[CrowdHost, Serving]


async def serve_crowd(
    process: Process, urls: Sequence[str], hosts: Sequence[CrowdHost], shared: int
) -> None:
    """`libmh.serve.Crowd`; the options `rate` (hosts started in a second) and `report_interval` are the
    process's."""
    # thousands of agents make as many objects at once that live on: to look for garbage among them all for
    # every few hundred new ones would take a tenth of the time
    gc.set_threshold(COLLECT_AFTER)
    authority = roles(process.config, process.options.config)
    members = [(host, _serving(process, host, authority)) for host in hosts]
    count = min(shared or len(members), len(members))
    groups = [members[at::count] for at in range(count)]
    process.beside(_told(process, hosts, urls[0]))
    process.beside(_kept_fresh(process, hosts))
    running = []
    tls = Tls(files_of(process.config))
    for group in groups:
        if process.stop.is_set():
            break
        running.append(asyncio.ensure_future(_upkeep(process, urls, group, tls).run()))
        await asyncio.sleep(len(group) / process.options.rate)
    if running:
        await asyncio.wait(running)
    for _, served in members:
        served.outbox.close()


def _serving(process: Process, host: CrowdHost, authority: Roles) -> Serving:
    dispatcher = host.dispatcher
    dispatcher.authority = authority
    home, source = host_address(host.uuid), Source(host.uuid, host.hostname, host.boot_id)
    known = dispatcher.interfaces
    outbox = Outbox(
        dispatcher.context.events, source, lambda name: known[name].interface if name in known else None
    )
    # it is not this one host that is ready, or has something to say to the service manager
    quiet = replace(process, _announced=True)
    served = Serving(
        quiet,
        dispatcher,
        Intake({home: Management(dispatcher, host.uuid)}),
        outbox,
        dialect=dialects.chosen(process.config),
    )
    host.reporter.survey()
    served.take_casts(Casts(home, Knowledge(source, host.reporter), cast_addresses(process.config)))
    interval = process.options.report_interval
    if interval > 0:
        served.extras.append(_reporting(Sending(host.reporter, Pace(interval=interval))))
    return served


def _reporting(sending: Sending) -> Callable[[Post], Awaitable[None]]:
    async def report(through: Post) -> None:
        await asyncio.sleep(random.uniform(0, sending.pace.interval))  # noqa: S311 - jitter is no secret
        await sending.run(await asker(through.connection, sending=through))

    return report


def _upkeep(process: Process, urls: Sequence[str], members: Sequence[Member], tls: Tls) -> Upkeep:
    async def session(connection: Connection, url: str) -> None:
        serving = [served.session(connection, url, host.connections) for host, served in members]
        await asyncio.gather(*serving)

    # of a connection that hosts share, each of them is told by its own session alone
    told = members[0][0].connections if len(members) == 1 else Connections(Hub())
    container = f"simulated-{secrets.token_hex(6)}"
    return Upkeep(urls, container, told, process.stop, session, tls=tls, moves=False)


async def _told(process: Process, hosts: Sequence[CrowdHost], url: str) -> None:
    """Say when all are connected, and how many are whenever that has changed."""
    last = 0
    for turn in itertools.count():
        await asyncio.sleep(LOOK_SECONDS if last < len(hosts) else TELL_SECONDS)
        now = sum(map(_connected, hosts))
        if now == len(hosts):
            process.ready(f"{now} hosts via {url}")
        if now != last and (turn % 50 == 0 or now == len(hosts) or last == len(hosts)):
            log.info("%d of %d hosts are connected", now, len(hosts))
        last = now


def _connected(host: CrowdHost) -> bool:
    return any(each.state is ConnectionState.CONNECTED for each in host.connections.list())


async def _kept_fresh(process: Process, hosts: Sequence[CrowdHost]) -> None:
    """Survey each host before what it knows is too old, in turns; heartbeats beside it."""
    interval = process.options.report_interval
    lap = min(interval or FRESH_SECONDS, FRESH_SECONDS) / 2
    loop = asyncio.get_running_loop()
    due = loop.time() + lap
    for host in itertools.cycle(hosts):
        due += lap / len(hosts)
        if due > loop.time():
            await asyncio.sleep(max(due - loop.time(), STEP_SECONDS))
        host.reporter.survey()
        if interval:
            cast("Heart", host.dispatcher.interfaces[HOST].provider).beat()
