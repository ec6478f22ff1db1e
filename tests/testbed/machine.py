"""Booted machines for tests: `with booted_host("h1") as host: host.run("ls")`; up in a second.

A real systemd is PID 1 in namespaces of its own, over a throw-away copy of this machine's disk (the script
`host` says how). It dies with the test run, and is powered off and removed at the end of the block.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from source_tree import ROOT
from testbed import needs
from testbed.child import spawn, stop
from waiting import wait_for

SCRIPT = str(Path(__file__).with_name("host"))
LAYER = str(Path(__file__).with_name("layer"))
DISKS = Path("/dev/shm/mh-testbed")
LAYERS = Path("/dev/shm/mh-testbed-layers")


@dataclass(slots=True)
class Host:
    """One machine; its name is its hostname, and carries the process id of the test run."""

    name: str
    environment: Mapping[str, str]
    process: subprocess.Popen[str]

    def run(
        self, *command: str, seconds: float = 30, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; CalledProcessError when it fails and `check` is on."""
        return _script("exec", self.name, *command, seconds=seconds, check=check)

    def python(
        self, *arguments: str, seconds: float = 30, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run this very Python with the project's packages inside."""
        return self.run(sys.executable, *arguments, seconds=seconds, check=check)

    def bus_address(self) -> str:
        """Its system bus, reachable for root from outside; another one after each boot."""
        leader = _script("leader", self.name).stdout.strip()
        return f"unix:path=/proc/{leader}/root/run/dbus/system_bus_socket"

    def boot_id(self) -> str:
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def reboot(self) -> None:
        """Reboot in an orderly way and wait until it is up again: same disk, new boot id."""
        before = _script("leader", self.name).stdout
        self.run("systemctl", "reboot", check=False)
        wait_for(lambda: _script("leader", self.name, check=False).stdout not in {"", before}, seconds=30)
        _script("wait", self.name)

    def crash(self) -> None:
        """Power failure: PID 1 is killed; what was not on the disk is lost."""
        _script("crash", self.name)
        self.process.wait(10)

    def boot(self) -> None:
        """Boot it again after a crash, from the same disk."""
        self.process = _start(self.name, self.environment)


@contextmanager
def booted_host(
    name: str,
    *,
    files: Mapping[str, str] | None = None,
    binds: Mapping[str, Path] | None = None,
    layers: Sequence[Path] = (),
) -> Iterator[Host]:
    """A machine that runs as long as the block.

    `files` are put on its disk before the first boot (absolute path -> text; `#!` makes it executable); the
    checkout and this Python are seen inside at their own paths, `binds` as told (path inside -> directory);
    `layers` are disks from `layer`, the uppermost first.
    """
    _check_machine()
    _sweep()
    own = f"{name}-{os.getpid()}"
    own_paths = {str(path): path for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))}
    shown = {inside: path for inside, path in own_paths.items() if not path.is_relative_to("/usr")} | dict(
        binds or {}
    )
    environment = {
        "MH_TESTBED": str(DISKS),
        "MH_TESTBED_BIND": ":".join(f"{path}={inside}" for inside, path in shown.items()),
        "MH_TESTBED_ROOT": ":".join([*map(str, layers), "/"]),
    }
    for path, text in (files or {}).items():
        _put(DISKS / own / "disk" / path.lstrip("/"), text)
    host = Host(own, environment, _start(own, environment))
    try:
        yield host
    finally:
        _script("off", own, check=False)
        stop(host.process)
        _script("remove", own, check=False)


@contextmanager
def layer(name: str, command: str, *, seconds: float = 300) -> Iterator[Path]:
    """The disk of a copy of this machine in which a shell command was run; gone with the block."""
    _check_machine()
    own = f"{name}-{os.getpid()}"
    environment = {**os.environ, "MH_TESTBED_LAYERS": str(LAYERS)}
    arguments = [LAYER, own, command]
    try:
        subprocess.run(
            arguments, env=environment, timeout=seconds, check=True, capture_output=True, text=True
        )
        yield LAYERS / own / "disk"
    finally:
        shutil.rmtree(LAYERS / own, ignore_errors=True)


def with_packages(*packages: str, seconds: float = 300) -> Path:
    """The disk of a copy of this machine in which Debian packages are installed, made once and kept for
    later runs; skips where there is no mirror to have them from."""
    _check_machine()
    LAYERS.mkdir(parents=True, exist_ok=True)
    name, named = "+".join(packages), " ".join(packages)
    command = f"apt-get -qq update; apt-get -qq -y --no-install-recommends install {named}"
    with (LAYERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (LAYERS / name).exists():
            shutil.rmtree(LAYERS / f"{name}.new", ignore_errors=True)
            environment = {**os.environ, "MH_TESTBED_LAYERS": str(LAYERS)}
            arguments = [LAYER, f"{name}.new", command]
            try:
                subprocess.run(arguments, env=environment, timeout=seconds, check=True, capture_output=True)
            except subprocess.SubprocessError as error:
                needs.missing(f"{named} in a copy of this machine ({needs.INSTALLABLE}{named}): {error}")
            (LAYERS / f"{name}.new").rename(LAYERS / name)
    return LAYERS / name / "disk"


def _put(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    if text.startswith("#!"):
        target.chmod(0o755)


def _start(name: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    console = DISKS / name / "console"
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("a") as output:
        process = spawn(
            [SCRIPT, "run", name], env=environment, stdout=output.fileno(), stderr=subprocess.STDOUT
        )
    try:
        _script("wait", name)
    except subprocess.SubprocessError as error:
        stop(process)
        raise RuntimeError(
            f"'{name}' did not boot, its console says: {console.read_text()[-2000:]}"
        ) from error
    return process


def _script(
    verb: str, name: str, *arguments: str, seconds: float = 40, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, verb, name, *arguments],
        env={**os.environ, "MH_TESTBED": str(DISKS)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=check,
    )


def _sweep() -> None:
    """Remove what test runs left behind that were killed."""
    for disk in DISKS.glob("*-*"):
        if not Path("/proc", disk.name.rpartition("-")[2]).exists():
            _script("remove", disk.name, check=False)


def _check_machine() -> None:
    needs.root("boot a machine in namespaces")
    needs.file("/lib/systemd/systemd", "systemd")
    needs.file("/usr/bin/dbus-daemon", "dbus")
    needs.command("ip", "iproute2")
    needs.command("bash", "bash")
    if (
        "cgroup2" not in Path("/proc/filesystems").read_text()
        or " cgroup2 " not in Path("/proc/mounts").read_text()
    ):
        needs.missing("a cgroup2 tree")
    if "overlay" not in Path("/proc/filesystems").read_text():
        needs.missing("overlayfs")
