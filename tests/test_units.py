"""The units as they are installed: they hold together, they confine, they come up on a booted machine."""

import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_tree import ROOT
from testbed import needs
from testbed.machine import Host, booted_host

PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))
NAMES = [unit.stem for unit in UNITS]
EXPOSURE = {"mh-broker": 1.5, "mh-conductor": 1.5, "mh-amqp": 2.0, "mh-dbus": 4.0}
INSIDE = "/opt/matahari"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the commands of this environment."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/mh-", f"{sys.prefix}/bin/mh-"))
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [needs.command("systemd-analyze", "systemd"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_daemon_has_its_unit() -> None:
    assert NAMES == ["mh-amqp", "mh-broker", "mh-conductor", "mh-dbus"]


def test_systemd_has_no_complaint(installed: Path) -> None:
    done = analyze("verify", *(str(installed / unit.name) for unit in UNITS))
    complaints = [line for line in done.stderr.splitlines() if "mh-" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", NAMES)
def test_unit_is_confined(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(installed / f"{name}.service"))
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= EXPOSURE[name]


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


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "lib")
    needed = Path(sysconfig.get_path("platlib"))
    binds = {f"{INSIDE}/lib": directory / "lib", f"{INSIDE}/needed": needed}
    with booted_host("units", files=installed_files(), binds=binds) as machine:
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/matahari.conf")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reload", "dbus")
        yield machine


def start(host: Host, name: str) -> str:
    """Start a unit (of type notify: started is ready); what its journal says when it fails."""
    done = host.run("systemctl", "start", name, seconds=60, check=False)
    return "" if done.returncode == 0 else host.run("journalctl", "-n", "40", "-u", name, "-o", "cat").stdout


@pytest.mark.parametrize("name", ["mh-broker", "mh-conductor", "mh-dbus", "mh-amqp"])
def test_unit_comes_up_and_ends(host: Host, name: str) -> None:
    assert start(host, name) == ""
    assert host.run("systemctl", "is-active", name).stdout == "active\n"
    host.run("systemctl", "stop", name, seconds=60)
    shown = host.run("systemctl", "show", "-p", "Result", "-p", "ExecMainStatus", name).stdout
    assert set(shown.split()) == {"Result=success", "ExecMainStatus=0"}


def test_the_host_is_served_on_both_buses(host: Host) -> None:
    assert [start(host, name) for name in ("mh-broker", "mh-conductor", "mh-dbus", "mh-amqp")] == [""] * 4
    local = host.run("mhctl", "--on", "system:", "get", "Host.hostname").stdout.strip()
    assert local.endswith(host.name)
    uuid = host.run("mhctl", "--on", "system:", "get", "Host.uuid").stdout.strip()
    remote = host.run(
        "mhctl", "--on", f"amqp://127.0.0.1:5672/{uuid}", "get", "Host.hostname"
    ).stdout.strip()
    assert remote == local


def test_the_machine_is_reported_not_the_sandbox(host: Host) -> None:
    assert start(host, "mh-dbus") == ""
    outside = host.run("mhctl", "--on", "local:", "--json", "get", "Host.filesystems").stdout
    inside = host.run("mhctl", "--on", "system:", "--json", "get", "Host.filesystems").stdout
    paths = [re.findall(r'"(?:path|mount_point|mountpoint)": "([^"]+)"', text) for text in (outside, inside)]
    assert paths[0]
    assert paths[0] == paths[1]
