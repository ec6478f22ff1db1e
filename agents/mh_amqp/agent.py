"""`mh-amqp` at work: this host at a broker, or listening for consoles itself."""

import asyncio
import logging
import socket

from libmh.api.host import Host
from libmh.capability import Reporter
from libmh.errors import Problem
from libmh.guard import SHARED
from libmh.serve import DRAIN_SECONDS, HostAgent, Process, heartbeats, host_agent
from libmh.spec import Plain, interface_of
from mh_amqp.asking import asker
from mh_amqp.authority import roles
from mh_amqp.connection import Connection
from mh_amqp.direct import LIMITS, listen_at, settle
from mh_amqp.events import Source
from mh_amqp.links import Sender
from mh_amqp.names import MANAGEMENT, host_address, listening_place
from mh_amqp.reports import Pace, Sending
from mh_amqp.server import farewell, serving

log = logging.getLogger(__name__)
NOT_AVAILABLE = "not-available"


async def run(process: Process) -> None:
    """Serve until the process is told to stop."""
    options = process.options
    only = tuple(word for word in options.only.split(",") if word)
    agent = host_agent(process, roles(process.config), only)
    source = await who(agent)
    beats = asyncio.create_task(heartbeats(agent, process.stop))
    try:
        if options.listen is not None:
            await listening(process, agent, source, listening_place(options.listen))
        else:
            await dialling(process, agent, source)
    finally:
        beats.cancel()


async def who(agent: HostAgent) -> Source:
    """The host that this agent speaks for. Without an installed system's UUID it is known until the next
    boot only."""
    uuid = await _known(agent, "uuid")
    boot_id = await _known(agent, "boot_id")
    hostname = await _known(agent, "hostname") or socket.gethostname()
    if not uuid or uuid == NOT_AVAILABLE:
        log.warning("this host has no machine-id, it is known by its boot id until the next boot")
        uuid = boot_id or hostname
    return Source(uuid, hostname, boot_id)


async def _known(agent: HostAgent, name: str) -> str:
    host = interface_of(Host).name
    if host not in agent.providers.bound:
        return ""
    bound = agent.providers.bound[host]
    member = bound.interface.members[name]
    try:
        future = SHARED.submit(member.action, getattr(bound.provider, member.attribute))
        value: Plain = await asyncio.wait_for(asyncio.wrap_future(future), member.deadline)
    except (Problem, TimeoutError) as error:
        log.warning("%s: %s, ignoring", member.action, error or "too slow")
        return ""
    return value if isinstance(value, str) else ""


async def dialling(process: Process, agent: HostAgent, source: Source) -> None:
    """Requests, events and reports over the first broker that answers."""
    everything = frozenset(agent.providers.bound)
    served = serving(process, agent.dispatcher, {host_address(source.host): everything}, source)
    served.label = f"host {source.host}"
    host = agent.providers.bound.get(interface_of(Host).name)
    interval = process.options.report_interval
    ending = []
    if host is not None and interval > 0:
        provider: Host = host.provider  # type: ignore[assignment]  # that is what it is bound as
        sending = Sending(Reporter(provider, agent.context.settings), Pace(interval=interval))
        ending.append(sending.watch(agent.context.events))

        async def report(connection: Connection, sender: Sender) -> None:
            await sending.run(await asker(connection, sender=sender))

        served.extras.append(report)
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
    listener = await listen_at(place, source.host, served.intake, served.outbox)
    shown = f"[{place[0]}]" if ":" in place[0] else place[0]
    process.ready(f"listening on {shown}:{listener.port} host {source.host}")
    try:
        await process.stop.wait()
        await served.intake.stop(DRAIN_SECONDS)
        await farewell(agent.dispatcher, served.outbox)
    finally:
        await settle(listener, LIMITS.closing + 1)
        served.outbox.close()
