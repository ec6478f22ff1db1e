"""Run by a test: `mh-amqp` as another host, which notes each run of `Agent.set_log_level`, and may fail it.

    python fleet_host.py NAME DIRECTORY HOW [OPTION]...

Its identity is NAME's, what it runs is noted in DIRECTORY/ran; HOW is `well`, `failing` or `slow`.
"""

import sys
import threading
from pathlib import Path

from libmh.agent import ThisAgent
from libmh.errors import Failed
from libmh.linux.machine import identity
from mh_amqp.main import main

SLOW_SECONDS = 60.0


def uuid_of(name: str) -> str:
    """The UUID of the host that is called so."""
    return name.encode().hex().ljust(32, "0")


def disguise(name: str, directory: Path, how: str) -> None:
    """Make this process another host."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "machine-id").write_text(uuid_of(name) + "\n")
    identity.MACHINE_ID = (str(directory / "machine-id"), "/nowhere")
    identity.hostname = lambda root: name  # noqa: ARG005 - its caller's signature
    really = ThisAgent.set_log_level

    def noted(self: ThisAgent, logger: str, level: str) -> None:
        with (directory / "ran").open("a") as file:
            file.write(f"{logger} {level}\n")
        if how == "failing":
            raise Failed("the disk is broken")
        if how == "slow":
            threading.Event().wait(SLOW_SECONDS)
        really(self, logger, level)

    ThisAgent.set_log_level = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    disguise(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    raise SystemExit(main([*sys.argv[4:], "--state", sys.argv[2]]))
