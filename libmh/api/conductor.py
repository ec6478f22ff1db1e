"""The conductor itself: its rules, its workers, and hosts ahead of their first report."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.api.aggregates import FleetHost
from libmh.spec import U32, U64, Access, Effect, Time, event, interface, method, prop


@dataclass(frozen=True, slots=True)
class Worker:
    """One conductor process on the store."""

    id: Annotated[str, "of the process: HOST:PID:START"]
    version: Annotated[str, "of its software"]
    protocol: Annotated[str, "major.minor of what it writes into the store"]
    started: Annotated[Time, "by its own clock"]
    last_seen: Annotated[Time, "its last sign of life"]
    reports: Annotated[U64, "taken in since it started"]
    changed: Annotated[U64, "of these, that told something new"]
    refused: Annotated[U64, "of these, that were refused"]
    rate: Annotated[float, "reports a second, over the last minute"]
    lag: Annotated[float, "seconds that the last report had waited, by the host's clock"]
    last_error: Annotated[str | None, "one sentence; absent when there was none"] = None


@dataclass(frozen=True, slots=True)
class Status:
    """How the fleet side is."""

    generation: Annotated[U64, "of the store"]
    hosts: Annotated[dict[str, U32], "how many, by state"]
    aggregates: Annotated[U32, "how many"]
    rules: Annotated[U32, "how many are in force"]
    digest: Annotated[str, "SHA-256 of the rules in force"]
    workers: Annotated[list[Worker], "alive, by id"]
    rate: Annotated[float, "reports a second of all workers, over the last minute"]
    held: Annotated[U32, "large changes that wait for approval"]
    queued: Annotated[U64 | None, "reports that wait at the broker; absent where it does not tell"] = None
    last_error: Annotated[str | None, "the latest of any worker"] = None


@dataclass(frozen=True, slots=True)
class Step:
    """A change that a plan foretells."""

    change: Annotated[str, "created, deleted, host-added, host-removed, metadata, refused"]
    aggregate: Annotated[str, "its name"]
    host: Annotated[str, "its name, where one comes or goes"]
    rule: Annotated[str, "whose change it is"]
    why: Annotated[str, "one sentence, with the evidence"]
    metadata: Annotated[dict[str, str] | None, "keys that are set"] = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What rules would change."""

    digest: Annotated[str, "SHA-256 of the rules"]
    rules: Annotated[U32, "how many"]
    hosts: Annotated[U32, "how many were held against them"]
    affected: Annotated[U32, "hosts that would come or go anywhere"]
    large: Annotated[bool, "whether so many that loading them would stop and ask"]
    steps: Annotated[list[Step], "in the order of execution; at most 1,000"]
    left: Annotated[U32, "steps beyond those"]
    warnings: Annotated[list[str], "about rules that probably mean something else, with their lines"]


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rules that the conductors go by."""

    text: Annotated[str, "TOML"]
    digest: Annotated[str, "SHA-256 of it"]
    loaded: Annotated[Time, "when"]
    who: Annotated[str, "the identity that loaded them, or the file"]
    warnings: Annotated[list[str], "with their lines"]


@dataclass(frozen=True, slots=True)
class Held:
    """A change of so much of the fleet at once that it waits for somebody's word."""

    id: Annotated[str, "short"]
    what: Annotated[str, "rules, or silence"]
    made: Annotated[Time, "when it was stopped"]
    affected: Annotated[U32, "hosts that would come or go anywhere"]
    hosts: Annotated[U32, "of how many"]
    why: Annotated[str, "one sentence"]
    steps: Annotated[list[Step], "the first 1,000"]


@interface("org.matahariproject.Conductor", version="1.0")
class Conductor(Protocol):
    """The fleet's conductor."""

    @prop(source="the store", max_age=0.0)
    def status(self) -> Status:
        """Hosts by state, workers, reports a second, the last error."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("hostname",), returns="host")
    def register(
        self,
        hostname: Annotated[str, "the host's name"],
        uuid: Annotated[str, "the host's UUID, where it is known"] = "",
        identity: Annotated[str, "the only one that may report for it; empty: the first that does"] = "",
    ) -> FleetHost:
        """Make a host known ahead of its first report, so that it can be put into aggregates."""
        ...

    @method(effect=Effect.DISRUPTS, idempotent=True, objects=("host",), returns="forgotten")
    def forget(self, host: Annotated[str, "host name or UUID"]) -> bool:
        """Take a host out of the inventory and out of every aggregate. One that reports again is new."""
        ...

    @method(access=Access.OPEN, returns="rules")
    def rules(self) -> RulesInForce:
        """The rules in force."""
        ...

    @method(access=Access.OPEN, deadline=120.0, returns="forecast")
    def test_rules(self, text: Annotated[str, "TOML"]) -> Forecast:
        """What rules would change, held against the live inventory; nothing is changed. `invalid-arguments`
        with every fault, each with its line."""
        ...

    @method(effect=Effect.DISRUPTS, idempotent=True, deadline=120.0, returns="forecast")
    def load_rules(
        self,
        text: Annotated[str, "TOML"],
        approve: Annotated[bool, "carry it out however many hosts it affects"] = False,  # noqa: FBT002
    ) -> Forecast:
        """Put rules in force. A large change is held instead (`large` is true, see `held`)."""
        ...

    @method(access=Access.OPEN, returns="held")
    def held(self) -> list[Held]:
        """Large changes that wait, the oldest first."""
        ...

    @method(effect=Effect.DISRUPTS, idempotent=True, deadline=120.0, objects=("id",), returns="done")
    def approve(
        self,
        id: Annotated[str, "of a held change"],  # noqa: A002 - the field's name
    ) -> bool:
        """Carry a held change out; `conflict` where it is no longer what was shown."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("id",), returns="done")
    def refuse(
        self,
        id: Annotated[str, "of a held change"],  # noqa: A002 - the field's name
    ) -> bool:
        """Drop a held change: the rules in force stay, silent hosts keep their places."""
        ...

    @event()
    def change_held(
        self,
        id: Annotated[str, "of the held change"],  # noqa: A002 - the field's name
        what: Annotated[str, "rules, or silence"],
        affected: Annotated[U32, "hosts that would come or go anywhere"],
        why: Annotated[str, "one sentence"],
    ) -> None:
        """A change of too much of the fleet at once was stopped."""
        return
