"""Where aggregates are pushed to: a file, Nova and Placement."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U32, U64, Access, Effect, Time, interface, method


@dataclass(frozen=True, slots=True)
class Sink:
    """A place that is configured."""

    name: Annotated[str, "of its table in the configuration"]
    type: Annotated[str, "file, openstack"]
    target: Annotated[str, "the path, or the cloud"]
    applied: Annotated[Time | None, "when a plan was last carried out"] = None
    last_error: Annotated[str | None, "of the last try; absent when it went well"] = None


@dataclass(frozen=True, slots=True)
class SinkStep:
    """One call that has to be made there, or a difference that was found."""

    action: Annotated[str, "create, add-host, remove-host, set-metadata, delete, set-traits ..."]
    target: Annotated[str, "the aggregate or provider"]
    detail: Annotated[str, "the host, the keys and values, the traits"]
    why: Annotated[str, "one sentence"]


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """What has to be done there; nothing is done yet."""

    id: Annotated[str, "by which it is applied; it is kept for an hour"]
    sink: Annotated[str, "its name"]
    made: Annotated[Time, "when"]
    generation: Annotated[U64, "of the store that it was made from"]
    steps: Annotated[list[SinkStep], "in the order of execution: hosts are added before they are removed"]
    conflicts: Annotated[list[SinkStep], "what cannot be done, and why"]


@dataclass(frozen=True, slots=True)
class SinkResult:
    """What came of a plan."""

    done: Annotated[U32, "steps that were carried out"]
    failed: Annotated[list[SinkStep], "that were not, and why"]
    drift: Annotated[list[SinkStep], "what still differs, read back from both sides afterwards"]


@interface("org.matahariproject.Sinks", version="1.0")
class Sinks(Protocol):
    """Pushing aggregates, zones and traits to others. Only what carries our mark there is touched."""

    @method(access=Access.OPEN, returns="sinks", name="list")
    def list_sinks(self) -> list[Sink]:
        """Those that are configured, by name."""
        ...

    @method(deadline=300.0, objects=("sink",), returns="plan")
    def plan(self, sink: Annotated[str, "its name"]) -> SinkPlan:
        """Compare both sides, and tell what has to be done there."""
        ...

    @method(effect=Effect.DISRUPTS, deadline=900.0, objects=("sink",), returns="result")
    def apply(
        self,
        sink: Annotated[str, "its name"],
        plan: Annotated[str, "the id of a plan for it"],
    ) -> SinkResult:
        """Carry a plan out, as it was shown; `conflict` where either side has changed since."""
        ...

    @method(deadline=300.0, objects=("sink",), returns="drift")
    def drift(self, sink: Annotated[str, "its name"]) -> list[SinkStep]:
        """What differs there from what is wanted; Placement's mirror of Nova's aggregates with it."""
        ...
