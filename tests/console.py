"""What a console far away does: it has things run, sees them die, has them run again and sees that, too.

A program for a booted machine: URL in, a line of JSON out. What dies is killed here, as by an accident.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libmh.api.host import Host
from libmh.api.resources import Resources
from libmh.api.services import Services
from libmh.client import Connection, connect
from libmh.errors import Problem
from libmh.events import Event
from libmh.spec import Plain
from waiting import wait_for

SECONDS = 20.0
UNIT = "mh-example.service"
PIDFILE = Path("/run/mh-sleeper.pid")
GIVEN: dict[str, Plain] = {"binfile": "/bin/sleep", "cmdline_options": "4444", "pidfile": str(PIDFILE)}
SLEEPER = ("sleeper", "ocf", "heartbeat", "anything")


class Ears:
    """Every event of a host, as it comes."""

    def __init__(self, connection: Connection) -> None:
        self.events: list[Event] = []
        self._connection = connection
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for event in self._connection.events():
                self.events.append(event)
        except Problem:
            return

    def told(self, name: str, *fields: str) -> list[list[Any]]:
        """Some fields of each event of a name."""
        return [
            [e.fields[each] for each in fields] for e in list(self.events) if e.name.endswith(f".{name}")
        ]


def until(condition: Callable[[], Any]) -> None:
    """Wait for an event."""
    wait_for(condition, seconds=SECONDS)


def service(there: Connection, ears: Ears) -> dict[str, Any]:
    """A unit is started, its main process is killed, it is started again."""
    services = there.proxy(Services)

    def states() -> list[list[Any]]:
        seen = ears.told("service_changed", "unit", "new_state", "result")
        return [[state, result] for unit, state, result in seen if unit == UNIT]

    start = services.start(UNIT)
    until(lambda: ["active", "success"] in states())
    pid = subprocess.check_output(["systemctl", "show", "-P", "MainPID", UNIT], text=True)
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: ["failed", "signal"] in states())
    died = len(states())
    restart = str(services.restart(UNIT).result)
    until(lambda: ["active", "success"] in states()[died:])
    return {"start": start, "restart": restart, "states": states(), "stop": services.stop(UNIT)}


def resource(there: Connection, ears: Ears) -> dict[str, Any]:
    """The same with a resource, which only its recurring monitor can tell."""
    resources = there.proxy(Resources)

    def codes() -> list[int]:
        return [code for name, code in ears.told("resource_op", "name", "rc") if name == SLEEPER[0]]

    start = resources.invoke(*SLEEPER, "start", 0, GIVEN)[0]
    monitor = resources.invoke(*SLEEPER, "monitor", 200, GIVEN, 10_000, 0, "far")[0]
    os.kill(int(PIDFILE.read_text()), signal.SIGKILL)
    until(lambda: any(codes()))
    died = len(codes())
    restart = resources.invoke(*SLEEPER, "start", 0, GIVEN)[0]
    until(lambda: 0 in codes()[died:])
    resources.cancel(SLEEPER[0], "monitor", 200, 0)
    stop = resources.invoke(*SLEEPER, "stop", 0, GIVEN)[0]
    return {"start": start, "monitor": monitor, "restart": restart, "stop": stop, "codes": codes()}


def main(url: str) -> None:
    """Both flows, over a connection for calls and one for events."""
    with connect(url) as there, connect(url) as listening:
        ears = Ears(listening)
        host = there.proxy(Host)
        host.set_update_interval(1)
        until(lambda: ears.told("heartbeat", "sequence"))  # from here on nothing is missed
        told = {"service": service(there, ears), "resource": resource(there, ears)}
        host.set_update_interval(60)
        beats = [sequence for (sequence,) in ears.told("heartbeat", "sequence")]
        print(json.dumps(told | {"beats": beats}))


if __name__ == "__main__":
    main(sys.argv[1])
