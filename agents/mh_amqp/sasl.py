"""Who a peer is, before a byte of AMQP: the SASL layer (AMQP 1.0 part 5.3) of diallers and listeners.

By hand, in front of proton, which is given what follows and nothing of this: its own takes AMQP frames for
good before authentication (CVE-2026-114230), crashes of a response that comes before its time when it is
built with Cyrus SASL, and lacks SCRAM when it is built without. SCRAM itself is scramp's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from libmh.spec import Plain
from mh_amqp import codec
from mh_amqp.security import ANONYMOUS, EXTERNAL, PLAIN, SCRAM, Login, Offer

if TYPE_CHECKING:
    from scramp import ScramClient

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SMALLEST_FRAME = 8
SASL_FRAME = 1
MECHANISMS, INIT, CHALLENGE, RESPONSE, OUTCOME = range(0x40, 0x45)
NAMES = {
    MECHANISMS: "sasl-mechanisms",
    INIT: "sasl-init",
    CHALLENGE: "sasl-challenge",
    RESPONSE: "sasl-response",
    OUTCOME: "sasl-outcome",
}
FROM_DIALLER, FROM_LISTENER = 2048, 4096
"""Bytes of the largest frame that is taken."""
MAX_ROUNDS = 6
MAX_ITERATIONS = 200_000
"""Of SCRAM: what a listener may have us compute is a quarter of a second."""
OK, REFUSED = 0, 1
MISREAD = (ValueError, IndexError, KeyError, TypeError)
"""What scramp meets in a message that is no SCRAM."""


class Refused(Exception):
    """The peer may not go on; `say` is what it is told before the end."""

    def __init__(self, words: str, say: bytes = b"") -> None:
        super().__init__(words)
        self.say = say


class Negotiation(Protocol):
    """One side of the exchange. `identity` is whom the peer has proven to be, when `done`."""

    identity: str
    done: bool

    def begin(self) -> bytes:
        """What is said unasked."""
        ...

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What to say to that, and the AMQP that came behind it. Raises `Refused`."""
        ...


@dataclass(slots=True)
class Frames:
    """Cuts a stream into the protocol header, SASL frames and what follows them. Keeps at most one frame."""

    largest: int
    kept: bytes = b""

    def header(self) -> bytes | None:
        """The first eight bytes, when they are there and are a header of AMQP or its SASL."""
        begun = self.kept[: len(SASL_HEADER)]
        if not SASL_HEADER.startswith(begun) and not AMQP_HEADER.startswith(begun):
            raise Refused("expected the SASL protocol header 'AMQP 3 1 0 0'", SASL_HEADER)
        if len(begun) < len(SASL_HEADER):
            return None
        self.kept = self.kept[len(begun) :]
        return begun

    def frame(self, *allowed: int) -> tuple[int, list[Plain]] | None:
        """The next frame, when it is there whole: its code and fields."""
        if len(self.kept) < SMALLEST_FRAME:
            return None
        size, at = int.from_bytes(self.kept[:4]), self.kept[4] * 4
        if not SMALLEST_FRAME < size <= self.largest:
            raise Refused(f"expected a SASL frame of at most {self.largest} bytes, not of {size}")
        if self.kept[5] != SASL_FRAME or not SMALLEST_FRAME <= at < size:
            raise Refused(f"expected a SASL frame before authentication, not frame type {self.kept[5]}")
        if len(self.kept) < size:
            return None
        frame, self.kept = self.kept[:size], self.kept[size:]
        return _performative(frame[at:], allowed)

    def amqp(self) -> bytes:
        """All of what follows, when it begins as AMQP does: proton would guess at anything else."""
        if not AMQP_HEADER.startswith(self.kept[: len(AMQP_HEADER)]):
            raise Refused("expected the protocol header 'AMQP 0 1 0 0' after authentication")
        if len(self.kept) < len(AMQP_HEADER):
            return b""
        rest, self.kept = self.kept, b""
        return rest


def _performative(raw: bytes, allowed: tuple[int, ...]) -> tuple[int, list[Plain]]:
    try:
        code, at = codec.decode(raw, 1) if raw[:1] == b"\0" else (None, 0)
        if not isinstance(code, int) or isinstance(code, bool) or code not in allowed:
            raise Refused(f"expected {' or '.join(NAMES[each] for each in allowed)} before authentication")
        fields, end = codec.decode(raw, at)
    except codec.Malformed as error:
        raise Refused(f"a SASL frame cannot be read: {error}") from error
    if not isinstance(fields, list) or end != len(raw):
        raise Refused("a SASL frame is not a list of fields")
    return code, fields


