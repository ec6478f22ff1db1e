"""The scheme `puppet`: a manifest, or `puppet://HOST` for what that master has for this host.

What a manifest would do is told by `puppet apply --noop`, whose log gives a diff of each file."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere
from libmh.linux import ownunit
from libmh.linux.config import contents
from libmh.linux.runner import Ending
from libmh.schemes import Edit, Execution, Forecast

PACKAGE = "puppet-agent"
OLDEST = 3  # the first that logs JSON
VERSION_SECONDS = 30.0
MAX_TEXT = 16 << 20
MAX_LOG = 16 << 20
MAX_SHOWN = 2000
MASTER = re.compile(r"puppet://([A-Za-z0-9][A-Za-z0-9._-]{0,253})/?")
FILE = re.compile(r"File\[(/[^\]]*)\](?:/(\w+))?$")
DIFF = re.compile(r"\A\s*--- .*\n\+\+\+ .*\n(?=@@)")
UNCHANGED, COMPILE_ERROR, CHANGED, FAILED, CHANGED_AND_FAILED = 0, 1, 2, 4, 6
OPTIONS = ("--show_diff", "--detailed-exitcodes", "--color=false")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of its log."""

    level: str
    source: str
    message: str


class Puppet:
    """The `puppet` of a machine. `state`: below it manifests are put while they run."""

    def __init__(self, root: Root, state: Path | None = None) -> None:
        self._root, self._state = root, state

    def forecast(self, text: str, seconds: float) -> Forecast:
        """What it would change, by its dry run; what fails in that is told by the output alone, because it
        may need what was not done. Raises `backend-failed` for what does not compile."""
        ending, entries = self._run(text, seconds, "--noop")
        if ending.rc not in (UNCHANGED, CHANGED, FAILED, CHANGED_AND_FAILED):
            raise BackendFailed(f"puppet: {_complaint(ending, entries)}", code=str(ending.rc))
        return Forecast(tuple(_edits(self._root, entries)), _text(ending, entries), exact=False)

    def run(self, text: str, seconds: float) -> Execution:
        """Do it. A run that changed something has not failed."""
        ending, entries = self._run(text, seconds)
        return Execution(
            ending.rc,
            failed=ending.rc not in (UNCHANGED, CHANGED),
            output=_text(ending, entries),
            changed=ending.rc != UNCHANGED,
        )

    def _run(self, text: str, seconds: float, *options: str) -> tuple[Ending, list[Entry]]:
        program = ownunit.find(self._root, "puppet", PACKAGE)
        if len(text) > MAX_TEXT or "\0" in text:
            raise InvalidArguments("expected a manifest of at most 16 MiB, without NUL", argument="text")
        _check(self._root, program, _stamp(program))
        with ownunit.private(self._state) as directory:
            log = directory / "log.json"
            if master := MASTER.fullmatch(text.strip()):
                what: tuple[str, ...] = ("agent", "--test", "--server", master[1])
            else:
                what = ("apply", ownunit.put(directory, "site.pp", text))
            logging = ("--logdest", str(log), "--logdest", "console")
            ending = ownunit.run(self._root, (program, *what, *options, *OPTIONS, *logging), seconds)
            return ending, list(_entries(log))


@functools.lru_cache(4)
def _check(root: Root, program: str, stamp: int) -> None:  # noqa: ARG001 - another program is asked anew
    version = ownunit.printed(ownunit.run(root, (program, "--version"), VERSION_SECONDS)).strip()
    major = version.partition(".")[0]
    if not major.isascii() or not major.isdigit() or int(major[:9]) < OLDEST:
        raise NotImplementedHere(
            f"this is puppet '{version[:100]}': expected version {OLDEST} or later", package=PACKAGE
        )


def _stamp(program: str) -> int:
    try:
        return Path(program).stat().st_mtime_ns
    except OSError:  # a link to somewhere else below its root
        return 0


def _entries(log: Path) -> Iterator[Entry]:
    """The lines of a log: an array that is left open when puppet is killed, an object a line."""
    try:
        with log.open("rb") as file:
            lines = file.read(MAX_LOG).splitlines()
    except OSError:  # it did not come so far
        return
    for line in lines:
        try:
            found: Any = json.loads(line.strip(b", "))
        except (ValueError, RecursionError):  # the brackets of the array, and what was cut
            continue
        if isinstance(found, dict):
            yield Entry(*(str(found.get(name, "")) for name in ("level", "source", "message")))


def _edits(root: Root, entries: list[Entry]) -> Iterator[Edit]:
    """A change of each file that is told of: what becomes of its owner, mode ..., then its diff."""
    told: dict[str, list[str]] = {}
    diffs: dict[str, str] = {}
    for entry in entries:
        if not (found := FILE.search(entry.source)) or entry.level not in ("notice", "info"):
            continue
        path = contents.resolve(root, found[1])
        if DIFF.match(entry.message):
            diffs[path] = DIFF.sub(f"--- {path}\n+++ {path}\n", entry.message)
        elif found[2] and (found[2] != "content" or path not in diffs):
            told.setdefault(path, []).append(f"{found[2]}: {entry.message}\n")
    for path in {**diffs, **told}:
        yield Edit(
            path, contents.glimpse(root, path), None, "".join(told.get(path, ())) + diffs.get(path, "")
        )


def _text(ending: Ending, entries: list[Entry]) -> str:
    """What is said of a run: its log, or what it printed where it kept none."""
    lines = [
        f"{entry.level}: {entry.source}: {entry.message}" for entry in entries if entry.level != "debug"
    ]
    return "\n".join(lines) + "\n" if lines else ownunit.printed(ending)


def _complaint(ending: Ending, entries: list[Entry]) -> str:
    said = [entry.message for entry in entries if entry.level in ("err", "crit", "alert", "emerg")]
    return (said[-1] if said else ownunit.printed(ending)).strip()[
        :MAX_SHOWN
    ] or f"it ended with {ending.rc}"
