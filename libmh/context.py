"""What a provider is given: the machine's root, the agent's settings, and where to raise events."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

from libmh.errors import BackendFailed, NotAuthorized, NotImplementedHere, Problem
from libmh.events import Hub
from libmh.settings import Settings, default_state, replace_file

__all__ = ["Context", "Root", "Settings", "default_state", "replace_file", "unreadable"]

MAX_FILE = 1 << 20
CHUNK = 1 << 16  # a buffer of the whole limit would be cleared at every read


@dataclass(frozen=True, slots=True)
class Root:
    """Where the machine's files are: `/`, or a captured machine in a test."""

    base: Path = Path("/")

    def path(self, name: str) -> Path:
        """The place of an absolute file name below this root."""
        return self.base / name.lstrip("/")

    def read(self, name: str, limit: int = MAX_FILE) -> str:
        """The text of a file, at most `limit` bytes. A missing file is `not-implemented`, an unreadable one
        `not-authorized`, anything else `backend-failed`; bytes that are not UTF-8 are replaced."""
        try:
            with self.path(name).open("rb", buffering=0) as file:
                found = b""
                while len(found) < limit and (part := file.read(min(CHUNK, limit - len(found)))):
                    found += part
                return found.decode("utf-8", "replace")
        except OSError as error:
            raise unreadable(name, error) from error

    def read_optional(self, name: str) -> str | None:
        """The stripped text of a small file, or None where it is missing, empty or unreadable."""
        try:
            return self.read(name).strip() or None
        except Problem:
            return None


def unreadable(name: str, error: OSError) -> Problem:
    """The problem that an OSError on a file of the machine is."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
        return NotImplementedHere(f"'{name}' does not exist here", source=name)
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotAuthorized(f"'{name}' may not be read by this process", source=name)
    return BackendFailed(f"cannot read '{name}': {error.strerror}", source=name)


@dataclass(frozen=True, slots=True)
class Context:
    """Given to every provider when it is made."""

    root: Root = field(default_factory=Root)
    settings: Settings = field(default_factory=Settings)
    events: Hub = field(default_factory=Hub)
