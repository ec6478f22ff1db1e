"""The `Services` of a Linux machine: systemd's where it runs, init scripts elsewhere. This is where that is
decided."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from libmh.api.services import Action, LogLine, Outcome, Services, Unit, UnitDetail, Whom
from libmh.context import Context, Root
from libmh.errors import InvalidArguments, NotImplementedHere, Unavailable
from libmh.linux import sysfs
from libmh.linux.daemons import SOCKET, SYSTEMD, booted, daemon
from libmh.linux.init import actions, lsb
from libmh.linux.init.jobwatch import Progress
from libmh.linux.init.manager import Manager
from libmh.linux.init.scripts import UnderScripts
from libmh.linux.init.undersystemd import UnderSystemd
from libmh.linux.init.unitwatch import Change
from libmh.linux.machine import identity

MAX_SECONDS = 3600.0
MAX_PATTERN = 512
MAX_ACTIONS = 40
"""At a time, of those that wait for an end: each holds a thread, of which others need some."""


class LinuxServices(Services):
    """Asks the service manager."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._root = self._context.root
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_ACTIONS)
        self._systemd: UnderSystemd | None = None

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def list_services(self) -> list[str]:
        return self._manager().names()

    def enable(self, name: str) -> int:
        with self._place(name, "enable") as manager:
            return manager.enable(name)

    def disable(self, name: str) -> int:
        with self._place(name, "disable") as manager:
            return manager.disable(name)

    def start(self, name: str, timeout: int = 60_000) -> int:
        with self._place(name, "start") as manager:
            return manager.start_or_stop(name, Action.START, limit(timeout))

    def stop(self, name: str, timeout: int = 60_000) -> int:
        with self._place(name, "stop") as manager:
            return manager.start_or_stop(name, Action.STOP, limit(timeout))

    def status(self, name: str, timeout: int) -> int:
        seconds = min(timeout / 1000, lsb.MAX_SECONDS) if timeout else lsb.MAX_SECONDS
        return self._for(name).status(name, seconds)

    def describe(self, name: str) -> str:
        return self._for(name).describe(name)

    def units(self, pattern: str = "", state: str = "") -> list[Unit]:
        if len(pattern) > MAX_PATTERN:  # to match it would take long, and no unit's name is that long
            raise InvalidArguments(
                f"pattern: expected at most {MAX_PATTERN} characters, got {len(pattern)}", argument="pattern"
            )
        return self._manager().units(pattern, state)

    def unit(self, name: str) -> UnitDetail:
        return self._for(name).unit(name)

    def act(self, name: str, verb: Action, timeout: int = 90_000) -> Outcome:
        with self._place(name, verb) as manager:
            return manager.act(name, verb, limit(timeout))

    def restart(self, name: str, timeout: int = 90_000) -> Outcome:
        return self.act(name, Action.RESTART, timeout)

    def reload(self, name: str, timeout: int = 90_000) -> Outcome:
        return self.act(name, Action.RELOAD, timeout)

    def mask(self, name: str) -> Outcome:
        with self._place(name, "mask") as manager:
            return manager.mask(name)

    def unmask(self, name: str) -> Outcome:
        with self._place(name, "unmask") as manager:
            return manager.unmask(name)

    def kill(self, name: str, signal: str = "TERM", whom: Whom = Whom.ALL) -> Outcome:
        return self._for(name).kill(name, signal, whom)

    def reset_failed(self, name: str) -> Outcome:
        return self._for(name).reset_failed(name)

    def logs(self, name: str, lines: int = 100, since: int = 0) -> list[LogLine]:
        return self._for(name).logs(name, lines, since)

    def watch(self) -> None:
        """Raise events from now on, and keep the units in memory; the agent calls this once."""
        if booted(self._root):
            self._under_systemd().watch(self._changed, self._progressed)

    def close(self) -> None:
        """Raise no more events."""
        if self._systemd is not None:
            self._systemd.close()

    def _changed(self, change: Change) -> None:
        result = str(change.told.get("Result") or "")
        failed = change.new[0] == "failed"
        self._context.events.emit(
            Services.service_changed,
            unit=change.unit,
            old_state=change.old[0],
            new_state=change.new[0],
            sub_state=change.new[1],
            result=result,
            why=actions.why(result or None, change.told.get("ExecMainStatus")) if failed else "",
        )

    def _progressed(self, job: Progress) -> None:
        self._context.events.emit(
            Services.job_changed,
            job_id=job.id,
            unit=job.unit,
            verb=job.verb,
            state=job.state,
            seconds=job.seconds,
        )

    def canonical(self, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
        """`libmh.call.Naming`: units by their own names, a signal by one of its spellings."""
        del member
        found = dict(objects)
        if found.get("name"):
            found["name"] = self.own_name(found["name"])
        if "signal" in found:
            found["signal"] = actions.signal_word(found["signal"])
        return found

    def own_name(self, name: str) -> str:
        """What the service manager calls a unit, whichever of its names this is. Raises when it cannot be
        asked."""
        try:
            return self._manager().own_name(name)
        except NotImplementedHere:  # nothing here has a name
            return name

    @contextmanager
    def _place(self, name: str, verb: str) -> Iterator[Manager]:
        manager = self._for(name)
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                f"cannot {verb} '{name[:100]}' now: {MAX_ACTIONS} actions on services are under way, "
                "try again when one of them has ended"
            )
        try:
            yield manager
        finally:
            self._places.release()

    def _for(self, name: str) -> Manager:
        if not name:
            raise InvalidArguments("name: expected a service's name, got ''", argument="name")
        return self._manager()

    def _manager(self) -> Manager:
        """`not-implemented` where there is no service manager that we know."""
        if booted(self._root):
            return self._under_systemd()
        if not sysfs.exists(self._root, lsb.SCRIPTS):
            raise NotImplementedHere(f"neither systemd nor '{lsb.SCRIPTS}' is here", source=lsb.SCRIPTS)
        return UnderScripts(self._root)

    def _under_systemd(self) -> UnderSystemd:
        with self._lock:
            if self._systemd is None:
                self._systemd = UnderSystemd(self._root, daemon(self._root, SYSTEMD), address(self._root))
            return self._systemd


def address(root: Root) -> str:
    """The bus on which the systemd of a root is."""
    return "system" if str(root.base) == "/" else f"unix:path={root.path(SOCKET)}"


def limit(milliseconds: int) -> float:
    """Seconds; none, and what is above the longest, is the longest."""
    return min(milliseconds / 1000, MAX_SECONDS) if milliseconds else MAX_SECONDS
