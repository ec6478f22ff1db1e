"""What is at Nova and Placement. The number of requests grows with aggregates and traits, not with hosts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from libmh.errors import BackendFailed
from mh_conductor.sinks.cloud import Cloud, Refused, quoted
from mh_conductor.sinks.matching import is_ours
from mh_conductor.sinks.settings import OpenStack
from mh_conductor.sinks.state import Actual, Compute, Found, Provider

PAGE = 1000
MAX_PAGES = 200


def read(cloud: Cloud, settings: OpenStack) -> Actual:
    """Everything that a plan needs. Raises as `Cloud`'s calls do, a refusal as `BackendFailed`."""
    try:
        found = aggregates(cloud)
        computes = tuple(_computes(cloud))
        providers = _providers(cloud)
        traits = _traits(cloud, settings.prefix) if settings.traits else frozenset()
        having: dict[str, set[str]] = {}
        for trait in sorted(traits):
            for uuid in _uuids(cloud, f"required={trait}"):
                having.setdefault(uuid, set()).add(trait)
        ours = (each for each in found if is_ours(each, settings.owner))
        mirrors = {each.id: _uuids(cloud, f"member_of={each.uuid}") for each in ours}
    except Refused as refused:
        raise BackendFailed(f"'{settings.name}' could not be read: {refused.message}") from refused
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # not what Nova and Placement answer
        raise BackendFailed(f"'{settings.name}' does not answer as expected: {error!r}") from error
    return Actual(
        tuple(replace(each, mirror=mirrors.get(each.id)) for each in found),
        computes,
        {uuid: replace(each, traits=frozenset(having.get(uuid, ()))) for uuid, each in providers.items()},
        traits,
    )


def aggregates(cloud: Cloud) -> tuple[Found, ...]:
    return tuple(_found(each) for each in cloud.nova("GET", "/os-aggregates")["aggregates"])


def aggregate(cloud: Cloud, number: str) -> Found:
    """One, as it is now."""
    return _found(cloud.nova("GET", f"/os-aggregates/{number}")["aggregate"])


def _found(told: dict[str, Any]) -> Found:
    return Found(told["id"], told["uuid"], told["name"], frozenset(told["hosts"]), dict(told["metadata"]))


def _computes(cloud: Cloud) -> Iterator[Compute]:
    marker = ""
    for _ in range(MAX_PAGES):
        page = cloud.nova("GET", f"/os-hypervisors/detail?limit={PAGE}{marker}")
        for each in page["hypervisors"]:
            yield Compute(each["service"]["host"], each["hypervisor_hostname"], each["id"])
        if not page.get("hypervisors_links"):
            return
        marker = f"&marker={quoted(page['hypervisors'][-1]['id'])}"
    raise BackendFailed(f"there are more than {PAGE * MAX_PAGES} hypervisors")


def _providers(cloud: Cloud) -> dict[str, Provider]:
    """The roots: what is below one is a device or a NUMA node of it."""
    told = cloud.placement("GET", "/resource_providers")["resource_providers"]
    roots = (each for each in told if each["parent_provider_uuid"] is None)
    return {each["uuid"]: Provider(each["uuid"], each["name"]) for each in roots}


def _traits(cloud: Cloud, prefix: str) -> frozenset[str]:
    return frozenset(cloud.placement("GET", f"/traits?name=startswith:{prefix}")["traits"])


def _uuids(cloud: Cloud, query: str) -> frozenset[str]:
    told = cloud.placement("GET", f"/resource_providers?{query}")["resource_providers"]
    return frozenset(each["uuid"] for each in told)
