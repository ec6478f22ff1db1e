"""Turning the machine off and on again, and its power profiles."""

from collections.abc import Sequence

from libmh.context import Root
from libmh.errors import (
    BackendFailed,
    InvalidArguments,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)
from libmh.linux import sysfs
from libmh.linux.daemons import LOGIND, POWER_PROFILES, TUNED, Daemon, booted, daemon

OFF = "off"
PROGRAMS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
ACCEPTED_WITHIN = 10.0
MAX_WORDS = 500


def power_off(root: Root) -> None:
    """PowerOff of logind; shutdown(8) where there is no logind."""
    _go_down(root, "PowerOff", ("shutdown", "-h", "now"))


def reboot(root: Root) -> None:
    """Reboot of logind; the program `reboot` where there is no logind."""
    _go_down(root, "Reboot", ("reboot",))


def _go_down(root: Root, member: str, command: Sequence[str]) -> None:
    if booted(root):
        try:
            daemon(root, LOGIND).call(member, "b", False)  # noqa: FBT003 - whether polkit may open a dialog
            return
        except (Unavailable, NotFound):  # no bus, or no logind: a small system
            pass
    _run(root, command)


def _run(root: Root, command: Sequence[str]) -> None:
    name, *arguments = command
    program = next((f"{place}/{name}" for place in PROGRAMS if sysfs.exists(root, f"{place}/{name}")), None)
    if program is None:
        raise NotImplementedHere(f"there is neither logind nor '{name}' on this host", source=name)
    import subprocess

    try:
        done = subprocess.run(
            [str(root.path(program)), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ACCEPTED_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Timeout(f"'{name}' did not return within {ACCEPTED_WITHIN:g} s", source=name) from None
    except OSError as error:
        raise BackendFailed(f"'{name}' cannot be started: {error.strerror}", source=name) from error
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[:MAX_WORDS]
        raise BackendFailed(f"'{name}' ended with {done.returncode}: {words}", source=name)


class _Tuned:
    """com.redhat.tuned: the profiles that the ancestor knew."""

    def __init__(self, tuned: Daemon) -> None:
        self._tuned = tuned

    def list(self) -> list[str]:
        return [str(name) for name in self._tuned.value(list, "profiles")] or [OFF]

    def active(self) -> str:
        return self._tuned.value(str, "active_profile") or OFF

    def choose(self, profile: str) -> None:
        if profile == OFF:
            self._tuned.call("disable")
            return
        told = self._tuned.value(list, "switch_profile", "s", profile)  # whether it did, and why not
        if told[:1] != [True]:
            raise BackendFailed(f"tuned did not change to '{profile}': {told[1:]}", source=TUNED.name)


class _PowerProfiles:
    """power-profiles-daemon: performance, balanced, power-saver."""

    def __init__(self, profiles: Daemon) -> None:
        self._profiles = profiles

    def list(self) -> list[str]:
        return [str(each["Profile"]) for each in self._profiles.get(list, "Profiles") if "Profile" in each]

    def active(self) -> str:
        return self._profiles.get(str, "ActiveProfile")

    def choose(self, profile: str) -> None:
        from libmh.bus import variant

        self._profiles.set("ActiveProfile", variant("s", profile))


Manager = _Tuned | _PowerProfiles


def _manager(root: Root) -> tuple[Manager, list[str]]:
    """Whoever manages profiles here, with their names; `unavailable` where nobody does."""
    candidates: list[Manager] = [_Tuned(daemon(root, TUNED))]
    candidates += [_PowerProfiles(daemon(root, place)) for place in POWER_PROFILES]
    reason: Problem | None = None
    for manager in candidates:
        try:
            return manager, manager.list()
        except (Unavailable, NotFound) as problem:  # not installed, or not running
            reason = problem
    raise Unavailable(f"neither tuned nor power-profiles-daemon manages power here: {reason}")


def profiles(root: Root) -> list[str]:
    """Empty where nothing manages them. Raises `Problem` when what does fails."""
    try:
        return _manager(root)[1]
    except Unavailable:
        return []


def active_profile(root: Root) -> str:
    """`backend-failed` where nothing manages them."""
    try:
        return _manager(root)[0].active()
    except Unavailable as problem:
        raise BackendFailed(problem.message) from problem


def set_profile(root: Root, profile: str) -> None:
    """`invalid-arguments` for a name that is not listed, `backend-failed` where nothing manages them."""
    try:
        manager, names = _manager(root)
    except Unavailable as problem:
        raise BackendFailed(problem.message) from problem
    if profile not in names and not (profile == OFF and isinstance(manager, _Tuned)):
        known = ", ".join(names)
        raise InvalidArguments(f"profile: expected one of {known}, got '{profile[:60]}'", argument="profile")
    manager.choose(profile)
