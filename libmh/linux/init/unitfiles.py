"""What starts with the machine: the links that systemd makes of [Install] (EnableUnitFiles and its kin)."""

import logging

from libmh.errors import BackendFailed, InvalidArguments, NotFound, Problem
from libmh.linux.init.line import Line

log = logging.getLogger("libmh.linux.init.unitfiles")
DONE, FAILED, NOT_INSTALLED, NOT_CONFIGURED = 0, 1, 5, 6
RUNTIME, FORCE = False, False
RELOAD_SECONDS = 60.0


async def state(line: Line, name: str) -> str | None:
    """The state of a unit's file: enabled, disabled, static ...; None where there is none."""
    try:
        (found,) = await line.call("GetUnitFileState", "s", name)
    except (BackendFailed, NotFound, InvalidArguments):  # each version of systemd has its own error for it
        return None
    return str(found)


async def enable(line: Line, name: str) -> int:
    """0, or the code that says why not."""
    if await state(line, name) is None:
        return NOT_INSTALLED
    try:
        has_install, _ = await line.call("EnableUnitFiles", "asbb", [name], RUNTIME, FORCE)
        await _reload(line)
    except BackendFailed:
        return FAILED
    return DONE if has_install else NOT_CONFIGURED


async def disable(line: Line, name: str) -> int:
    """0, or the code that says why not."""
    if await state(line, name) is None:
        return NOT_INSTALLED
    try:
        await line.call("DisableUnitFiles", "asb", [name], RUNTIME)
        await _reload(line)
    except BackendFailed:
        return FAILED
    return DONE


async def _reload(line: Line) -> None:
    try:
        await line.call("Reload", seconds=RELOAD_SECONDS)
    except Problem as problem:  # somebody else reloads too often, or it takes its time
        log.warning("links of units are changed, but systemd has not read its files again: %s", problem)
