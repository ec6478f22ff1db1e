"""The standards of resources: what each of them has here, and what an action of it is as work to run."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from libmh.api.services import Action as Verb
from libmh.api.services import JobResult, Services
from libmh.context import Root
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere
from libmh.guard import SHARED
from libmh.linux import sysfs
from libmh.linux.daemons import booted
from libmh.linux.init import lsb
from libmh.linux.resource_agents import ocf
from libmh.linux.resource_agents.operations import Action
from libmh.linux.runner import CANCELLED, TIMED_OUT, UNKNOWN_ERROR, Calling, Command, Work

OCF, LSB, SYSTEMD, SERVICE = "ocf", "lsb", "systemd", "service"
MAX_SECONDS = 3600.0
NOT_IMPLEMENTED = 3
JOB_CODES: Mapping[JobResult, int] = dict.fromkeys(JobResult, UNKNOWN_ERROR) | {
    JobResult.DONE: 0,
    JobResult.SKIPPED: 0,
    JobResult.TIMEOUT: TIMED_OUT,
    JobResult.CANCELLED: CANCELLED,
}
SYSTEMD_RUN = "/usr/bin/systemd-run"
# what starts nothing that has to stay: it needs no scope of its own, which costs a round trip to systemd
LOOKING = frozenset({"monitor", "status", "meta-data", "validate-all", "notify"})
MONITOR, STATUS, META_DATA = "monitor", "status", "meta-data"


def here(root: Root) -> list[str]:
    """What there is on this machine, in the ancestor's order."""
    found = [OCF] if sysfs.exists(root, f"{ocf.OCF_ROOT}/{ocf.AGENTS}") else []
    if sysfs.exists(root, lsb.SCRIPTS):
        found.append(LSB)
    if booted(root):
        found.append(SYSTEMD)
    return [*found, SERVICE] if {LSB, SYSTEMD} & set(found) else found


def known(root: Root, standard: str) -> str:
    """A standard of this machine, whatever its case; `not-implemented` for any other. `service` is systemd
    where that runs, else lsb."""
    asked = standard.lower()
    if asked not in here(root):
        raise NotImplementedHere(f"'{standard}' is not a known resource standard", standard=standard)
    if asked != SERVICE:
        return asked
    return SYSTEMD if booted(root) else LSB


def canonical(root: Root, own_name: Callable[[str], str], objects: Mapping[str, str]) -> Mapping[str, str]:
    """What names an action's agent as `plan` takes it: the standard itself, defaults filled in, units by
    their own names."""
    if "standard" not in objects:
        return objects
    try:
        standard = known(root, objects["standard"] or OCF)
    except NotImplementedHere:  # there is none such: nothing will be done
        standard = objects["standard"].lower()
    found = {**objects, "standard": standard}
    if standard == OCF:
        found["provider"] = objects.get("provider") or ocf.DEFAULT_PROVIDER
    elif objects.get("provider") == ocf.DEFAULT_PROVIDER:
        found["provider"] = ""
    agent = objects.get("agent") or objects.get("name", "")
    found["agent"] = own_name(agent) if standard == SYSTEMD and agent else agent
    return {name: found[name] for name in objects}


def listed(root: Root, services: Services, standard: str, provider: str) -> list[str]:
    """Agents, scripts or services of a standard; empty names are ocf and heartbeat."""
    match known(root, standard or OCF):
        case "ocf":
            return ocf.agents(root, provider or ocf.DEFAULT_PROVIDER)
        case "lsb":
            return lsb.names(root)
        case _:
            return services.list_services()


def plan(root: Root, services: Services, action: Action) -> Work:
    """What an action is as work. Raises `invalid-arguments` for a name that could be another thing,
    `not-found` where there is no such agent, `not-implemented` for a standard that is not here."""
    standard = known(root, action.standard)
    ocf.check("name", action.name, ocf.INSTANCE)
    ocf.check("action", action.action, ocf.ACTION)
    if not action.agent:
        raise InvalidArguments("agent: expected a name, got ''", argument="agent")
    if standard == OCF:
        return _agent(root, action)
    if action.parameters or action.provider not in ("", ocf.DEFAULT_PROVIDER):
        raise InvalidArguments(
            f"parameters: only agents of standard '{OCF}' take parameters and have a provider, "
            f"not those of '{standard}'",
            argument="parameters",
        )
    verb = STATUS if action.action == MONITOR else action.action
    asked = replace(action, action=verb)
    return _script(root, asked) if standard == LSB else _unit(services, asked)


def verify(root: Root, services: Services, action: Action) -> None:
    """Ask systemd whether it has the unit that an action is for; `not-found` otherwise. It may take its
    time, so it is not part of `plan`."""
    if known(root, action.standard) == SYSTEMD and services.status(action.agent, 0) == lsb.UNKNOWN:
        raise NotFound(f"there is no unit '{action.agent}' here", agent=action.agent)


def seconds(timeout: int) -> float:
    """The time limit that milliseconds mean: none, and anything above the longest, is the longest."""
    return min(timeout / 1000, MAX_SECONDS) if timeout else MAX_SECONDS


def _agent(root: Root, action: Action) -> Work:
    if not action.provider:
        raise InvalidArguments("provider: expected the agent's provider, got ''", argument="provider")
    program = ocf.find(root, action.provider, action.agent)
    told = ocf.about(action.action, action.interval, round(seconds(action.timeout) * 1000))
    environment = ocf.environment(
        root, action.name, action.provider, action.agent, {**told, **action.parameters}
    )
    return _command(root, str(program), action, environment)


def _script(root: Root, action: Action) -> Work:
    if action.agent not in lsb.names(root):
        raise NotFound(f"there is no init script '{action.agent}' here", agent=action.agent)
    return _command(root, str(root.path(f"{lsb.SCRIPTS}/{action.agent}")), action, ocf.system())


def _command(root: Root, program: str, action: Action, environment: Mapping[str, str]) -> Command:
    limit = seconds(action.timeout)
    if action.action in LOOKING or not booted(root) or not os.access(SYSTEMD_RUN, os.X_OK):
        return Command((program, action.action), environment, limit)
    scope = f"matahari-{os.getpid()}-{time.monotonic_ns()}.scope"
    into = ("--scope", "--quiet", "--collect", f"--unit={scope}", f"--description={action.id}")
    return Command((SYSTEMD_RUN, *into, "--", program, action.action), environment, limit, scope)


def _unit(services: Services, action: Action) -> Work:
    call = unit_calls(services).get(action.action)
    if call is None:
        return Calling(action.id, lambda _: NOT_IMPLEMENTED, 1.0)

    def act(left: float) -> int:
        with SHARED.aside():  # it waits for the service manager
            return call(action.agent, round(left * 1000))

    return Calling(f"resource:{action.id}", act, seconds(action.timeout))


def unit_calls(services: Services) -> Mapping[str, Callable[[str, int], int]]:
    """What the actions of a unit are as calls of the host's services: a return code each."""
    return MappingProxyType(
        {
            "start": services.start,
            "stop": services.stop,
            "status": services.status,
            "enable": lambda unit, _: services.enable(unit),
            "disable": lambda unit, _: services.disable(unit),
            "restart": lambda unit, left: JOB_CODES[services.act(unit, Verb.RESTART, left).result],
            "reload": lambda unit, left: JOB_CODES[services.act(unit, Verb.RELOAD, left).result],
        }
    )
