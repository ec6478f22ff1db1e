"""A booted machine on which the product is installed as a distribution's packages would do it."""

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from source_tree import ROOT
from testbed import needs
from testbed.machine import Host, booted_host

PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))
NAMES = [unit.stem for unit in UNITS if "@" not in unit.stem]
INSIDE = "/opt/matahari"


def system_python() -> str:
    """A Python that every user may run, of the version that the environment's extensions are for."""
    python = needs.command("python3", "python3")
    done = subprocess.run([python, "-V"], capture_output=True, text=True, timeout=10, check=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not done.stdout.startswith(f"Python {version}."):
        needs.missing(f"a system Python {version}, as in this environment")
    return python


def installed_files() -> dict[str, str]:
    """What a distribution's package puts on the disk, beside the Python packages."""
    python = system_python()
    paths = f"PYTHONPATH={INSIDE}/lib:{INSIDE}/needed PYTHONDONTWRITEBYTECODE=1"
    run = f"#!/bin/sh\nexport {paths}\nexec {python} -c"
    targets = {"mhctl": "libmh.cli.main", "mh-broker": "mh_amqp.broker_main"}
    files = {}
    for name in (*NAMES, "mhctl"):
        module = targets.get(name, f"{name.replace('-', '_')}.main")
        files[f"/usr/bin/{name}"] = (
            f"{run} 'import sys; from {module} import main; sys.exit(main())' \"$@\"\n"
        )
    places = {"systemd": "systemd/system", "sysusers.d": "sysusers.d", "tmpfiles.d": "tmpfiles.d"}
    for folder, place in places.items():
        for path in (PACKAGING / folder).iterdir():
            files[f"/usr/lib/{place}/{path.name}"] = path.read_text()
    for pattern in ("dbus-1/**/*.conf", "polkit-1/**/*.policy", "polkit-1/**/*.rules"):
        for path in PACKAGING.glob(pattern):
            files[f"/usr/share/{path.relative_to(PACKAGING)}"] = path.read_text()
    return files


@contextmanager
def installed_host(name: str, directory: Path, files: Mapping[str, str] | None = None) -> Iterator[Host]:
    """The machine, with more `files` on its disk; the wheel is built in `directory`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "lib")
    needed = Path(sysconfig.get_path("platlib"))
    binds = {f"{INSIDE}/lib": directory / "lib", f"{INSIDE}/needed": needed}
    with booted_host(name, files=installed_files() | dict(files or {}), binds=binds) as machine:
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/matahari.conf")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reload", "dbus")
        yield machine


def start(host: Host, name: str) -> str:
    """Start a unit (of type notify: started is ready); what its journal says when it fails."""
    done = host.run("systemctl", "start", name, seconds=60, check=False)
    return "" if done.returncode == 0 else host.run("journalctl", "-n", "40", "-u", name, "-o", "cat").stdout
