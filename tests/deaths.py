"""A process that dies by SIGKILL at a chosen system call of those that change the disk."""

import os
import re
import signal
import subprocess
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from testbed import needs
from waiting import wait_for

CHANGING = (
    *("write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link"),
    *("linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "chown"),
    *("openat", "fchown", "fchownat", "setxattr", "fsetxattr", "fremovexattr", "ftruncate", "truncate"),
)
CALL = re.compile(r"^(\w+)\((.*)", re.MULTILINE)
SECONDS = 100


def lived(work: Callable[[], object], trace: Path | None = None, kill: str = "") -> bool:
    """Do some work in a child of this process; False where it was killed. `trace`: where its calls are
    listed; `kill`: the call before which it dies, `fsync:3` for the third of that name."""
    strace = needs.command("strace", "strace")
    pid = os.fork()
    if not pid:
        _work(work)
    options = ["-qq", "-o", str(trace or "/dev/null"), "-e", f"trace={','.join(CHANGING)}"]
    if kill:
        name, _, at = kill.partition(":")
        options += ["-e", f"inject={name}:signal=KILL:when={at}"]
    tracer = None
    try:
        os.waitpid(pid, os.WUNTRACED)
        tracer = subprocess.Popen([strace, *options, "-p", str(pid)])
        wait_for(lambda: "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text())
    finally:
        os.kill(pid, signal.SIGCONT if tracer else signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if tracer:
            tracer.wait(SECONDS)
    assert status == 0 or (kill and os.WIFSIGNALED(status)), status
    return status == 0


def _work(work: Callable[[], object]) -> None:
    signal.alarm(SECONDS)
    os.kill(os.getpid(), signal.SIGSTOP)
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def calls(work: Callable[[], object], trace: Path) -> list[str]:
    """The calls by which some work changes the disk, in their order, as `lived` takes them."""
    assert lived(work, trace)
    counted: Counter[str] = Counter()
    listed = []
    for name, arguments in CALL.findall(trace.read_text()):
        counted[name] += 1
        if name != "openat" or "O_CREAT" in arguments:
            listed.append(f"{name}:{counted[name]}")
    return listed
