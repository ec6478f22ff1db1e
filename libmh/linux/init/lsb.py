"""Services as LSB init scripts, where there is no systemd (LSB Core 5.0, chapter 22)."""

import contextlib
import fnmatch
import os
import re
import signal
import stat

from libmh.api.services import Unit
from libmh.context import Root
from libmh.errors import BackendFailed, Problem

SCRIPTS = "/etc/init.d"
RUNLEVELS = ("2", "3", "4", "5")
MAX_SCRIPTS = 4096
HEADER = 1 << 14
LEFT_OVER = re.compile(r".*(~|\.(dpkg-\w+|rpm(save|new|orig)|ucf-\w+|bak|orig))")
DESCRIPTION = re.compile(r"^#\s*Short-Description:[ \t]*(\S.*)$", re.MULTILINE)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# status codes of LSB, and the ancestor's in the range that LSB leaves to applications
RUNNING, DEAD, NOT_RUNNING, UNKNOWN = 0, 1, 3, 4
SIGNALLED, TIMED_OUT = 194, 198
MAX_SECONDS = 85.0  # below the deadline of the call, so that the code is told
REAPED_WITHIN = 1.0


def names(root: Root) -> list[str]:
    """Executable files of /etc/init.d, sorted; those with a dot in front and what packages left over are
    none."""
    try:
        with os.scandir(root.path(SCRIPTS)) as entries:
            return sorted(entry.name for entry in list(entries)[:MAX_SCRIPTS] if _is_script(entry))
    except OSError:  # there is no such directory
        return []


def _is_script(entry: "os.DirEntry[str]") -> bool:
    if entry.name.startswith((".", "-")) or not entry.name.isprintable() or LEFT_OVER.fullmatch(entry.name):
        return False
    try:
        mode = entry.stat().st_mode
    except OSError:  # a link that leads nowhere
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def status(root: Root, name: str, seconds: float) -> int:
    """Run `/etc/init.d/NAME status` for at most `seconds`. Only a name that is listed is ever run; 4 for any
    other."""
    name = name.removesuffix(".service")
    return run(str(root.path(f"{SCRIPTS}/{name}")), "status", seconds) if name in names(root) else UNKNOWN


def run(script: str, action: str, seconds: float) -> int:
    """Its exit code; 198 when the time passed, its whole process group is killed then; 194 when a signal
    ended it. `backend-failed` when it cannot be started."""
    import subprocess

    try:
        process = subprocess.Popen(
            [script, action],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe could be held open by what the script leaves running
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C"},
            process_group=0,
        )
    except OSError as error:
        raise BackendFailed(f"'{script}' cannot be run: {error.strerror}", source=script) from error
    try:
        code = process.wait(min(seconds, MAX_SECONDS))
    except subprocess.TimeoutExpired:
        _kill(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel does not let it go: reaped later
            process.wait(REAPED_WITHIN)
        return TIMED_OUT
    return SIGNALLED if code < 0 else code


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # it ended just now
        return


def units(root: Root, pattern: str, state: str) -> list[Unit]:
    """The scripts as services. Whether one runs is not known without running it, so its states are
    `unknown`."""
    listed = [unit(root, name) for name in names(root)]
    return [
        each
        for each in listed
        if _matches(each, pattern) and state in ("", each.load_state, each.active_state)
    ]


def _matches(unit: Unit, pattern: str) -> bool:
    return not pattern or any(
        fnmatch.fnmatchcase(name, pattern) for name in (unit.name, unit.name.removesuffix(".service"))
    )


def unit(root: Root, name: str) -> Unit:
    """Description from the script's LSB header, enablement from the links of the runlevels."""
    place = f"{SCRIPTS}/{name}"
    try:
        described = DESCRIPTION.search(root.read(place, HEADER))
    except Problem:  # it may be run but not read
        described = None
    return Unit(
        name=f"{name}.service",
        description=described[1].strip() if described else name,
        load_state="loaded",
        active_state="unknown",
        sub_state="unknown",
        enablement="enabled" if _enabled(root, name) else "disabled",
        fragment_path=place,
    )


def _enabled(root: Root, name: str) -> bool:
    start = re.compile(rf"S[0-9]{{2}}{re.escape(name)}")
    for level in RUNLEVELS:
        try:
            if any(start.fullmatch(link) for link in os.listdir(root.path(f"/etc/rc{level}.d"))):  # noqa: PTH208 - names alone
                return True
        except OSError:  # no such runlevel
            continue
    return False