def frame_of(code: int, *fields: bytes) -> bytes:
    """A SASL frame of fields that are encoded already."""
    body = b"\0" + codec.ulong(code) + codec.list_of(fields)
    return (SMALLEST_FRAME + len(body)).to_bytes(4) + bytes((2, SASL_FRAME, 0, 0)) + body


def _said(fields: list[Plain], place: int) -> bytes:
    value = fields[place] if place < len(fields) else None
    return value if isinstance(value, bytes) else b""


@dataclass(slots=True)
class Listening:
    """The listener's side."""

    offer: Offer
    identity: str = ""
    done: bool = False
    _frames: Frames = field(default_factory=lambda: Frames(FROM_DIALLER))
    _step: "Callable[[bytes], tuple[int, bytes]] | None" = None
    _greeted: bool = False
    _passed: bool = False
    _rounds: int = 0

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        self._frames.kept += data
        say = b""
        if not self._greeted:
            header = self._frames.header()
            if header is None:
                return b"", b""
            self._greeted = True
            if header == AMQP_HEADER:
                self._without_sasl()
                self._frames.kept = header + self._frames.kept
            else:
                symbols = [codec.symbol(each) for each in self.offer.mechanisms]
                say = SASL_HEADER + frame_of(MECHANISMS, _symbols(symbols))
        while not self._passed:
            frame = self._frames.frame(RESPONSE if self._step else INIT)
            if frame is None:
                return say, b""
            say += self._answer(frame[1])
        rest = self._frames.amqp()
        self.done = bool(rest)
        return say, rest

    def _without_sasl(self) -> None:
        """AMQP lets a peer leave SASL out: it is then who the connection says, or nobody."""
        identity = self.offer.external or (ANONYMOUS.lower() if ANONYMOUS in self.offer.mechanisms else "")
        if not identity:
            raise Refused("the peer left out SASL, and nothing else says who it is", SASL_HEADER)
        self.identity, self._passed = identity, True

    def _answer(self, fields: list[Plain]) -> bytes:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise self._refusal("the peer did not come to an end")
        if self._step is None:
            mechanism, said = fields[0] if fields else None, _said(fields, 1)
            if mechanism not in self.offer.mechanisms:
                raise self._refusal(f"mechanism '{str(mechanism)[:32]}' is not offered")
            self._step = self._mechanism(str(mechanism))
            if mechanism in SCRAM and not said:
                return frame_of(CHALLENGE, codec.binary(b""))
        else:
            said = _said(fields, 0)
        code, answer = self._step(said)
        if code == CHALLENGE:
            return frame_of(CHALLENGE, codec.binary(answer))
        self._passed = True
        return frame_of(OUTCOME, codec.ubyte(OK), codec.binary(answer) if answer else codec.NULL)

    def _mechanism(self, name: str) -> "Callable[[bytes], tuple[int, bytes]]":
        if name == PLAIN:
            return self._plain
        if name == EXTERNAL:
            return self._external
        return self._scram(name) if name in SCRAM else self._anonymous

    def _anonymous(self, _said: bytes) -> tuple[int, bytes]:
        self.identity = ANONYMOUS.lower()
        return OUTCOME, b""

    def _external(self, said: bytes) -> tuple[int, bytes]:
        if said and said != self.offer.external.encode():
            raise self._refusal(f"the peer is '{self.offer.external}', and asked to be another")
        self.identity = self.offer.external
        return OUTCOME, b""

    def _plain(self, said: bytes) -> tuple[int, bytes]:
        parts = said.split(b"\0")
        if len(parts) != 3 or (parts[0] and parts[0] != parts[1]) or self.offer.users is None:
            raise self._refusal("PLAIN without a user, or as another")
        name = parts[1].decode("utf-8", "replace")
        if not self.offer.users.check(name, parts[2].decode("utf-8", "replace")):
            raise self._refusal(f"wrong password, or no such user: '{name[:64]}'")
        self.identity = name
        return OUTCOME, b""

    def _scram(self, mechanism: str) -> "Callable[[bytes], tuple[int, bytes]]":
        users = self.offer.users
        if users is None:
            raise self._refusal("there are no users")
        from scramp import ScramMechanism

        asked: list[str] = []

        def keys(name: str) -> tuple[bytes, bytes, bytes, int]:
            asked.append(name)
            return users.keys(name)

        server = ScramMechanism(mechanism).make_server(keys)

        def first(said: bytes) -> tuple[int, bytes]:
            self._step = last
            with self._refusing():
                server.set_client_first(said.decode())
                return CHALLENGE, server.get_server_first().encode()

        def last(said: bytes) -> tuple[int, bytes]:
            with self._refusing():
                server.set_client_final(said.decode())
                self.identity = asked[-1]
                return OUTCOME, server.get_server_final().encode()

        return first

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        from scramp import ScramException

        try:
            yield
        except (ScramException, *MISREAD) as error:
            raise self._refusal(f"the peer could not prove who it is: {error}") from error

    def _refusal(self, words: str) -> Refused:
        return Refused(words, frame_of(OUTCOME, codec.ubyte(REFUSED)))


