"""The journal of systemd: journalctl(1), the only interface that it has for reading."""

import json
from collections.abc import Iterator
from typing import Any

from libmh.api.services import LogLine
from libmh.context import Root
from libmh.errors import BackendFailed, NotImplementedHere, Timeout
from libmh.linux import programs
from libmh.linux.runner import TIMED_OUT

DEFAULT_LINES = 100
MAX_LINES = 1000
MAX_BYTES = 1 << 20
MAX_MESSAGE = 4000
SECONDS = 10.0
SYNC_SECONDS = 2.0
FIELDS = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_PID"
PRIORITIES = tuple("01234567")
MICROSECOND = 1000  # in nanoseconds


def lines(root: Root, unit: str, count: int, since: int = 0, *, sync: bool = False) -> list[LogLine]:
    """The last lines of a unit, the oldest first. `sync`: what has been sent to the journal until now is in
    it. `not-implemented` where there is no journal."""
    program = programs.find(root, "journalctl")
    if program is None:
        raise NotImplementedHere("there is no journal here: journalctl is not installed", source="journal")
    if sync and str(root.base) == "/":
        programs.run((program, "--sync"), SYNC_SECONDS)
    asked = [
        program,
        "--output=json",
        f"--output-fields={FIELDS}",
        "--no-pager",
        "--quiet",
        "--all",
        "--reverse",
    ]
    asked += [f"--unit={unit}", f"--lines={min(count or DEFAULT_LINES, MAX_LINES)}"]
    if since:
        asked.append(f"--since=@{since // 10**9}.{since % 10**9 // MICROSECOND:06}")
    if str(root.base) != "/":
        asked.append(f"--root={root.base}")
    ending = programs.run(asked, SECONDS, MAX_BYTES)
    if ending.rc == TIMED_OUT:
        raise Timeout(f"journalctl did not answer within {SECONDS:g} s", source="journal")
    if ending.rc and not ending.cut:
        words = ending.stderr.decode("utf-8", "replace").strip()
        raise BackendFailed(f"journalctl failed with {ending.rc}: {words}", source="journal")
    # the newest came first, so that what is too much are the oldest
    return list(parse(ending.stdout.decode("utf-8", "replace")))[::-1]


def parse(text: str) -> Iterator[LogLine]:
    """`journalctl --output=json`: an object a line. What was cut off in the middle is left out."""
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            yield _line(entry)
        except (ValueError, KeyError, TypeError, AttributeError):  # an empty line, or half of one
            continue


def _line(entry: dict[str, Any]) -> LogLine:
    priority, pid = entry.get("PRIORITY"), entry.get("_PID")
    name = entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM")
    return LogLine(
        time=int(entry["__REALTIME_TIMESTAMP"]) * MICROSECOND,
        message=_text(entry.get("MESSAGE"))[:MAX_MESSAGE],
        # a program may have written anything there
        priority=int(priority) if isinstance(priority, str) and priority in PRIORITIES else None,
        identifier=name if isinstance(name, str) else None,
        pid=int(pid) & 0xFFFFFFFF if isinstance(pid, str) else None,
    )


def _text(value: object) -> str:
    """A message that is no text is a list of bytes; one that is too long is null."""
    if isinstance(value, list):
        value = bytes(each & 0xFF for each in value if isinstance(each, int)).decode("utf-8", "replace")
    return value.replace("\0", "\ufffd") if isinstance(value, str) else ""
