"""`mh-amqp` at work: this host at a broker, or listening for consoles itself."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from libmh.api.host import Host
from libmh.capability import Facts, Reporter
from libmh.context import Context, Settings
from libmh.dispatch import Authority
from libmh.errors import Problem
from libmh.guard import SHARED
from libmh.providers import Providers, load
from libmh.serve import DRAIN_SECONDS, HostAgent, Process, heartbeats, host_agent, with_agent
from libmh.spec import Plain, interface_of
from libmh.via import LOCAL, Via, host_interfaces, shipped_here
from mh_amqp.asking import asker
from mh_amqp.authority import roles
from mh_amqp.casts import Casts, Knowledge, cast_addresses
from mh_amqp.direct import LIMITS, listen_at, settle
from mh_amqp.events import Source
from mh_amqp.names import MANAGEMENT, host_address, listening_place
from mh_amqp.post import Post
from mh_amqp.reports import Pace, Sending
from mh_amqp.security import door_of
from mh_amqp.selfping import ping
from mh_amqp.server import farewell, serving
from mh_amqp.tls import watch

log = logging.getLogger(__name__)
HOST = interface_of(Host).name
NOT_AVAILABLE = "not-available"


@dataclass(frozen=True, slots=True)
class Base:
    """The agent, whose facts it reports if any, and who tells which host this is."""

    agent: HostAgent
    facts: Facts | None
    identity: Providers


async def run(process: Process) -> None:
    """Serve until the process is told to stop."""
    options = process.options
    only = tuple(word for word in options.only.split(",") if word)
    authority = roles(process.config, process.options.config)
    serving_from = here if options.via.partition(":")[0] == LOCAL else handing_on
    async with serving_from(process, authority, only) as base:
        source = await who(base.identity)
        if options.listen is not None:
            await listening(process, base.agent, source, listening_place(options.listen))
        else:
            await dialling(process, base, source)


@asynccontextmanager
async def here(process: Process, authority: Authority, only: Sequence[str]) -> AsyncIterator[Base]:
    """The providers of this process."""
    agent = host_agent(process, authority, only)
    host = agent.providers.bound.get(HOST)
    beats = asyncio.create_task(heartbeats(agent, process.stop))
    try:
        # which host this is has to be known, served or not
        identity = agent.providers if host else load(agent.context, [HOST])
        yield Base(agent, cast("Facts", host.provider) if host else None, identity)
    finally:
        beats.cancel()


@asynccontextmanager
async def handing_on(process: Process, authority: Authority, only: Sequence[str]) -> AsyncIterator[Base]:
    """The providers of the agent behind `--via`; its heartbeats, its facts. Who this host is needs no
    privilege, and is read here, so that it is known while that agent is away."""
    context = Context(settings=Settings(process.state / "settings.json"))
    via = Via(process.options.via, host_interfaces(only), context.events)
    local = shipped_here(Context(settings=context.settings))
    agent = with_agent(process, context, via.providers(local), authority)
    facts = via.proxy(Host) if HOST in agent.providers.bound else None
    async with via.kept(agent.connections):
        yield Base(agent, facts, local)


async def who(providers: Providers) -> Source:
    """The host that this agent speaks for. Without an installed system's UUID it is known until the next
    boot only."""
    uuid = await _known(providers, "uuid")
    boot_id = await _known(providers, "boot_id")
    hostname = await _known(providers, "hostname") or socket.gethostname()
    if not uuid or uuid == NOT_AVAILABLE:
        log.warning("this host has no machine-id, it is known by its boot id until the next boot")
        uuid = boot_id or hostname
    return Source(uuid, hostname, boot_id)


async def _known(providers: Providers, name: str) -> str:
    if HOST not in providers.bound:
        return ""
    bound = providers.bound[HOST]
    member = bound.interface.members[name]
    try:
        future = SHARED.submit(member.action, getattr(bound.provider, member.attribute))
        value: Plain = await asyncio.wait_for(asyncio.wrap_future(future), member.deadline)
    except (Problem, TimeoutError) as error:
        log.warning("%s: %s, ignoring", member.action, error or "too slow")
        return ""
    return value if isinstance(value, str) else ""


async def dialling(process: Process, base: Base, source: Source) -> None:
    """Requests, events and reports over the first broker that answers."""
    agent = base.agent
    everything = frozenset(agent.providers.bound)
    served = serving(process, agent.dispatcher, {host_address(source.host): everything}, source)
    served.label = f"host {source.host}"
    interval = process.options.report_interval
    ending = []
    reporter = Reporter(base.facts, agent.context.settings) if base.facts is not None else None
    groups = cast_addresses(process.config)
    served.take_casts(Casts(host_address(source.host), Knowledge(source, reporter), groups))
    sending = Sending(reporter, Pace(interval=interval)) if reporter is not None and interval > 0 else None
    if sending is not None:
        ending.append(sending.watch(agent.context.events))

    async def ask(through: Post) -> None:
        made = await asker(through.connection, sending=through)
        pinging = asyncio.create_task(ping(made, host_address(source.host), served.intake.own))
        reporting = asyncio.create_task(sending.run(made)) if sending else pinging
        try:
            done, _ = await asyncio.wait({pinging, reporting}, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            pinging.cancel()
            reporting.cancel()

    served.extras.append(ask)
    try:
        await served.run(process.options.broker, agent.connections)
    finally:
        served.outbox.close()
        for end in ending:
            end()


async def listening(process: Process, agent: HostAgent, source: Source, place: tuple[str, int]) -> None:
    """Consoles connect here; there is no conductor to report to."""
    everything = frozenset(agent.providers.bound)
    addresses = {host_address(source.host): everything, MANAGEMENT: everything}
    served = serving(process, agent.dispatcher, addresses, source)
    door = door_of(process.config)
    if door.tls is not None:
        process.beside(watch(door.tls, agent.connections.certificates))
    listener = await listen_at(place, source.host, served.intake, served.outbox, door)
    process.ready(f"listening on {shown(place[0], listener.port)} host {source.host}")
    try:
        await process.stop.wait()
        await served.intake.stop(DRAIN_SECONDS)
        await farewell(agent.dispatcher, served.outbox)
    finally:
        await settle(listener, LIMITS.closing + 1)
        served.outbox.close()


def shown(host: str, port: int) -> str:
    """Where it listens, for people: a path, or host and port."""
    if host.startswith("/"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
