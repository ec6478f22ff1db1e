"""Where recurring operations outlive the agent: three files in the state directory.

================  ================================================================================
operations.json   what they are, written anew when one comes or goes; parameters may be secret
operations.state  a record of 32 bytes for each, in its slot: written in memory at every run
operations.lock   locked by the one process that runs them
================  ================================================================================
"""

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.context import replace_file
from libmh.errors import BackendFailed

RECORD = struct.Struct("<BBHIIIQQ")  # running, known, -, rc, sequence, -, last time, interrupted
MAX_OPERATIONS = 2000
SECRET = 0o600


@dataclass(frozen=True, slots=True)
class Memo:
    """What is remembered of an operation's last run; `known` when there was one."""

    running: bool = False
    known: bool = False
    rc: int = 0
    sequence: int = 0
    time: int = 0
    interrupted: int = 0

    def packed(self) -> bytes:
        return RECORD.pack(
            self.running, self.known, 0, self.rc, self.sequence, 0, self.time, self.interrupted
        )


def kept(slot: int, operation: Mapping[str, Any]) -> str:
    """A definition as it stands on the disk."""
    return json.dumps({"slot": slot, "operation": operation})


def _unpacked(data: bytes) -> Memo:
    running, known, _, rc, sequence, _, time, interrupted = RECORD.unpack(data)
    return Memo(bool(running), bool(known), rc, sequence, time, interrupted)


class Store:
    """The memos by slot, and the definitions that are kept with them; in memory where there is no
    directory. Whoever has not locked it only reads."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._lock = -1
        self._memos: bytearray | mmap.mmap = bytearray(0 if directory else RECORD.size * MAX_OPERATIONS)

    @property
    def place(self) -> str:
        """What tells these operations from those of any other agent: the directory, or the process."""
        return str(self._directory or os.getpid())

    @property
    def owned(self) -> bool:
        return self._directory is None or self._lock >= 0

    def own(self) -> bool:
        """Lock it, when nobody else has. `backend-failed` when the disk refuses."""
        if self.owned or self._directory is None:
            return True
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle = self._open("operations.lock")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return False
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            self._map()
        except OSError as error:
            raise BackendFailed(
                f"recurring operations cannot be kept in '{self._directory}': {error.strerror}"
            ) from error
        self._lock = handle
        return True

    def owner(self) -> str:
        """The process that runs them, as it wrote itself down."""
        return (self._read("operations.lock") or b"?").decode("ascii", "replace").strip()

    def release(self) -> None:
        """Let another process run them."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def memo(self, slot: int) -> Memo:
        at = slot * RECORD.size
        data = bytes(self._memos[at : at + RECORD.size])
        return _unpacked(data) if len(data) == RECORD.size else Memo()

    def remember(self, slot: int, memo: Memo) -> None:
        at = slot * RECORD.size
        self._memos[at : at + RECORD.size] = memo.packed()

    def running(self, slot: int) -> None:
        """Remember that a run is under way."""
        self._memos[slot * RECORD.size] = True

    def definitions(self) -> list[tuple[int, Mapping[str, Any], Memo]]:
        """What is on the disk: slot, definition, memo. `backend-failed` when it is none of ours."""
        kept = self._read("operations.json")
        if kept is None:
            return []
        memos = self._read("operations.state") or b""
        try:
            found = [(int(each["slot"]), dict(each["operation"])) for each in json.loads(kept)]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise BackendFailed(
                f"'operations.json' in '{self._directory}' cannot be read: {error}"
            ) from error
        parts = {slot: memos[slot * RECORD.size : (slot + 1) * RECORD.size] for slot, _ in found}
        return [
            (slot, operation, _unpacked(parts[slot]) if len(parts[slot]) == RECORD.size else Memo())
            for slot, operation in found
            if 0 <= slot < MAX_OPERATIONS
        ]

    def define(self, kept: Iterable[str]) -> None:
        """Keep these that `kept` made, and no others. `backend-failed` when the disk refuses."""
        if self._directory is None:
            return
        try:
            replace_file(self._directory / "operations.json", "[" + ",\n".join(kept) + "]\n", SECRET)
        except OSError as error:
            raise BackendFailed(
                f"recurring operations cannot be kept in '{self._directory}': {error.strerror}"
            ) from error

    def _open(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open((self._directory or Path()) / name, flags, 0o644)

    def _map(self) -> None:
        handle = self._open("operations.state")
        try:
            os.ftruncate(handle, RECORD.size * MAX_OPERATIONS)
            self._memos = mmap.mmap(handle, RECORD.size * MAX_OPERATIONS)
        finally:
            os.close(handle)

    def _read(self, name: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackendFailed(
                f"'{name}' in '{self._directory}' cannot be read: {error.strerror}"
            ) from error
