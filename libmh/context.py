"""What a provider is given: the machine's root, the agent's settings, and where to raise events."""

import errno
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libmh.errors import BackendFailed, NotAuthorized, NotImplementedHere, Problem
from libmh.events import Hub
from libmh.spec import Plain

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


class Settings:
    """Values that persist, in a JSON file that the agents of a host share; in memory where there is none.

    A write is a whole new file, renamed into place; a reader notices by the file's identity and time.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._values: dict[str, Plain] = {}

    def get(self, key: str, default: Plain) -> Plain:
        with self._lock:
            self._refresh()
            return self._values.get(key, default)

    def number(self, key: str, default: int) -> int:
        """An integer setting; anything else in the file counts as absent."""
        value = self.get(key, default)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def set(self, key: str, value: Plain) -> None:
        """Keep a value. Raises `backend-failed` when the disk refuses; the old value then stays."""
        with self._lock:
            self._refresh()
            values = {**self._values, key: value}
            if self._path is not None:
                self._write(self._path, values)
            self._values = values

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            if self._seen == (status.st_ino, status.st_mtime_ns):
                return
            values = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            values, status = {}, None
        except (OSError, ValueError) as error:  # unreadable, or not JSON: nobody but us writes it
            raise BackendFailed(f"cannot read the settings in '{self._path}': {error}") from error
        self._values = values if isinstance(values, dict) else {}
        self._seen = (status.st_ino, status.st_mtime_ns) if status else None

    def _write(self, path: Path, values: Mapping[str, Plain]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(values, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise BackendFailed(f"cannot write the settings in '{path}': {error.strerror}") from error


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all: a new one, synced, renamed over the old. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Context:
    """Given to every provider when it is made."""

    root: Root = field(default_factory=Root)
    settings: Settings = field(default_factory=Settings)
    events: Hub = field(default_factory=Hub)
