"""How an agent does, in files for who watches without asking: JSON, and Prometheus' text format for the
textfile collector of node_exporter. Written anew when a connection changes, and every quarter of a
minute. By hand, for the format is lines: its library brings a registry and a server."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from libmh.api.agent import Agent, CallCounts, Certificate, ConnectionState, ConnectionStatus
from libmh.events import Event, Hub
from libmh.spec import Plain, interface_of

log = logging.getLogger("libmh.health")
EVERY_SECONDS = 15.0
SETTLE_SECONDS = 0.2
NANOSECONDS = 1e9
DAY = 86_400
CHANGED = frozenset(
    f"{interface_of(Agent).name}.{name}" for name in ("connection_changed", "certificate_expiring")
)


@dataclass(frozen=True, slots=True)
class Files:
    """Where to; None writes none."""

    status: Path | None = None
    metrics: Path | None = None


async def keep(files: Files, agent: Agent, events: Hub) -> None:
    """Write the files until this is cancelled. A disk that refuses is told in the log, once."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def heard(event: Event) -> None:
        if event.name in CHANGED:
            loop.call_soon_threadsafe(changed.set)

    end = events.subscribe(heard)
    complained = False
    try:
        while True:
            try:
                write(files, agent)
                complained = False
            except OSError as error:
                if not complained:
                    log.warning("how this agent does cannot be written: %s, ignoring", error)
                complained = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), EVERY_SECONDS)
                await asyncio.sleep(SETTLE_SECONDS)  # a connection that flaps is told five times a second
            changed.clear()
    finally:
        end()


def write(files: Files, agent: Agent) -> None:
    """Both files, as it is now. Raises OSError."""
    if files.status is not None:
        _replace(files.status, json.dumps(status(agent), indent=1) + "\n")
    if files.metrics is not None:
        _replace(files.metrics, "\n".join(metrics(agent)) + "\n")


def status(agent: Agent) -> dict[str, Plain]:
    """What the JSON file holds; times are nanoseconds since the epoch."""
    return {
        "name": agent.name(),
        "version": agent.version(),
        "pid": os.getpid(),
        "started": agent.started(),
        "written": time.time_ns(),
        "connections": [asdict(each) for each in agent.connections()],
        "certificates": [asdict(each) for each in agent.certificates()],
        "calls": asdict(agent.calls()),
        "broken": [asdict(each) for each in agent.broken()],
    }


def metrics(agent: Agent) -> Iterator[str]:
    """The lines of the Prometheus file."""
    name = agent.name()
    yield from _metric("started_seconds", "When the agent started.", name, agent.started() / NANOSECONDS)
    yield from _connections(name, agent.connections())
    yield from _certificates(name, agent.certificates())
    yield from _calls(name, agent.calls())


def _connections(name: str, connections: list[ConnectionStatus]) -> Iterator[str]:
    yield "# HELP matahari_connected Whether a bus or broker is connected."
    yield "# TYPE matahari_connected gauge"
    for each in connections:
        value = int(each.state is ConnectionState.CONNECTED)
        yield f'matahari_connected{{agent="{name}",url="{_escaped(each.url)}"}} {value}'


def _certificates(name: str, certificates: list[Certificate]) -> Iterator[str]:
    yield "# HELP matahari_certificate_expires_seconds When a certificate ends."
    yield "# TYPE matahari_certificate_expires_seconds gauge"
    for each in certificates:
        path, value = _escaped(each.path), each.expires / NANOSECONDS
        yield f'matahari_certificate_expires_seconds{{agent="{name}",path="{path}"}} {value:.0f}'


def _calls(name: str, calls: CallCounts) -> Iterator[str]:
    yield "# HELP matahari_calls_total Calls that ended, by how."
    yield "# TYPE matahari_calls_total counter"
    for how in ("answered", "failed", "denied"):
        yield f'matahari_calls_total{{agent="{name}",outcome="{how}"}} {getattr(calls, how)}'
    yield from _metric("calls_outstanding", "Calls that run now.", name, calls.outstanding)
    yield from _metric("calls_stuck", "Calls past their deadline.", name, calls.stuck)


def _metric(metric: str, says: str, name: str, value: float) -> Iterator[str]:
    yield f"# HELP matahari_{metric} {says}"
    yield f"# TYPE matahari_{metric} gauge"
    yield f'matahari_{metric}{{agent="{name}"}} {value!r}'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one; neither has to outlive a power failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(slots=True)
class Certificates:
    """The certificates that an agent shows, as `Agent.certificates` tells them."""

    events: Hub
    _known: dict[str, Certificate] = field(default_factory=dict)
    _announced: dict[str, float] = field(default_factory=dict)

    def list(self) -> "list[Certificate]":
        return list(self._known.values())

    def expires(self, path: str, expires: int, soon: float, again: float) -> None:
        """When the certificate of a file ends (nanoseconds since the epoch). Less than `soon` seconds before
        that it is announced, and `again` seconds later."""
        found = Certificate(path, expires)
        renewed = self._known.get(path) != found
        self._known[path] = found
        left = expires / NANOSECONDS - time.time()
        now = time.monotonic()
        if left < soon and (renewed or now - self._announced.get(path, -again) >= again):
            self._announced[path] = now
            when = "has ended" if left < 0 else f"ends in {left / DAY:.1f} days"
            log.warning("the certificate '%s' %s", path, when)
            self.events.emit(Agent.certificate_expiring, certificate=found)
