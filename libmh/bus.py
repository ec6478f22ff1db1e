"""D-Bus for the rest of the product: the only module that knows which D-Bus library is installed.

dbus-fast is used where it is installed (it answers some three times as many calls), dbus-next elsewhere;
`MATAHARI_DBUS_LIBRARY=dbus-next|dbus-fast` decides for tests and benchmarks. Both are used at their message
level alone, and are imported at first use.

`connect` gives an asyncio `Bus`; `libmh.systembus` makes blocking calls over one of them. Every wait has a
deadline, and every failure is a `Problem`.
"""

import asyncio
import functools
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from libmh.errors import (
    BY_DBUS_NAME,
    BackendFailed,
    Conflict,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)

log = logging.getLogger("libmh.bus")

SYSTEM = "system"
SYSTEM_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
DAEMON = "org.freedesktop.DBus"
DAEMON_PATH = "/org/freedesktop/DBus"
CONNECT_DEADLINE = 10.0
CALL_DEADLINE = 25.0  # what the bus daemon and the other libraries use
GRACE = 1.0
MAX_OUTSTANDING = 4096
MAX_PIPELINED = 64  # a bus daemon may refuse more than 128 replies outstanding
MAX_UNSENT = 4096
MAX_SIGNATURES = 4096
MAX_AUTH_LINE = 16_384
MAX_WORDS = 1000
NO_REPLY_EXPECTED = 0x1
ALLOW_INTERACTIVE_AUTHORIZATION = 0x4
DO_NOT_QUEUE = 4
NAME_IS_OURS = (1, 4)  # primary owner, already owner
# what marshalling raises when a body does not fit its signature, over both libraries
UNMARSHALLABLE = (TypeError, ValueError, OverflowError, AttributeError, LookupError, struct.error)

STANDARD_ERROR = "org.freedesktop.DBus.Error."
WORDS: tuple[tuple[type[Problem], str], ...] = (
    (NotAuthorized, "AccessDenied AuthFailed InteractiveAuthorizationRequired"),
    (Unavailable, "ServiceUnknown NameHasNoOwner NoReply Disconnected NoServer LimitsExceeded"),
    (Timeout, "Timeout TimedOut"),
    (NotFound, "UnknownMethod UnknownObject UnknownInterface UnknownProperty"),
    (InvalidArguments, "InvalidArgs InvalidSignature PropertyReadOnly"),
    (NotImplementedHere, "NotSupported"),
)
PROBLEMS: Mapping[str, type[Problem]] = {
    STANDARD_ERROR + word: problem for problem, words in WORDS for word in words.split()
} | {"org.freedesktop.PolicyKit1.Error.NotAuthorized": NotAuthorized}


Message: TypeAlias = Any
"""A message of either library: path interface member sender destination signature body serial flags ..."""


@dataclass(frozen=True, slots=True)
class Library:
    """What is used of a D-Bus library: its classes, `open`, which makes a connection to an address, and
    `hold`, which makes a variant of a value that is known to fit its signature."""

    name: str
    message: Any
    variant: Any
    types: Any
    flags: Any
    open: Callable[[str], Any]
    hold: Callable[[str, Any], Any]


@functools.cache
def library() -> Library:
    """The library in use. `BackendFailed` where neither is installed, or not the one asked for."""
    wanted = os.environ.get("MATAHARI_DBUS_LIBRARY", "")
    if wanted not in ("", "dbus-fast", "dbus-next"):
        raise BackendFailed(f"MATAHARI_DBUS_LIBRARY is '{wanted}', expected 'dbus-fast' or 'dbus-next'")
    if wanted != "dbus-next":
        try:
            return _fast()
        except ImportError as error:
            if wanted:
                raise BackendFailed(f"dbus-fast is not installed: {error}") from error
    try:
        return _next()
    except ImportError as error:
        raise BackendFailed(f"neither dbus-fast nor dbus-next is installed: {error}") from error


def _fast() -> Library:
    from dbus_fast import Message as FastMessage
    from dbus_fast import MessageFlag, MessageType, Variant
    from dbus_fast.aio import MessageBus

    return Library(
        "dbus-fast",
        FastMessage,
        Variant,
        MessageType,
        MessageFlag,
        open=lambda at: MessageBus(bus_address=at),
        hold=lambda signature, value: Variant(signature, value, False),  # noqa: FBT003 - the library's
    )


