"""The `Resources` of a Linux machine."""

import atexit
import logging
import re
import threading
from collections.abc import Mapping

from libmh.api.resources import AgentMetadata, Operation, OperationResult, Resources
from libmh.context import Context
from libmh.errors import BackendFailed, InvalidArguments
from libmh.linux.confinement import confined
from libmh.linux.machine import identity
from libmh.linux.resource_agents import metadata, ocf, standards
from libmh.linux.resource_agents.operations import Action, Operations, Result
from libmh.linux.resource_agents.opstore import Memo, Store
from libmh.linux.runner import Runner, Work
from libmh.linux.services import LinuxServices
from libmh.spec import Plain

log = logging.getLogger("libmh.linux.resources")
REASON = re.compile(r"^ocf-exit-reason:[ \t]*(\S.*)$", re.MULTILINE)
MAX_TEXT = 65_535  # what a transport carries
METADATA_MILLISECONDS = 30_000
CANCEL_SECONDS = 30.0


class LinuxResources(Resources):
    """Runs agents, scripts and units. What recurs is kept beside the agent's settings, and goes on when the
    next agent `watch`es."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._root = self._context.root
        self._services = LinuxServices(self._context)
        self._lock = threading.Lock()
        self._made: Operations | None = None
        self._warned = False

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def watch(self) -> None:
        """Go on with the operations of the agent before; the agent calls this once."""
        self._operations.watch()

    def close(self) -> None:
        """Kill what runs, and let another agent have what recurs."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def canonical(self, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
        """`libmh.call.Naming`: the standard, provider and agent that an action comes to."""
        del member
        return standards.canonical(self._root, self._services.own_name, objects)

    def list_standards(self) -> list[str]:
        return standards.here(self._root)

    def list_providers(self, standard: str) -> list[str]:
        return ocf.providers(self._root) if standard.lower() in ("", standards.OCF) else []

    def list_agents(self, standard: str, provider: str) -> list[str]:
        return standards.listed(self._root, self._services, standard, provider)

    def describe(self, standard: str, provider: str, agent: str) -> str:
        if standards.known(self._root, standard or standards.OCF) != standards.OCF:
            return self._services.describe(agent)
        asked = Action(
            agent, standards.OCF, provider, agent, standards.META_DATA, timeout=METADATA_MILLISECONDS
        )
        ending = self._operations.run(asked).ending
        if ending.rc or ending.cut:
            raise BackendFailed(
                f"agent '{agent}' does not describe itself: it answered {ending.rc}, {text(ending.stderr)}",
                source=agent,
            )
        return text(ending.stdout)

    def metadata(self, standard: str, provider: str, agent: str) -> AgentMetadata:
        return metadata.parse(self.describe(standard, provider, agent), agent)

    def invoke(
        self,
        name: str,
        standard: str,
        provider: str,
        agent: str,
        action: str,
        interval: int,
        parameters: dict[str, Plain],
        timeout: int = 60_000,
        expected_rc: int = 0,
        userdata_in: str = "",
    ) -> tuple[int, int, str]:
        asked = Action(
            name,
            standard,
            provider,
            agent,
            action,
            interval,
            ocf.texts(parameters),
            timeout,
            expected_rc,
            userdata_in,
        )
        result = self._run(asked)
        return result.ending.rc, result.sequence, userdata_in

    def run(
        self,
        name: str,
        action: str,
        parameters: dict[str, Plain],
        agent: str = "",
        standard: str = "ocf",
        provider: str = "heartbeat",
        interval: int = 0,
        timeout: int = 60_000,
        expected_rc: int = 0,
        userdata: str = "",
    ) -> OperationResult:
        asked = Action(
            name,
            standard,
            provider,
            agent or name,
            action,
            interval,
            ocf.texts(parameters),
            timeout,
            expected_rc,
            userdata,
        )
        result = self._run(asked)
        ending = result.ending
        said = REASON.findall(text(ending.stderr))
        return OperationResult(
            rc=ending.rc,
            sequence=result.sequence,
            duration=ending.seconds,
            stdout=text(ending.stdout),
            stderr=text(ending.stderr),
            truncated=ending.cut,
            userdata=userdata,
            reason=said[-1].rstrip() if said else None,
        )

    def cancel(self, name: str, action: str, interval: int, timeout: int) -> None:
        seconds = timeout / 1000 if timeout else CANCEL_SECONDS
        self._operations.cancel(name, action, interval, min(seconds, CANCEL_SECONDS))

    def fail(self, name: str, rc: int) -> None:
        self._operations.fail(name, rc)

    def operations(self) -> list[Operation]:
        return self._operations.listed()

    def _run(self, asked: Action) -> Result:
        if not asked.name or not asked.action:
            raise InvalidArguments("name and action: expected a name, got ''", argument="name")
        standards.verify(self._root, self._services, asked)
        if asked.action not in standards.LOOKING:
            self._warn_once()
        return self._operations.run(asked)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            if missing := confined(self._root):
                log.warning("resource agents are run without %s: this process has been confined", missing)

    @property
    def _operations(self) -> Operations:
        with self._lock:
            if self._made is None:
                store = Store(self._context.settings.directory)
                self._made = Operations(Runner(), store, self._plan, self._tell)
                atexit.register(self.close)
            return self._made

    def _plan(self, action: Action) -> Work:
        return standards.plan(self._root, self._services, action)

    def _tell(self, action: Action, memo: Memo) -> None:
        self._context.events.emit(
            Resources.resource_op,
            timestamp=memo.time,
            sequence=memo.sequence,
            name=action.name,
            standard=action.standard,
            provider=action.provider,
            agent=action.agent,
            action=action.action,
            interval=action.interval,
            rc=memo.rc,
            expected_rc=action.expected,
            userdata=action.userdata,
        )


def text(output: bytes) -> str:
    """Output as every transport can carry it."""
    return output.decode("utf-8", "replace").replace("\0", "\ufffd")[:MAX_TEXT]
