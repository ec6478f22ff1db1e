"""Which hosts a login is, for whoever has to tell one host from another by what it has proven.

In this order: what `[hosts]` declares, a pattern over identities with the UUID of a host or a list of them;
a UUID in the identity itself (`CN=9f2c1d...`); else the first identity that comes with a UUID keeps it.
That is written to a file, a line each, UUID and identity: who takes a line away lets the next one come.
"""

import errno
import fnmatch
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libmh.errors import InvalidArguments

log = logging.getLogger(__name__)
Declared = tuple[tuple[str, tuple[str, ...]], ...]
UUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(-?)(?:[0-9A-Fa-f]{4}\1){3}[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
NAME = re.compile(r"[0-9A-Za-z._:-]{1,200}")
MAX_KEPT = 200_000
MAX_EACH = 20_000
MAX_FILE = 64 << 20
LOOK_SECONDS = 1.0


def plain(uuid: str) -> str:
    """A UUID as it is compared: without dashes, in small letters."""
    return uuid.replace("-", "").lower()


def declared(table: Mapping[str, object]) -> Declared:
    """The table `[hosts]` of a configuration. Raises `InvalidArguments`."""
    found = []
    for identity, value in table.items():
        uuids = value if isinstance(value, list) else [value]
        if not uuids or not all(isinstance(each, str) and each for each in uuids):
            raise InvalidArguments(
                f"[hosts] '{identity[:100]}': expected the UUID of a host, or a list of them",
                argument="hosts",
            )
        found.append((identity, tuple(map(plain, uuids))))
    return tuple(found)


@dataclass(slots=True)
class Owners:
    """`path` is where it is kept who came first; without one it is forgotten at the end."""

    path: Path | None = None
    _declared: Declared = ()
    _spoken_for: frozenset[str] = frozenset()
    _known: dict[str, frozenset[str] | None] = field(default_factory=dict)
    _kept: dict[str, str] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _seen: tuple[int, int, int] = (0, 0, 0)
    _looked: float = 0.0
    _complained: bool = False
    _full: bool = False

    def declare(self, table: Declared) -> None:
        """What `[hosts]` says is in force from now on."""
        self._declared = table
        self._spoken_for = frozenset(uuid for _, uuids in table for uuid in uuids)
        self._known.clear()

    def may_be(self, identity: str, uuid: str) -> bool:
        """Whether an identity is that host, or would be if it came now."""
        return bool(NAME.fullmatch(uuid)) and self.owner(identity, plain(uuid)) in (identity, "")

    def is_one(self, identity: str, uuid: str) -> bool:
        """Whether an identity is that host."""
        return self.owner(identity, plain(uuid)) == identity

    def owner(self, identity: str, uuid: str) -> str:
        """Whose the UUID is, if that is for `identity` to know: itself, somebody else, or "" for nobody."""
        bound = self._bound(identity)
        if bound is not None:
            return identity if uuid in bound else "another"
        if uuid in self._spoken_for:
            return "another"
        self._look()
        return self._kept.get(uuid, "")

    def claim(self, identity: str, uuid: str) -> None:
        """Keep whose a UUID is from now on, if it is nobody's yet: who may receive from any host does not
        become one that there is. One identity may be many hosts, within reason."""
        if not self.may_be(identity, uuid) or self.is_one(identity, uuid):
            return
        uuid = plain(uuid)
        if len(self._kept) < MAX_KEPT and self._counts[identity] < MAX_EACH:
            self._counts[identity] += 1
            log.info("host %s is '%s' from now on", uuid, identity)
            self._kept[uuid] = identity
            self._write(uuid, identity)
        elif not self._full:
            self._full = True
            log.warning(
                "no more is kept of whose hosts are whose: there are %d, %d of them '%s'",
                *(len(self._kept), self._counts[identity], identity),
            )

    def _bound(self, identity: str) -> frozenset[str] | None:
        """The hosts that an identity is by declaration or by name; None where neither says."""
        if identity not in self._known:
            if len(self._known) >= MAX_KEPT:
                self._known.clear()
            self._known[identity] = self._found(identity)
        return self._known[identity]

    def _found(self, identity: str) -> frozenset[str] | None:
        for glob, uuids in self._declared:
            if fnmatch.fnmatchcase(identity, glob):
                return frozenset(uuids)
        named = frozenset(plain(found[0]) for found in UUID.finditer(identity))
        return named or None

    def _look(self) -> None:
        now = time.monotonic()
        if self.path is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            seen = _stamp(self.path)
            if seen != self._seen:
                self._kept = dict(_lines(self.path))
                self._counts = Counter(self._kept.values())
                self._seen = seen
        except FileNotFoundError:  # nobody has come yet, or all were let go
            if self._seen != (0, 0, 0):
                self._kept, self._counts, self._seen = {}, Counter(), (0, 0, 0)
        except (OSError, UnicodeDecodeError) as error:
            self._complain(error)

    def _write(self, uuid: str, identity: str) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ours = not self.path.exists() or _stamp(self.path) == self._seen
            _append(self.path, f"{uuid} {identity}\n".encode())
            if ours:  # else somebody has changed it since, and it is read when we look next
                self._seen = _stamp(self.path)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            log.error("whose hosts are whose cannot be kept in '%s': %s", self.path, error)
        self._complained = True


def _append(path: Path, line: bytes) -> None:
    """A whole line, or nothing: the next would be read as the rest of one that a full disk has cut."""
    place = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(place).st_size
        if os.write(place, line) != len(line):
            os.ftruncate(place, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(place)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _lines(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:  # an identity may end with a space, or have an odd one
        found = [line.lstrip().partition(" ") for line in file.read(MAX_FILE).split("\n")]
    # the first that came is the one
    return [(plain(uuid), identity) for uuid, _, identity in reversed(found) if uuid and identity]
