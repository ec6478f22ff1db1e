"""The agents as a user starts them: real processes, ready when the block begins, ended when it ends."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.child import spawn, stop


@dataclass(frozen=True, slots=True)
class Agent:
    """A process that has said that it is ready."""

    process: subprocess.Popen[str]
    ready: str

    @property
    def url(self) -> str:
        """Of one that listens: where."""
        return "amqp://" + self.ready.partition("listening on ")[2].split()[0]


def command(name: str) -> str:
    """An installed command of this environment."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def agent(name: str, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Agent]:
    """Start a command and wait for its ready line."""
    process = spawn([command(name), *options], env=env, stdout=subprocess.PIPE)
    try:
        yield Agent(process, ready_line(process))
    finally:
        stop(process)


def ready_line(process: subprocess.Popen[str], seconds: float = 120) -> str:
    """The first line of a child's output; RuntimeError when it ends or says nothing in time."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    read = b""
    waiting = select.poll()
    waiting.register(process.stdout, select.POLLIN)
    while not read.endswith(b"\n"):
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise RuntimeError(f"not ready in {seconds} s, said {read!r}")
        byte = os.read(process.stdout.fileno(), 1)
        if not byte:
            raise RuntimeError(f"ended with {process.wait(5)} before it was ready, said {read!r}")
        read += byte
    return read.decode().strip()


def mhctl(
    *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run mhctl to its end."""
    return subprocess.run(
        [command("mhctl"), *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
