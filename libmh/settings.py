"""What an agent remembers: a small JSON file that the agents of a host share."""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from libmh.errors import BackendFailed
from libmh.spec import Plain

log = logging.getLogger("libmh.settings")
MAX_FILE = 1 << 20
LOCK_SECONDS = 2.0
LOCK_STEP = 0.01
U32_MAX = 2**32 - 1


def default_state() -> str:
    """Systemd's STATE_DIRECTORY, /var/lib/matahari for root, the XDG state directory for anybody else."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/matahari"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path.home raises
    return str(Path(home) / "matahari")


class Settings:
    """Values that persist, in a JSON file that the agents of a host share; in memory where there is none.

    A write is a whole new file, renamed into place under a lock on the directory; a reader notices by the
    file's identity, size and time.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._values: dict[str, Plain] = {}

    @property
    def directory(self) -> Path | None:
        """Where what persists is kept; None in memory."""
        return self._path.parent if self._path is not None else None

    def get(self, key: str, default: Plain) -> Plain:
        """A setting. Raises `backend-failed` when the file is there and cannot be read."""
        with self._lock:
            self._refresh()
            return self._values.get(key, default)

    def number(self, key: str, default: int) -> int:
        """A setting that is a number of 32 bits without sign; anything else in the file counts as absent."""
        value = self.get(key, default)
        valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= U32_MAX
        return value if valid else default  # type: ignore[return-value]  # `valid` says that it is an int

    def set(self, key: str, value: Plain) -> None:
        """Keep a value. Raises `backend-failed` when the disk refuses; the old value then stays."""
        with self._lock:
            if self._path is None:
                self._values = {**self._values, key: value}
                return
            with _locked(self._path):
                self._refresh_or_put_aside(self._path)
                values = {**self._values, key: value}
                _write(self._path, values)
            self._values = values

    def _refresh_or_put_aside(self, path: Path) -> None:
        """Before a write: a file that is not JSON would refuse every setting for ever, so it makes room."""
        try:
            self._refresh()
        except BackendFailed as problem:
            if not isinstance(problem.__cause__, ValueError):
                raise
            aside = path.with_name(path.name + ".damaged")
            log.warning("%s; it is kept as '%s', and a new file begins", problem, aside)
            try:
                path.replace(aside)
            except OSError as error:
                raise BackendFailed(f"cannot put '{path}' aside: {error.strerror}") from error
            self._values, self._seen = {}, None

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._seen == seen:
                return
            with self._path.open("rb") as file:
                values = json.loads(file.read(MAX_FILE))
        except FileNotFoundError:
            values, seen = {}, None
        except (OSError, ValueError, RecursionError) as error:  # unreadable, or no JSON of ours
            raise BackendFailed(f"cannot read the settings in '{self._path}': {error}") from error
        self._values = values if isinstance(values, dict) else {}
        self._seen = seen


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing below the directory of `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BackendFailed(f"cannot write the settings in '{path}': {error.strerror}") from error
    try:
        _acquire(directory, path)
        yield
    finally:
        os.close(directory)  # and with it the lock


def _acquire(directory: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BackendFailed(f"another process keeps '{path.parent}' locked") from None
            pause.wait(LOCK_STEP)
        else:
            return


def _write(path: Path, values: Mapping[str, Plain]) -> None:
    try:
        for left_behind in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
            left_behind.unlink(missing_ok=True)
        replace_file(path, json.dumps(values, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise BackendFailed(f"cannot write the settings in '{path}': {error.strerror}") from error


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all: a new one, synced, renamed over the old. Raises OSError."""
    import tempfile

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
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the new name, too, outlives a power failure
    finally:
        os.close(directory)
