"""Signed requests: who asks is proven by the console's key, whatever stands between it and the agent.

A signature is over where the message goes, its id, its application properties and its body, so that a broker
can delay or drop a request, and nothing else: not change it, not send it to another address, and within its
lifetime not send it twice, for an id that was seen is answered from the record or refused. What was seen
outlives this process.
"""

import errno
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotAuthorized, Unavailable
from libmh.keys import TRUSTED, PrivateKey, Trusted
from libmh.spec import Plain
from mh_amqp import codec
from mh_amqp.messages import Message
from mh_amqp.record import unique

log = logging.getLogger(__name__)
KEY, ISSUED, LIFETIME, SIGNATURE = "mh:key", "mh:issued", "mh:lifetime", "mh:signature"
UNSIGNED = (SIGNATURE, "mh:trace")
FORM = "mh-signed-1"
IDENTITY = "key:"
GRACE_MS = 30_000
"""How far two clocks may be apart."""
LONGEST_MS = 7 * 24 * 3600 * 1000
DEFAULT_MS = 120_000
MAX_SEEN = 100_000
MAX_FILE = 16 << 20


def signed(message: Message, key: PrivateKey, lifetime_ms: int = DEFAULT_MS) -> Message:
    """The message with its signature; its id, address and body may not change afterwards."""
    properties: dict[str, Plain] = {
        **message.properties,
        KEY: key.public.id,
        ISSUED: int(time.time() * 1000),
        LIFETIME: lifetime_ms,
    }
    named = replace(message, properties=properties)
    return replace(named, properties={**properties, SIGNATURE: key.sign(canonical(named))})


def canonical(message: Message) -> bytes:
    """What is signed, the same on both sides: an AMQP list of strings, the id as it is encoded, the
    properties in order, and digests of the body."""
    properties = {
        name: message.properties[name] for name in sorted(message.properties) if name not in UNSIGNED
    }
    return codec.list_of(
        [
            codec.string(FORM),
            codec.string(message.to or ""),
            codec.binary(message.message_id),
            codec.any_value(properties),
            codec.string(message.content_type or ""),
            codec.string(message.content_encoding or ""),
            codec.binary(hashlib.sha256(message.data or b"").digest()),
            codec.binary(hashlib.sha256(message.value or b"").digest()),
        ]
    )


@dataclass(slots=True)
class Seen:
    """Ids of signed requests until they expire. They are appended to a file, so that an agent that was
    killed knows them when it is back; `earlier` are those of earlier processes, whose answers are lost."""

    path: Path | None = None
    earlier: dict[bytes, int] = field(default_factory=dict)
    _now: dict[bytes, int] = field(default_factory=dict)
    _file: int = -1

    def open(self) -> None:
        """Read what earlier processes saw, and begin a new file. Raises `BackendFailed`."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.close()
            self.earlier = self._read(self.path)
            self._begin(self.path)
        except OSError as error:
            raise BackendFailed(f"cannot keep what was seen in '{self.path}': {error.strerror}") from error

    def remember(self, number: bytes, expires_ms: int) -> None:
        """Keep an id that nobody may use again. `Conflict` when it was used; `Unavailable` when it cannot be
        kept, for what is not kept could be run twice."""
        now = time.time() * 1000
        if max(self.earlier.get(number, 0), self._now.get(number, 0)) > now:
            raise Conflict("this request was made before, and its answer is no longer known")
        try:
            if len(self._now) >= MAX_SEEN:
                self._sweep(now)
            if len(self._now) >= MAX_SEEN:
                raise Unavailable(f"{MAX_SEEN} signed requests are remembered, try again later")
            if self.path is not None:
                self._append(f"{expires_ms} {number.hex()}\n".encode())
        except OSError as error:
            raise Unavailable(f"what was asked cannot be kept: {error.strerror}") from error
        self._now[number] = expires_ms

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full, and what is cut short would spoil the next line
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def forget(self, number: bytes) -> None:
        """What was asked did not come to pass, and may be asked again."""
        self._now.pop(number, None)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, path: Path) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        now = time.time() * 1000
        try:
            text = path.read_text("ascii", "replace")
        except FileNotFoundError:
            return {}
        for line in text.splitlines():
            expires, _, number = line.partition(" ")
            try:
                if int(expires) > now:
                    found[bytes.fromhex(number)] = int(expires)
            except ValueError:  # the last line, of a process that was killed
                log.info("'%s': a line is cut short, ignoring", path)
        return found

    def _begin(self, path: Path) -> None:
        """A new file in the place of the old one, which stays as it is when that fails."""
        temporary = path.with_name(path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600)
        known = self.earlier | self._now
        try:
            with os.fdopen(file, "wb", closefd=False) as whole:
                whole.write(b"".join(f"{until} {each.hex()}\n".encode() for each, until in known.items()))
            os.fsync(file)
            temporary.replace(path)
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file = file

    def _sweep(self, now: float) -> None:
        before = len(self.earlier) + len(self._now)
        self.earlier = {each: until for each, until in self.earlier.items() if until > now}
        self._now = {each: until for each, until in self._now.items() if until > now}
        if self.path is not None and len(self.earlier) + len(self._now) < before:
            self._begin(self.path)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a signed request may be run by, once."""

    number: bytes
    expires_ms: int


