"""Keeping a connection to one of several brokers: for ever, with growing pauses, and telling how it goes."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from libmh.connections import Connections
from libmh.errors import NotAuthorized, Problem, Timeout, Unavailable
from mh_amqp.connection import Connection
from mh_amqp.engine import dial
from mh_amqp.lifeline import kept
from mh_amqp.limits import Limits
from mh_amqp.names import PATH_SCHEME, Place, place
from mh_amqp.security import ANONYMOUS, EXTERNAL, PLAIN, SCRAM, Login
from mh_amqp.srv import targets
from mh_amqp.tls import Files, Tls

log = logging.getLogger(__name__)
NO_FILES = Tls(Files())
"""What the system trusts, and nothing to show."""
DIAL_SECONDS = 10.0
IDLE_SECONDS = 30.0
CLOSE_SECONDS = 2.0
LEAVE_SECONDS = 7.0
"""What a session may take to finish what runs and say good-bye."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between tries: full jitter up to a limit that doubles from `first` to `most`; a refused
    login starts at `refused`, for it will hardly mend itself. A connection that lasted `good` seconds
    starts anew."""

    first: float = 1.0
    most: float = 60.0
    refused: float = 30.0
    refused_most: float = 300.0
    good: float = 10.0

    def pause(self, failures: int, *, refused: bool) -> float:
        """How long to wait after so many failures in a row."""
        most = self.refused_most if refused else self.most
        limit = min(most, (self.refused if refused else self.first) * 2 ** min(failures - 1, 16))
        floor = limit / 2 if refused else 0.0
        return random.uniform(floor, limit)  # noqa: S311 - jitter is no secret


DEFAULT_PACE = Pace()


def login_of(where: Place, tls: Tls = NO_FILES) -> Login:
    """How to log in at a URL: as the user that it names, by the certificate that there is or the user that a
    Unix socket knows, or as nobody."""
    secured = tls if where.secured else None
    if where.user is not None:
        return Login((*SCRAM, PLAIN), where.user, where.password, secured)
    proven = where.scheme == PATH_SCHEME or (where.secured and tls.files.certificate is not None)
    return Login((*((EXTERNAL,) if proven else ()), ANONYMOUS), tls=secured)


async def dial_place(
    where: Place, container: str, *, tls: Tls = NO_FILES, deadline: float = DIAL_SECONDS
) -> Connection:
    """A connection to the place of a URL, or to the first that its domain's DNS names and that answers;
    `tls` says what to show and whom to trust where it begins with `amqps`. Errors as for `engine.dial`."""
    found = await targets(where)
    for number, each in enumerate(found, 1):
        try:
            return await dial(
                each.host,
                each.port,
                container=container,
                login=login_of(each, tls),
                limits=Limits(idle=IDLE_SECONDS),
                deadline=deadline,
                certified=each.certified,
            )
        except (Unavailable, Timeout) as problem:
            if number == len(found):
                raise
            log.info("%s: %s, trying the next", each.shown, problem)
    raise Unavailable(f"'{where.shown}' leads nowhere")


@dataclass(slots=True)
class Upkeep:
    """`session` is run with each connection, until the connection ends; what it raises ends the
    connection. `moves`: the machine may change its address, which is looked for."""

    urls: Sequence[str]
    container: str
    connections: Connections
    stop: asyncio.Event
    session: Callable[[Connection, str], Awaitable[None]]
    waiting: Callable[[str], None] = lambda _url: None
    pace: Pace = DEFAULT_PACE
    tls: Tls = field(default_factory=lambda: NO_FILES)
    failures: int = 0
    moves: bool = True

    async def run(self) -> None:
        """Until `stop` is set."""
        places = [(url, place(url)) for url in self.urls]
        loop = asyncio.get_running_loop()
        while not self.stop.is_set():
            refused = False
            for url, where in places:
                began = loop.time()
                refused = await self._once(url, where) or refused
                if self.stop.is_set():
                    return
                if loop.time() - began > self.pace.good:
                    self.failures = 0
                    break  # begin with the first again
            self.failures += 1
            await self._pause(
                self.pace.pause(self.failures, refused=refused), urls=[p.shown for _, p in places]
            )

    async def _once(self, url: str, where: Place) -> bool:
        """One try, and the life of the connection that it makes; whether the login was refused."""
        self.connections.connecting(url)
        try:
            connection = await self._dial(where)
        except Problem as problem:
            self.connections.waiting(url, str(problem))
            log.warning("%s: %s", where.shown, problem)
            self.waiting(where.shown)
            return isinstance(problem, NotAuthorized)
        if connection is None:
            return False
        try:
            reason = await self._live(connection, url)
        finally:
            await self._close(connection)
        if self.stop.is_set():
            self.connections.closed(url)
        else:
            log.warning("%s: the connection is lost: %s", where.shown, reason)
            self.connections.waiting(url, reason)
            self.waiting(where.shown)
        return False

    async def _dial(self, where: Place) -> Connection | None:
        """A connection, unless `stop` is set first."""
        dialling = asyncio.ensure_future(dial_place(where, self.container, tls=self.tls))
        stopping = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({dialling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return dialling.result() if dialling.done() else None
        finally:
            stopping.cancel()
            dialling.cancel()

    async def _live(self, connection: Connection, url: str) -> str:
        session: asyncio.Future[None] = asyncio.ensure_future(self.session(connection, url))
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self.stop.wait())
        watching = asyncio.ensure_future(kept(connection)) if self.moves else stopping
        over: set[asyncio.Future[Any]] = {session, connection.closed}
        try:
            await asyncio.wait({*over, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self.stop.is_set() and not session.done():
                # it ends by itself, after what it has to finish
                await asyncio.wait(over, timeout=LEAVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
            return str(connection.closed.result()) if connection.closed.done() else "ended on this side"
        except Problem as problem:
            return str(problem)
        finally:
            stopping.cancel()
            watching.cancel()
            session.cancel()
            with contextlib.suppress(asyncio.CancelledError, Problem):
                await session

    async def _close(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
        except TimeoutError:
            connection.abort()

    async def _pause(self, seconds: float, urls: Sequence[str]) -> None:
        log.info("trying %s again in %.1f s", ", ".join(urls), seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)
