"""OpenRC: init scripts that rc-service(8) runs and rc-update(8) puts into runlevels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from libmh.api.services import Unit
from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux import programs, sysfs
from libmh.linux.init import lsb
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
"""Directory of /run/openrc -> systemd's word; what is stopping is in `started`, too."""
CODES: Mapping[int, int] = {4: lsb.RUNNING, 8: lsb.NOT_RUNNING, 16: lsb.NOT_RUNNING, 32: lsb.DEAD}
"""Its own status codes (stopping, starting, inactive, crashed) as LSB's, of which 4 is another."""


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
    levels = runlevels(root, script)
    if not levels:
        return 0  # rc-update fails where a runlevel that it is told does not have it
    return programs.run_below(root, _program(root, "rc-update"), ("del", script, *levels), TOOL_SECONDS).rc


def runlevels(root: Root, script: str) -> list[str]:
    """The runlevels that have it."""
    levels = sysfs.children(root, RUNLEVELS)
    return [level for level in levels if sysfs.exists(root, f"{RUNLEVELS}/{level}/{script}")]


def status(root: Root, script: str, seconds: float) -> int:
    """LSB's code; a script's own where it has another."""
    code = run(root, script, "status", seconds).rc
    return CODES.get(code, code)


def state(root: Root, script: str) -> tuple[str, str]:
    """OpenRC's word for the state that it keeps below /run, and systemd's."""
    found = (each for each in STATES if sysfs.exists(root, f"{RUNNING}/{each[0]}/{script}"))
    return next(found, ("stopped", "inactive"))


def units(root: Root, units: Sequence[Unit], state: str) -> list[Unit]:
    """The scripts with the states that OpenRC keeps below /run."""
    found = [_unit(root, unit) for unit in units]
    return [unit for unit in found if state in ("", unit.load_state, unit.active_state, unit.sub_state)]


def _unit(root: Root, unit: Unit) -> Unit:
    script = unit.name.removesuffix(".service")
    word, active = state(root, script)
    enablement = "enabled" if runlevels(root, script) else "disabled"
    return replace(unit, active_state=active, sub_state=word, enablement=enablement)


def _program(root: Root, name: str) -> str:
    program = programs.find(root, name)
    if program is None:
        raise NotImplementedHere(f"OpenRC runs here, but not '{name}'", source=name)
    return program
