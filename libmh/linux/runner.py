"""Scripts run beside each other, from start to end by one thread.

Hundreds of monitors a second must cost next to nothing beyond themselves: a script is started by
posix_spawn(3) in a session of its own, its end is told by a pidfd, and what it prints comes through two
pipes of which the first 64 KiB are kept and the rest is thrown away. When the script has ended nobody waits
for what it left running; when its time has passed, or it is stopped, all of that is killed with it.
"""

import contextlib
import errno
import fcntl
import heapq
import itertools
import logging
import os
import select
import signal
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from libmh.errors import Problem, Timeout, Unavailable
from libmh.guard import SHARED
from libmh.linux.descendants import MARK, kill_group, kill_marked, kill_scope

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger("libmh.linux.runner")

# what the ancestor answers where the script has no code of its own
UNKNOWN_ERROR, FORBIDDEN, MISSING = 1, 4, 5
SIGNALLED, CANCELLED, TIMED_OUT, OTHER_ERROR = 194, 197, 198, 199
NOT_STARTED: Mapping[int, int] = {errno.ENOENT: MISSING, errno.EISDIR: MISSING, errno.EACCES: FORBIDDEN}

MAX_RUNNING = 64
MAX_WAITING = 4096
MAX_OUTPUT = 1 << 16
CHUNK = 1 << 16
LAST_READS = 16
UNWATCHED = 0.1  # a pipe holds 64 KiB: most scripts have ended before anybody need read
REAPED_WITHIN = 5.0
CLOSED_WITHIN = 3.0
LONGEST_POLL = 3600.0  # epoll_wait(2) counts milliseconds in an int
LAST_STANDARD = 2
CLONE_FS = 0x200  # linux/sched.h
UMASK = 0o022
DEFAULTED = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, and a script would inherit that


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, all of its environment and its time in seconds. `scope`: the systemd
    scope that the program puts itself into; `mark`: by which it and what it started can be found."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    seconds: float
    scope: str = ""
    mark: str = ""
    limit: int = MAX_OUTPUT


@dataclass(frozen=True, slots=True)
class Calling:
    """A function that is given its time in seconds and answers a return code, for what no script does."""

    key: str
    function: Callable[[float], int]
    seconds: float


