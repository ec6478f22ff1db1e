"""A network namespace of a test's own, with its own /sys: `with namespace() as net: net.ip("link show")`."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from processes import ready_line
from testbed import needs
from testbed.child import child

HOLD = "mount -t sysfs sysfs /sys && echo ready && exec sleep infinity"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One that a process holds. Nothing in it is up."""

    pid: int

    def command(self, *words: str) -> list[str]:
        """A command that runs another one inside."""
        nsenter = needs.command("nsenter", "util-linux")
        return [nsenter, "--target", str(self.pid), "--net", "--mount", "--wd=.", "--", *words]

    def run(self, *words: str, seconds: float = 30, given: str | None = None) -> str:
        """What a command inside says; CalledProcessError when it fails."""
        done = subprocess.run(
            self.command(*words), input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, line: str) -> str:
        """iproute2's ip, its words parted by blanks."""
        return self.run("ip", *line.split())

    def batch(self, lines: Sequence[str]) -> None:
        """Many of them by one process."""
        self.run("ip", "-batch", "-", given="\n".join(lines))

    def python(self, script: str, seconds: float = 30) -> str:
        return self.run(sys.executable, "-c", script, seconds=seconds)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """One that lives as long as the block."""
    needs.root("make a network namespace")
    needs.command("ip", "iproute2")
    unshare = needs.command("unshare", "util-linux")
    command = [unshare, "--net", "--mount", "--propagation", "private", "sh", "-c", HOLD]
    with child(command, stdout=subprocess.PIPE) as process:
        ready_line(process)
        yield Namespace(process.pid)
