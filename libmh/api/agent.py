"""The agent process itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.spec import U32, U64, Access, Effect, Plain, Time, event, interface, method, prop


class ConnectionState(StrEnum):
    """Where a connection is in its life."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Served:
    """An interface that this agent serves."""

    name: Annotated[str, "org.matahariproject.Host"]
    version: Annotated[str, "major.minor"]
    provider: Annotated[str, "the Python class that answers"]
    summary: Annotated[str, "what it is for"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A provider that could not be loaded; the agent goes on without it."""

    name: Annotated[str, "the interface, or the entry point's name"]
    error: Annotated[str, "why"]


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A bus or broker that this agent is connected to."""

    url: Annotated[str, "without credentials"]
    state: Annotated[ConnectionState, "connecting, connected, waiting (for the next try) or closed"]
    since: Annotated[Time, "when it came to this state"]
    attempts: Annotated[U32, "tries since it was last connected"]
    last_error: Annotated[str | None, "what ended or refused it last"] = None
    last_error_time: Annotated[Time | None, "when that was"] = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that this agent shows to its peers."""

    path: Annotated[str, "the file that it is in"]
    expires: Annotated[Time, "when it ends"]


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event as it was raised."""

    name: Annotated[str, "Interface.event, the interface in full"]
    id: Annotated[str, "the same when it is told again"]
    time: Annotated[Time, "when it was raised"]
    fields: Annotated[dict[str, Plain], "as declared"]


@dataclass(frozen=True, slots=True)
class CallCounts:
    """What this agent has answered since it started."""

    answered: Annotated[U64, "calls that succeeded"]
    failed: Annotated[U64, "calls that ended in an error"]
    denied: Annotated[U64, "calls refused by polkit or policy"]
    outstanding: Annotated[U32, "calls that run now"]
    stuck: Annotated[U32, "calls past their deadline whose work has not come back"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the policy says, and why."""

    allowed: Annotated[bool, "the identity may do that"]
    reason: Annotated[str, "the identity's role and the rule that decided"]
    role: Annotated[str | None, "the identity's; absent where it has none"] = None


@dataclass(frozen=True, slots=True)
class Job:
    """A request that changes something."""

    id: Annotated[str, "the request's; whoever asks again under it is answered from the record"]
    member: Annotated[str, "org.matahariproject.Services.restart"]
    objects: Annotated[dict[str, str], "what it acts on"]
    by: Annotated[str, "who asked: amqp CN=console, dbus uid 0"]
    started: Annotated[Time, "when it began"]
    outcome: Annotated[
        str, "running, done, the word of an error, or interrupted when the agent ended meanwhile"
    ]
    finished: Annotated[Time | None, "when it ended"] = None
    message: Annotated[str | None, "what went wrong"] = None
    result: Annotated[Plain, "the answer, if it is no longer than 4 kB"] = None


@interface("org.matahariproject.Agent", version="1.0")
class Agent(Protocol):
    """The agent process: what it serves, how it is connected, how much it logs."""

    @prop(source="the agent", constant=True, inline=True)
    def name(self) -> str:
        """The command that runs: `mh-dbus`, `mh-amqp`, `mh-conductor`."""
        ...

    @prop(source="the agent", constant=True, inline=True)
    def version(self) -> str:
        """Version of the agent's software."""
        ...

    @prop(source="the agent", constant=True, inline=True)
    def started(self) -> Time:
        """When this process started."""
        ...

    @prop(source="the agent", inline=True)
    def uptime(self) -> float:
        """Seconds since this process started."""
        ...

    @prop(source="the agent", constant=True, inline=True)
    def interfaces(self) -> list[Served]:
        """What is served here."""
        ...

    @prop(source="the agent", inline=True)
    def broken(self) -> list[Broken]:
        """Providers that could not be loaded."""
        ...

    @prop(source="the agent", inline=True)
    def connections(self) -> list[ConnectionStatus]:
        """Buses and brokers, with the last error of each."""
        ...

    @prop(source="the agent", inline=True)
    def certificates(self) -> list[Certificate]:
        """Certificates that are shown to peers."""
        ...

    @prop(source="the agent", inline=True)
    def calls(self) -> CallCounts:
        """Calls answered, failed, denied and under way."""
        ...

    @prop(source="logging", inline=True)
    def log_levels(self) -> dict[str, str]:
        """Level of each logger that has one of its own; the key of the root logger is empty."""
        ...

    @method(access=Access.OPEN, inline=True, returns="payload")
    def ping(self, payload: Annotated[str, "comes back as it is"] = "") -> str:
        """Answers at once, from the agent's own loop."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("logger",), inline=True)
    def set_log_level(
        self,
        logger: Annotated[str, "a logger's name, as in log_levels; empty is the root"],
        level: Annotated[str, "debug, info, warning, error, critical; empty inherits"],
    ) -> None:
        """Change how much a logger says, until the agent ends."""
        ...

    @method(objects=("identity", "member"), returns="explanation")
    def explain(
        self,
        identity: Annotated[str, "who: CN=console, a user's name, anonymous ..."],
        member: Annotated[str, "what: Services.restart; of a property whether it may be written"],
        arguments: Annotated[dict[str, str], "by name; what names a thing as the host itself calls it"],
    ) -> Explanation:
        """Whether the policy that is in force lets somebody do something, and which rule says so.
        `not-implemented` where polkit decides."""
        ...

    @method(returns="events")
    def past_events(
        self,
        since: Annotated[Time, "none that are older; 0 is all that are kept"] = 0,
        limit: Annotated[U32, "the last so many; 0 is 1,000, and at most 1,000 are told"] = 1000,
    ) -> list[PastEvent]:
        """Events of the last day, the oldest first; at most 10,000 are kept. Heartbeats, changes of
        properties and of connections are not. `not-implemented` where the agent keeps none."""
        ...

    @method(inline=True, returns="jobs")
    def jobs(
        self, limit: Annotated[U32, "the last so many; 0 is all of the 500 that are kept"] = 100
    ) -> list[Job]:
        """What this agent was asked to change, the newest first, since before it was started."""
        ...

    @method(inline=True, objects=("id",), returns="job")
    def job(self, id: Annotated[str, "of the request"]) -> Job:  # noqa: A002 - its name on the wire
        """One of them; `not-found` where this agent has not been asked that, or long ago."""
        ...

    @method(inline=True, returns="jobs")
    def operations(self) -> list[Job]:
        """What runs now, the newest first."""
        ...

    @method(effect=Effect.CHANGES, inline=True, idempotent=True, objects=("id",), returns="stopped")
    def cancel(self, id: Annotated[str, "of an operation that runs"]) -> bool:  # noqa: A002 - its name
        """Stop what runs: a job of systemd is cancelled, a resource agent's action or a configuration run is
        killed with all that it started, and whoever asked for it is answered so. False for what cannot be
        stopped; `not-found` when no such operation runs."""
        ...

    @event()
    def connection_changed(self, connection: Annotated[ConnectionStatus, "as it is now"]) -> None:
        """A connection came up, was lost, or waits for its next try."""
        return

    @event()
    def certificate_expiring(self, certificate: Annotated[Certificate, "it ends within 14 days"]) -> None:
        """A certificate ends soon, or has ended; told once a day until its file holds a new one."""
        return

    @event()
    def events_dropped(self, count: Annotated[U64, "since this was told last"]) -> None:
        """Events went untold: there were more than could be kept until somebody took them."""
        return

    @event()
    def going_away(self, reason: Annotated[str, "stopped"]) -> None:
        """The agent ends in an orderly way: nothing is heard of it until it is started again."""
        return
