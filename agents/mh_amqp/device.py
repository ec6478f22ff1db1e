"""AMQP over a character device or a descriptor: a guest and its host, without a network.

A virtio-serial port is a stream that outlives those who talk over it: what the last one did not read is
still there when the next one comes. So either side drops what comes before the header that begins a
connection. The host's end is what QEMU makes of it, a Unix socket that QEMU listens on, or a device.
"""

import asyncio
import logging
import os
import random
import socket
import stat
import tty
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
HEADER = b"AMQP\x03\x01\x00\x00"
"""What a connection begins with on the wire (AMQP 1.0 part 5.3.1)."""
PIECE = 64 << 10
MAX_WAITING = 256 << 10
"""Bytes that wait for the other side to read before the writer is told to pause."""
LOW = 64 << 10
AGAIN_SECONDS = (0.5, 2.0)


def is_device(path: str) -> bool:
    """Whether there is a character device."""
    try:
        return stat.S_ISCHR(Path(path).stat().st_mode)
    except OSError:  # not there, or not for us: whoever opens it says so
        return False


def opened(path: str) -> int:
    """A descriptor of a device, or of a connection to a Unix socket. Raises OSError."""
    if is_device(path):
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if os.isatty(descriptor):  # a serial line, which would change what it carries
            tty.setraw(descriptor)
        return descriptor
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(1.0)
        made.connect(path)
        made.setblocking(False)  # noqa: FBT003 - so the library wants it
        return made.detach()


class Stream(asyncio.Transport):
    """A transport over a descriptor, which it owns. `accept` makes the protocol: at once when it is the one
    to speak first (`greets`), else with the first header; it sees what follows that header. `over` is done
    at the end."""

    def __init__(
        self, descriptor: int, accept: Callable[[], asyncio.Protocol], name: str, *, greets: bool
    ) -> None:
        super().__init__({"peername": name})
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._descriptor = descriptor
        self._accept = accept
        self._protocol: asyncio.Protocol | None = None
        self._waiting = bytearray()
        self._before: bytes | None = b""
        self._closing = False
        self._told_to_pause = False
        self._loop.add_reader(descriptor, self._readable)
        if greets:
            self._begin()

    def _begin(self) -> asyncio.Protocol:
        if self._protocol is None:
            self._protocol = self._accept()
            self._protocol.connection_made(self)
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        if not self._closing:
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._descriptor, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._descriptor < 0 or self._closing:
            return
        if not self._waiting:
            data = data[self._written(data) :]
            if not data or self._descriptor < 0:
                return
            self._loop.add_writer(self._descriptor, self._writable)
        self._waiting += data
        if len(self._waiting) > MAX_WAITING and not self._told_to_pause and self._protocol is not None:
            self._told_to_pause = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """End when what waits is written."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._descriptor)
        if not self._waiting:
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        self._closing = True
        self._waiting.clear()
        self._loop.call_soon(self._end, None)

    def _written(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # nobody reads at the moment
            return 0
        except OSError as error:  # the other end has gone
            self._lost(error)
            return 0

    def _writable(self) -> None:
        done = self._written(self._waiting)
        del self._waiting[:done]
        if self._waiting or self._descriptor < 0:
            return
        self._loop.remove_writer(self._descriptor)
        if self._closing:
            self._end(None)
        elif self._told_to_pause and self._protocol is not None:
            self._told_to_pause = False
            self._protocol.resume_writing()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, PIECE)
        except BlockingIOError:
            return
        except OSError as error:  # EIO: the other end of a terminal has gone
            self._lost(error)
            return
        if not data:  # so does a port whose host has nobody there
            self._lost(None)
        elif self._before is None and self._protocol is not None:
            self._protocol.data_received(data)
        else:
            self._look((self._before or b"") + data)

    def _look(self, data: bytes) -> None:
        """Drop what comes before the header."""
        at = data.find(HEADER)
        if at < 0:
            self._before = data[-(len(HEADER) - 1) :]
            return
        if at:
            log.info("dropped %d bytes of an earlier connection", at)
        self._before = None
        self._begin().data_received(data[at:])

    def _lost(self, error: OSError | None) -> None:
        self._closing = True
        self._waiting.clear()
        self._end(error)

    def _end(self, error: OSError | None) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        os.close(descriptor)
        self._loop.call_soon(self._tell, error)  # the protocol may be in the middle of a write

    def _tell(self, error: OSError | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)
        if not self.over.done():
            self.over.set_result(None)


async def served_at(path: str, accept: Callable[[], asyncio.Protocol]) -> None:
    """Serve whoever is at the other end of a device or of somebody's Unix socket, one after the other, for
    ever; `accept` makes the protocol of each."""
    said = ""
    while True:
        try:
            stream = Stream(opened(path), accept, path, greets=False)
        except OSError as error:
            if said != str(error):
                said = str(error)
                log.warning("'%s' cannot be opened: %s, trying again", path, error.strerror or error)
        else:
            said = ""
            try:
                await stream.over
            finally:
                stream.abort()
        await asyncio.sleep(random.uniform(*AGAIN_SECONDS))  # noqa: S311 - jitter is no secret


def connect(path: str, protocol: asyncio.Protocol) -> None:
    """Speak first over a device. Raises OSError: not there, not permitted, or open already."""
    Stream(opened(path), lambda: protocol, path, greets=True)