Work = Command | Calling
Timer = tuple[float, int, Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended. `cut`: more was printed than is kept; `seconds` is what it took."""

    rc: int
    stdout: bytes = b""
    stderr: bytes = b""
    cut: bool = False
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Capture:
    """The end of a pipe, and the first of what came out of it."""

    fd: int
    limit: int
    kept: bytearray = field(default_factory=bytearray)
    cut: bool = False

    def read(self) -> int:
        """Take what is there: how much; 0 at the end. It waits when nothing is there."""
        part = os.read(self.fd, CHUNK)
        room = self.limit - len(self.kept)
        self.kept += part[:room]
        self.cut = self.cut or len(part) > room
        return len(part)

    def rest(self) -> None:
        """Take what is left; what the script left running may print for ever."""
        there = bytearray(4)
        for _ in range(LAST_READS):
            fcntl.ioctl(self.fd, termios.FIONREAD, there)
            if not any(there) or not self.read():
                return


@dataclass(slots=True, eq=False)
class Run:
    """One of them under way, or waiting for its turn. It belongs to the runner's thread."""

    work: Work
    done: Callable[[Ending], None]
    mark: str = ""
    pid: int = 0
    handle: int = -1
    began: float = 0.0
    due: float = inf  # when it has to be looked at
    killed: int = 0  # the code that it then has
    told: bool = False
    captures: tuple[Capture, ...] = ()


class Runner:
    """A thread that comes with the first script. `done` and what is given to `post` and `later` are called
    in it, must not wait, and must not raise."""

    def __init__(self, max_running: int = MAX_RUNNING, max_waiting: int = MAX_WAITING) -> None:
        self._max_running, self._max_waiting = max_running, max_waiting
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._posted: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self._numbers = itertools.count(1)
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()
        self._ended: dict[int, Run] = {}
        self._reading: dict[int, Capture] = {}
        self._marks: set[str] = set()
        self._closing = False

    def start(self, work: Work, done: Callable[[Ending], None]) -> Run:
        """Run it when there is room, and tell `done` how it ended. `unavailable` when too many wait."""
        if self._closing or len(self._waiting) >= self._max_waiting:
            raise Unavailable("too many actions wait to be run, or the agent is shutting down")
        run = Run(work, done)
        self.post(lambda: self._enter(run))
        return run

    def stop(self, run: Run) -> None:
        """Kill it: it then has ended with 197. Nothing where it has ended already."""
        self.post(lambda: self._stop(run))

    def post(self, function: Callable[[], None]) -> None:
        """Call a function soon, from any thread; never once the runner is closed."""
        with self._lock:
            if self._wake < 0:
                return
            self._posted.append(function)
            if self._thread is None:
                _keep_descriptors()
                self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)
                self._thread.start()
            if threading.current_thread() is not self._thread:
                os.eventfd_write(self._wake, 1)

    def later(self, seconds: float, function: Callable[[], None]) -> "Timer":
        """Call a function after some time; from the runner's thread only."""
        timer = (time.monotonic() + seconds, next(self._numbers), function)
        heapq.heappush(self._timers, timer)
        return timer

    def forget(self, timer: "Timer") -> None:
        """Do not call it: nothing when it was called already; from the runner's thread only."""
        if timer in self._timers:
            self._timers.remove(timer)
            heapq.heapify(self._timers)

    @property
    def timers(self) -> int:
        """How many functions wait to be called."""
        return len(self._timers)

    def close(self) -> None:
        """Kill what runs, and end the thread."""
        self._closing = True
        thread = self._thread
        if thread is not None and thread.is_alive():
            self.post(self._kill_all)
            thread.join(CLOSED_WITHIN)
        with self._lock:
            if self._wake >= 0 and (thread is None or not thread.is_alive()):
                self._poll.close()
                os.close(self._wake)
                os.close(self._null)
                self._wake = -1

    def _loop(self) -> None:
        _leave_directory()
        while not self._closing or self._running or self._posted:
            for fd, _ in self._poll.poll(self._pause()):
                self._ready(fd)
            while self._posted:
                self._posted.popleft()()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now and not self._closing:
                heapq.heappop(self._timers)[2]()
            for run in [run for run in self._running if run.due <= now]:
                self._look(run, now)
            if self._marks:
                kill_marked(self._marks)
                self._marks.clear()
            while self._waiting and len(self._running) < self._max_running:
                self._launch(self._waiting.popleft())

    def _pause(self) -> float:
        if self._posted:
            return 0.0
        soonest = min((run.due for run in self._running), default=inf)
        if self._timers:
            soonest = min(soonest, self._timers[0][0])
        return -1 if soonest == inf else min(max(0.0, soonest - time.monotonic()), LONGEST_POLL)

    def _ready(self, fd: int) -> None:
        if fd == self._wake:
            os.eventfd_read(fd)
        elif fd in self._ended:
            self._reap(self._ended[fd])
        elif fd in self._reading and self._reading[fd].read() == 0:
            self._unwatch(fd)  # it is closed with the end of the script

    def _enter(self, run: Run) -> None:
        if self._closing:
            run.done(Ending(CANCELLED))
        elif len(self._running) < self._max_running:
            self._launch(run)
        else:
            self._waiting.append(run)

    def _launch(self, run: Run) -> None:
        run.began = time.monotonic()
        run.due = run.began + min(run.work.seconds, UNWATCHED)
        self._running.add(run)
        if isinstance(run.work, Calling):
            self._call(run, run.work)
            return
        run.mark = run.work.mark or f"{os.getpid()}-{next(self._numbers)}"
        try:
            self._spawn(run, run.work)
        except (OSError, ValueError) as error:  # the latter: what no environment can carry
            if run.pid:  # there is no handle left to follow it by
                kill_group(run.pid)
                os.waitpid(run.pid, 0)
            for capture in run.captures:
                self._drop(capture)
            number = error.errno if isinstance(error, OSError) else None
            code = NOT_STARTED.get(number or 0, UNKNOWN_ERROR)
            words = f"'{run.work.arguments[0]}' cannot be run: {os.strerror(number) if number else error}"
            self._finish(run, Ending(code, stderr=words.encode("utf-8", "replace")))

    def _spawn(self, run: Run, command: Command) -> None:
        ends: list[tuple[int, int]] = []
        try:
            for _ in range(2):
                ends.append(os.pipe())
                run.captures += (Capture(ends[-1][0], command.limit),)
            actions = [
                (os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((self._null, *(w for _, w in ends)))
            ]
            run.pid = os.posix_spawn(
                command.arguments[0],
                command.arguments,
                {**command.environment, MARK: run.mark},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULTED,
            )
        finally:
            for _, writing in ends:
                os.close(writing)
        run.handle = os.pidfd_open(run.pid)
        self._ended[run.handle] = run
        self._poll.register(run.handle, select.EPOLLIN)

    def _call(self, run: Run, work: Calling) -> None:
        try:
            future = SHARED.submit(work.key, lambda: work.function(work.seconds), work.seconds)
        except Problem as problem:
            self._finish(run, _failed(problem))
            return
        future.add_done_callback(lambda ended: self.post(lambda: self._called(run, ended)))

    def _called(self, run: Run, future: "Future[int]") -> None:
        error = future.exception()
        if error is not None and not isinstance(error, Problem):
            log.error("'%s' failed", run.work, exc_info=error)
        self._finish(run, Ending(future.result()) if error is None else _failed(error))

    def _reap(self, run: Run) -> None:
        del self._ended[run.handle]
        self._poll.unregister(run.handle)
        os.close(run.handle)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
        except ChildProcessError:  # another part of the process waits for every child there is
            code = UNKNOWN_ERROR
        for capture in run.captures:
            capture.rest()
            self._drop(capture)
        self._finish(run, Ending(SIGNALLED if code < 0 else code))

    def _finish(self, run: Run, ending: Ending) -> None:
        if run not in self._running:
            return
        self._running.discard(run)
        self._tell(run, ending)

    def _tell(self, run: Run, ending: Ending) -> None:
        if run.told:
            return
        run.told = True
        out, err = (bytes(capture.kept) for capture in run.captures) if run.captures else (b"", b"")
        run.done(
            Ending(
                rc=run.killed or ending.rc,
                stdout=ending.stdout or out,
                stderr=ending.stderr or err,
                cut=any(capture.cut for capture in run.captures),
                seconds=time.monotonic() - run.began if run.began else 0.0,
            )
        )

    def _stop(self, run: Run) -> None:
        if run in self._waiting:
            self._waiting.remove(run)
            run.done(Ending(CANCELLED))
        elif run in self._running and not run.killed:
            self._kill(run, CANCELLED)

    def _look(self, run: Run, now: float) -> None:
        end = run.began + run.work.seconds
        if run.killed:  # the kernel does not let it go: it is waited for, but nobody waits for us
            run.due = inf
            self._tell(run, Ending(run.killed))
        elif now < end:
            run.due = end
            for capture in run.captures:
                self._reading[capture.fd] = capture
                self._poll.register(capture.fd, select.EPOLLIN)
        else:
            self._kill(run, TIMED_OUT)

    def _kill(self, run: Run, code: int) -> None:
        run.killed = code
        run.due = time.monotonic() + REAPED_WITHIN
        if isinstance(run.work, Calling):
            self._finish(run, Ending(code))
            return
        if run.work.scope:
            kill_scope(run.pid, run.work.scope)
        kill_group(run.pid)
        self._marks.add(run.mark)

    def _kill_all(self) -> None:
        for run in [*self._waiting, *self._running]:
            self._stop(run)

    def _unwatch(self, fd: int) -> None:
        # to close it is not enough: a script that is about to begin has it for a moment, and it is told as
        # ready as long as that lasts
        if self._reading.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _drop(self, capture: Capture) -> None:
        self._unwatch(capture.fd)
        os.close(capture.fd)


def _failed(error: BaseException) -> Ending:
    code = TIMED_OUT if isinstance(error, Timeout) else OTHER_ERROR
    return Ending(code, stderr=str(error).encode())


def _keep_descriptors() -> None:
    """Let no script have what this process was handed by whoever started it; its own are not handed on."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone
        with contextlib.suppress(OSError):  # it was the directory's own
            if int(name) > LAST_STANDARD:
                os.set_inheritable(int(name), False)  # noqa: FBT003 - the standard library's


def _leave_directory() -> None:
    """Give this thread a working directory and a umask of its own, for scripts to inherit: posix_spawn(3)
    cannot set them, and those of the process are not ours to change. unshare(2) of CLONE_FS needs no
    privilege; where it is forbidden, scripts have those of the process."""
    import ctypes

    if ctypes.CDLL(None).unshare(CLONE_FS) == 0:
        os.chdir("/")
        os.umask(UMASK)
