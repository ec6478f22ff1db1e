"""What the distribution installs: four packages and five commands, and nothing beside them."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import source_tree
from source_tree import ROOT

PACKAGES = {"libmh", "mh_dbus", "mh_amqp", "mh_conductor"}
COMMANDS = {"mhctl", "mh-dbus", "mh-amqp", "mh-broker", "mh-conductor"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    [metadata] = [name for name in top if name.endswith(".dist-info")]
    assert metadata.startswith("matahari-")
    assert top - {metadata} == PACKAGES


def test_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    prefixes = tuple(f"{package}/" for package in PACKAGES)
    wanted = {path.removeprefix("agents/") for path in source_tree.tracked() if (ROOT / path).exists()}
    assert {path for path in wanted if path.startswith(prefixes)} - set(wheel.namelist()) == set()


def test_commands_lead_to_functions(wheel: zipfile.ZipFile) -> None:
    [listing] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(listing).decode())
    scripts = dict(parser["console_scripts"])
    assert set(scripts) == COMMANDS
    missing = {target for target in scripts.values() if not _is_defined(wheel, *target.split(":"))}
    assert missing == set()


def _is_defined(wheel: zipfile.ZipFile, module: str, function: str) -> bool:
    path = f"{module.replace('.', '/')}.py"
    if path not in wheel.namelist():
        return False
    source = source_tree.parse(path, wheel.read(path).decode())
    return function in {node.name for node in source_tree.functions(source)}


def test_licence_travels_along(wheel: zipfile.ZipFile) -> None:
    [licence] = [name for name in wheel.namelist() if name.endswith("/LICENSE")]
    assert wheel.read(licence) == Path(ROOT / "LICENSE").read_bytes()
