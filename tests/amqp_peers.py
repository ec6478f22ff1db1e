"""Peers for the AMQP tests: a listener that echoes, a pipe that can go silent, and a hostile client that
writes its own frames, byte by byte."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from proton import Message

from mh_amqp.connection import Connection, Served
from mh_amqp.engine import Closed, Delivery, Limits, Link, Listener, Receiver, dial, listen
from mh_amqp.security import Door

HOST = "127.0.0.1"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
SASL_MECHANISMS, SASL_INIT, SASL_CHALLENGE, SASL_RESPONSE, SASL_OUTCOME = range(0x40, 0x45)
NULL, TRUE, FALSE, EMPTY_LIST = b"\x40", b"\x41", b"\x42", b"\x45"
SENDS, RECEIVES = FALSE, TRUE  # the role field of attach


def encoded(**fields: Any) -> bytes:
    """A message as proton writes it."""
    return bytes(Message(**fields).encode())


def symbol(text: str) -> bytes:
    return b"\xa3" + bytes([len(text)]) + text.encode()


def string(text: bytes | str) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return b"\xb1" + struct.pack(">I", len(content)) + content


def binary(content: bytes) -> bytes:
    return b"\xa0" + bytes([len(content)]) + content


def uint(number: int) -> bytes:
    return b"\x70" + struct.pack(">I", number)


def listed(*fields: bytes) -> bytes:
    body = b"".join(fields)
    return b"\xd0" + struct.pack(">II", len(body) + 4, len(fields)) + body


def described(code: int, *fields: bytes) -> bytes:
    return b"\x00\x53" + bytes([code]) + listed(*fields)


def frame(code: int, *fields: bytes, channel: int = 0, kind: int = 0, payload: bytes = b"") -> bytes:
    body = described(code, *fields) + payload
    return struct.pack(">IBBH", len(body) + 8, 2, kind, channel) + body


def sasl_init(mechanism: str = "ANONYMOUS", response: bytes = b"stranger") -> bytes:
    return frame(SASL_INIT, symbol(mechanism), binary(response), kind=1)


def opening(container: bytes | str = "hostile", *more: bytes) -> bytes:
    return frame(OPEN, string(container), *more)


def begin(channel: int = 0) -> bytes:
    return frame(BEGIN, NULL, uint(0), uint(2048), uint(2048), channel=channel)


def attach(
    handle: int, address: bytes | str | None, role: bytes = SENDS, *, channel: int = 0, name: str = ""
) -> bytes:
    here = NULL if address is None else string(address)
    source = described(0x28, here if role == RECEIVES else NULL)
    target = described(0x29, here if role == SENDS else NULL)
    count = uint(0) if role == SENDS else NULL
    named = string(name or f"link-{handle}")
    rest = (NULL, NULL, source, target, NULL, NULL, count)
    return frame(ATTACH, named, uint(handle), role, *rest, channel=channel)


def transfer(handle: int, number: int, payload: bytes, *, more: bool = False, settled: bool = True) -> bytes:
    flags = (TRUE if settled else FALSE, TRUE if more else FALSE)
    return frame(
        TRANSFER, uint(handle), uint(number), binary(b"%d" % number), uint(0), *flags, payload=payload
    )


def hello(mechanism: str = "ANONYMOUS") -> bytes:
    """Everything up to an open session, in one piece."""
    return SASL_HEADER + sasl_init(mechanism) + AMQP_HEADER + opening() + begin()


@dataclass
class Hostile:
    """A connection that writes what it likes. `answer` is what came back until the end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: bytearray = field(default_factory=bytearray)

    async def says(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def hears(self, what: bytes, seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while what not in self.answer:
                piece = await self.reader.read(65536)
                assert piece, f"{what!r} did not come in {bytes(self.answer)!r}"
                self.answer += piece

    async def ends(self, seconds: float = 5) -> bytes:
        """Everything that comes until the other side hangs up."""
        async with asyncio.timeout(seconds):
            try:
                while piece := await self.reader.read(65536):
                    self.answer += piece
            except ConnectionError:
                pass
        return bytes(self.answer)


@asynccontextmanager
async def hostile(port: int) -> AsyncIterator[Hostile]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Hostile(reader, writer)
    finally:
        writer.transport.abort()


class Echo:
    """A listener's peer-side: what is sent to any address comes back on the connection's receiving link."""

    def __init__(self, *, credit: int = 100) -> None:
        self.credit = credit
        self.peers: list[Connection] = []
        self.ends: list[Closed] = []
        self.attached: list[Link] = []
        self.arrived: list[Delivery] = []

    def opened(self, connection: Connection) -> None:
        self.peers.append(connection)

    def closed(self, connection: Connection, reason: Closed) -> None:
        self.peers.remove(connection)
        self.ends.append(reason)

    def attach(self, connection: Connection, link: Link) -> None:
        self.attached.append(link)
        if isinstance(link, Receiver):
            link.on_delivery = lambda delivery: self.echo(connection, delivery)
            connection.admit(link, credit=self.credit)
        else:
            connection.state = link
            connection.admit(link, "made-for-you" if link.asked and link.asked.dynamic else None)

    def echo(self, connection: Connection, delivery: Delivery) -> None:
        self.arrived.append(delivery)
        if connection.state is not None:
            getattr(connection.state, "send")(delivery.raw, settled=True)  # noqa: B009 - state is anybody's
        delivery.accept()


ANYONE = Door()
LIMITS = Limits()


@asynccontextmanager
async def listening(served: Served, limits: Limits = LIMITS, door: Door = ANYONE) -> AsyncIterator[Listener]:
    listener = await listen(HOST, 0, served, container="here", limits=limits, door=door)
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def dialled(port: int, limits: Limits = LIMITS, container: str = "test") -> AsyncIterator[Connection]:
    connection = await dial(HOST, port, container=container, limits=limits)
    try:
        yield connection
    finally:
        connection.abort()


class Wire:
    """A TCP relay that can go silent in both directions, like a cable that was pulled; `heal` plugs it in
    again, `strand` leaves those who are connected in silence for ever, and lets others through."""

    def __init__(self, port: int, at: int = 0) -> None:
        self._port, self._at = port, at
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, HOST, self._at)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def pull(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()

    def strand(self) -> None:
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
        flows = self._flows
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._copy(source, sink, flows)))

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event
    ) -> None:
        while piece := await source.read(65536):
            await flows.wait()
            sink.write(piece)
        sink.close()
