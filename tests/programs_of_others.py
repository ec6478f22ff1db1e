"""Puppet and ansible in tests: programs that stand for them, and the real ones in a booted machine."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from testbed import needs
from testbed.machine import Host, booted_host, layer

INSTALL = "apt-get -qq update && apt-get -qq -y --no-install-recommends install"
REAL = """
import dataclasses, importlib, json, pathlib, sys
from libmh.context import Root
module, _, name = sys.argv[1].partition(":")
found = importlib.import_module(f"libmh.linux.config.{module}")
scheme = getattr(found, name)(Root(), pathlib.Path("/var/tmp"))
text = pathlib.Path(sys.argv[2]).read_text()
told = [dataclasses.asdict(do(text, 120)) for do in (scheme.forecast, scheme.run, scheme.run)]
print(json.dumps(told, default=bytes.decode))
"""


def put(root: Path, name: str, script: str) -> None:
    """An executable of a root, in shell."""
    program = root / "usr/bin" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)


def left_in(directory: Path) -> list[Path]:
    """What a run left behind."""
    return sorted(directory.iterdir())


@contextmanager
def booted_with(package: str, files: Mapping[str, str]) -> Iterator[Host]:
    """A machine that has a package of Debian's archive."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(layer(package, f"{INSTALL} {package}"))
        except subprocess.CalledProcessError:
            needs.missing(f"{package} from Debian's archive")
        name = package.partition("-")[0]
        yield stack.enter_context(booted_host(name, files={**files, "/etc/real.py": REAL}, layers=[disk]))


def plan_and_run_twice(host: Host, scheme: str, file: str) -> list[dict[str, Any]]:
    """A forecast and two executions of a file's text inside, as plain trees; nothing is left behind."""
    done = host.python("/etc/real.py", scheme, file, seconds=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "run-" not in host.run("ls", "/var/tmp").stdout
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told
