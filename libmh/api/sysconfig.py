"""Configuration of a host: look at a change first, apply it whole or not at all, undo it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.spec import U32, Effect, Time, event, interface, method, prop, writes

KEY = "letters, digits, '_', '-' and '.', not starting with '.'"
SCHEME = "augeas, puppet, ansible; registry on Windows; case does not matter"
TEXT = (
    "augeas: commands, one a line; puppet: a manifest; ansible: a playbook; registry: a .reg file; at most "
    "64 KiB, more by a URI"
)
URI = "https://, file://, or http:// with #sha256=DIGEST; at most 16 MiB"
FLAGS = "1 runs it although the key has a status already; else 0"
RUN_DEADLINE = 1800.0  # puppet and ansible take their time
PLAN_DEADLINE = 900.0  # and nearly as long to say what they would do


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a plan does to a file."""

    path: Annotated[str, "absolute"]
    diff: Annotated[str, "unified, secrets masked, at most 64 KiB; empty where it cannot be told"]
    before: Annotated[str | None, "SHA-256 of what was read; absent where there was no file"] = None
    after: Annotated[str | None, "SHA-256 of what it becomes; absent where that is removed or not known"] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A change that was looked at. What was shown is what `apply` does."""

    id: Annotated[str, "for `apply`"]
    scheme: Annotated[str, "augeas, puppet, ansible, registry; undo of a run"]
    time: Annotated[Time, "when it was made"]
    expires: Annotated[Time, "when it is forgotten"]
    by: Annotated[str, "who asked for it"]
    digest: Annotated[str, "SHA-256 of the text that it was made from"]
    exact: Annotated[
        bool,
        "apply writes these bytes; false where another program makes the change and this is its dry run",
    ]
    files: Annotated[list[FileChange], "what it changes; empty where it changes nothing"]
    output: Annotated[str, "what the scheme printed meanwhile, secrets masked; the first 64 KiB"]
    source: Annotated[str | None, "the URI that the text was taken from"] = None


class RunResult(StrEnum):
    """How a run ended, or stands."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    PENDING = "pending"
    FAILED = "failed"
    UNDONE = "undone"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Run:
    """A plan that was applied, or tried to be."""

    id: Annotated[str, "for `confirm` and `undo`"]
    plan: Annotated[str, "the plan's id"]
    scheme: Annotated[str, "as in the plan"]
    key: Annotated[str, "that it was run under; empty for none"]
    by: Annotated[str, "who asked for it"]
    time: Annotated[Time, "when it began"]
    duration: Annotated[float, "seconds"]
    result: Annotated[
        RunResult, "pending: undone unless confirmed; interrupted: the agent died, all is as before"
    ]
    status: Annotated[str, "as `is_configured` has it: OK, FAILED and more lines"]
    files: Annotated[list[str], "that it changed"]
    output: Annotated[str, "what the scheme printed, secrets masked; the first 64 KiB"]
    digest: Annotated[str, "SHA-256 of the text that was run"]
    source: Annotated[str | None, "the URI that it was taken from"] = None
    confirm_by: Annotated[Time | None, "of a pending one: when it is undone"] = None
    undone_by: Annotated[str | None, "the run that undid it"] = None
    reason: Annotated[str | None, "why it failed or was undone: one sentence"] = None


