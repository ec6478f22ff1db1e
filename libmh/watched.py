"""A file that is read again when it has changed; one that cannot be used changes nothing."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from libmh.errors import InvalidArguments, Problem

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
MAX_FILE = 4 << 20
T = TypeVar("T")


@dataclass(slots=True)
class Watched(Generic[T]):
    """`read` makes a value of the text of the file, and raises a `Problem` or `ValueError` for one that it
    cannot use; `value` is the last that was good. `what` is what messages call it."""

    path: Path
    read: Callable[[str], T]
    value: T
    what: str
    _seen: tuple[int, int, int] = (0, 0, 0)
    _looked: float = 0.0

    def current(self) -> T:
        """It looks at the file at most once a second."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            try:
                self._again()
            except (Problem, ValueError) as problem:
                # its words are enough
                log.error("%s stays as it was, for '%s' cannot be used: %s", self.what, self.path, problem)  # noqa: TRY400
        return self.value

    def _again(self) -> None:
        seen = _look(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        found = self.read(_text(self.path))
        if found != self.value:
            self.value = found
            log.info("%s in '%s' has changed, and is in force", self.what, self.path)


def watch(path: Path, read: Callable[[str], T], what: str) -> Watched[T]:
    """A file that has to be good to begin with. Raises `InvalidArguments`, and what `read` does."""
    seen = _look(path)
    return Watched(path, read, read(_text(path)), what, seen, time.monotonic())


def _look(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidArguments(f"cannot read '{path}': {error.strerror}") from error
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(MAX_FILE + 1)
        text = found.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArguments(f"cannot read '{path}': {error}") from error
    if len(found) > MAX_FILE:  # what is cut off may be a rule that forbids, or when a token ends
        raise InvalidArguments(f"'{path}' is too long: expected at most {MAX_FILE} bytes")
    return text
