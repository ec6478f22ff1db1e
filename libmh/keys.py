"""Ed25519 keys that consoles sign requests with, as files.

A private key is PEM (PKCS 8), readable by its owner alone; a public one is a line, `mh-ed25519 BASE64 NAME`.
An agent trusts the keys in a directory, each in a file `NAME.pub`: whoever signs with one is `key:NAME`. The
directory is read again when it has changed.
"""

import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KIND = "mh-ed25519"
NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.@-]{0,63}")
SUFFIX = ".pub"
TRUSTED = Path("/etc/matahari/keys")
RAW_BYTES = 32
SHOWN = 16
MAX_FILE = 4096
MAX_KEYS = 10_000
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`id` says which key signed: the first half of the SHA-256 of its bytes, in hex."""

    name: str
    raw: bytes

    @property
    def id(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()[: 2 * SHOWN]

    @property
    def line(self) -> str:
        """As it stands in a file."""
        return f"{KIND} {base64.b64encode(self.raw).decode()} {self.name}"

    def verify(self, signature: bytes, text: bytes) -> bool:
        """Whether the key has signed that."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What a console signs with."""

    public: PublicKey
    _key: "Ed25519PrivateKey" = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text)


def generate(name: str, path: Path) -> PublicKey:
    """Make a key, and write it and its public half, `PATH.pub`. `conflict` when there is one already."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = PublicKey(_checked(name), key.public_key().public_bytes_raw())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        path.with_name(path.name + SUFFIX).write_text(public.line + "\n")
    except FileExistsError:
        raise Conflict(f"'{path}' is there already: a key that was lost cannot be made again") from None
    except OSError as error:
        raise BackendFailed(f"cannot write '{path}': {error.strerror}") from error
    return public


def load(path: Path) -> PrivateKey:
    """A private key; its name is that of its public half beside it. Raises `NotFound`, `BackendFailed`,
    and `InvalidArguments` for what is no Ed25519 key, or can be read by others."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        if path.stat().st_mode & 0o077:
            raise InvalidArguments(f"'{path}' can be read by others: expected the mode 0600", argument="key")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise NotFound(f"there is no key '{path}': `mhctl key generate` makes one") from None
    except OSError as error:
        raise BackendFailed(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, TypeError) as error:  # no PEM; one with a passphrase
        raise InvalidArguments(f"'{path}' is no private key: {error}", argument="key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidArguments(f"'{path}' is no Ed25519 key", argument="key")
    beside = path.with_name(path.name + SUFFIX)
    name = read(beside).name if beside.exists() else path.stem
    return PrivateKey(PublicKey(name, key.public_key().public_bytes_raw()), key)


def parse(text: str, where: str) -> PublicKey:
    """The public key of a line. Raises `InvalidArguments`."""
    words = text.split()
    try:
        kind, encoded, name = words
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidArguments(f"{where}: expected '{KIND} BASE64 NAME'", argument="key") from None
    if kind != KIND or len(raw) != RAW_BYTES:
        raise InvalidArguments(f"{where}: expected '{KIND} BASE64 NAME'", argument="key")
    return PublicKey(_checked(name), raw)


def read(path: Path) -> PublicKey:
    """The public key of a file. Raises `NotFound`, `BackendFailed`, `InvalidArguments`."""
    try:
        with path.open(encoding="ascii") as file:
            return parse(file.read(MAX_FILE), f"'{path}'")
    except FileNotFoundError:
        raise NotFound(f"there is no key '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BackendFailed(f"cannot read '{path}': {error}") from error


def trust(key: PublicKey, directory: Path = TRUSTED) -> Path:
    """Let a key be trusted by the agents of this host. `conflict` when another has its name."""
    path = directory / f"{key.name}{SUFFIX}"
    if path.exists() and read(path).raw != key.raw:
        raise Conflict(f"'{path}' is another key: revoke it first")
    temporary = directory / f".{key.name}.new"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(key.line + "\n")
        temporary.replace(path)
    except OSError as error:
        raise BackendFailed(f"cannot write '{path}': {error.strerror}") from error
    return path


def revoke(name: str, directory: Path = TRUSTED) -> None:
    """Let a key be trusted no more. `not-found` when there is none of that name."""
    try:
        (directory / f"{_checked(name)}{SUFFIX}").unlink()
    except FileNotFoundError:
        raise NotFound(f"there is no key '{name}' in '{directory}'") from None
    except OSError as error:
        raise BackendFailed(f"cannot revoke '{name}': {error.strerror}") from error


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InvalidArguments(
            f"'{name[:64]}' is no key's name: expected letters, digits and _ . @ -", argument="name"
        )
    return name


@dataclass(slots=True)
class Trusted:
    """The keys of a directory, by id. A file that cannot be read is a key that is not trusted, and told in
    `broken`."""

    directory: Path
    broken: dict[str, str] = field(default_factory=dict)
    _keys: Mapping[str, PublicKey] = field(default_factory=dict)
    _seen: frozenset[tuple[str, int, int, int]] = frozenset()
    _looked: float = 0.0

    def find(self, key_id: str) -> PublicKey | None:
        """The trusted key of an id."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        return self._keys.get(key_id)

    def _look(self) -> None:
        try:
            with os.scandir(self.directory) as entries:
                found = [_state(each) for each in entries if each.name.endswith(SUFFIX)]
        except OSError:  # there is none, so nobody is trusted
            self._keys, self._seen = {}, frozenset()
            return
        # of each file, for one that is overwritten in its place is no change of the directory
        seen = frozenset(found)
        # a change within the tick of the file system's clock would not show
        newest = max((changed for *_, changed in found), default=0)
        if seen != self._seen or time.time_ns() - newest < 2 * 10**9:
            self._keys, self._seen = self._read(), seen

    def _read(self) -> dict[str, PublicKey]:
        found: dict[str, PublicKey] = {}
        self.broken = {}
        for path in sorted(self.directory.glob(f"*{SUFFIX}"))[:MAX_KEYS]:
            try:
                key = read(path)
                if path.name != key.name + SUFFIX:
                    raise InvalidArguments(f"'{path}' is the key of '{key.name}'", argument="key")
            except (BackendFailed, InvalidArguments, NotFound) as problem:
                self.broken[path.name] = str(problem)
            else:
                found[key.id] = key
        return found


def _state(entry: "os.DirEntry[str]") -> tuple[str, int, int, int]:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere, or a file that went just now
        return entry.name, 0, 0, 0
    return entry.name, status.st_ino, status.st_size, status.st_mtime_ns
