"""The line to the processes that libaugeas works in, from their start to their end."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libmh.errors import BackendFailed, NotImplementedHere, Timeout, Unavailable

MAX_WORKERS = 4
MAX_FRAME = 1 << 28
LENGTH = 4
CHUNK = 1 << 20
START = "import sys; sys.path.append(sys.argv[1]); import augeasworker; augeasworker.main()"
PACKAGE = "libaugeas0"


class Gone(Exception):
    """The process ended without an answer."""


class Worker:
    """One of them: it answers one request at a time, and ends when it is idle."""

    def __init__(self) -> None:
        own, its = socket.socketpair()
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        standard = ((its.fileno(), 0), (null, 1), (null, 2))
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                (sys.executable, "-I", "-S", "-c", START, str(Path(__file__).parent)),
                {"LC_ALL": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for fd, at in standard],
                setsid=True,
                setsigmask=(),
            )
        except OSError as error:
            own.close()
            raise BackendFailed(f"cannot start a process for libaugeas: {error.strerror}") from error
        finally:
            os.close(null)
            its.close()
        self._socket = own
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name="augeas", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether it waits for a request."""
        return not self._ended.is_set()

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer. Raises `Gone`, or TimeoutError; it is of no use then."""
        end = time.monotonic() + seconds
        body = json.dumps({**request, "seconds": seconds}).encode()
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(len(body).to_bytes(LENGTH) + body)
            length = int.from_bytes(self._receive(LENGTH, end))
            answer = json.loads(self._receive(min(length, MAX_FRAME), end))
        except (ConnectionError, ValueError) as error:
            raise Gone from error
        if not isinstance(answer, dict):
            raise Gone
        return answer

    def end(self) -> None:
        """End it with what it started, whatever it does."""
        self._socket.close()
        if self.ready:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    def _receive(self, size: int, end: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            part = self._socket.recv(min(CHUNK, size - len(received)))
            if not part:
                raise ConnectionResetError
            received += part
        return bytes(received)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # somebody waits for every child there is
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            self._ended.set()  # before its number may be another's
            os.waitpid(self._pid, 0)
        self._ended.set()


class Workers:
    """As many as are asked at the same time, at most four."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._room = threading.BoundedSemaphore(MAX_WORKERS)

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """A worker's answer. Raises `timeout`, `unavailable` when all are busy for so long, `backend-failed`
        when libaugeas breaks down over it, `not-implemented` where it is not installed."""
        end = time.monotonic() + seconds
        if not self._room.acquire(timeout=seconds):
            raise Unavailable(
                f"all of {MAX_WORKERS} processes for libaugeas have been busy for {seconds:g} s"
            )
        try:
            answer = self._ask(request, max(0.001, end - time.monotonic()))
        finally:
            self._room.release()
        if answer.get("error") == "missing":
            raise NotImplementedHere(
                f"libaugeas is not installed ({answer.get('message')}); apt-get install {PACKAGE} brings it",
                package=PACKAGE,
            )
        return answer

    def close(self) -> None:
        """End those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        worker = self._take() or Worker()
        try:
            answer = worker.ask(request, seconds)
        except TimeoutError:
            worker.end()
            raise Timeout(f"libaugeas did not answer within {seconds:g} s", source="libaugeas") from None
        except Gone:
            worker.end()
            raise BackendFailed(
                f"libaugeas broke down over this, or took more than {seconds:g} s", source="libaugeas"
            ) from None
        with self._lock:
            self._idle.append(worker)
        return answer

    def _take(self) -> Worker | None:
        """An idle one that is there still."""
        with self._lock:
            idle = [worker for worker in self._idle if worker.ready]
            gone = [worker for worker in self._idle if not worker.ready]
            self._idle = idle[:-1]
        for worker in gone:
            worker.end()
        return idle[-1] if idle else None