def _next() -> Library:
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.constants import MessageFlag, MessageType
    from dbus_next.message import Message as NextMessage
    from dbus_next.signature import SignatureTree, Variant

    original: Any = MessageBus

    class Careful(original):  # type: ignore[misc]  # half typed
        """dbus-next with its holes closed: it is no longer maintained."""

        _unmarshaller: Any

        async def _auth_readline(self) -> str:
            # the original spins for ever, without giving way, when the bus hangs up during the handshake
            line = b""
            while not line.endswith(b"\r\n"):
                received = await self._loop.sock_recv(self._sock, 1)
                if not received or len(line) > MAX_AUTH_LINE:
                    raise EOFError("the bus hung up during the handshake")
                line += received
            return line[:-2].decode("utf-8", "replace")

        def _message_reader(self) -> None:
            # the original ends the connection at a message that it cannot read, so any user could cut us
            # off; and it keeps every signature that it has ever seen
            if len(SignatureTree._cache) > MAX_SIGNATURES:  # noqa: SLF001 - nothing else
                SignatureTree._cache.clear()  # noqa: SLF001
            try:
                while not self._disconnected and self._unmarshaller.unmarshall():
                    self._on_message(self._unmarshaller.message)
                    self._unmarshaller = self._create_unmarshaller()
            except UNMARSHALLABLE as error:
                log.warning("a message could not be read: %s, ignoring", error)
                self._unmarshaller = self._create_unmarshaller()  # it had read exactly that message
            except (OSError, EOFError) as error:
                self._finalize(error)

        def _finalize(self, err: BaseException | None = None) -> None:
            # the original leaves the socket open
            super()._finalize(err)
            self._stream.close()
            self._sock.close()

    return Library(
        "dbus-next",
        NextMessage,
        Variant,
        MessageType,
        MessageFlag,
        open=lambda at: Careful(bus_address=at),
        hold=Variant,
    )


def variant(signature: str, value: Any) -> Any:
    """A value with its signature, for the `v` in a body."""
    return library().variant(signature, value)


def unwrap(value: Any) -> Any:
    """Variants replaced by what they hold, all the way down."""
    if isinstance(value, list | tuple):
        return [unwrap(each) for each in value]
    if isinstance(value, dict):
        return {key: unwrap(each) for key, each in value.items()}
    if hasattr(value, "signature") and hasattr(value, "value"):
        return unwrap(value.value)
    return value


def problem_of(name: str, words: str) -> Problem:
    """The failure that a D-Bus error name stands for."""
    words = words[:MAX_WORDS]
    known = BY_DBUS_NAME.get(name)
    if known is not None:
        return known(words)
    listed = PROBLEMS.get(name)
    if listed is not None:
        return listed(words or name, dbus_error=name)
    if name.startswith(STANDARD_ERROR + "Spawn."):
        return Unavailable(words or name, dbus_error=name)
    return BackendFailed(f"{name}: {words}" if words else name, dbus_error=name)


def resolve(address: str) -> str:
    """A bus address: `system` is the environment's or the well-known one."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_ADDRESS) if address == SYSTEM else address


async def connect(address: str = SYSTEM, *, timeout: float = CONNECT_DEADLINE) -> "Bus":  # noqa: ASYNC109
    """A connection to the bus at `address` (`system`, or a D-Bus address). Raises `Unavailable` when there
    is no bus or it does not answer, `NotAuthorized` when it refuses us, `InvalidArguments` else."""
    resolved = resolve(address)
    try:
        async with asyncio.timeout(timeout):
            return Bus(await _open(resolved), address)
    except TimeoutError:
        raise Unavailable(
            f"the bus at '{address}' did not answer within {timeout:g} s", bus=address
        ) from None
    except (OSError, EOFError) as error:
        raise Unavailable(f"there is no bus at '{address}': {error}", bus=address) from error
    except (ValueError, KeyError) as error:  # not an address
        raise InvalidArguments(f"'{address}' is not a D-Bus address: {error}", argument="address") from error


async def _open(address: str) -> Any:
    loop = asyncio.get_running_loop()
    if address.startswith("unix:path="):
        await _probe(loop, address.removeprefix("unix:path=").partition(",")[0].partition(";")[0])
    raw = library().open(address)
    try:
        await raw.connect()
    except BaseException as error:
        raw.disconnect()
        if type(error).__name__ == "AuthError":  # each library has its own
            raise NotAuthorized(f"the bus at '{address}' refused us: {error}", bus=address) from error
        raise
    # not earlier: dbus-fast makes its writer when the socket is connected
    raw._writer.sock = _Patient(raw._sock)  # noqa: SLF001 - they offer nothing else
    return raw


class _Patient:
    """A socket that takes nothing when it is full: both libraries count its `BlockingIOError` as the
    connection's end, so that a few hundred calls side by side would lose it."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, data: memoryview) -> int:
        try:
            return int(self._sock.send(data))
        except BlockingIOError:
            return 0  # the libraries then wait until it is writable


