"""What may reach proton from a peer that has not authenticated: SASL frames of two kinds, and nothing else.

Every proton that can be had takes AMQP frames for good inside the SASL layer before authentication
(CVE-2026-114230), so that an unknown peer opens connections, sessions and links. The gate stands before
proton's input and lets one whole frame through at a time (AMQP 1.0 part 5.3: protocol header, sasl-init,
sasl-response); the engine lifts it when SASL says OK.
"""

HEADER = b"AMQP\x03\x01\x00\x00"
LARGEST_FRAME = 512
SMALLEST_FRAME = 8
SASL_FRAME = 1
INIT = b"\x00\x53\x41"
RESPONSE = b"\x00\x53\x43"


class Refused(Exception):
    """The peer sent what no unauthenticated client may send."""


class SaslGate:
    """Cuts a stream into the frames that an unauthenticated client may send. Keeps at most one frame.

    One sasl-init, then responses: with Cyrus SASL inside, a response before the init crashes proton.
    """

    __slots__ = ("_begun", "_greeted", "_kept")

    def __init__(self) -> None:
        self._kept = b""
        self._greeted = False
        self._begun = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The next whole piece and the rest; an empty piece means that more must come first. Raises `Refused`."""
        data = self._kept + data
        size = _frame_size(data) if self._greeted else _header_size(data)
        if size is None or len(data) < size:
            self._kept = data
            return b"", b""
        self._kept = b""
        if self._greeted:
            self._check_frame(data)
        self._greeted = True
        return data[:size], data[size:]

    def _check_frame(self, frame: bytes) -> None:
        offset = frame[4] * 4
        if frame[5] != SASL_FRAME or offset < SMALLEST_FRAME:
            raise Refused(f"expected a SASL frame before authentication, not frame type {frame[5]}")
        wanted = RESPONSE if self._begun else INIT
        if frame[offset : offset + 3] != wanted:
            raise Refused(f"expected {'sasl-response' if self._begun else 'sasl-init'} before authentication")
        self._begun = True


def _header_size(data: bytes) -> int:
    if not HEADER.startswith(data[: len(HEADER)]):
        raise Refused("expected the SASL protocol header 'AMQP 3 1 0 0'")
    return len(HEADER)


def _frame_size(data: bytes) -> int | None:
    if len(data) < SMALLEST_FRAME:
        return None
    size = int.from_bytes(data[:4])
    if not SMALLEST_FRAME < size <= LARGEST_FRAME:
        raise Refused(f"expected a SASL frame of at most {LARGEST_FRAME} bytes, not of {size}")
    return size
