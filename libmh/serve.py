"""What every agent process does: options, configuration, logging, readiness, watchdog, signals."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from libmh import audit
from libmh.agent import LEVELS, ThisAgent, software_version
from libmh.api.host import Host
from libmh.configuration import options_and_tables
from libmh.connections import Connections
from libmh.context import Context, Settings, default_state
from libmh.dispatch import Authority, Dispatcher
from libmh.errors import InvalidArguments, Problem, not_installed
from libmh.guard import SHARED
from libmh.health import Files, keep
from libmh.notify import notify, watchdog_seconds
from libmh.providers import Providers, load, watch
from libmh.spec import interface_of

if TYPE_CHECKING:  # what most processes that serve do without
    from libmh.capability import Reporter

log = logging.getLogger("libmh.serve")
STOP_SECONDS = 10.0
CANCEL_SECONDS = 2.0
LEAVE_SECONDS = 5.0
DRAIN_SECONDS = 5.0
RECHECK_SECONDS = 5.0
FALLBACK_SECONDS = 5.0

SERVERS: Mapping[str, str] = dict.fromkeys(
    ("amqp", "amqps", "amqp+srv", "amqps+srv", "amqp+unix"), "mh_amqp.server"
)
"""URL scheme -> module with `serve` (see `Server`); imported when it is first asked for."""


class Server(Protocol):
    """Serve a dispatcher's interfaces at addresses of a broker, until `process.stop` is set."""

    async def __call__(
        self,
        process: "Process",
        urls: Sequence[str],
        dispatcher: Dispatcher,
        addresses: Mapping[str, Collection[str]],
        connections: Connections,
    ) -> None: ...


def server_for(url: str) -> Server:
    """The server half of a URL's scheme."""
    scheme = url.partition(":")[0]
    if scheme not in SERVERS:
        raise InvalidArguments(
            f"'{url}' is not the URL of a broker: expected {', '.join(SERVERS)}://host:port"
        )
    try:
        server: Server = import_module(SERVERS[scheme]).serve
    except ImportError as error:
        raise not_installed(scheme, error) from error
    return server


CROWDS: Mapping[str, str] = dict.fromkeys(SERVERS, "mh_amqp.crowd")
"""URL scheme -> module with `serve_crowd` (see `Crowd`)."""


@dataclass(frozen=True, slots=True)
class CrowdHost:
    """One of many hosts that a process answers for."""

    uuid: str
    hostname: str
    boot_id: str
    dispatcher: Dispatcher
    connections: Connections
    reporter: "Reporter"


class Crowd(Protocol):
    """Serve many hosts at a broker, until `process.stop` is set: each over a connection of its own, or all
    over `shared` ones. The process is ready when all have been connected."""

    async def __call__(
        self, process: "Process", urls: Sequence[str], hosts: Sequence[CrowdHost], shared: int
    ) -> None: ...


def crowd_for(url: str) -> Crowd:
    """What serves many hosts at a URL's scheme."""
    server_for(url)  # says what is wrong with it
    crowd: Crowd = import_module(CROWDS[url.partition(":")[0]]).serve_crowd
    return crowd


@dataclass(slots=True)
class Process:
    """A running agent process, given to the command's body. `config`: its file's tables."""

    name: str
    options: argparse.Namespace
    config: Mapping[str, Any]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    _announced: bool = False

    @property
    def state(self) -> Path:
        """The directory for what persists."""
        return Path(self.options.state)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something as long as the process lives."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("something beside the agent's work has ended", exc_info=error)

    def ready(self, text: str) -> None:
        """Say once, on stdout and to the service manager, that calls are answered from now on."""
        if not self._announced:
            self._announced = True
            try:
                print(f"ready: {self.name} {text}", flush=True)
            except OSError:  # nobody reads it any more; the interpreter would try again when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            notify(f"READY=1\nSTATUS={text}")
            # what was loaded by now stays: no later collection need look at it
            gc.collect()
            gc.freeze()

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        notify(f"STATUS={text}")


