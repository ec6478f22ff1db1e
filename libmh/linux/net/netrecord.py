"""What is known of changes to the network: one small file for each, on the disk before anything is changed.

==================  ======================================================================================
network/ID.json     a change, with all that it takes to undo it
network/ID.lock     held by whoever makes, confirms or rolls back that change, for as long as that takes
network/lock        held while a change is begun: a link has one at a time
==================  ======================================================================================

A lock ends with the process that holds it. Whoever comes next reads the state again, and finishes what was
begun: exactly one of confirming and rolling back is ever decided.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Self

from libmh.api.network import ChangeState, Keeper, NetworkChange
from libmh.context import Root, replace_file
from libmh.errors import BackendFailed, NotFound, Problem, Timeout, Unavailable
from libmh.linux import sysfs

log = logging.getLogger("libmh.linux.network")
DIRECTORY = "network"
ID = re.compile(r"[0-9a-f]{12}")
MAX_ENDED = 100
MAX_FILE = 1 << 22
SECRET = 0o600  # a profile may hold what is not for everybody
STEP = 0.02
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Stage(StrEnum):
    """Where the work on a change stands; the first that leaves `PENDING` has won."""

    MAKING = "making"
    PENDING = "pending"
    CONFIRMING = "confirming"
    ROLLING_BACK = "rolling-back"
    FAILING = "failing"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (Stage.CONFIRMED, Stage.ROLLED_BACK, Stage.FAILED)


SHOWN = {
    Stage.MAKING: ChangeState.PENDING,
    Stage.PENDING: ChangeState.PENDING,
    Stage.CONFIRMING: ChangeState.CONFIRMED,
    Stage.ROLLING_BACK: ChangeState.PENDING,
    Stage.FAILING: ChangeState.PENDING,
    Stage.CONFIRMED: ChangeState.CONFIRMED,
    Stage.ROLLED_BACK: ChangeState.ROLLED_BACK,
    Stage.FAILED: ChangeState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Record:
    """A change. `due` is when it is rolled back by CLOCK_BOOTTIME, in seconds, of the boot `boot`; `before`
    is the kernel's state, `saved` its keeper's; `bus` is where the keeper was reached."""

    id: str
    link: str
    keeper: Keeper
    what: str
    stage: Stage
    time: int
    by: str
    persistent: bool
    confirm: int
    boot: str
    due: float
    confirm_by: int | None = None
    reason: str | None = None
    bus: str | None = None
    root: str = "/"
    before: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> NetworkChange:
        """As a caller sees it."""
        state = SHOWN[self.stage]
        return NetworkChange(
            id=self.id,
            link=self.link,
            keeper=self.keeper,
            what=self.what,
            state=state,
            time=self.time,
            by=self.by,
            persistent=self.persistent,
            confirm_by=self.confirm_by if state is ChangeState.PENDING else None,
            reason=self.reason,
        )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Of what a file holds; what a later version has beside it is left out. Raises ValueError,
        TypeError, KeyError."""
        words = {"keeper": Keeper(plain["keeper"]), "stage": Stage(plain["stage"])}
        known = {each.name for each in fields(cls)}
        found = cls(**{**{name: plain[name] for name in plain if name in known}, **words})
        for names, kind in KINDS:
            for name in names:
                if not isinstance(getattr(found, name), kind):
                    raise TypeError(f"'{name}' is of another type")
        return found


KINDS: Sequence[tuple[Sequence[str], type | UnionType]] = (
    (("id", "link", "what", "by", "boot", "root"), str),
    (("time", "confirm"), int),
    (("due",), int | float),
    (("persistent",), bool),
    (("confirm_by",), int | None),
    (("reason", "bus"), str | None),
    (("before", "saved"), dict),
)
"""Of a record as its file holds it."""


def boot_id(root: Root) -> str:
    return sysfs.text(root, BOOT_ID) or ""


def clock() -> float:
    """Seconds that no change of the date touches, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def new_id() -> str:
    return secrets.token_hex(6)


class Records:
    """The changes of a state directory, for all processes that share it."""

    def __init__(self, state: Path | None) -> None:
        self._state = state

    @property
    def directory(self) -> Path:
        """`unavailable` without a state directory: what is not written down could not be undone."""
        if self._state is None:
            raise Unavailable("changes of the network need a state directory, and this process has none")
        return self._state / DIRECTORY

    def all(self) -> list[Record]:
        """Every change that is known, the newest first; a file that cannot be read is left out."""
        if self._state is None:
            return []
        found = [self._read(path) for path in (self._state / DIRECTORY).glob("*.json")]
        return sorted((each for each in found if each), key=lambda each: each.time, reverse=True)

    def unfinished(self) -> list[Record]:
        return [each for each in self.all() if not each.stage.ended]

    def get(self, change: str) -> Record:
        """Raises `not-found`."""
        found = self._read(self.directory / f"{change}.json") if ID.fullmatch(change) else None
        if found is None:
            raise NotFound(f"there is no change '{change[:60]}' of the network", id=change[:60])
        return found

    def put(self, record: Record) -> Record:
        """Keep a change, on the disk when this returns. `backend-failed` when the disk refuses."""
        try:
            text = json.dumps(asdict(record))
            replace_file(self.directory / f"{record.id}.json", text, SECRET)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        return record

    def step(self, record: Record, stage: Stage, reason: str | None = None, **more: Any) -> Record:
        """Keep it with another stage; one that has ended needs what it saved no longer."""
        if stage.ended:
            more |= {"saved": {}, "before": {}}
        reason = record.reason if reason is None else reason
        done = self.put(replace(record, stage=stage, reason=reason, **more))
        if stage.ended:
            self._forget_old()
        return done

    def drop(self, change: str) -> None:
        """Forget one that never was."""
        for suffix in ("json", "lock"):
            (self.directory / f"{change}.{suffix}").unlink(missing_ok=True)

    @contextmanager
    def beginning(self, seconds: float) -> Iterator[None]:
        """Keep others from beginning a change. `timeout` when they do not end."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        with self._locked("lock", seconds, "another change of the network is being begun"):
            yield

    @contextmanager
    def holding(self, change: str, seconds: float) -> Iterator[None]:
        """Work on one change alone. `timeout` when somebody else does not end."""
        with self._locked(f"{change}.lock", seconds, f"somebody works on the change '{change}'"):
            yield

    @contextmanager
    def _locked(self, name: str, seconds: float, busy: str) -> Iterator[None]:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(self.directory / name, flags, SECRET)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        try:
            _acquire(handle, seconds, busy)
            yield
        finally:
            os.close(handle)  # and with it the lock

    def _read(self, path: Path) -> Record | None:
        try:
            with path.open("rb") as file:
                found = Record.of(json.loads(file.read(MAX_FILE)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("'%s' is no record of a change: %s, ignoring", path, error)
            return None
        return found if found.id == path.stem else None

    def _forget_old(self) -> None:
        ended = [each for each in self.all() if each.stage.ended]
        for each in ended[MAX_ENDED:]:
            self.drop(each.id)


def _acquire(handle: int, seconds: float, busy: str) -> None:
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Timeout(f"{busy}, for more than {seconds:g} s") from None
            pause.wait(STEP)
        else:
            return


def _unwritable(directory: Path, error: OSError) -> Problem:
    return BackendFailed(f"changes of the network cannot be kept in '{directory}': {error.strerror}")
