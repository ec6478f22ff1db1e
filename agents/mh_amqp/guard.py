"""What may reach proton from a peer that is not authenticated: the next SASL frame of the exchange,
nothing else.

Every proton that can be had takes AMQP frames for good inside the SASL layer before authentication
(CVE-2026-114230), so that an unknown peer opens connections, sessions and links; and built with Cyrus SASL
it crashes of a response or challenge that comes before its time. The gate stands before proton's input and
lets one whole frame through at a time (AMQP 1.0 part 5.3); the engine lifts it when SASL says OK.
"""

from dataclasses import dataclass

HEADER = b"AMQP\x03\x01\x00\x00"
SMALLEST_FRAME = 8
SASL_FRAME = 1
DESCRIPTOR = b"\x00\x53"
NAMES = {
    0x40: "sasl-mechanisms",
    0x41: "sasl-init",
    0x42: "sasl-challenge",
    0x43: "sasl-response",
    0x44: "sasl-outcome",
}


@dataclass(frozen=True, slots=True)
class Script:
    """What one side says: its first frame, those that may follow, and how large each may be, in bytes."""

    first: int
    then: tuple[int, ...]
    largest: int


FROM_CLIENT = Script(first=0x41, then=(0x43,), largest=512)
FROM_SERVER = Script(first=0x40, then=(0x42, 0x44), largest=4096)


class Refused(Exception):
    """The peer sent what no unauthenticated peer may send."""


class SaslGate:
    """Cuts a stream into the frames that its script allows. Keeps at most one frame."""

    __slots__ = ("_begun", "_greeted", "_kept", "_script")

    def __init__(self, script: Script) -> None:
        self._script = script
        self._kept = b""
        self._greeted = False
        self._begun = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The next whole piece and the rest; an empty piece means that more must come first. Raises
        `Refused`."""
        data = self._kept + data
        size = self._frame_size(data) if self._greeted else _header_size(data)
        if size is None or len(data) < size:
            self._kept = data
            return b"", b""
        self._kept = b""
        if self._greeted:
            self._check_frame(data)
        self._greeted = True
        return data[:size], data[size:]

    def _frame_size(self, data: bytes) -> int | None:
        if len(data) < SMALLEST_FRAME:
            return None
        size = int.from_bytes(data[:4])
        if not SMALLEST_FRAME < size <= self._script.largest:
            raise Refused(f"expected a SASL frame of at most {self._script.largest} bytes, not of {size}")
        return size

    def _check_frame(self, frame: bytes) -> None:
        at = frame[4] * 4
        if frame[5] != SASL_FRAME or at < SMALLEST_FRAME:
            raise Refused(f"expected a SASL frame before authentication, not frame type {frame[5]}")
        allowed = self._script.then if self._begun else (self._script.first,)
        if frame[at : at + 2] != DESCRIPTOR or frame[at + 2] not in allowed:
            names = " or ".join(NAMES[code] for code in allowed)
            raise Refused(f"expected {names} before authentication")
        self._begun = True


def _header_size(data: bytes) -> int:
    if not HEADER.startswith(data[: len(HEADER)]):
        raise Refused("expected the SASL protocol header 'AMQP 3 1 0 0'")
    return len(HEADER)