@dataclass(frozen=True, slots=True)
class Drift:
    """A file that is no longer what the last run left."""

    path: Annotated[str, "absolute"]
    run: Annotated[str, "the run that wrote it last"]
    key: Annotated[str, "of that run"]
    time: Annotated[Time, "of that run"]
    diff: Annotated[str, "from what the run left to what is there, secrets masked; at most 64 KiB"]
    missing: Annotated[bool, "the file has gone, or one that the run removed is there again"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of a configuration file, as its lens names it."""

    path: Annotated[str, "of the tree: /files/etc/hosts/1/canonical"]
    value: Annotated[str | None, "absent where the node has none"] = None


@interface("org.matahariproject.Sysconfig", version="1.0")
class Sysconfig(Protocol):
    """The configuration of a host. A change is planned, looked at, applied whole or not at all, and can be
    undone; a run that must prove itself undoes itself unless it is confirmed in time, whatever happens to
    the agent meanwhile."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @prop(source="the agent's settings", max_age=1.0)
    def is_postboot_configured(self) -> U32:
        """A mark for the application that configures hosts after boot: 0 until it sets another. It
        persists."""
        ...

    @writes("is_postboot_configured")
    def set_is_postboot_configured(self, value: U32) -> None:
        """Set the mark."""
        ...

    @method(objects=("key",), returns="status")
    def is_configured(self, key: Annotated[str, KEY]) -> str:
        """The status text kept under a key: `OK`, or `FAILED` and more lines; else `unknown`."""
        ...

    @method(objects=("key",), returns="run")
    def configured(self, key: Annotated[str, KEY]) -> Run:
        """The last run under a key: what, when and by whom. `not-found` where there is none."""
        ...

    @method(
        effect=Effect.DISRUPTS, objects=("uri", "scheme", "key"), deadline=RUN_DEADLINE, returns="status"
    )
    def run_uri(
        self,
        uri: Annotated[str, URI + "; puppet://HOST runs the agent against that master"],
        flags: Annotated[U32, FLAGS],
        scheme: Annotated[str, SCHEME],
        key: Annotated[str, KEY],
    ) -> str:
        """Fetch a text, plan it, apply the plan, and answer the status that is kept under the key. Where the
        key has a status already nothing is run, and that is the answer."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("scheme", "key"), deadline=RUN_DEADLINE, returns="status")
    def run_string(
        self,
        text: Annotated[str, TEXT],
        flags: Annotated[U32, FLAGS],
        scheme: Annotated[str, SCHEME],
        key: Annotated[str, KEY],
    ) -> str:
        """As `run_uri`, with the text itself. Augeas writes nothing unless the text says `save`."""
        ...

    @method(objects=("query",), returns="data")
    def query(
        self,
        query: Annotated[str, "a path expression of augeas: /files/etc/hosts/1/ipaddr"],
        flags: Annotated[U32, "0"],
        scheme: Annotated[str, "augeas"],
    ) -> str:
        """The value at a path; `unknown` where there is none, or more than one."""
        ...

    @method(objects=("file",), returns="settings")
    def settings(
        self,
        file: Annotated[str, "absolute, of a configuration file that a lens knows"],
        key: Annotated[
            str, "PermitRootLogin, or a path below the file: *[canonical='localhost']; empty is all"
        ] = "",
    ) -> list[Setting]:
        """Values of a configuration file; at most 10,000. `not-implemented` where no lens is for the file,
        `backend-failed` with the place where its lens cannot parse it."""
        ...

    @method(
        effect=Effect.CHANGES, idempotent=True, objects=("scheme",), deadline=PLAN_DEADLINE, returns="plan"
    )
    def plan(
        self,
        scheme: Annotated[str, SCHEME],
        text: Annotated[str, TEXT + "; empty where `uri` is given"] = "",
        uri: Annotated[str, URI + "; empty where `text` is given"] = "",
    ) -> Plan:
        """What a text would change, as a diff for each file; kept for a day. It writes no file of these, but
        manifests and playbooks can run commands even in their dry run: it is not for who may only read."""
        ...

    @method(objects=("file", "key"), returns="plan")
    def plan_setting(
        self,
        file: Annotated[str, "as in `settings`"],
        key: Annotated[str, "as in `settings`; it is made where it is not there"],
        value: Annotated[str | None, "absent removes it"] = None,
    ) -> Plan:
        """What setting one value would change."""
        ...

    @method(returns="plans")
    def plans(self) -> list[str]:
        """Ids of the plans that wait to be applied, the newest first."""
        ...

    @method(objects=("plan",), returns="plan")
    def planned(self, plan: Annotated[str, "a plan's id"]) -> Plan:
        """A plan that waits to be applied, as it was shown. `not-found` once it was applied or expired."""
        ...

    @method(effect=Effect.DISRUPTS, objects=("plan", "key"), deadline=RUN_DEADLINE, returns="run")
    def apply(
        self,
        plan: Annotated[str, "a plan's id; it is used up"],
        key: Annotated[str, KEY + "; empty keeps the run under no key"] = "",
        confirm: Annotated[
            U32, "seconds in which `confirm` must be called, or it is undone; 0 keeps it; at most 86400"
        ] = 0,
    ) -> Run:
        """Do what a plan shows, whole or not at all. `conflict` when a file has changed since it was
        planned, `not-found` when there is no such plan."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("run",), deadline=60.0, returns="run")
    def confirm(self, run: Annotated[str, "a run's id"]) -> Run:
        """Keep what a pending run did. `conflict` when it was undone already."""
        ...

    @method(objects=("run",), returns="plan")
    def undo(self, run: Annotated[str, "a run's id"]) -> Plan:
        """The plan that takes back what a run did: look at it, then `apply` it. `conflict` when a file has
        changed since the run."""
        ...

    @method(returns="runs")
    def history(
        self,
        key: Annotated[str, "runs under this key alone; empty is all"] = "",
        limit: Annotated[U32, "at most so many; 0 is 100"] = 100,
    ) -> list[Run]:
        """What was run, the newest first; the last 10,000 runs are kept."""
        ...

    @method(deadline=60.0, returns="drifts")
    def drift(self) -> list[Drift]:
        """Files that are no longer what the last run left."""
        ...

    @event()
    def config_changed(
        self,
        run: Annotated[str, "its id"],
        key: Annotated[str, "that it was run under; empty for none"],
        by: Annotated[str, "who asked for it"],
        result: Annotated[RunResult, "how it stands now"],
        files: Annotated[list[str], "that it changed"],
        reason: Annotated[str, "why it failed or was undone; else empty"],
    ) -> None:
        """A run ended, was confirmed, or was undone."""
        return
