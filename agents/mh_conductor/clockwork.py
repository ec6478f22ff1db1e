"""What a conductor does by the clock: it looks at its rules' file, and for hosts that have fallen silent."""

import asyncio
import logging

from libmh.api.agent import ConnectionState
from libmh.connections import Connections
from libmh.errors import Problem
from libmh.events import Hub
from mh_conductor import rulesfile
from mh_conductor.governing import tell, tell_silence
from mh_conductor.rulesfile import RulesFile
from mh_conductor.silence import Silence

log = logging.getLogger("mh_conductor.clockwork")
FILE_SECONDS = 5.0
SWEEP_SECONDS = 5.0


def hears(connections: Connections) -> bool:
    """Whether a report could come in."""
    return any(each.state is ConnectionState.CONNECTED for each in connections.list())


async def run(file: RulesFile, silence: Silence, events: Hub) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(rulesfile.watch(file, FILE_SECONDS, lambda done: tell(events, done)))
        group.create_task(sweep(silence, events))


async def sweep(silence: Silence, events: Hub) -> None:
    """Look for silent hosts every so often, until cancelled."""
    while True:
        more = False
        try:
            swept = await asyncio.to_thread(silence.sweep)
        except Problem as problem:  # the store, which the next look may find well again
            log.warning("the hosts could not be looked at: %s, trying again", problem)
        else:
            tell_silence(events, swept)
            more = swept.more
        await asyncio.sleep(0 if more else SWEEP_SECONDS)
