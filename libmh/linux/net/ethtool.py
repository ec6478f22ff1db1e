"""What only the driver of a network link tells: its name, speed and duplex (linux/ethtool.h). Virtual links
answer, too."""

import array
import fcntl
import socket
import struct
from contextlib import suppress
from typing import Self

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 0x3
ETHTOOL_GLINKSETTINGS = 0x4C
DRIVER = slice(4, 36)
SETTINGS = struct.Struct("=IIB6xb")  # command, speed, duplex, words of each of the three masks that follow
SIZE = 48 + 3 * 4 * 127  # above what a driver's information takes
UNKNOWN_SPEED = 2**32 - 1
DUPLEX = {0: "half", 1: "full"}
IFNAMSIZ = 16
REQUEST = struct.Struct("16sP")


class Ethtool:
    """A socket to ask through, until the block ends. It answers None for what a link does not tell."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with suppress(OSError):  # no IPv4 in this kernel
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._answer = array.array("B", bytes(SIZE))
        self._request = bytearray(40)
        self._mask_words = 0  # the kernel says how many it has when it is asked with another number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def driver(self, link: str) -> str | None:
        """The name of its driver."""
        if not self._ask(link, struct.pack("=I", ETHTOOL_GDRVINFO)):
            return None
        return self._answer[DRIVER].tobytes().partition(b"\0")[0].decode("ascii", "replace") or None

    def speed(self, link: str) -> tuple[int | None, str | None]:
        """Mbit/s, and full or half."""
        for _ in range(2):
            if not self._ask(link, SETTINGS.pack(ETHTOOL_GLINKSETTINGS, 0, 0, self._mask_words)):
                return None, None
            _, speed, duplex, words = SETTINGS.unpack_from(self._answer)
            if words >= 0:
                return (speed if 0 < speed < UNKNOWN_SPEED else None), DUPLEX.get(duplex)
            self._mask_words = -words
        return None, None

    def _ask(self, link: str, question: bytes) -> bool:
        name = link.encode()
        if self._socket is None or len(name) >= IFNAMSIZ:
            return False
        self._answer[: len(question)] = array.array("B", question)
        REQUEST.pack_into(self._request, 0, name, self._answer.buffer_info()[0])
        try:
            fcntl.ioctl(self._socket, SIOCETHTOOL, self._request)
        except OSError:  # not supported by the link, or gone meanwhile
            return False
        return True


def driver(link: str) -> str | None:
    """The name of one link's driver; None where it does not tell, or is gone."""
    with Ethtool() as ethtool:
        return ethtool.driver(link)
