"""Traits of hosts -> steps at Placement. Only traits with our prefix come or go, and inventories are left to
nova-compute."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mh_conductor.sinks.state import Actual, Compute, Desired, Provider
from mh_conductor.sinks.steps import Action, Step

MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class Provided:
    """`created`: the traits that have to exist first."""

    created: tuple[Step, ...] = ()
    changed: tuple[Step, ...] = ()
    conflicts: tuple[Step, ...] = ()


def by_host(actual: Actual) -> Mapping[str, Provider | str]:
    """Each service host's provider, or why it has none that could be told."""
    computes: dict[str, list[Compute]] = {}
    for compute in actual.computes:
        computes.setdefault(compute.host, []).append(compute)
    providers = actual.providers
    by_name = {provider.name: provider for provider in providers.values()}
    return {host: _provider(host, own, providers, by_name) for host, own in computes.items()}


def _provider(
    host: str, computes: list[Compute], by_uuid: Mapping[str, Provider], by_name: Mapping[str, Provider]
) -> Provider | str:
    if len(computes) > 1:
        return f"'{host}' has {len(computes)} hypervisors: which of them is meant cannot be told"
    (compute,) = computes
    found = by_uuid.get(compute.uuid) or by_name.get(compute.hypervisor)
    # nova-compute makes it, under this name; a provider that somebody else made would stand in its way
    return found or f"Placement has no provider '{compute.hypervisor}' yet: nova-compute has to make it"


def provide(desired: Desired, actual: Actual, hosts: Mapping[str, str]) -> Provided:
    """What has to be done about traits; `hosts` are the service hosts by the names here."""
    found = by_host(actual)
    changed: list[Step] = []
    conflicts = [Step(Action.NAME, name, fault) for name, fault in sorted(desired.faults.items())]
    ours: set[str] = set()
    for name, wanted in sorted(desired.traits.items()):
        provider = found[hosts[name]] if name in hosts else None
        if isinstance(provider, Provider):
            ours.add(provider.uuid)
            if name not in desired.doubles:
                changed += _change(name, provider, wanted, desired.disputed)
        elif wanted and provider:
            coming = dict.fromkeys(sorted(wanted), True)
            conflicts.append(Step(Action.SET_TRAITS, name, provider, host=hosts[name], traits=coming))
    conflicts += _strangers(actual.providers.values(), ours)
    needed = {trait for step in changed for trait, comes in step.traits.items() if comes}
    created = [
        Step(Action.CREATE_TRAIT, trait, "a provider can only have a trait that exists")
        for trait in sorted(needed - actual.traits)
    ]
    return Provided(tuple(created), tuple(changed), tuple(conflicts))


def _change(name: str, provider: Provider, wanted: frozenset[str], kept: frozenset[str]) -> Iterator[Step]:
    coming, going = wanted - provider.traits, provider.traits - wanted - kept
    if coming or going:
        traits = dict.fromkeys(sorted(coming), True) | dict.fromkeys(sorted(going), False)
        why = (
            f"{name} has {'new' if coming else 'lost'} traits"
            if not (coming and going)
            else f"{name} has changed"
        )
        yield Step(Action.SET_TRAITS, provider.name, why, traits=traits, provider=provider.uuid)


def _strangers(providers: Iterable[Provider], ours: set[str]) -> Iterator[Step]:
    """Another conductor's, or of hosts that were forgotten here: told, and left alone."""
    having: dict[str, list[str]] = {}
    for provider in providers:
        for trait in provider.traits if provider.uuid not in ours else ():
            having.setdefault(trait, []).append(provider.name)
    for trait, names in sorted(having.items()):
        listed = ", ".join(sorted(names)[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
        why = f"{len(names)} providers have it that are no hosts of this inventory: {listed}"
        yield Step(Action.SET_TRAITS, trait, why)
