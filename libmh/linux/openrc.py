"""OpenRC: init scripts that rc-service(8) runs and rc-update(8) puts into runlevels."""

from collections.abc import Sequence
from dataclasses import replace

from libmh.api.services import Unit
from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux import programs, sysfs
from libmh.linux.runner import Ending

RUNNING = "/run/openrc"
RUNLEVELS = "/etc/runlevels"
DEFAULT = "default"
TOOL_SECONDS = 60.0
STATES = (
    ("failed", "failed"),
    ("starting", "activating"),
    ("stopping", "deactivating"),
    ("started", "active"),
)


def runs(root: Root) -> bool:
    """Whether it is the service manager: rc_svcdir is there."""
    return sysfs.exists(root, RUNNING)


def run(root: Root, script: str, action: str, seconds: float) -> Ending:
    """An action of a script whose name is one of those in /etc/init.d."""
    return programs.run_below(root, _program(root, "rc-service"), (script, action), seconds)


def enable(root: Root, script: str) -> int:
    """Put it into the default runlevel; it being there is fine."""
    return programs.run_below(root, _program(root, "rc-update"), ("add", script, DEFAULT), TOOL_SECONDS).rc


def disable(root: Root, script: str) -> int:
    """Take it out of all runlevels; it being in none is fine."""
    if not enabled(root, script):
        return 0
    return programs.run_below(root, _program(root, "rc-update"), ("--all", "del", script), TOOL_SECONDS).rc


def enabled(root: Root, script: str) -> bool:
    """Whether a runlevel has it."""
    levels = sysfs.children(root, RUNLEVELS)
    return any(sysfs.exists(root, f"{RUNLEVELS}/{level}/{script}") for level in levels)


def units(root: Root, units: Sequence[Unit], state: str) -> list[Unit]:
    """The scripts with the states that OpenRC keeps below /run."""
    found = [_unit(root, unit) for unit in units]
    return [unit for unit in found if state in ("", unit.load_state, unit.active_state, unit.sub_state)]


def _unit(root: Root, unit: Unit) -> Unit:
    script = unit.name.removesuffix(".service")
    word, active = next(
        (each for each in STATES if sysfs.exists(root, f"{RUNNING}/{each[0]}/{script}")),
        ("stopped", "inactive"),
    )
    enablement = "enabled" if enabled(root, script) else "disabled"
    return replace(unit, active_state=active, sub_state=word, enablement=enablement)


def _program(root: Root, name: str) -> str:
    program = programs.find(root, name)
    if program is None:
        raise NotImplementedHere(f"OpenRC runs here, but not '{name}'", source=name)
    return program
