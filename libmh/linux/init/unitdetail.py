"""A unit in full, from its properties or from the header of its init script."""

from collections.abc import Mapping
from typing import Any

from libmh.api.services import Condition, Unit, UnitDetail
from libmh.linux.init import systemd

MAX_NAMES = 4096
ROW = ("Id", "Description", "LoadState", "ActiveState", "SubState")
NO_LIMIT = 2**64 - 1


def detail(told: Mapping[str, Any]) -> UnitDetail:
    """From all properties of a unit's interfaces."""
    return UnitDetail(
        unit=systemd.unit([told.get(name, "") for name in ROW], told, told.get("UnitFileState") or None),
        names=_names(told, "Names"),
        documentation=_names(told, "Documentation"),
        drop_ins=_names(told, "DropInPaths"),
        conditions=[*_conditions(told, "Conditions"), *_conditions(told, "Asserts")],
        requires=_names(told, "Requires"),
        wants=_names(told, "Wants"),
        binds_to=_names(told, "BindsTo"),
        part_of=_names(told, "PartOf"),
        conflicts=_names(told, "Conflicts"),
        before=_names(told, "Before"),
        after=_names(told, "After"),
        required_by=_names(told, "RequiredBy"),
        wanted_by=_names(told, "WantedBy"),
        triggers=_names(told, "Triggers"),
        triggered_by=_names(told, "TriggeredBy"),
        can_start=bool(told.get("CanStart")),
        can_stop=bool(told.get("CanStop")),
        can_reload=bool(told.get("CanReload")),
        need_reload=bool(told.get("NeedDaemonReload")),
        slice=told.get("Slice") or None,
        control_group=told.get("ControlGroup") or None,
        restart=told.get("Restart") or None,
        status_text=told.get("StatusText") or None,
        start_timeout=_seconds(told.get("TimeoutStartUSec")),
        stop_timeout=_seconds(told.get("TimeoutStopUSec")),
    )


def of_script(unit: Unit, header: Mapping[str, str]) -> UnitDetail:
    """What an LSB header says; $-names are facilities, such as $network."""
    return UnitDetail(
        unit=unit,
        names=[unit.name, *(f"{name}.service" for name in header.get("Provides", "").split())],
        documentation=[],
        drop_ins=[],
        conditions=[],
        requires=header.get("Required-Start", "").split(),
        wants=header.get("Should-Start", "").split(),
        binds_to=[],
        part_of=[],
        conflicts=[],
        before=header.get("X-Start-Before", "").split(),
        after=[],
        required_by=[],
        wanted_by=[],
        triggers=[],
        triggered_by=[],
        can_start=True,
        can_stop=True,
        can_reload=True,
        need_reload=False,
    )


def _names(told: Mapping[str, Any], name: str) -> list[str]:
    found = told.get(name)
    return [str(each) for each in found[:MAX_NAMES]] if isinstance(found, list) else []


def _conditions(told: Mapping[str, Any], name: str) -> list[Condition]:
    """Each is (name, trigger, negated, parameter, state): state above 0 is met, below 0 is not."""
    found = []
    for each in told.get(name) or ():
        match each:
            case [str(kind), bool(trigger), bool(negated), str(parameter), int(state)]:
                text = f"!{parameter}" if negated else parameter
                found.append(Condition(kind, text, trigger, state > 0 if state else None))
    return found


def _seconds(microseconds: object) -> float | None:
    return microseconds / 1e6 if isinstance(microseconds, int) and microseconds < NO_LIMIT else None
