"""A flavor's extra specs: which of them are asked of what, as Nova reads them.

The words before the first colon are the scope::

    aggregate_instance_extra_specs:ssd = true      the metadata of the aggregates that a host is in
    capabilities:cpu_info:arch = x86_64            what the host reports; every colon goes one map deeper
    trait:HW_CPU_X86_AVX2 = required | forbidden   its traits; `trait1:...` likewise, whatever the group
    ssd = true                                     without a scope: as the first, and as the second too
                                                   where the host reports something of that name
    hw:... resources:... quota:...                 for others, not asked here

From `nova.scheduler.filters` (AggregateInstanceExtraSpecsFilter, ComputeCapabilitiesFilter) and
`nova.scheduler.utils.ResourceRequest`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from libmh.match.grammar import Requirement, advice, read

AGGREGATE, CAPABILITY, TRAIT = "aggregate_instance_extra_specs", "capabilities", "trait"
OTHERS = (
    *("hw", "os", "quota", "resources", "pci_passthrough", "accel", "hw_rng", "hw_video", "vmware"),
    *("hypervisor_type", "os_distro", "powervm", "null"),
)
"""Scopes that Nova knows and no filter here reads."""
TRAIT_KEY = re.compile(r"trait([a-zA-Z0-9_-]{1,64})?:(.*)")
GROUPED = re.compile(r"(resources|trait)[a-zA-Z0-9_-]{1,64}")
ADDRESS_BITS = "hw:maxphysaddr_bits"
ADDRESS_BITS_KEY = "capabilities:cpu_info:maxphysaddr:bits"
REQUIRED, FORBIDDEN = "required", "forbidden"
MAX_SHOWN = 100
MAX_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Spec:
    """A requirement: `key` as it is written, `path` what of the host it is about."""

    key: str
    path: tuple[str, ...]
    requirement: Requirement

    @property
    def text(self) -> str:
        return f"{self.key} = '{self.requirement.text[:MAX_SHOWN]}'"


@dataclass(frozen=True, slots=True)
class TraitSpec:
    """A trait that a host has to have, or may not have."""

    key: str
    trait: str
    required: bool

    @property
    def text(self) -> str:
        return f"{self.key} = '{REQUIRED if self.required else FORBIDDEN}'"


@dataclass(frozen=True, slots=True)
class Asked:
    """What extra specs ask for. `unscoped` ones are asked of a host that reports something of the name."""

    aggregates: tuple[Spec, ...] = ()
    capabilities: tuple[Spec, ...] = ()
    unscoped: tuple[Spec, ...] = ()
    traits: tuple[TraitSpec, ...] = ()

    @property
    def required(self) -> frozenset[str]:
        """The traits that a host has to have."""
        return frozenset(each.trait for each in self.traits if each.required)


def asked(extra_specs: Mapping[str, str]) -> Asked:
    """Read extra specs. Never raises: what means nothing is left out, as Nova does; see `warnings`."""
    return Asked(
        tuple(_aggregates(extra_specs)),
        tuple(_capabilities(extra_specs)),
        tuple(
            Spec(key, (key,), read(text, exact=True)) for key, text in extra_specs.items() if ":" not in key
        ),
        tuple(_traits(extra_specs)),
    )


def _aggregates(extra_specs: Mapping[str, str]) -> Iterator[Spec]:
    for key, text in extra_specs.items():
        scope, colon, name = key.partition(":")
        if not colon or scope == AGGREGATE:
            yield Spec(key, (name if colon else key,), read(text, exact=True))


def _capabilities(extra_specs: Mapping[str, str]) -> Iterator[Spec]:
    specs = dict(extra_specs)
    if ADDRESS_BITS in specs:
        specs[ADDRESS_BITS_KEY] = f">= {specs[ADDRESS_BITS]}"
    for key, text in specs.items():
        scope, *path = key.split(":")
        if scope == CAPABILITY and path:
            yield Spec(key, tuple(path), read(text, exact=True))


def _traits(extra_specs: Mapping[str, str]) -> Iterator[TraitSpec]:
    for key, text in extra_specs.items():
        found = TRAIT_KEY.match(key)
        if found and text in (REQUIRED, FORBIDDEN):
            yield TraitSpec(key, found[2], text == REQUIRED)


def warnings(extra_specs: Mapping[str, str]) -> tuple[str, ...]:
    """What in extra specs probably means something else than it looks like, each with what to write."""
    return tuple(said for key, text in extra_specs.items() for said in _warnings(key, text))


def _warnings(key: str, text: str) -> Iterator[str]:
    scope, colon, name = key.partition(":")
    shown = key[:MAX_SHOWN]
    if not colon:
        yield f"'{shown}' has no scope: write '{AGGREGATE}:{shown}' to ask it of aggregates"
    if TRAIT_KEY.match(key):
        if text not in (REQUIRED, FORBIDDEN):
            yield f"'{shown}' is ignored: expected 'required' or 'forbidden', got '{text[:MAX_SHOWN]}'"
        return
    if colon and scope not in (AGGREGATE, CAPABILITY):
        if scope not in OTHERS and not GROUPED.fullmatch(scope):
            near = nearest(scope, (AGGREGATE, CAPABILITY, TRAIT))
            yield f"'{shown}' is ignored: nothing reads the scope '{scope[:MAX_SHOWN]}'{near}"
        return
    if colon and not name:
        yield f"'{shown}' names nothing after its scope"
    said = advice(text)
    if said is not None:
        yield f"'{shown}': {said}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`: did you mean ...` for a word that is nearly one of those that are known; else nothing."""
    return "" if len(word) > MAX_SHOWN else _nearest(word, tuple(known))


@lru_cache(MAX_REMEMBERED)  # thousands of hosts lack the same thing, and know the same others
def _nearest(word: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # only a console and a conductor ever ask

    lowered = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f": did you mean '{lowered[found[0]]}'?" if found else ""
