"""Services of the host's service manager."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.spec import U8, U32, U64, Effect, Name, Time, event, interface, method, prop

LONGEST = 3630.0  # the longest time limit of an action, and what ending it may take
NAME = "a unit's name; a service's with or without .service"
LIMIT = "milliseconds; 0, and what is above an hour, is an hour"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the service manager."""

    name: Annotated[str, "with its suffix: ssh.service"]
    description: Annotated[str, "for people"]
    load_state: Annotated[str, "loaded, not-found, masked, error ..."]
    active_state: Annotated[str, "active, reloading, inactive, failed, activating, deactivating"]
    sub_state: Annotated[str, "the type's own finer state: running, exited, dead ..."]
    enablement: Annotated[
        str | None, "enabled, disabled, static, masked, generated ...; absent where there is no unit file"
    ] = None
    type: Annotated[str | None, "of a service: simple, forking, oneshot, notify, dbus, idle"] = None
    main_pid: Annotated[U32 | None, "of a running service"] = None
    since: Annotated[Time | None, "when it came to its active state"] = None
    memory: Annotated[U64 | None, "bytes; absent where it is not accounted"] = None
    tasks: Annotated[U64 | None, "absent where they are not accounted"] = None
    restarts: Annotated[U32 | None, "automatic restarts of a service"] = None
    result: Annotated[
        str | None, "of the last run of a service: success, exit-code, signal, timeout ..."
    ] = None
    exit_status: Annotated[
        U32 | None, "of the last main process: exit code, or signal number when a signal ended it"
    ] = None
    fragment_path: Annotated[str | None, "the unit file"] = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a unit file, and what came of it."""

    name: Annotated[str, "ConditionPathExists ..."]
    parameter: Annotated[str, "what it is about; with ! in front where it is negated"]
    trigger: Annotated[bool, "one of these has to be met, rather than all"]
    met: Annotated[bool | None, "absent where it was not looked at"] = None


@dataclass(frozen=True, slots=True)
class UnitDetail:
    """A unit in full. Its environment and its command lines, which may hold secrets, are left out."""

    unit: Annotated[Unit, "as `units` has it"]
    names: Annotated[list[str], "its own and its aliases"]
    documentation: Annotated[list[str], "where to read about it"]
    drop_ins: Annotated[list[str], "files that change its unit file"]
    conditions: Annotated[list[Condition], "conditions and assertions"]
    requires: Annotated[list[str], "units that it cannot be without"]
    wants: Annotated[list[str], "units that are started with it"]
    binds_to: Annotated[list[str], "units that it ends with"]
    part_of: Annotated[list[str], "units that it is stopped and restarted with"]
    conflicts: Annotated[list[str], "units that are stopped when it starts"]
    before: Annotated[list[str], "units that it is started before"]
    after: Annotated[list[str], "units that it is started after"]
    required_by: Annotated[list[str], "units that cannot be without it"]
    wanted_by: Annotated[list[str], "units that start it"]
    triggers: Annotated[list[str], "units that it starts: of a socket, timer or path"]
    triggered_by: Annotated[list[str], "sockets, timers and paths that start it"]
    can_start: Annotated[bool, "it may be started by hand"]
    can_stop: Annotated[bool, "it may be stopped by hand"]
    can_reload: Annotated[bool, "it knows `reload`"]
    need_reload: Annotated[bool, "its files have changed since systemd read them"]
    slice: Annotated[str | None, "that it is in"] = None
    control_group: Annotated[str | None, "of its processes"] = None
    restart: Annotated[str | None, "of a service, when it is restarted: no, on-failure, always ..."] = None
    status_text: Annotated[str | None, "what a service says of itself"] = None
    start_timeout: Annotated[float | None, "seconds; absent where there is no limit"] = None
    stop_timeout: Annotated[float | None, "seconds; absent where there is no limit"] = None


class Action(StrEnum):
    """What can be asked of a unit that takes a job."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RELOAD = "reload"
    TRY_RESTART = "try-restart"
    RELOAD_OR_RESTART = "reload-or-restart"


