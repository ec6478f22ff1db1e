"""A file that is read again when it has changed; one that cannot be used changes nothing."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from libmh.errors import InvalidArguments, Problem

log = logging.getLogger("mh_conductor.rest")
LOOK_SECONDS = 1.0
MAX_FILE = 4 << 20
T = TypeVar("T")


@dataclass(slots=True)
class Watched(Generic[T]):
    """`read` makes a value of the text of the file; `current` is the last one that was good. Raises
    `InvalidArguments` at first, later it only logs."""

    path: Path
    read: Callable[[str], T]
    _value: T = field(init=False)
    _seen: tuple[int, int, int] = (0, 0, 0)
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._seen = self._look()
        self._value = self.read(self._text())
        self._looked = time.monotonic()

    def current(self) -> T:
        """It looks at the file at most once a second."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._again()
            except Problem as problem:
                log.warning("'%s' stays as it was: %s", self.path, problem)
        return self._value

    def _again(self) -> None:
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._value = self.read(self._text())
            log.info("'%s' has changed, and is in force", self.path)

    def _look(self) -> tuple[int, int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise InvalidArguments(f"cannot read '{self.path}': {error.strerror}") from error
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                found = file.read(MAX_FILE + 1)
            text = found.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArguments(f"cannot read '{self.path}': {error}") from error
        if len(found) > MAX_FILE:  # what is cut off may be a rule that forbids, or when a token ends
            raise InvalidArguments(f"'{self.path}' is too long: expected at most {MAX_FILE} bytes")
        return text
