"""Resources of a cluster: what a resource agent manages, one action at a time or again and again."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U32, U64, Effect, Name, Plain, Time, event, interface, method, prop

ACTION_DEADLINE = 3630.0  # the longest time limit of an action, and what ending it may take
OBJECTS = ("name", "standard", "provider", "agent", "action")


@dataclass(frozen=True, slots=True)
class AgentParameter:
    """A parameter that a resource agent takes."""

    name: Annotated[str, "as in `parameters` of an action"]
    type: Annotated[str, "string, integer, boolean, second, select ..."]
    required: Annotated[bool, "it has no sensible default"]
    unique: Annotated[bool, "no two resources of the agent may have the same value"]
    description: Annotated[str, "in one line"]
    default: Annotated[str | None, "what the agent takes when it is not given"] = None
    choices: Annotated[list[str] | None, "of a select: the values allowed"] = None


@dataclass(frozen=True, slots=True)
class AgentAction:
    """An action that a resource agent offers, with what it advises."""

    name: Annotated[str, "start, stop, monitor, promote, validate-all ..."]
    timeout: Annotated[U64 | None, "milliseconds that it should be given"] = None
    interval: Annotated[U64 | None, "milliseconds between two of them"] = None
    depth: Annotated[U32 | None, "of a monitor: how thorough"] = None
    role: Annotated[str | None, "of a monitor: the role that it is for: Promoted, Unpromoted"] = None


@dataclass(frozen=True, slots=True)
class AgentMetadata:
    """What a resource agent says of itself (OCF resource agent API, meta-data)."""

    name: Annotated[str, "the agent"]
    version: Annotated[str, "of the agent; empty where it says none"]
    summary: Annotated[str, "in one line"]
    description: Annotated[str, "at length"]
    parameters: Annotated[list[AgentParameter], "in the agent's order"]
    actions: Annotated[list[AgentAction], "in the agent's order"]


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How an action ended."""

    rc: Annotated[
        U32, "the agent's own code; 198 time-out, 197 cancelled, 194 signal; not run: 5 missing, 4 forbidden"
    ]
    sequence: Annotated[U32, "of this run; counts from 1 since the agent process started"]
    duration: Annotated[float, "seconds"]
    stdout: Annotated[str, "the first 64 KiB, as text"]
    stderr: Annotated[str, "the first 64 KiB, as text"]
    truncated: Annotated[bool, "it printed more than is given here"]
    userdata: Annotated[str, "as it was given"]
    reason: Annotated[str | None, "what the agent said after `ocf-exit-reason:`"] = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An action that is run again and again."""

    id: Annotated[str, "NAME_ACTION_INTERVAL"]
    name: Annotated[str, "of the resource"]
    standard: Annotated[str, "ocf, lsb, systemd, service"]
    provider: Annotated[str, "of the agent; empty unless the standard is ocf"]
    agent: Annotated[str, "its agent, script or unit"]
    action: Annotated[str, "monitor, status ..."]
    interval: Annotated[U32, "milliseconds from the end of a run to the start of the next"]
    timeout: Annotated[U32, "milliseconds that a run may take; 0 is the longest there is"]
    expected: Annotated[U32, "the code that is no news"]
    sequence: Annotated[U32, "of the last run"]
    running: Annotated[bool, "a run is under way"]
    userdata: Annotated[str, "as it was given"]
    last_rc: Annotated[U32 | None, "absent before the first run ended"] = None
    last_time: Annotated[Time | None, "when the last run ended"] = None
    interrupted: Annotated[Time | None, "when it was found that an agent died in the middle of a run"] = None


@interface(
    "org.matahariproject.Resources",
    version="1.0",
    bus="org.matahariproject.Services",
    path="/org/matahariproject/Services",
)
class Resources(Protocol):
    """Cluster resources of a host: OCF agents, init scripts and systemd units, run and monitored."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @method(returns="standards")
    def list_standards(self) -> list[str]:
        """What kinds of agents there are here: ocf, lsb, systemd, and service, which is either of these."""
        ...

    @method(objects=("standard",), returns="providers")
    def list_providers(self, standard: Annotated[str, "ocf; any other has no providers"]) -> list[str]:
        """Who provides agents of a standard: the directories of /usr/lib/ocf/resource.d."""
        ...

    @method(objects=("standard", "provider"), returns="agents", name="list")
    def list_agents(
        self,
        standard: Annotated[str, "one of list_standards; empty is ocf"],
        provider: Annotated[str, "one of list_providers; empty is heartbeat"],
    ) -> list[str]:
        """Names of the agents, scripts or services of a standard."""
        ...

    @method(objects=("standard", "provider", "agent"), returns="xml", deadline=60.0)
    def describe(
        self,
        standard: Annotated[str, "one of list_standards"],
        provider: Annotated[str, "one of list_providers; empty unless the standard is ocf"],
        agent: Annotated[str, "one of list"],
    ) -> str:
        """The agent's own meta-data: what it prints for the action `meta-data`."""
        ...

    @method(objects=("standard", "provider", "agent"), returns="metadata", deadline=60.0)
    def metadata(
        self,
        standard: Annotated[str, "one of list_standards"],
        provider: Annotated[str, "one of list_providers; empty unless the standard is ocf"],
        agent: Annotated[str, "one of list"],
    ) -> AgentMetadata:
        """The agent's meta-data as a record; `backend-failed` where it prints what is none."""
        ...

    @method(
        effect=Effect.DISRUPTS,
        objects=OBJECTS,
        deadline=ACTION_DEADLINE,
        returns=("rc", "sequence", "userdata_out"),
    )
    def invoke(
        self,
        name: Annotated[str, "the resource: OCF_RESOURCE_INSTANCE"],
        standard: Annotated[str, "one of list_standards"],
        provider: Annotated[str, "one of list_providers; empty unless the standard is ocf"],
        agent: Annotated[str, "one of list"],
        action: Annotated[str, "start, stop, monitor ...; monitor is status for scripts and units"],
        interval: Annotated[U32, "milliseconds from the end of a run to the next; 0 runs it once"],
        parameters: Annotated[dict[str, Plain], "of an OCF agent: text, numbers and truth values"],
        timeout: Annotated[U32, "milliseconds; 0, and what is above an hour, is an hour"] = 60_000,
        expected_rc: Annotated[U32, Name("expected-rc"), "of a recurring one: the code that is no news"] = 0,
        userdata_in: Annotated[str, "given back with the answer and with every event"] = "",
    ) -> tuple[U32, U32, str]:
        """Run an action and answer its return code: the agent's own, 198 when the time passed, 197 when it
        was cancelled, 194 when a signal ended it, 5 or 4 when there is nothing to run or it may not be run.
        With an interval it is run again after that until it is cancelled: it takes the place of one with the
        same name, action and interval, and `resource_op` tells when its code changes or is not the expected
        one."""
        ...

    @method(effect=Effect.DISRUPTS, objects=OBJECTS, deadline=ACTION_DEADLINE, returns="operation_result")
    def run(
        self,
        name: Annotated[str, "the resource: OCF_RESOURCE_INSTANCE"],
        action: Annotated[str, "start, stop, monitor ...; monitor is status for scripts and units"],
        parameters: Annotated[dict[str, Plain], "of an OCF agent: text, numbers and truth values"],
        agent: Annotated[str, "one of list; empty is the resource's name"] = "",
        standard: Annotated[str, "one of list_standards"] = "ocf",
        provider: Annotated[str, "one of list_providers"] = "heartbeat",
        interval: Annotated[U32, "milliseconds from the end of a run to the next; 0 runs it once"] = 0,
        timeout: Annotated[U32, "milliseconds; 0, and what is above an hour, is an hour"] = 60_000,
        expected_rc: Annotated[U32, Name("expected-rc"), "of a recurring one: the code that is no news"] = 0,
        userdata: Annotated[str, "given back with the answer and with every event"] = "",
    ) -> OperationResult:
        """As `invoke`, with the output of the run and the agent's reason."""
        ...

    @method(effect=Effect.CHANGES, idempotent=True, objects=("name", "action"), deadline=60.0)
    def cancel(
        self,
        name: Annotated[str, "the resource"],
        action: Annotated[str, "of the operation"],
        interval: Annotated[U32, "of the operation; 0 is what runs once, now"],
        timeout: Annotated[U32, "milliseconds to wait for the end of a run; 0 is 30 seconds"],
    ) -> None:
        """Stop running an action again; a run that is under way is killed, and has ended when this answers.
        `not-found` when there is none."""
        ...

    @method(effect=Effect.CHANGES, objects=("name",))
    def fail(self, name: Annotated[str, "the resource"], rc: Annotated[U32, "the code to tell"]) -> None:
        """Say that a resource has failed: `resource_op` is raised with this code for each of its recurring
        operations. `not-found` when it has none."""
        ...

    @method(returns="operations")
    def operations(self) -> list[Operation]:
        """The recurring operations, by id."""
        ...

    @event()
    def resource_op(
        self,
        timestamp: Annotated[Time, "when the run ended"],
        sequence: Annotated[U32, "of the run"],
        name: Annotated[str, "the resource"],
        standard: Annotated[str, "ocf, lsb, systemd, service"],
        provider: Annotated[str, "of the agent; empty unless the standard is ocf"],
        agent: Annotated[str, "its agent, script or unit"],
        action: Annotated[str, "monitor, status ..."],
        interval: Annotated[U32, "milliseconds"],
        rc: Annotated[U32, "the return code"],
        expected_rc: Annotated[U32, Name("expected-rc"), "the code that is no news"],
        userdata: Annotated[str, "as it was given"],
    ) -> None:
        """A recurring operation ended with another code than before, or than expected. At most five a
        second for each; the last state is always told."""
        return
