"""The record of who did what: a line of the log `libmh.audit` for each change, and for whatever was refused.

A file has the same as JSON, an object a line; it is opened anew when logrotate has taken it away.
"""

import json
import logging
import logging.handlers
import time
from collections.abc import Mapping
from pathlib import Path

from libmh import uris
from libmh.caller import Caller
from libmh.errors import BackendFailed, carriable

log = logging.getLogger("libmh.audit")
FIELDS = "audit"
MAX_TEXT = 256


def record(
    verb: str, action: str, objects: Mapping[str, str], caller: Caller, outcome: str, request_id: str
) -> None:
    """Write down one request. `outcome` is `done` or the word of the error. All of it may be a stranger's:
    it stays one line, of a bounded length."""
    action, outcome = carriable(action)[:MAX_TEXT], carriable(outcome)[:MAX_TEXT]
    said = {
        "verb": verb,
        "action": action,
        "objects": {name: uris.shown(value)[:MAX_TEXT] for name, value in objects.items()},
        "transport": caller.transport,
        "identity": caller.identity[:MAX_TEXT],
        "uid": caller.uid,
        "outcome": outcome,
        "request": request_id[:MAX_TEXT],
    }
    log.info(
        "%s %s %s by %s %r (uid %s): %s, request %r",
        *(verb, action, said["objects"], caller.transport, said["identity"], caller.uid),
        *(outcome, said["request"]),
        extra={FIELDS: said},
    )


def refused_entry(transport: str, peer: str, why: str, times: int = 1) -> None:
    """Write down a peer that did not come in, or that so many more of it did not."""
    said = {
        "verb": "enter",
        "transport": transport,
        "peer": peer[:MAX_TEXT],
        "why": carriable(why)[:MAX_TEXT],
        "times": times,
    }
    often = "" if times == 1 else f" {times} more times, the last time"
    log.warning(
        "%s %r was not let in%s: %s",
        *(transport, said["peer"], often, said["why"]),
        extra={FIELDS: said},
    )


def refused_use(transport: str, identity: str, use: str, peer: str, why: str, times: int = 1) -> None:
    """Write down what a peer that did come in may not do, and why, for `use` as `send mh.host.1`; or that it
    was refused something so many more times."""
    said = {
        "verb": "use",
        "transport": transport,
        "identity": carriable(identity)[:MAX_TEXT],
        "peer": peer[:MAX_TEXT],
        "use": carriable(use)[:MAX_TEXT],
        "outcome": "amqp:unauthorized-access",
        "why": carriable(why)[:MAX_TEXT],
        "times": times,
    }
    often = "" if times == 1 else f", {times} more times, the last time"
    log.warning(
        "%s %r at %r may not %s%s: %s",
        *(transport, said["identity"], said["peer"], said["use"], often, said["why"]),
        extra={FIELDS: said},
    )


class Json(logging.Formatter):
    """Times are ISO 8601, UTC. What no terminal should be shown, nor be taken for the end of a line, is
    written as JSON escapes it."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said = getattr(record, FIELDS, None) or {"message": record.getMessage()}
        line = json.dumps({"time": f"{when}.{record.msecs:03.0f}Z", **said}, ensure_ascii=False, default=str)
        if line.isprintable():
            return line
        return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line)


class File(logging.handlers.WatchedFileHandler):
    """Tries again with each record: whoever is written down is not to fail because of the file."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # it was rotated away, and no new one can be opened
            self.handleError(record)


def keep(path: Path) -> None:
    """Keep the record in a file, too. Raises `BackendFailed` when it cannot be written."""
    try:
        handler = File(path, encoding="utf-8", errors="backslashreplace")
        path.chmod(0o600)
    except OSError as error:
        raise BackendFailed(f"the audit file '{path}' cannot be written: {error.strerror}") from error
    handler.setFormatter(Json())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
