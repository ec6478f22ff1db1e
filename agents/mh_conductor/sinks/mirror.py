"""Nova's aggregates and what Placement has of them. Nova mirrors each member, says nothing when that fails,
and does not try again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mh_conductor.sinks.matching import Matched
from mh_conductor.sinks.providers import by_host
from mh_conductor.sinks.state import Actual, Found, Provider
from mh_conductor.sinks.steps import Action, Step


@dataclass(frozen=True, slots=True)
class Mirrored:
    steps: tuple[Step, ...] = ()
    conflicts: tuple[Step, ...] = ()


def mirroring(matched: Matched, actual: Actual) -> Mirrored:
    """What Placement lacks of the members that stay, and what it has too much."""
    providers = by_host(actual)
    hosts = {each.uuid: host for host, each in providers.items() if isinstance(each, Provider)}
    steps: list[Step] = []
    conflicts: list[Step] = []
    pairs = [(there, there.hosts & here.hosts) for here, there in matched.pairs]
    pairs += [(there, frozenset()) for there in matched.gone]
    for there, staying in pairs:
        for step in _differences(there, staying, providers, hosts):
            (steps if step.provider else conflicts).append(step)
    return Mirrored(tuple(steps), tuple(conflicts))


def _differences(
    there: Found,
    staying: frozenset[str],
    providers: Mapping[str, Provider | str],
    hosts: Mapping[str, str],
) -> Iterator[Step]:
    if there.mirror is None:
        return
    for host in sorted(staying):
        provider = providers.get(host, f"'{host}' has no hypervisor")
        if isinstance(provider, str):
            yield Step(Action.MIRROR_HOST, there.name, provider, there.uuid, host)
        elif provider.uuid not in there.mirror:
            why = f"Nova has {host} in it, and Placement has not"
            yield Step(Action.MIRROR_HOST, there.name, why, there.uuid, host, provider=provider.uuid)
    # what is no compute host is somebody's own: a provider that shares its disks with the members
    for host, uuid in sorted((hosts[uuid], uuid) for uuid in there.mirror if uuid in hosts):
        if host not in there.hosts:
            why = f"Placement has {host} in it, and Nova has not"
            yield Step(Action.UNMIRROR_HOST, there.name, why, there.uuid, host, provider=uuid)