@dataclass(slots=True)
class Signatures:
    """Checks what is signed. `required`: nothing else is taken."""

    trusted: Trusted
    seen: Seen = field(default_factory=Seen)
    required: bool = False

    def check(self, message: Message, otherwise: str) -> tuple[str, Ticket | None]:
        """`key:NAME` of who signed, with the ticket that the request is good for; of a message without a
        signature whom the connection says. Raises `NotAuthorized` for a signature that does not hold, or
        that is missing."""
        signature = message.properties.get(SIGNATURE)
        if signature is None:
            if self.required:
                raise NotAuthorized("only signed requests are taken here")
            return otherwise, None
        key = self.trusted.find(message.text(KEY) or "")
        if key is None:
            raise NotAuthorized(f"the key '{(message.text(KEY) or '')[:64]}' is not trusted here")
        expires = _expires(message)
        if not isinstance(signature, bytes) or not key.verify(signature, canonical(message)):
            raise NotAuthorized(f"the signature of '{IDENTITY}{key.name}' does not hold")
        if not message.message_id or not unique(message.message_id):
            raise NotAuthorized("a signed request needs an id that no other has: a UUID, or as long")
        number = hashlib.sha256(key.raw + message.message_id).digest()[:16]
        return IDENTITY + key.name, Ticket(number, expires)


def _expires(message: Message) -> int:
    issued, lifetime = message.number(ISSUED), message.number(LIFETIME)
    now = int(time.time() * 1000)
    if issued is None or lifetime is None or not 0 < lifetime <= LONGEST_MS:
        raise NotAuthorized(f"a signed request needs {ISSUED} and {LIFETIME}, in milliseconds")
    if issued > now + GRACE_MS:
        raise NotAuthorized(f"this was signed {(issued - now) / 1000:.0f} s in the future: see the clocks")
    if issued + lifetime <= now - GRACE_MS:
        raise NotAuthorized(f"this was signed for {lifetime / 1000:.0f} s, which are over: see the clocks")
    return issued + lifetime + GRACE_MS


def signatures_of(config: Mapping[str, Any], state: Path) -> Signatures:
    """Whose signatures an agent takes, by the table `[signing]`: `keys`, a directory, and `required`. What
    was seen is kept in the file `state`. Raises `InvalidArguments`, `BackendFailed`."""
    table = config.get("signing", {})
    directory, required = table.get("keys", str(TRUSTED)), table.get("required", False)
    if (
        not set(table) <= {"keys", "required"}
        or not isinstance(directory, str)
        or required not in (True, False)
    ):
        raise InvalidArguments(
            "[signing]: expected keys, a directory, and required, a bool", argument="signing"
        )
    seen = Seen(state)
    seen.open()
    return Signatures(Trusted(Path(directory)), seen, required)
