"""What the audit has of a test."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from libmh import audit


class Lines(logging.Handler):
    """What was written down, as its file would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(audit.Json().format(record)))


@contextmanager
def audited() -> Iterator[Lines]:
    """From here on, until the block ends."""
    handler = Lines()
    audit.log.addHandler(handler)
    try:
        yield handler
    finally:
        audit.log.removeHandler(handler)