class JobResult(StrEnum):
    """How an action ended."""

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DEPENDENCY = "dependency"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Whom(StrEnum):
    """Which processes of a unit a signal is for."""

    MAIN = "main"
    CONTROL = "control"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the journal."""

    time: Annotated[Time, "when it was received"]
    message: Annotated[str, "the first 4,000 characters"]
    priority: Annotated[U8 | None, "of syslog: 0 emergency ... 3 error, 4 warning, 6 information"] = None
    identifier: Annotated[str | None, "the program that wrote it"] = None
    pid: Annotated[U32 | None, "of the process that wrote it"] = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action on a unit ended, and why: nobody need ask again."""

    unit: Annotated[str, "its own name, where it was asked for by another"]
    verb: Annotated[str, "start, stop ... mask, unmask, kill, reset-failed"]
    result: Annotated[
        JobResult, "timeout: the limit of the call, of the job or of the unit; dependency: another failed"
    ]
    seconds: Annotated[float, "that it took"]
    load_state: Annotated[str, "afterwards"]
    active_state: Annotated[str, "afterwards"]
    sub_state: Annotated[str, "afterwards"]
    reason: Annotated[str | None, "of what is not done, or not in full: one sentence"] = None
    service_result: Annotated[
        str | None, "of a service, as the manager says it: success, exit-code, signal, timeout ..."
    ] = None
    exit_status: Annotated[
        U32 | None, "of the process that ended last: exit code, or signal number when a signal ended it"
    ] = None
    log: Annotated[list[LogLine] | None, "of what is not done: what the unit logged meanwhile"] = None


