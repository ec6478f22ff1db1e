"""The set-up on machines that lack something: it names what to install and changes nothing."""

import os
import subprocess
from pathlib import Path

from source_tree import ROOT

SETUP = ROOT / "packaging" / "setup"


def fake(directory: Path, name: str, script: str) -> None:
    """A command of ours before the machine's."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def setup(tmp_path: Path, profile: str = "run") -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MATAHARI_VENV": str(tmp_path / "venv"),
        "HOME": str(tmp_path),
    }
    command = ["sh", str(SETUP), profile]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_user_is_told_what_to_install(tmp_path: Path) -> None:
    fake(tmp_path, "dpkg-query", 'case "$*" in *libc6-dev*|*polkitd*) exit 1;; *) echo installed;; esac')
    fake(tmp_path, "id", "echo 1000")
    fake(tmp_path, "apt-get", "echo apt-get was called; exit 1")
    done = setup(tmp_path, "test")
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends libc6-dev polkitd\n" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "venv").exists()


def test_root_installs_what_is_missing_and_says_so(tmp_path: Path) -> None:
    fake(tmp_path, "dpkg-query", 'case "$*" in *libc6-dev*) exit 1;; *) echo installed;; esac')
    fake(tmp_path, "id", "echo 0")
    fake(
        tmp_path,
        "flock",
        'while [ "$1" != sh ] && [ $# -gt 2 ]; do shift; done; [ "$1" != sh ] || exec "$@"',
    )
    fake(tmp_path, "apt-get", 'echo "apt: $*"; [ "${*##*update}" = "" ]')
    done = setup(tmp_path)
    assert done.returncode == 1
    assert "setup: installing Debian packages: libc6-dev\n" in done.stderr
    assert "apt: -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends install libc6-dev\n" in done.stderr
    assert "apt-get could not install libc6-dev" in done.stderr


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    fake(tmp_path, "dpkg-query", "echo installed")
    for name in ("python3", "python3.11", "python3.12", "python3.13", "old"):
        fake(tmp_path, name, "exit 1")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "MATAHARI_VENV": str(tmp_path / "v"),
        "MATAHARI_PYTHON": "old",
    }
    command = ["sh", str(SETUP), "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Python 3.11 or later is needed" in done.stderr


def test_an_unknown_profile_is_a_usage_error(tmp_path: Path) -> None:
    done = setup(tmp_path, "everything")
    assert (done.returncode, done.stderr) == (2, "usage: packaging/setup run|test\n")
