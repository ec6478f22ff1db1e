"""Reading the kernel's network tables: dumps and messages of rtnetlink(7).

By hand, because it is three kinds of message and a host may have hundreds of links: the links and addresses
of one with 500 take 12 ms here, and 210 ms through pyroute2, whose import takes 18 MB that an idle agent
has not. psutil tells neither the flags of an address nor how long it lasts. Changes of the network, where
speed does not matter, are made through pyroute2.

What the kernel says is trusted no further than its lengths: what does not fit is left out, never raised.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from libmh.context import Root
from libmh.errors import BackendFailed, NotFound, NotImplementedHere, Problem, Timeout

SOURCE = "rtnetlink(7)"
# linux/netlink.h, linux/rtnetlink.h
HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence, port
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
TYPE_MASK = 0x3FFF  # above are flags: nested, in the order of the network

NUMBER = struct.Struct("=I")
LENGTH_SHIFT, KIND_SHIFT = (0, 16) if sys.byteorder == "little" else (16, 0)
BUFFER = 1 << 16  # a dump comes in parts of at most 32 KiB
KERNEL = 0
FIRST = 1
SECONDS = 10.0  # a driver may hold the lock of all links for seconds
TRIES = 3
MAX_MESSAGES = 200_000
NO_NETLINK = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

Message = tuple[int, bytes]
"""Its kind, and what follows its header."""
Attributes = Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Dump:
    """What the kernel told. `whole` is false where the table changed meanwhile, or is too long."""

    messages: list[Message]
    whole: bool


def here(root: Root) -> None:
    """`not-implemented` for a captured machine: netlink tells of the machine that we run on."""
    if str(root.base) != "/":
        raise NotImplementedHere(f"'{root.base}' is not the machine that this runs on", source=SOURCE)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of each message of a datagram."""
    at, size = 0, len(data)
    while at + HEADER.size <= size:
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > size:
            return
        yield kind, flags, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(payload: bytes, start: int, wanted: Collection[int]) -> dict[int, bytes]:
    """The attributes `wanted` of a message, or of an attribute that holds others. The last of a kind
    counts."""
    found: dict[int, bytes] = {}
    end = len(payload)
    # this loop is most of what reading a link takes, and one word is read in half the time of two
    words = memoryview(payload)[: end & ~3].cast("I")
    at, last = start >> 2, end >> 2
    while at < last:
        word = words[at]
        length = word >> LENGTH_SHIFT & 0xFFFF
        if length < 4 or 4 * at + length > end:
            break
        kind = word >> KIND_SHIFT & TYPE_MASK
        if kind in wanted:
            found[kind] = payload[4 * at + 4 : 4 * at + length]
        at += (length + 3) >> 2
    return found


def number(told: Attributes, kind: int) -> int | None:
    """An attribute of 32 bits; None where it is missing."""
    value = told.get(kind)
    return NUMBER.unpack_from(value)[0] if value is not None and len(value) >= 4 else None


def byte(told: Attributes, kind: int) -> int | None:
    value = told.get(kind)
    return value[0] if value else None


def text(told: Attributes, kind: int) -> str | None:
    """An attribute that is a string; None where it is missing, or none that could be told."""
    value = told.get(kind, b"").partition(b"\0")[0]
    try:
        found = value.decode()
    except UnicodeDecodeError:  # the name of a link may be any bytes
        return None
    return found if found and found.isprintable() else None


def attribute(kind: int, value: bytes) -> bytes:
    """One of a request."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def dump(kind: int, request: bytes, most: int = MAX_MESSAGES) -> list[Message]:
    """A whole table, read again where it changes meanwhile; of one longer than `most`, the beginning."""
    for _ in range(TRIES):
        found = _dump(kind, request, most)
        if found.whole:
            break
    return found.messages


def ask(kind: int, request: bytes) -> Message:
    """The one message that answers; `not-found` where the kernel knows nothing of the kind."""
    try:
        with _opened() as line:
            line.send(_packed(kind, NLM_F_REQUEST, request))
            for answer, _, payload in _read(line):
                if answer == NLMSG_ERROR:
                    raise _refused(payload)
                return answer, payload
    except OSError as error:
        raise failed(error) from error
    raise BackendFailed("the kernel answered nothing that is a message", source=SOURCE)


def listen(groups: int) -> socket.socket:
    """A socket on which the kernel tells of changes. It does not wait. Raises OSError."""
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        line.settimeout(0)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        line.bind((0, groups))
    except OSError:
        line.close()
        raise
    return line


def hear(line: socket.socket) -> bytes | None:
    """What was told next; None where that was cut off. Raises OSError: BlockingIOError where there is
    nothing, ENOBUFS where something was lost."""
    data, _, flags, sender = line.recvmsg(BUFFER)
    if sender[0] != KERNEL:
        return b""
    return None if flags & socket.MSG_TRUNC else data


def failed(error: OSError) -> Problem:
    """The problem that an OSError of a netlink socket is."""
    if isinstance(error, TimeoutError):
        return Timeout(f"the kernel told nothing of its network within {SECONDS:g} s", source=SOURCE)
    if error.errno in NO_NETLINK:
        return NotImplementedHere("this process can open no netlink socket", source=SOURCE)
    return BackendFailed(f"cannot read the kernel's network: {error.strerror or error}", source=SOURCE)


def _opened() -> socket.socket:
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        line.settimeout(SECONDS)
        line.bind((0, 0))
        line.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        # what is asked for is filtered by the kernel since Linux 4.20; what came is filtered again
        line.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            line.close()
            raise
    return line


def _packed(kind: int, flags: int, request: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(request), kind, flags, FIRST, 0) + request


def _dump(kind: int, request: bytes, most: int) -> Dump:
    found: list[Message] = []
    try:
        with _opened() as line:
            line.send(_packed(kind, NLM_F_REQUEST | NLM_F_DUMP, request))
            whole = True
            for answer, flags, payload in _read(line):
                whole = whole and not flags & NLM_F_DUMP_INTR
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    _check(payload)
                    return Dump(found, whole)
                found.append((answer, payload))
                if len(found) >= most:
                    break
    except OSError as error:
        raise failed(error) from error
    return Dump(found, whole=True)  # no other try would bring more


def _read(line: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """What the kernel answers, until it says nothing that is a message."""
    while True:
        data, (sender, _) = line.recvfrom(BUFFER)
        if sender != KERNEL:
            continue
        came = False
        for message in messages(data):
            came = True
            yield message
        if not came:
            return


def _check(payload: bytes) -> None:
    """The end of a dump carries 0, or what went wrong."""
    if len(payload) >= 4 and payload[:4] != b"\0\0\0\0":
        raise _refused(payload)


def _refused(payload: bytes) -> Problem:
    code = -int.from_bytes(payload[:4], sys.byteorder, signed=True)
    words = f"the kernel's network: {os.strerror(code)}"
    return NotFound(words) if code in (errno.ENODEV, errno.ENOENT) else BackendFailed(words, source=SOURCE)
