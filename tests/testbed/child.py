"""A daemon as a child of the test: ended by its pid, and gone when the test run is killed."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from testbed import needs

GRACE = 5.0


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[str]:
    """Start `command`; the kernel kills it when the thread that started it ends. `env` is added."""
    setpriv = needs.command("setpriv", "util-linux")
    return subprocess.Popen(
        [setpriv, "--pdeathsig=KILL", "--", *command],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> int:
    """End one process by its pid and reap it; returns its exit status (negative: the signal)."""
    process.terminate()
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:  # it ignores SIGTERM
        process.kill()
        return process.wait(GRACE)
    finally:
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def child(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` until the block ends."""
    process = spawn(command, env=env, stdout=stdout)
    try:
        yield process
    finally:
        stop(process)
