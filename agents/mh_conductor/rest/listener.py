"""`mh-conductor --http`: uvicorn in the process's own loop."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from libmh.dispatch import Dispatcher
from libmh.errors import InvalidArguments
from libmh.serve import Process
from libmh.watched import watch
from mh_conductor.rest.application import Entrance, application
from mh_conductor.rest.authority import authority
from mh_conductor.rest.door import Door
from mh_conductor.rest.entrance import OnLoopback, WithTokens, is_loopback, tokens_of
from mh_conductor.rest.keystone import keystone
from mh_conductor.rest.patience import Limits, Patient
from mh_conductor.rest.secured import Secured, secured_of

log = logging.getLogger("mh_conductor.rest")
BACKLOG = 256
KEEP_ALIVE_SECONDS = 20
MAX_HEAD = 65_536
STOP_SECONDS = 3
SERVER_LOG = "uvicorn"
TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen."""

    host: str
    port: int
    tls: bool


def place_of(text: str) -> Place:
    """Raises `InvalidArguments`."""
    scheme, _, rest = text.rpartition("://")
    try:
        found = urlsplit(f"//{rest}")
        host, port = found.hostname, found.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or found.path or scheme not in ("", "http", "https"):
        raise InvalidArguments(f"--http: expected HOST:PORT, got '{text}'", argument="http")
    local = is_loopback(host)
    if not local and scheme == "http":
        raise InvalidArguments(f"--http: '{text}' is not loopback, and needs TLS", argument="http")
    return Place(host, port, scheme == "https" or not local)


def entrance_of(process: Process, place: Place) -> Entrance:
    """Who may come in there. Raises `InvalidArguments` where everybody could, and should not."""
    options = process.options
    if options.http_tokens and options.keystone:
        raise InvalidArguments("--http-tokens and --keystone: expected one of them", argument="keystone")
    if options.keystone:
        return keystone(options.keystone, process.config.get("keystone-roles", {}))
    if options.http_tokens:
        return WithTokens(watch(Path(options.http_tokens), tokens_of, "the tokens"))
    if not is_loopback(place.host):
        raise InvalidArguments(
            f"--http: '{place.host}' is not loopback, and needs --http-tokens or --keystone",
            argument="http",
        )
    return OnLoopback()


@asynccontextmanager
async def listening(process: Process, dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Serve the dispatcher's interfaces as `--http` says, as long as the block runs; the policy is asked
    about whoever came in there."""
    place = place_of(process.options.http)
    tls = secured_of(process.config) if place.tls else None
    if place.tls and tls is None:
        raise InvalidArguments("--http: TLS needs a certificate and its key in [tls]", argument="http")
    entrance = entrance_of(process, place)
    rights = authority(process.config, process.options.config)
    own = Dispatcher(dispatcher.interfaces, dispatcher.context, rights)
    async with serving(Web(application(own, entrance), tls), place):
        yield


@dataclass(slots=True)
class Web:
    """A web server for an application; `limits` guards against those who are slow, or many."""

    app: Starlette
    tls: Secured | None = None
    limits: Limits = field(default_factory=Limits)

    def configuration(self) -> uvicorn.Config:
        limits = self.limits

        def protocol(**options: object) -> asyncio.Protocol:
            return Patient(H11Protocol(**options), limits)  # type: ignore[arg-type] # they are uvicorn's own

        config = uvicorn.Config(
            self.app,
            http=protocol,  # type: ignore[arg-type] # called like a class
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        config.load()
        if self.tls is not None:
            config.ssl = self.tls.listening()
        return config


@asynccontextmanager
async def serving(web: Web, place: Place) -> AsyncIterator[str]:
    """Listen as long as the block runs, and tell the URL; then finish what was asked. Raises
    `InvalidArguments` for a place that cannot be had."""
    logging.getLogger(SERVER_LOG).setLevel(logging.ERROR)  # below that it speaks of what clients do
    config = web.configuration()
    bound = await asyncio.to_thread(_bound, place)
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[])
    url = f"{'https' if web.tls else 'http'}://{_shown(place.host)}:{bound.getsockname()[1]}"
    log.info("listening on %s", url)
    door = Door(bound, _connections(server), lambda: _inside(server), web.limits, config.ssl)
    tasks = [asyncio.create_task(_tick(server)), asyncio.create_task(door.keep())]
    try:
        yield url
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await server.shutdown()


def _connections(server: uvicorn.Server) -> Callable[[], asyncio.Protocol]:
    """What makes a connection's protocol, as uvicorn's own listening does."""
    config, state = server.config, server.server_state

    def make() -> asyncio.Protocol:
        options: Any = {"config": config, "server_state": state, "app_state": server.lifespan.state}
        made: asyncio.Protocol = config.http_protocol_class(**options)
        return made

    return make


def _inside(server: uvicorn.Server) -> int:
    return len(server.server_state.connections)


async def _tick(server: uvicorn.Server) -> None:
    """The date of the answers. uvicorn's own loop would wake ten times a second, and take the signals."""
    while True:
        await server.on_tick(0)
        await asyncio.sleep(TICK_SECONDS)


def _bound(place: Place) -> socket.socket:
    """A name may have several addresses, of which not every machine has all."""
    fault = ""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        found, fault = [], str(error.strerror)
    for family, *_, address in found:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
            made.settimeout(0)
        except OSError as error:
            made.close()
            fault = str(error.strerror)
        else:
            return made
    raise InvalidArguments(f"--http: cannot listen on {place.host}:{place.port}: {fault}", argument="http")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
