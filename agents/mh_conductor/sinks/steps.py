"""The steps of a plan: what is shown, kept as text, and carried out is one and the same object."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from libmh.api.sinks import SinkStep

MAX_STEPS = 3_000
MAX_CONFLICTS = 1_000
MAX_TEXT = 250


class Action(StrEnum):
    CREATE_TRAIT = "create-trait"
    CREATE = "create"
    RENAME = "rename"
    SET_METADATA = "set-metadata"
    ADD_HOST = "add-host"
    SET_TRAITS = "set-traits"
    REMOVE_HOST = "remove-host"
    UNSET_METADATA = "unset-metadata"
    DELETE = "delete"
    MIRROR_HOST = "mirror-host"
    UNMIRROR_HOST = "unmirror-host"
    NAME = "name"
    """Only of conflicts: what a host or trait is called here finds nothing, or too much, there."""
    VERIFY = "verify"
    """Only of what failed: the sink could not be read back."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `aggregate` is its id there, or, of one that the plan makes, its UUID here; `target` is what
    people call it. `metadata` are the keys to set, or with None to delete; `traits` those that come (true)
    or go; `provider` is the UUID at Placement."""

    action: Action
    target: str
    why: str
    aggregate: str = ""
    host: str = ""
    name: str = ""
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    traits: Mapping[str, bool] = field(default_factory=dict)
    provider: str = ""

    @property
    def detail(self) -> str:
        words = [self.host] if self.host else []
        words += [f"'{self.name}'"] if self.name else []
        words += [
            f"{key}={value}" if value is not None else f"-{key}" for key, value in self.metadata.items()
        ]
        words += [f"{'+' if comes else '-'}{trait}" for trait, comes in self.traits.items()]
        return ", ".join(words)

    def told(self, why: str = "") -> SinkStep:
        """As callers see it."""
        return SinkStep(self.action.value, _cut(self.target), _cut(self.detail), _cut(why or self.why))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` in the order of execution; `left` are those beyond the limit, for the next plan."""

    steps: tuple[Step, ...] = ()
    conflicts: tuple[Step, ...] = ()
    left: int = 0

    def told_conflicts(self) -> list[SinkStep]:
        """Conflicts as callers see them, and what did not find room."""
        told = bounded([step.told() for step in self.conflicts])
        if self.left:
            why = f"a plan has at most {MAX_STEPS} steps: apply this one, then plan again"
            told.append(SinkStep("more", "", f"{self.left} steps", why))
        return told


@dataclass(slots=True)
class Pushed:
    """`failed`: the steps that were not carried out, each with the reason."""

    done: int = 0
    failed: list[tuple[Step, str]] = field(default_factory=list)


def bounded(told: list[SinkStep]) -> list[SinkStep]:
    """As many as fit into an answer beside others."""
    if len(told) <= MAX_CONFLICTS:
        return told
    left = len(told) - MAX_CONFLICTS
    return [*told[:MAX_CONFLICTS], SinkStep("more", "", f"{left} more", f"only {MAX_CONFLICTS} are told")]


def limited(steps: Sequence[Step], conflicts: Sequence[Step]) -> Plan:
    """A plan that a message can carry."""
    return Plan(tuple(steps[:MAX_STEPS]), tuple(conflicts), max(0, len(steps) - MAX_STEPS))


def as_text(plan: Plan) -> str:
    """JSON; equal plans give equal texts."""
    return json.dumps(asdict(plan), sort_keys=True, separators=(",", ":"))


def from_text(text: str) -> Plan:
    """The plan of a text that `as_text` made."""
    told = json.loads(text)
    return Plan(_steps(told["steps"]), _steps(told["conflicts"]), told["left"])


def _steps(told: list[dict[str, Any]]) -> tuple[Step, ...]:
    return tuple(Step(**{**each, "action": Action(each["action"])}) for each in told)
