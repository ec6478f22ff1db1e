"""The `Sysconfig` of a Linux machine."""

import atexit
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

from libmh.api.sysconfig import Drift, Plan, Run, Setting, Sysconfig
from libmh.context import Context
from libmh.errors import InvalidArguments, NotFound
from libmh.linux.config import keys
from libmh.linux.machine import identity

if TYPE_CHECKING:  # dear to import, and an agent that is asked for none of it needs none of it
    from libmh.linux.config.augeas import Augeas
    from libmh.linux.config.configuring import Configuring

POSTBOOT = "is_postboot_configured"
STATE = "/var/lib/matahari"
AUGEAS = "augeas"
USUAL, MOST = 100, 10_000


class LinuxSysconfig(Sysconfig):
    """Plans, carries out and takes back changes of the configuration of this machine. What it remembers is
    beside the agent's settings, shared by all agents of the host."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._root = self._context.root
        self._lock = threading.Lock()
        self._made: Configuring | None = None

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def is_postboot_configured(self) -> int:
        return self._context.settings.number(POSTBOOT, 0)

    def set_is_postboot_configured(self, value: int) -> None:
        self._context.settings.set(POSTBOOT, value)

    def watch(self) -> None:
        """End what died with the agent before; the agent calls this once."""
        if os.access(self._state / "sysconfig", os.R_OK | os.X_OK):  # else it is another agent's
            self._runs.watch()

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def is_configured(self, key: str) -> str:
        return keys.status(self._root, key)

    def configured(self, key: str) -> Run:
        from libmh.linux.config import runs

        keys.check(key)
        run = runs.last(self._runs.store, key)
        if run is None:
            raise NotFound(f"nothing was run under the key '{key}'", key=key)
        return run

    def run_uri(self, uri: str, flags: int, scheme: str, key: str) -> str:
        keys.check(key)
        if not uri:
            raise InvalidArguments("uri: expected one, got ''", argument="uri")
        return self._runs.run(scheme, "", uri, flags, key)

    def run_string(self, text: str, flags: int, scheme: str, key: str) -> str:
        return self._runs.run(scheme, text, "", flags, key)

    def query(self, query: str, flags: int, scheme: str) -> str:  # noqa: ARG002 - none is known yet
        return self._augeas.query(query) if scheme.lower() == AUGEAS else keys.UNKNOWN

    def settings(self, file: str, key: str = "") -> list[Setting]:
        return self._augeas.settings(file, key)

    def plan(self, scheme: str, text: str = "", uri: str = "") -> Plan:
        return self._runs.plan(scheme, text, uri)

    def plan_setting(self, file: str, key: str, value: str | None = None) -> Plan:
        return self._runs.plan(AUGEAS, self._augeas.setting_text(file, key, value), "")

    def plans(self) -> list[str]:
        from libmh.linux.config import plans

        return plans.waiting(self._runs.store)

    def planned(self, plan: str) -> Plan:
        from libmh.linux.config import plans

        return plans.shown(self._runs.store, plan)

    def apply(self, plan: str, key: str = "", confirm: int = 0) -> Run:
        return self._runs.apply(plan, key, confirm)

    def confirm(self, run: str) -> Run:
        return self._runs.confirm(run)

    def undo(self, run: str) -> Plan:
        return self._runs.undo(run)

    def history(self, key: str = "", limit: int = USUAL) -> list[Run]:
        from libmh.linux.config import runs

        return runs.newest(self._runs.store, key, min(limit or USUAL, MOST))

    def drift(self) -> list[Drift]:
        from libmh.linux.config.drift import drifts

        return drifts(self._root, self._runs.store)

    @property
    def _state(self) -> Path:
        return self._context.settings.directory or self._root.path(STATE)

    @property
    def _runs(self) -> "Configuring":
        with self._lock:
            if self._made is None:
                from libmh.linux.config.configuring import Configuring
                from libmh.linux.config.confstore import Store

                self._made = Configuring(self._root, Store(self._state), self._tell)
                atexit.register(self.close)
            return self._made

    @property
    def _augeas(self) -> "Augeas":
        return cast("Augeas", self._runs.scheme(AUGEAS))

    def _tell(self, run: Run) -> None:
        self._context.events.emit(
            Sysconfig.config_changed,
            run=run.id,
            key=run.key,
            by=run.by,
            result=run.result,
            files=run.files,
            reason=run.reason or "",
        )