async def _probe(loop: asyncio.AbstractEventLoop, path: str) -> None:
    # dbus-next connects in its constructor and would block the loop on a bus that no longer accepts
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the standard library's
        await loop.sock_connect(probe, unquote(path))


@dataclass(frozen=True, slots=True)
class BusCall:
    """A method call: `signature` tells the types of `arguments`."""

    destination: str
    path: str
    interface: str
    member: str
    signature: str = ""
    arguments: Sequence[Any] = ()


class Bus:
    """A connection, for use on its own loop. `closed` is done, with the reason, when it is over."""

    def __init__(self, raw: Any, address: str) -> None:
        lib = library()
        self._raw = raw
        self._library = lib
        self._method_call = lib.types.METHOD_CALL
        self._signal = lib.types.SIGNAL
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._on_call: Callable[[Message], None] | None = None
        self._on_signal: tuple[Callable[[Message], None], ...] = ()
        self._calls = 0
        self._places = asyncio.Semaphore(MAX_PIPELINED)
        self._unsent = 0
        self._last: asyncio.Future[None] | None = None
        self.address = address
        self.name: str = raw.unique_name
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        raw.add_message_handler(self._receive)
        self._watching = asyncio.create_task(self._watch())

    @property
    def connected(self) -> bool:
        return bool(self._raw.connected)

    def on_call(self, handler: Callable[[Message], None]) -> None:
        """Hand every method call to `handler`, which must not raise and must see to the answer."""
        self._on_call = handler

    def on_signal(self, handler: Callable[[Message], None]) -> Callable[[], None]:
        """Hand every signal to `handler`, which must not raise, and must check whose signal it is; answers
        what ends that."""
        self._on_signal = (*self._on_signal, handler)

        def end() -> None:
            self._on_signal = tuple(each for each in self._on_signal if each != handler)

        return end

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        arguments: Sequence[Any] = (),
        *,
        timeout: float = CALL_DEADLINE,  # noqa: ASYNC109 - every wait has a deadline, this is where it is set
        flags: int = 0,
        raw: bool = False,
    ) -> list[Any]:
        """Call a method and return the values of its answer, variants unwrapped unless `raw`. Raises the
        `Problem` that an error stands for, `Timeout` after `timeout` seconds, `Unavailable` when the
        connection is lost."""
        call = BusCall(destination, path, interface, member, signature, arguments)
        return await self.make(call, timeout=timeout, flags=flags, raw=raw)

    async def make(
        self,
        call: BusCall,
        *,
        timeout: float = CALL_DEADLINE,  # noqa: ASYNC109 - as above
        flags: int = 0,
        raw: bool = False,
    ) -> list[Any]:
        """The same for a call that is written down."""
        reply = await self._answer(call, timeout, flags)
        if reply.message_type is self._library.types.ERROR:
            words = reply.body[0] if reply.signature.startswith("s") else ""
            raise problem_of(str(reply.error_name), words)
        return list(reply.body) if raw else [unwrap(value) for value in reply.body]

    async def _answer(self, call: BusCall, seconds: float, flags: int) -> Message:
        if self._calls >= MAX_OUTSTANDING:
            raise Unavailable(f"{MAX_OUTSTANDING} calls are outstanding on the bus", bus=self.address)
        message = self._message(call, flags)
        self._calls += 1
        try:
            async with asyncio.timeout(seconds), self._places:
                self._replies[message.serial] = asyncio.get_running_loop().create_future()
                self.send(message)
                return await self._replies[message.serial]
        except TimeoutError:
            raise Timeout(
                f"'{call.destination}' did not answer {call.interface}.{call.member} within {seconds:g} s",
                source=call.destination,
            ) from None
        finally:
            self._calls -= 1
            self._replies.pop(message.serial, None)

    def _message(self, call: BusCall, flags: int) -> Message:
        try:
            message: Message = self._library.message(
                destination=call.destination,
                path=call.path,
                interface=call.interface,
                member=call.member,
                flags=self._library.flags(flags),
                signature=call.signature,
                body=list(call.arguments),
                serial=self._raw.next_serial(),
            )
        except UNMARSHALLABLE as error:  # a name or signature that D-Bus does not allow
            raise InvalidArguments(
                f"{call.interface}.{call.member}: cannot be called: {error}", argument=call.member
            ) from error
        return message

    def send(self, message: Message) -> None:
        """Send a message. Raises `Unavailable` when the connection is over or does not drain,
        `InvalidArguments` when the body does not fit its signature."""
        if not self._raw.connected:
            raise Unavailable(f"the connection to the bus at '{self.address}' is lost", bus=self.address)
        if self._unsent >= MAX_UNSENT:
            raise Unavailable(f"the bus at '{self.address}' takes nothing in", bus=self.address)
        try:
            sent = self._raw.send(message)
        except UNMARSHALLABLE as error:
            raise InvalidArguments(
                f"a body of signature '{message.signature}' cannot be sent: {error}", argument=""
            ) from error
        except OSError as error:  # it noticed its end while sending
            raise Unavailable(
                f"the connection to the bus at '{self.address}' is lost: {error}", bus=self.address
            ) from error
        if not sent.done():
            self._unsent += 1
            self._last = sent
            sent.add_done_callback(self._drained)

    def _drained(self, sent: "asyncio.Future[None]") -> None:
        self._unsent -= 1
        if not sent.cancelled():
            sent.exception()  # it is the connection's end, which `closed` tells

    def reply(self, call: Message, signature: str = "", body: Sequence[Any] = ()) -> None:
        """Answer a method call, unless its caller wants no answer. Raises as `send`."""
        if call.flags.value & NO_REPLY_EXPECTED:
            return
        self.send(
            self._library.message(
                message_type=self._library.types.METHOD_RETURN,
                reply_serial=call.serial,
                destination=call.sender,
                signature=signature,
                body=list(body),
            )
        )

    def fail(self, call: Message, name: str, words: str) -> None:
        """Answer a method call with an error, unless its caller wants no answer. Raises as `send`."""
        if call.flags.value & NO_REPLY_EXPECTED:
            return
        self.send(
            self._library.message(
                message_type=self._library.types.ERROR,
                reply_serial=call.serial,
                destination=call.sender,
                error_name=name,
                signature="s",
                body=[words.replace("\0", "\\0").encode("utf-8", "replace").decode()],
            )
        )

    def signal(self, path: str, interface: str, member: str, signature: str, body: Sequence[Any]) -> None:
        """Broadcast a signal. Raises as `send`."""
        self.send(
            self._library.message(
                message_type=self._library.types.SIGNAL,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )

    async def ask(self, member: str, signature: str = "", *arguments: Any) -> list[Any]:
        """Call a method of the bus itself (org.freedesktop.DBus). Raises as `call`."""
        return await self.call(DAEMON, DAEMON_PATH, DAEMON, member, signature, arguments)

    async def add_match(self, rule: str) -> None:
        """Have the signals that `rule` (a D-Bus match rule) selects delivered."""
        await self.ask("AddMatch", "s", rule)

    async def own(self, name: str) -> None:
        """Own a well-known name. `Conflict` when another does, `NotAuthorized` when the bus forbids it."""
        (answer,) = await self.ask("RequestName", "su", name, DO_NOT_QUEUE)
        if answer not in NAME_IS_OURS:
            raise Conflict(f"the name '{name}' on the bus at '{self.address}' belongs to another", name=name)

    async def release(self, name: str) -> None:
        """Give a well-known name back."""
        await self.ask("ReleaseName", "s", name)

    async def close(self) -> None:
        """End the connection when what was sent is out; what is outstanding fails with `Unavailable`."""
        if self._raw.connected:
            if self._last is not None:
                await asyncio.wait({self._last}, timeout=GRACE)
            self._raw.disconnect()
        try:
            async with asyncio.timeout(GRACE):
                await asyncio.shield(self._watching)
        except TimeoutError:  # the library did not notice its own end
            self._over("closed")

    def _receive(self, message: Message) -> bool:
        kind = message.message_type
        if kind is self._method_call:
            if self._on_call is None:
                return False
            self._on_call(message)
            return True
        if kind is self._signal:
            for handler in self._on_signal:
                handler(message)
            return False
        future = self._replies.pop(message.reply_serial, None)
        if future is not None and not future.done():
            future.set_result(message)
        return future is not None

    async def _watch(self) -> None:
        try:
            await self._raw.wait_for_disconnect()
        except (OSError, EOFError, *UNMARSHALLABLE) as error:  # the bus hung up, or sent what is no message
            self._over(str(error) or "the bus hung up")
        else:
            self._over("closed")

    def _over(self, reason: str) -> None:
        for future in self._replies.values():
            if not future.done():
                future.set_exception(
                    Unavailable(f"the connection to the bus at '{self.address}' is lost: {reason}")
                )
        if not self.closed.done():
            self.closed.set_result(reason)


STARTING = threading.Lock()


def background() -> asyncio.AbstractEventLoop:
    """The loop of the process's blocking clients, which runs in a thread of its own."""
    with STARTING:  # a cache alone would let two threads start two
        return _loop()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    # one loop in one daemon thread, for all the blocking clients of the process
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bus", daemon=True).start()
    return loop