@dataclass(frozen=True, slots=True)
class Command:
    """An agent's command line: `tables` are the names of the tables that its configuration file may have."""

    name: str
    summary: str
    body: Callable[[Process], Awaitable[None]]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _parser: None
    tables: frozenset[str] = frozenset()


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command until it is told to stop. 0: ended in an orderly way; 1: could not go on, one sentence
    on stderr; 2: usage."""
    parser = parser_for(command)
    options, config = options_and_tables(parser, argv, command.tables)
    _log_to_stderr(options.log_level)
    leaving = threading.Timer(LEAVE_SECONDS, _leave)
    leaving.daemon = True
    try:
        if options.audit_file:
            audit.keep(Path(options.audit_file))
        return asyncio.run(_run(Process(command.name, options, config), command, leaving))
    except (Problem, OSError) as error:  # OSError: a port in use, a directory that cannot be made ...
        print(f"{command.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        leaving.cancel()


def _leave() -> None:
    # asyncio.run waits for threads, and one may wait for a server that never answers
    log.warning("threads did not come back within %g s, leaving", LEAVE_SECONDS)
    os._exit(1)


def parser_for(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(command.name, description=command.summary, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{command.name} {software_version()}")
    parser.add_argument(
        "--state", metavar="DIR", default=default_state(), help="directory for what persists"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file; its keys are these options")
    parser.add_argument("--audit-file", metavar="FILE", help="keep who did what there, as JSON")
    parser.add_argument("--status-file", metavar="FILE", help="keep how the agent does there, as JSON")
    parser.add_argument(
        "--metrics-file", metavar="FILE", help="keep it there for Prometheus' textfile collector, NAME.prom"
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="how much to say on stderr")
    command.add_options(parser)
    return parser


def _log_to_stderr(level: str) -> None:
    # the journal has its own clock
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(
        level=level.upper(), format=stamp + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


async def _run(process: Process, command: Command, leaving: threading.Timer) -> int:
    """`leaving` is started when nothing is left to do but to end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, process)
    body = asyncio.ensure_future(command.body(process))
    alive = asyncio.ensure_future(_watchdog())
    stopped = asyncio.ensure_future(process.stop.wait())
    try:
        await asyncio.wait({body, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not body.done():
            await asyncio.wait({body}, timeout=STOP_SECONDS)
        if not body.done():
            log.warning("did not end within %g s, leaving", STOP_SECONDS)
            body.cancel()
            await asyncio.wait({body}, timeout=CANCEL_SECONDS)
            if not body.done():
                os._exit(1)  # asyncio.run would wait for it for ever
            return 1
        body.result()
    finally:
        for task in (body, alive, stopped, *process.tasks):
            task.cancel()
        leaving.start()
    return 0


def _stop(process: Process) -> None:
    if process.stop.is_set():
        os._exit(1)  # asked twice: whoever asks does not want to wait
    notify("STOPPING=1")
    process.stop.set()


async def _watchdog() -> None:
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 2)


@dataclass(frozen=True, slots=True)
class HostAgent:
    """What a process that answers for its host is made of."""

    context: Context
    providers: Providers
    connections: Connections
    dispatcher: Dispatcher


def host_agent(process: Process, authority: Authority, only: Collection[str] = ()) -> HostAgent:
    """The providers of this host, and `Agent`, behind a dispatcher. `only` names the interfaces wanted."""
    context = Context(settings=Settings(process.state / "settings.json"))
    providers = load(context, only)
    known = {
        word for bound in providers.bound.values() for word in (bound.interface.name, bound.interface.short)
    }
    for name in only:
        if name not in known | {broken.name for broken in providers.broken}:
            raise InvalidArguments(f"--only: there is no interface '{name}' here")
    watch(providers)
    return with_agent(process, context, providers, authority)


def with_agent(process: Process, context: Context, providers: Providers, authority: Authority) -> HostAgent:
    """Add the process's own `Agent` to some providers and put a dispatcher before them."""
    connections = Connections(context.events)
    this = ThisAgent(process.name, providers, connections)
    providers.add(this)
    dispatcher = Dispatcher(providers.bound, context, authority)
    this.attach(dispatcher)
    told = [getattr(process.options, name, None) for name in ("status_file", "metrics_file")]
    files = Files(*(Path(name) if name else None for name in told))
    if files.status or files.metrics:
        process.beside(keep(files, this, context.events))
    return HostAgent(context, providers, connections, dispatcher)


class Heart(Protocol):
    """A provider of `Host` that can raise its heartbeat."""

    def beat(self) -> None: ...

    def update_interval(self) -> int: ...


async def heartbeats(agent: HostAgent, stop: asyncio.Event) -> None:
    """Beat at once and then every `update_interval` seconds, whichever process sets it."""
    bound = agent.providers.bound.get(interface_of(Host).name)
    if bound is None or not hasattr(bound.provider, "beat"):
        return
    heart = cast("Heart", bound.provider)
    waited = 0.0
    first = True
    interval = FALLBACK_SECONDS  # while the settings cannot be read it beats on as before
    while not stop.is_set():
        found = await _guarded("heart:interval", heart.update_interval)
        interval = interval if found is None else found
        if first or (interval and waited >= interval):
            await _guarded("heart:beat", heart.beat)
            first, waited = False, 0.0
        pause = min(RECHECK_SECONDS, interval - waited if interval else RECHECK_SECONDS)
        pause = max(pause, 0.05)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        waited += pause


async def _guarded(key: str, function: Callable[[], Any]) -> Any:
    """What the function answers, or None: a failure is logged, and met again next time."""
    try:
        work = asyncio.wrap_future(SHARED.submit(key, function, RECHECK_SECONDS))
    except Problem as problem:  # the one before has not come back
        log.warning("%s: %s, ignoring", key, problem)
        return None
    await asyncio.wait({work}, timeout=RECHECK_SECONDS)
    error = TimeoutError("too slow") if not work.done() else work.exception()
    if error is not None:
        log.warning("%s: %s, ignoring", key, error, exc_info=None if _expected(error) else error)
        return None
    return work.result()


def _expected(error: BaseException) -> bool:
    return isinstance(error, Problem | OSError)
