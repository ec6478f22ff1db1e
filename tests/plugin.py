"""The third-party distribution of `tests/thirdparty`, installed where only some processes look."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("thirdparty")


def install(source: Path, target: Path) -> Path:
    """Install a distribution into a directory of its own, without reaching for the network."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def environment(target: Path) -> Mapping[str, str]:
    """For processes that are to find what was installed there."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))}
