"""Connections over a transport: for asyncio, and for plain Python with the loop in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from libmh.call import Request, is_unknown_value
from libmh.client import TRANSPORTS, Transport, proxy, request_for, restore_for
from libmh.errors import InvalidArguments, NotFound, Timeout, not_installed
from libmh.events import Event
from libmh.loops import CLOSE_SECONDS, LoopThread
from libmh.providers import find_interface
from libmh.spec import DEFAULT_DEADLINE, Plain, member_of

P = TypeVar("P")
R = TypeVar("R")
CONNECT_SECONDS = 10.0
MARGIN = 5.0
"""What a transport may take beyond a request's deadline before the caller stops waiting for it."""


class AsyncConnection:
    """A connection for asyncio: `await connection.call(Host.get_uuid, "Custom")`."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def call(self, declared: Callable[..., R], /, *arguments: Any, **named: Any) -> R:
        """Call a member of a declared interface; properties are read, or written by their setters."""
        member = member_of(declared)
        request = request_for(member, declared.__name__, arguments, named)
        try:
            answer = restore_for(member, declared.__name__, await self.transport.call(request))
        except NotFound as problem:
            if not is_unknown_value(member, problem):
                raise
            answer = None
        return cast("R", answer)

    async def request(self, request: Request) -> Plain:
        """The plain tree that answers a request."""
        return await self.transport.call(request)

    def events(self, interface: str = "", member: str = "") -> AsyncIterator[Event]:
        return self.transport.events(interface, member)

    async def close(self) -> None:
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class BlockingConnection:
    """`Connection` over a `Transport`, whose event loop runs in a thread of its own."""

    def __init__(
        self, opening: Callable[[], Coroutine[Any, Any, Transport]], seconds: float = CONNECT_SECONDS
    ) -> None:
        self._thread = LoopThread()
        try:
            self.transport = self._thread.run(opening(), seconds)
        except BaseException:
            self._thread.stop()
            raise

    def request(self, request: Request) -> Plain:
        seconds = declared_deadline(request) if request.deadline is None else request.deadline
        return self._thread.run(self.transport.call(request), seconds + MARGIN)

    def proxy(self, protocol: Callable[..., P]) -> P:
        return proxy(protocol, self.request)

    def events(self, interface: str = "", member: str = "", timeout: float | None = None) -> Iterator[Event]:
        stream = self.transport.events(interface, member)
        waiting: set[asyncio.Task[Any] | None] = set()

        async def one() -> Event:
            # in here, so that the loop knows of the generator
            task = asyncio.current_task()
            waiting.add(task)
            try:
                return await anext(stream)
            finally:
                waiting.discard(task)

        try:
            while True:
                yield self._thread.run(one(), timeout)
        except StopAsyncIteration:
            return
        finally:
            if not self._thread.closed:
                self._thread.run(_end(stream, waiting), CLOSE_SECONDS)

    def close(self) -> None:
        if self._thread.closed:
            return
        try:
            self._thread.run(self.transport.close(), CLOSE_SECONDS)
        except Timeout:
            pass  # the peer does not take part in the good-bye
        finally:
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _end(stream: AsyncIterator[Event], waiting: set["asyncio.Task[Any] | None"]) -> None:
    tasks = [task for task in waiting if task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()


def declared_deadline(request: Request) -> float:
    """The deadline of the member that a request names, as far as this process knows its declaration."""
    interface = find_interface(request.interface)
    member = interface.members.get(request.member) if interface else None
    return max(member.deadline if member else 0.0, DEFAULT_DEADLINE)


async def connect_async(url: str) -> AsyncConnection:
    """The same for asyncio; there is no `local:`, a provider in this process is called as it is."""
    return AsyncConnection(await open_transport(url))


async def open_transport(url: str) -> Transport:
    """The transport of a URL's scheme, connected."""
    scheme = url.partition(":")[0]
    if scheme not in TRANSPORTS:
        schemes = ", ".join(f"{known}:" for known in ("local", *TRANSPORTS))
        raise InvalidArguments(
            f"'{url}' is not a URL that leads to a host: expected one of {schemes}", argument="url"
        )
    try:
        module = import_module(TRANSPORTS[scheme])
    except ImportError as error:
        raise not_installed(scheme, error) from error
    transport: Transport = await module.connect(url)
    return transport
