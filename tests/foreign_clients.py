"""AMQP clients that others wrote, each installed from its registry into a directory of its own, once.

The directories are below `$XDG_CACHE_HOME/matahari-tests`, `~/.cache` without it, so that a second run
reaches no registry. The programs that drive them are in `tests/interop`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import needs

DRIVERS = Path(__file__).with_name("interop")
INSTALL_SECONDS = 600
DRIVE_SECONDS = 30
NODE_PACKAGES = ("rhea@3.0.5", "@azure/core-amqp@4.4.2")
SERVICEBUS, UAMQP = "azure-servicebus==7.15.0", "uamqp==1.6.11"


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "matahari-tests"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A client: `drive` has it send requests, each a map of application properties and a body, one after the
    other, and returns what it says it was answered."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def drive(self, port: int, requests: Sequence[Mapping[str, Any]], *more: str) -> list[Mapping[str, Any]]:
        done = subprocess.run(
            [*self.command, str(port), json.dumps(requests), *more],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=DRIVE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Mapping[str, Any]] = json.loads(done.stdout)
        return answers


def node_client(driver: str) -> Foreign:
    """One of the two that npm has."""
    node = shutil.which("node") or needs.missing(f"node ({needs.INSTALLABLE}nodejs)")
    npm = shutil.which("npm") or needs.missing(f"npm ({needs.INSTALLABLE}npm)")
    here = cache() / "node"
    options = ("--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", str(here))
    _install(here, NODE_PACKAGES, [[npm, "install", *options, *NODE_PACKAGES]])
    return Foreign((node, str(DRIVERS / driver)), {"NODE_PATH": str(here / "node_modules")})


def python_client(package: str, driver: str) -> Foreign:
    """One of those that PyPI has, in an environment of its own."""
    here = cache() / package
    python = here / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", package]
    _install(here, (package,), [[sys.executable, "-m", "venv", "--clear", str(here)], pip])
    return Foreign((str(python), str(DRIVERS / driver)), {"PYTHONPATH": ""})


def python_environment(name: str, requirements: Path) -> str:
    """A Python that has exactly what a file of pinned requirements lists, and nothing that they ask for."""
    here = cache() / name
    python = here / "bin" / "python"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile")
    pip = [str(python), "-m", "pip", "install", *options, "--requirement", str(requirements)]
    make = [sys.executable, "-m", "venv", "--clear", str(here)]
    _install(here, requirements.read_text().split(), [make, pip])
    return str(python)


def _install(directory: Path, packages: Sequence[str], commands: Sequence[Sequence[str]]) -> None:
    """Run the commands, unless they were run for these packages; one that fails skips, with its words."""
    stamp = directory / ".installed"
    wanted = " ".join(packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    directory.mkdir(parents=True, exist_ok=True)
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        if done.returncode:
            needs.missing(f"a registry that has {wanted}: {done.stderr[-500:]}")
    stamp.write_text(wanted)
