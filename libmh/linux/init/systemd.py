"""Services of systemd, over its D-Bus API (org.freedesktop.systemd1(5)).

Single properties are asked side by side: all properties of a unit at once are a hundred values that nobody
wants, and cost systemd more than the few that are."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from libmh.api.services import Unit
from libmh.errors import Problem, Timeout
from libmh.linux.daemons import Daemon
from libmh.linux.init import lsb
from libmh.linux.init.unitnames import SUFFIXES, full, is_name

UNIT = "org.freedesktop.systemd1.Unit"
LIST_DEADLINE = 10.0
MAX_UNITS = 10_000
MAX_DETAILED = 2000
FEW = 200  # above, one list of all unit files is quicker than asking for the state of each
NOT_SET = 2**64 - 1
MICROSECOND = 1000  # in nanoseconds

# the time at which a unit came to its active state
SINCE = {
    "active": "ActiveEnterTimestamp",
    "reloading": "ActiveEnterTimestamp",
    "activating": "InactiveExitTimestamp",
    "deactivating": "ActiveExitTimestamp",
}
IDLE = ("inactive", "failed")
SERVICE = ("Type", "NRestarts", "Result")
RUNNING = ("MainPID",)
ENDED = ("ExecMainCode", "ExecMainStatus")
ACCOUNTED = ("MemoryCurrent", "TasksCurrent")
WITH_CGROUP = ("Service", "Slice", "Scope", "Socket", "Mount", "Swap")

Asked = tuple[str, str, str]  # object path, interface, property


def names(systemd: Daemon) -> list[str]:
    """Services that are loaded or installed, without their suffix; templates and aliases are none."""
    patterns: tuple[list[str], list[str]] = ([], ["*.service"])
    units = systemd.value(list, "ListUnitsByPatterns", "asas", *patterns, timeout=LIST_DEADLINE)
    files = systemd.value(list, "ListUnitFilesByPatterns", "asas", *patterns, timeout=LIST_DEADLINE)
    found = {row[0] for row in units if row[2] != "not-found"}
    found |= {path.rpartition("/")[2] for path, state in files if state != "alias"}
    services = (name.removesuffix(".service") for name in found if name.endswith(".service"))
    return sorted(name for name in services if name and not name.endswith("@"))


def status(systemd: Daemon, name: str, seconds: float) -> int:
    """LSB's code, as `systemctl status` gives it: 4 for a name that is none, without asking."""
    if not is_name(name):
        return lsb.UNKNOWN
    unit = full(name)
    try:
        rows = systemd.value(list, "ListUnitsByNames", "as", [unit], timeout=seconds)
    except Timeout:
        return lsb.TIMED_OUT
    if not rows:
        return lsb.UNKNOWN
    load, active = rows[0][2], rows[0][3]
    if active in IDLE:
        return lsb.UNKNOWN if load == "not-found" else lsb.NOT_RUNNING
    return lsb.RUNNING


def units(systemd: Daemon, pattern: str, state: str) -> list[Unit]:
    """Loaded units by name; the details of the first 2,000 of them."""
    patterns = [pattern] if pattern else []
    if pattern and not pattern.endswith(SUFFIXES):
        patterns.append(f"{pattern}.service")
    rows = systemd.value(
        list, "ListUnitsByPatterns", "asas", [state] if state else [], patterns, timeout=LIST_DEADLINE
    )
    rows = sorted(rows)[:MAX_UNITS]
    detailed = [row for row in rows[:MAX_DETAILED] if row[2] != "not-found"]
    files = _file_states(systemd) if len(detailed) > FEW else {}
    told = _ask(systemd, [each for row in detailed for each in wanted(row)])
    if not files:
        states = _ask(systemd, [(row[6], UNIT, "UnitFileState") for row in detailed])
        files = {row[0]: states.get(row[6], {}).get("UnitFileState", "") for row in detailed}
    return [unit(row, told.get(row[6], {}), file_state(row[0], files)) for row in rows]


def wanted(row: Sequence[Any]) -> list[Asked]:
    """What to ask about a unit that ListUnits listed: it depends on its type and on whether it runs."""
    active, sub, path = row[3], row[4], row[6]
    names = [(UNIT, "FragmentPath"), (UNIT, SINCE.get(active, "InactiveEnterTimestamp"))]
    kind = row[0].rpartition(".")[2].capitalize()
    interface = f"org.freedesktop.systemd1.{kind}"
    if kind == "Service":
        names += [(interface, name) for name in SERVICE]
        names += [(interface, name) for name in (RUNNING if sub == "running" else ENDED)]
    if active not in IDLE and sub != "exited" and kind in WITH_CGROUP:
        names += [(interface, name) for name in ACCOUNTED]
    return [(path, interface, name) for interface, name in names]


def _ask(systemd: Daemon, asked: list[Asked]) -> dict[str, dict[str, Any]]:
    """Answers by object path and property. What was not answered is left out: a unit may go while it is
    asked."""
    questions = [(path, "Get", "ss", (interface, name)) for path, interface, name in asked]
    answers = systemd.ask(questions, LIST_DEADLINE)
    pairs = [
        (path, name, answer[0])
        for (path, _, name), answer in zip(asked, answers, strict=True)
        if not isinstance(answer, Problem)
    ]
    return {
        path: {name: value for _, name, value in group}
        for path, group in groupby(pairs, lambda pair: pair[0])
    }


def _file_states(systemd: Daemon) -> dict[str, str]:
    """States of all unit files by name."""
    files = systemd.value(list, "ListUnitFilesByPatterns", "asas", [], [], timeout=LIST_DEADLINE)
    return {path.rpartition("/")[2]: state for path, state in files}


def file_state(name: str, files: Mapping[str, str]) -> str | None:
    """The state of a unit's file; an instance has its template's."""
    prefix, at, instance = name.partition("@")
    template = f"{prefix}@.{instance.rpartition('.')[2]}" if at else name
    return files.get(name) or files.get(template) or None


def unit(row: Sequence[Any], told: Mapping[str, Any], enablement: str | None) -> Unit:
    """A row of ListUnits with the properties that were told."""
    name, description, load, active, sub = row[:5]
    since = _number(told.get(SINCE.get(active, "InactiveEnterTimestamp")))
    return Unit(
        name=name,
        description=description,
        load_state=load,
        active_state=active,
        sub_state=sub,
        enablement=enablement,
        type=told.get("Type") or None,
        main_pid=_number(told.get("MainPID")),
        since=since * MICROSECOND if since else None,
        memory=_number(told.get("MemoryCurrent")),
        tasks=_number(told.get("TasksCurrent")),
        restarts=_number(told.get("NRestarts"), least=0),
        result=told.get("Result") or None,
        # before a main process has ended, its code is 0
        exit_status=_number(told.get("ExecMainStatus"), least=0) if told.get("ExecMainCode") else None,
        fragment_path=told.get("FragmentPath") or None,
    )


def _number(value: object, least: int = 1) -> int | None:
    """None for what is not accounted: systemd says 0, or the largest number."""
    return value if isinstance(value, int) and least <= value < NOT_SET else None