def _symbols(symbols: list[bytes]) -> bytes:
    """An array: the standard lets one symbol stand alone, and some clients read nothing but arrays."""
    items = b"".join(len(each[2:]).to_bytes(1) + each[2:] for each in symbols)
    return b"\xe0" + bytes((len(items) + 2, len(symbols), 0xA3)) + items


@dataclass(slots=True)
class Dialling:
    """The dialler's side: the first of the login's mechanisms that the listener offers."""

    login: Login
    identity: str = ""
    done: bool = False
    _frames: Frames = field(default_factory=lambda: Frames(FROM_LISTENER))
    _greeted: bool = False
    _passed: bool = False
    _scram: "ScramClient | None" = None
    _proven: bool = True
    _rounds: int = 0
    _asked: tuple[int, ...] = (MECHANISMS,)

    def begin(self) -> bytes:
        return SASL_HEADER

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        self._frames.kept += data
        if not self._greeted:
            header = self._frames.header()
            if header is None:
                return b"", b""
            if header != SASL_HEADER:
                raise Refused("the listener does not speak SASL")
            self._greeted = True
        say = b""
        while not self._passed:
            frame = self._frames.frame(*self._asked)
            if frame is None:
                return say, b""
            say += self._answer(*frame)
        rest = self._frames.amqp()
        self.done = True
        return say, rest

    def _answer(self, code: int, fields: list[Plain]) -> bytes:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise Refused("the listener did not come to an end")
        if code == MECHANISMS:
            return self._choose(fields)
        if self._scram is None:
            return self._ended(fields) if code == OUTCOME else self._challenged(fields)
        from scramp import ScramException

        try:
            return self._ended(fields) if code == OUTCOME else self._challenged(fields)
        except (ScramException, *MISREAD) as error:
            raise Refused(f"the listener could not prove who it is: {error}") from error

    def _choose(self, fields: list[Plain]) -> bytes:
        offered = fields[0] if fields else None
        names = [str(each) for each in offered] if isinstance(offered, list) else [str(offered)]
        chosen = next((each for each in self.login.mechanisms if each in names), None)
        if chosen is None:
            wanted = " or ".join(self.login.mechanisms)
            raise Refused(f"the listener offers {', '.join(names)[:200]}, and we have {wanted}")
        self._asked = (CHALLENGE, OUTCOME)
        return frame_of(INIT, codec.symbol(chosen), codec.binary(self._first(chosen)))

    def _first(self, mechanism: str) -> bytes:
        user, password = self.login.user or "", self.login.password or ""
        if mechanism in SCRAM:
            from scramp import ScramClient, ScramException

            self._proven = False
            try:
                self._scram = ScramClient([mechanism], user, password)
                return str(self._scram.get_client_first()).encode()
            except ScramException as error:  # an empty name, characters that no name has
                raise Refused(f"the login cannot be made: {error}") from error
        if mechanism == PLAIN:
            return f"\0{user}\0{password}".encode()
        return b"anonymous" if mechanism == ANONYMOUS else b""

    def _challenged(self, fields: list[Plain]) -> bytes:
        said = _said(fields, 0).decode()
        if self._scram is None or self._proven:
            raise Refused("the listener asked what its mechanism does not ask")
        if said.startswith("v="):  # some prove themselves before the outcome
            self._prove(said)
            return frame_of(RESPONSE, codec.binary(b""))
        # of an attribute that comes twice scramp takes the last
        wanted = [part[2:] for part in said.split(",") if part.startswith("i=")]
        if len(wanted) != 1 or not wanted[0].isdecimal() or int(wanted[0][:9]) > MAX_ITERATIONS:
            raise Refused(f"the listener wants more than {MAX_ITERATIONS} rounds of SCRAM")
        self._scram.set_server_first(said)
        return frame_of(RESPONSE, codec.binary(str(self._scram.get_client_final()).encode()))

    def _prove(self, said: str) -> None:
        if self._scram is not None:
            self._scram.set_server_final(said)
        self._proven = True

    def _ended(self, fields: list[Plain]) -> bytes:
        if not fields or fields[0] != OK or isinstance(fields[0], bool):
            raise Refused("the listener refused the login")
        proof = _said(fields, 1)
        if proof and not self._proven:
            self._prove(proof.decode())
        if not self._proven:
            raise Refused("the listener did not prove that it knows the password")
        self.identity, self._passed = self.login.user or ANONYMOUS.lower(), True
        return b""
