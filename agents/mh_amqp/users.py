"""The users that a listener knows, by a file that holds no password.

A line each, in the form that PostgreSQL keeps its verifiers in (RFC 5803)::

    console:SCRAM-SHA-256$4096:SALT$STORED-KEY:SERVER-KEY

`verifier` makes one. The file is read again when it has changed.
"""

import hashlib
import hmac
import logging
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libmh.errors import BackendFailed, InvalidArguments

log = logging.getLogger(__name__)
MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096  # a login is over TLS, and a listener must not be kept busy by those who guess
SALT_BYTES = 16
NAME = re.compile(r"(?!anonymous)[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
"""What no certificate, socket or stranger is called."""
MAX_FILE = 4 << 20
LINE = re.compile(r"([^:\s]+):SCRAM-SHA-256\$([0-9]{4,6}):([^$:]+)\$([^$:]+):([^$:\s]+)")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a password is checked against (RFC 5802): it does not tell the password."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def line(self, name: str) -> str:
        """As it stands in the file."""
        keys = ":".join(b64encode(each).decode() for each in (self.stored_key, self.server_key))
        return f"{name}:{MECHANISM}${self.iterations}:{b64encode(self.salt).decode()}${keys}"

    def fits(self, password: str) -> bool:
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, self.iterations)
        key = hmac.digest(salted, b"Client Key", "sha256")
        return hmac.compare_digest(hashlib.sha256(key).digest(), self.stored_key)


def verifier(name: str, password: str) -> Verifier:
    """The verifier of a new user. Raises `InvalidArguments` for a name or password that cannot be."""
    if not NAME.fullmatch(name):
        raise InvalidArguments(
            f"'{name[:64]}' is no user's name: expected letters, digits and _ . @ -", argument="name"
        )
    if not password or not password.isascii() or not password.isprintable():
        raise InvalidArguments("a password is made of printable ASCII characters", argument="password")
    from scramp import ScramMechanism  # two megabytes that most listeners never need

    salt, stored, server, iterations = ScramMechanism(MECHANISM).make_auth_info(
        password, iteration_count=ITERATIONS, salt=secrets.token_bytes(SALT_BYTES)
    )
    return Verifier(iterations, salt, stored, server)


@dataclass(slots=True)
class Users:
    """The users of a file. A login asks for the file as it is now; who cannot read it lets nobody in."""

    path: Path
    _seen: tuple[int, int, int] | None = None
    _known: Mapping[str, Verifier] = field(default_factory=dict)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def check(self, name: str, password: str) -> bool:
        """Whether that is the user's password. It takes as long where there is no such user."""
        known = self._verifier(name)
        return known.fits(password) and name in self._known

    def keys(self, name: str) -> tuple[bytes, bytes, bytes, int]:
        """What SCRAM needs of a user: salt, stored key, server key, iterations."""
        known = self._verifier(name)
        return known.salt, known.stored_key, known.server_key, known.iterations

    def read(self) -> Mapping[str, Verifier]:
        """The users by name. Raises `backend-failed` for a file that cannot be read or has a bad line."""
        try:
            status = self.path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen != self._seen:
                with self.path.open(encoding="ascii") as file:
                    self._known = parse(file.read(MAX_FILE), str(self.path))
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            raise BackendFailed(f"cannot read the users in '{self.path}': {error}") from error
        return self._known

    def _verifier(self, name: str) -> Verifier:
        try:
            known = self.read()
        except BackendFailed as problem:
            log.error("%s; nobody can log in by password", problem)  # noqa: TRY400 - its words are enough
            self._known, self._seen = {}, None
            known = {}
        return known.get(name) or self._nobodys(name)

    def _nobodys(self, name: str) -> Verifier:
        """Of a user that is not there: the same each time, so that asking does not tell."""
        made = hmac.digest(self._secret, name.encode(), "sha512")
        return Verifier(ITERATIONS, made[:SALT_BYTES], made[-32:], made[-48:-16])


def parse(text: str, where: str) -> dict[str, Verifier]:
    """The users of a file's text; empty lines and those that begin with # are nothing. Raises
    `backend-failed` with the number of a bad line."""
    found: dict[str, Verifier] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        matched = LINE.fullmatch(line.strip())
        if matched is None or not NAME.fullmatch(matched[1]) or matched[1] in found:
            raise BackendFailed(f"'{where}', line {number}: expected NAME:{MECHANISM}$..., each name once")
        try:
            salt, stored, server = (b64decode(each, validate=True) for each in matched.group(3, 4, 5))
        except BadBase64 as error:
            raise BackendFailed(f"'{where}', line {number}: {error}") from error
        found[matched[1]] = Verifier(int(matched[2]), salt, stored, server)
    return found
