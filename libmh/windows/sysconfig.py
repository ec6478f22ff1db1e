"""The `Sysconfig` of a Windows machine: .reg files, looked at first and then done whole or not at all."""

import difflib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from libmh.api.sysconfig import Drift, FileChange, Plan, Run, RunResult, Setting, Sysconfig
from libmh.caller import asking
from libmh.context import Context
from libmh.errors import Conflict, InvalidArguments, NotFound, NotImplementedHere
from libmh.schemes import Edit, Execution, Forecast, Scheme
from libmh.windows.registry import RegistryScheme
from libmh.windows.services import machine_guid

POSTBOOT = "is_postboot_configured"
STATUSES = "sysconfig_keys"
SCHEME = "registry"
UNKNOWN = "unknown"
KEY = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,254}")
FORCE = 1
DAY = 86_400.0
NANOSECOND = 1e-9
MAX_PLANS = 100
MAX_STATUSES = 1000
MAX_DIFF = MAX_OUTPUT = 65_535
SECONDS = 60.0
SECRET = re.compile(r'^(.?"[^"]*(?:pass|secret|token|credential|private)[^"]*"=).*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kept:
    """A plan, and what it was made from."""

    plan: Plan
    text: str
    forecast: Forecast


class WindowsSysconfig(Sysconfig):
    """Plans are kept in memory for a day, statuses with the agent's settings."""

    def __init__(self, context: Context | None = None, scheme: Scheme | None = None) -> None:
        self._context = context or Context()
        self._given = scheme
        self._lock = threading.Lock()
        self._plans: dict[str, Kept] = {}

    def uuid(self) -> str:
        return machine_guid()

    def hostname(self) -> str:
        return socket.gethostname()

    def is_postboot_configured(self) -> int:
        return self._context.settings.number(POSTBOOT, 0)

    def set_is_postboot_configured(self, value: int) -> None:
        self._context.settings.set(POSTBOOT, value)

    def is_configured(self, key: str) -> str:
        return self._statuses().get(key, UNKNOWN)

    def query(self, query: str, flags: int, scheme: str) -> str:
        del query, flags, scheme  # the ancestor answered nothing else here
        return UNKNOWN

    def run_string(self, text: str, flags: int, scheme: str, key: str) -> str:
        _check(scheme, key)
        known = self._statuses().get(key)
        if known is not None and not flags & FORCE:
            return known
        execution = self._scheme().run(text, SECONDS)
        return self._keep(key, execution)

    def plan(self, scheme: str, text: str = "", uri: str = "") -> Plan:
        _check(scheme)
        if uri:
            raise NotImplementedHere("on Windows a plan is made from its text alone", argument="uri")
        forecast = self._scheme().forecast(text, SECONDS)
        now = time.time()
        plan = Plan(
            id=hashlib.sha256(f"{now}{id(forecast)}{text}".encode()).hexdigest()[:32],
            scheme=SCHEME,
            time=round(now / NANOSECOND),
            expires=round((now + DAY) / NANOSECOND),
            by=asking().described,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            exact=True,
            files=[_change(edit) for edit in forecast.edits],
            output=forecast.output[:MAX_OUTPUT],
        )
        with self._lock:
            for old in list(self._plans)[: max(0, len(self._plans) + 1 - MAX_PLANS)]:
                del self._plans[old]
            self._plans[plan.id] = Kept(plan, text, forecast)
        return plan

    def plans(self) -> list[str]:
        now = time.time() / NANOSECOND
        with self._lock:
            return [name for name, kept in reversed(self._plans.items()) if kept.plan.expires >= now]

    def planned(self, plan: str) -> Plan:
        with self._lock:
            kept = self._plans.get(plan)
        if kept is None or kept.plan.expires < time.time() / NANOSECOND:
            raise NotFound(f"there is no plan '{plan[:100]}'", plan=plan[:100])
        return kept.plan

    def apply(self, plan: str, key: str = "", confirm: int = 0) -> Run:
        if confirm:
            raise NotImplementedHere("on Windows no run undoes itself: expected 0", argument="confirm")
        if key:
            _check(SCHEME, key)
        with self._lock:
            kept = self._plans.pop(plan, None)
        if kept is None or kept.plan.expires < time.time() / NANOSECOND:
            raise NotFound(f"there is no plan '{plan[:100]}'", plan=plan[:100])
        if self._scheme().forecast(kept.text, SECONDS) != kept.forecast:
            raise Conflict("a key has changed since it was planned: plan it again")
        began = time.time()
        execution = self._scheme().run(kept.text, SECONDS)
        status = self._keep(key, execution) if key else _status(execution)
        return _run(kept.plan, key, began, execution, status)

    def run_uri(self, uri: str, flags: int, scheme: str, key: str) -> str:
        raise _not_here("downloads of configuration", uri, flags, scheme, key)

    def configured(self, key: str) -> Run:
        raise _not_here("record of runs", key)

    def history(self, key: str = "", limit: int = 100) -> list[Run]:
        raise _not_here("record of runs", key, limit)

    def confirm(self, run: str) -> Run:
        raise _not_here("runs that undo themselves", run)

    def undo(self, run: str) -> Plan:
        raise _not_here("record of runs", run)

    def drift(self) -> list[Drift]:
        raise _not_here("record of runs")

    def settings(self, file: str, key: str = "") -> list[Setting]:
        raise _not_here("lenses for files", file, key)

    def plan_setting(self, file: str, key: str, value: str | None = None) -> Plan:
        raise _not_here("lenses for files", file, key, value)

    def _scheme(self) -> Scheme:
        if self._given is None:
            self._given = RegistryScheme()
        return self._given

    def _statuses(self) -> Mapping[str, str]:
        kept = self._context.settings.get(STATUSES, {})
        return {str(key): str(status) for key, status in kept.items()} if isinstance(kept, dict) else {}

    def _keep(self, key: str, execution: Execution) -> str:
        status = _status(execution)
        with self._lock:
            known = {**self._statuses(), key: status}
            self._context.settings.set(STATUSES, dict(list(known.items())[-MAX_STATUSES:]))
        return status


def _not_here(what: str, *_: object) -> NotImplementedHere:
    return NotImplementedHere(f"Windows has no {what}")


def _check(scheme: str, key: str | None = None) -> None:
    if scheme.lower() != SCHEME:
        raise InvalidArguments(f"scheme: expected '{SCHEME}', got '{scheme[:100]}'", argument="scheme")
    if key is not None and not KEY.fullmatch(key):
        raise InvalidArguments(f"key: '{key[:100]}' is no key", argument="key")


def _status(execution: Execution) -> str:
    if execution.failed:
        return f"FAILED\n{execution.code}\n{execution.output[:MAX_OUTPUT]}"
    return f"OK\n{execution.output[:MAX_OUTPUT]}" if execution.output else "OK"


def _change(edit: Edit) -> FileChange:
    before, after = ((text or b"").decode().splitlines(keepends=True) for text in (edit.before, edit.after))
    diff = difflib.unified_diff(before, after, edit.path, edit.path)
    shown = "".join(SECRET.sub(r"\1***", line) for line in diff)[:MAX_DIFF]
    return FileChange(edit.path, shown, _digest(edit.before), _digest(edit.after))


def _digest(text: bytes | None) -> str | None:
    return None if text is None else hashlib.sha256(text).hexdigest()


def _run(plan: Plan, key: str, began: float, execution: Execution, status: str) -> Run:
    done = RunResult.APPLIED if execution.changed else RunResult.UNCHANGED
    return Run(
        id=plan.id,
        plan=plan.id,
        scheme=SCHEME,
        key=key,
        by=asking().described,
        time=round(began / NANOSECOND),
        duration=time.time() - began,
        result=RunResult.FAILED if execution.failed else done,
        status=status,
        files=[change.path for change in plan.files] if execution.changed else [],
        output=execution.output[:MAX_OUTPUT],
        digest=plan.digest,
        reason=execution.output.strip()[:MAX_OUTPUT] if execution.failed else None,
    )
