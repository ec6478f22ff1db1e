"""Callers of other uids: what an unprivileged user of the machine sees on the bus.

The interpreter and the checkout may lie in a directory that only root may enter, so the other uid keeps one
capability: to pass through directories and to read. Its credentials on
the bus are those of the uid, nothing else.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence

from testbed import needs

NOBODY = 65534
READ_ONLY = "-all,+dac_read_search"


def as_uid(command: Sequence[str], uid: int = NOBODY) -> list[str]:
    """`command` as the given uid (and gid) without groups, to be handed to subprocess."""
    needs.root("become another user")
    setpriv = needs.command("setpriv", "util-linux")
    identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    capabilities = [f"--inh-caps={READ_ONLY}", f"--ambient-caps={READ_ONLY}", f"--bounding-set={READ_ONLY}"]
    return [setpriv, *identity, *capabilities, "--", *command]


def run_python_as(
    snippet: str,
    *arguments: str,
    uid: int = NOBODY,
    env: Mapping[str, str] | None = None,
    seconds: float = 20,
) -> subprocess.CompletedProcess[str]:
    """Run a Python snippet as another uid (`arguments` are its sys.argv[1:]): output and status."""
    command = [sys.executable, "-c", textwrap.dedent(snippet), *arguments]
    return subprocess.run(
        as_uid(command, uid),
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