@interface("org.matahariproject.Services", version="1.0")
class Services(Protocol):
    """The services of a host, under systemd, OpenRC or as LSB init scripts."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @method(returns="agents", name="list")
    def list_services(self) -> list[str]:
        """Names of all services, without a suffix."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), deadline=90.0, returns="rc")
    def enable(self, name: Annotated[str, NAME]) -> U32:
        """Have a service started with the machine. 0 done, 1 failed, 5 not installed, 6 its unit file does
        not say what would start it."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), deadline=90.0, returns="rc")
    def disable(self, name: Annotated[str, NAME]) -> U32:
        """Have a service no longer started with the machine; one that runs goes on. 0 done, 1 failed, 5 not
        installed."""
        ...

    @method(effect=Effect.CHANGES, objects=("name",), deadline=LONGEST, returns="rc")
    def start(self, name: Annotated[str, NAME], timeout: Annotated[U32, LIMIT] = 60_000) -> U32:
        """Start a service and wait for the end of that: 0 done, 1 failed, 5 not installed, 194 a signal
        ended it, 197 cancelled, 198 the time passed. An init script's own code where it has one."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("name",), deadline=LONGEST, returns="rc")
    def stop(self, name: Annotated[str, NAME], timeout: Annotated[U32, LIMIT] = 60_000) -> U32:
        """Stop a service and wait for the end of that; the codes are those of `start`."""
        ...

    @method(objects=("name",), returns="rc", deadline=90.0)
    def status(
        self,
        name: Annotated[str, "a service's name, with or without .service"],
        timeout: Annotated[U32, "milliseconds; 0 is the deadline of the call"],
    ) -> U32:
        """LSB's status code: 0 running, 1 dead with a pid file, 2 dead with a lock file, 3 not running, 4
        unknown or not installed; 198 when the time passed, 194 when a signal ended the script."""
        ...

    @method(objects=("name",), returns="xml")
    def describe(self, name: Annotated[str, NAME]) -> str:
        """What a service is and which actions it takes, in the form of OCF meta-data: made from its unit, or
        from the LSB header of its init script."""
        ...

    @method(returns="units")
    def units(
        self,
        pattern: Annotated[str, "a shell pattern over names: 'ssh*'; empty matches all"] = "",
        state: Annotated[
            str, "only units whose load, active or sub state is this word; empty matches all"
        ] = "",
    ) -> list[Unit]:
        """The units that are loaded, by name. Where there is no systemd: the init scripts as services."""
        ...

    @method(objects=("name",), returns="detail")
    def unit(self, name: Annotated[str, NAME]) -> UnitDetail:
        """A unit in full. `not-found` where there is none of that name."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("name", "verb"), deadline=LONGEST, returns="outcome")
    def act(
        self,
        name: Annotated[str, NAME],
        verb: Annotated[Action, "what to do"],
        timeout: Annotated[U32, LIMIT] = 90_000,
    ) -> Outcome:
        """Do something to a unit and wait for the end of it. When the time passes, a job that systemd has
        not begun is cancelled; one that it has begun goes on. `not-found` where there is no such unit."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("name",), deadline=LONGEST, returns="outcome")
    def restart(self, name: Annotated[str, NAME], timeout: Annotated[U32, LIMIT] = 90_000) -> Outcome:
        """Stop a unit and start it again; one that does not run is started. As `act`."""
        ...

    @method(effect=Effect.CHANGES, objects=("name",), deadline=LONGEST, returns="outcome")
    def reload(self, name: Annotated[str, NAME], timeout: Annotated[U32, LIMIT] = 90_000) -> Outcome:
        """Have a running service read its configuration again. As `act`."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), deadline=90.0, returns="outcome")
    def mask(self, name: Annotated[str, NAME]) -> Outcome:
        """Have nothing start a unit any more, until it is unmasked; one that runs goes on."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), deadline=90.0, returns="outcome")
    def unmask(self, name: Annotated[str, NAME]) -> Outcome:
        """Let a masked unit be started again."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("name", "signal", "whom"), returns="outcome")
    def kill(
        self,
        name: Annotated[str, NAME],
        signal: Annotated[str, "its name, with or without SIG, or its number"] = "TERM",
        whom: Annotated[Whom, "which of its processes"] = Whom.ALL,
    ) -> Outcome:
        """Send a signal to the processes of a unit."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name",), returns="outcome")
    def reset_failed(self, name: Annotated[str, NAME]) -> Outcome:
        """Forget that a unit has failed, and how often it was restarted."""
        ...

    @method(objects=("name",), returns="lines")
    def logs(
        self,
        name: Annotated[str, NAME],
        lines: Annotated[U32, "the last so many; 0 is 100, and at most 1,000 are told"] = 100,
        since: Annotated[Time, "none that are older; 0 is all"] = 0,
    ) -> list[LogLine]:
        """The last lines that the journal has of a unit, the oldest first; at most 1 MiB of them."""
        ...

    @event()
    def service_changed(
        self,
        unit: Annotated[str, "with its suffix"],
        old_state: Annotated[str, "the active state that was told last"],
        new_state: Annotated[str, "the active state now"],
        sub_state: Annotated[str, "now"],
        result: Annotated[str, "of a service: success, exit-code, signal ...; empty for other units"],
        why: Annotated[str, "of one that failed: a sentence; else empty"],
    ) -> None:
        """A service, socket, target, timer, path or mount came to another state. At most five a second for
        each; the last state is always told. Only where systemd runs."""
        return

    @event()
    def job_changed(
        self,
        job_id: Annotated[U32, Name("id"), "of the job"],
        unit: Annotated[str, "that it is for"],
        verb: Annotated[str, "start, stop, restart, reload ..."],
        state: Annotated[str, "waiting, running, or how it ended: done, failed, canceled ..."],
        seconds: Annotated[float, "since it was queued"],
    ) -> None:
        """A job takes longer than a second: told every second, later every ten, and when it ends. Only where
        systemd runs."""
        return
