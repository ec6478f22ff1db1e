"""Whether a host fits: what Nova's filters ask of one host, each answer with its reason. Pure.

`host_matches(aggregates, extra_specs)` and its neighbours take plain maps and strings and answer a `Fit`,
which is true or false exactly where the filter of Nova is, and which tells of every requirement what was
seen and what would have matched. Where Nova raises, the answer is false and says why.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from libmh.match.extra_specs import REQUIRED, TRAIT, Asked, Spec, asked, nearest

Metadata = Mapping[str, str]
"""Of one aggregate."""
ZONE = "availability_zone"
DEFAULT_ZONE = "nova"
TENANT = "filter_tenant_id"
MAX_VALUES = 5
MAX_SHOWN = 60
MEBI = 1 << 10
"""In kB."""
GIBI = 1 << 30
"""In bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A requirement and what was seen of a host: `seen` are the values that it was held against, `wanted`
    says what would have matched."""

    requirement: str
    matched: bool
    reason: str
    seen: tuple[str, ...] = ()
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a host fits, requirement by requirement. True where all of them hold."""

    findings: tuple[Finding, ...] = ()

    def __bool__(self) -> bool:
        return all(each.matched for each in self.findings)

    @property
    def lacking(self) -> Finding | None:
        """The first that does not hold."""
        return next((each for each in self.findings if not each.matched), None)

    @property
    def reason(self) -> str:
        """Why it does not fit; else that it does."""
        lacking = self.lacking
        if lacking is not None:
            return lacking.reason
        return "; ".join(each.reason for each in self.findings) or "nothing is asked"

    def explain(self) -> list[str]:
        """A sentence for each requirement."""
        return [
            f"{'yes' if each.matched else 'no'}: {each.requirement}: {each.reason}"
            + ("" if each.matched or not each.wanted else f"; {each.wanted} would match")
            for each in self.findings
        ]


# the metadata of aggregates


def values_of(metadata: Metadata, key: str) -> frozenset[str]:
    """What an aggregate says of a key: its value split at commas; empty where it does not have the key."""
    text = metadata.get(key)
    return frozenset() if text is None else frozenset(each.strip() for each in text.split(","))


def merged(aggregates: Sequence[Metadata], key: str) -> frozenset[str]:
    """What all aggregates of a host say of a key."""
    return frozenset().union(*(values_of(each, key) for each in aggregates))


def host_matches(aggregates: Sequence[Metadata], extra_specs: Mapping[str, str]) -> Fit:
    """AggregateInstanceExtraSpecsFilter: of each requirement any value that any of the host's aggregates has
    for the key must match; a key that none of them has does not."""
    return aggregates_match(aggregates, asked(extra_specs))


def aggregates_match(aggregates: Sequence[Metadata], wanted: Asked) -> Fit:
    """As `host_matches`, of extra specs that were read."""
    return Fit(tuple(_in_metadata(aggregates, spec) for spec in wanted.aggregates))


def _in_metadata(aggregates: Sequence[Metadata], spec: Spec) -> Finding:
    (key,) = spec.path
    seen = sorted(merged(aggregates, key))
    if not seen:
        keys = {each for metadata in aggregates for each in metadata}
        where = "no aggregate of the host has" if aggregates else "the host is in no aggregate, so none has"
        said = f"{where} the metadata '{_short(key)}'{nearest(key, sorted(keys))}"
        return Finding(spec.text, matched=False, reason=said, wanted=spec.requirement.wanted())
    answers = {value: spec.requirement.match(value) for value in seen}
    found = next((value for value, answer in answers.items() if answer), None)
    if found is not None:
        return Finding(spec.text, matched=True, reason=f"{key} {answers[found].reason}", seen=tuple(seen))
    told = "; ".join(answer.reason for answer in list(answers.values())[:MAX_VALUES])
    more = f" and {len(seen) - MAX_VALUES} more" if len(seen) > MAX_VALUES else ""
    near = nearest(spec.requirement.text, seen) if spec.requirement.operator is None else ""
    return Finding(
        spec.text,
        matched=False,
        reason=f"{_short(key)} {told}{more}{near}",
        seen=tuple(seen),
        wanted=spec.requirement.wanted(),
    )


# what the host reports


def capabilities_match(facts: Mapping[str, object], extra_specs: Mapping[str, str]) -> Fit:
    """ComputeCapabilitiesFilter over what a host reports: maps in maps, or JSON text of them."""
    return facts_match(facts, asked(extra_specs))


def facts_match(facts: Mapping[str, object], wanted: Asked) -> Fit:
    """As `capabilities_match`, of extra specs that were read."""
    known = (each for each in wanted.unscoped if each.path[0] in facts)
    return Fit(tuple(_in_facts(facts, spec) for spec in (*wanted.capabilities, *known)))


def _in_facts(facts: Mapping[str, object], spec: Spec) -> Finding:
    value = capability(facts, spec.path)
    name = ":".join(spec.path)
    if value is None:
        near = nearest(spec.path[0], sorted(facts)) if spec.path[0] not in facts else ""
        said = f"the host does not report '{_short(name)}'{near}"
        return Finding(spec.text, matched=False, reason=said, wanted=spec.requirement.wanted())
    # Nova compares the text of whatever it finds
    answer = spec.requirement.match(str(value))
    said = f"{_short(name)} {answer.reason}"
    seen = (_short(str(value)),)
    return Finding(spec.text, answer.matched, said, seen, spec.requirement.wanted())


def capability(facts: Mapping[str, object], path: tuple[str, ...]) -> object:
    """What a host reports at a path; None where it does not. A name of Nova's that the host does not use is
    made from its facts."""
    found: object = facts.get(path[0])
    if found is None and path in NOVA_PATHS:
        return facts.get(NOVA_PATHS[path])
    if found is None and path[0] in NOVA_NAMES:
        found = nova_fact(facts, path[0])
    for name in path[1:]:
        if isinstance(found, str):
            found = _loaded(found)
        found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            return None
    return found


def _loaded(text: str) -> object:
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or deeper than anybody reads
        return None
    return loaded


NOVA_NAMES = ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb", "cpu_info")
"""Of Nova's HostState, that can be made from what hosts report."""
NOVA_PATHS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("vcpus_total",): "cpu_count",
        ("cpu_info", "arch"): "arch",
        ("cpu_info", "model"): "cpu_model",
        ("cpu_info", "features"): "cpu_flags",
    }
)
"""Those that are a fact as it is."""


def nova_fact(facts: Mapping[str, object], name: str) -> object:
    """A fact under Nova's name, in Nova's unit and form; None where it is not known."""
    match name:
        case "vcpus_total":
            return facts.get("cpu_count")
        case "total_usable_ram_mb":
            memory = facts.get("memory")
            return memory // MEBI if isinstance(memory, int) else None
        case "total_usable_disk_gb":
            size = facts.get("disk_bytes")
            return size // GIBI if isinstance(size, int) else None
    cores, sockets = facts.get("cpu_cores"), facts.get("cpu_sockets")
    per_socket = (
        cores // sockets if isinstance(cores, int) and isinstance(sockets, int) and sockets else None
    )
    topology = {"cores": per_socket, "sockets": sockets, "threads": facts.get("cpu_threads_per_core")}
    return {
        "arch": facts.get("arch"),
        "model": facts.get("cpu_model"),
        "features": facts.get("cpu_flags"),
        "topology": topology,
    }


def traits_match(traits: AbstractSet[str], extra_specs: Mapping[str, str]) -> Fit:
    """`trait:NAME` = required or forbidden, in any group: a host is one resource provider."""
    return has_traits(traits, asked(extra_specs))


def has_traits(traits: AbstractSet[str], wanted: Asked) -> Fit:
    """As `traits_match`, of extra specs that were read."""
    return Fit(tuple(_trait(traits, *each) for each in _traits_of(wanted)))


def _traits_of(wanted: Asked) -> Iterator[tuple[str, str, bool]]:
    return ((each.text, each.trait, each.required) for each in wanted.traits)


def _trait(traits: AbstractSet[str], text: str, name: str, required: bool) -> Finding:  # noqa: FBT001 - of a record
    has = name in traits
    near = nearest(name, sorted(traits)) if required and not has else ""
    said = f"the host {'has' if has else 'lacks'} the trait {_short(name)}{near}"
    return Finding(text, has is required, said, (name,) if has else ())


def size_fits(facts: Mapping[str, object], vcpus: int, ram: int, disk: int) -> Fit:
    """Whether a host is large enough (`ram` MiB, `disk` GiB). What it does not report is not held against
    it; what others already use of it is not known here."""
    sizes = (
        ("vcpus", vcpus, "vcpus_total", "processors"),
        ("ram", ram, "total_usable_ram_mb", "MiB of memory"),
        ("disk", disk, "total_usable_disk_gb", "GiB of disk"),
    )
    return Fit(tuple(_size(*each[:2], nova_fact(facts, each[2]), each[3]) for each in sizes))


def _size(name: str, wanted: int, has: object, what: str) -> Finding:
    if not isinstance(has, int):
        return Finding(f"{name} {wanted}", matched=True, reason=f"{what}: not known")
    return Finding(
        f"{name} {wanted}",
        has >= wanted,
        f"the host has {has} {what}, {wanted} are asked for",
        (str(has),),
        f"at least {wanted}",
    )


# who asks, and for where


def tenant_fits(aggregates: Sequence[Metadata], project: str | None) -> Fit:
    """AggregateMultiTenancyIsolation: a host is for the projects that its aggregates list under any key that
    begins with `filter_tenant_id`; where none lists any, for all."""
    allowed = sorted(frozenset().union(*(tenants_of(each) for each in aggregates)))
    if not allowed:
        return Fit()
    listed = _listed(allowed)
    asks = f"project '{_short(project)}'" if project is not None else "no project"
    said = f"the host is for {listed} only, and {asks} asks"
    if project in allowed:
        said = f"the host is for {asks}"
    return Fit((Finding(asks, project in allowed, said, tuple(allowed), listed),))


def tenants_of(metadata: Metadata) -> frozenset[str]:
    """The projects that an aggregate is for; empty: all."""
    return frozenset().union(*(values_of(metadata, key) for key in metadata if key.startswith(TENANT)))


def zone_of(aggregates: Sequence[Metadata], default: str = DEFAULT_ZONE) -> str:
    """The zone that a host is in: the one that its aggregates name, or the default one."""
    return next((each[ZONE] for each in aggregates if each.get(ZONE)), default)


def zone_fits(aggregates: Sequence[Metadata], zone: str, default: str = DEFAULT_ZONE) -> Fit:
    """Whether a host is in a zone."""
    zones = sorted({each[ZONE] for each in aggregates if each.get(ZONE)}) or [default]
    said = f"the host is in zone {_listed(zones)}" + ("" if zone in zones else nearest(zone, zones))
    return Fit((Finding(f"zone '{_short(zone)}'", zone in zones, said, tuple(zones), f"'{_short(zone)}'"),))


def image_fits(aggregates: Sequence[Metadata], properties: Mapping[str, str]) -> Fit:
    """AggregateImagePropertiesIsolation: where a host's aggregates speak of a property that the image has,
    they must list its value."""
    findings = []
    for key, value in properties.items():
        listed = sorted(merged(aggregates, key))
        if value and listed:
            said = f"{_short(key)} of the host's aggregates is {_listed(listed)}"
            text = f"image property {_short(key)} = '{_short(value)}'"
            findings.append(Finding(text, value in listed, said, tuple(listed), f"'{_short(value)}'"))
    return Fit(tuple(findings))


def isolation_fits(aggregates: Sequence[Metadata], wanted: Asked) -> Fit:
    """Isolated aggregates (`nova.scheduler.request_filter.isolate_aggregates`): a host in one that says
    `trait:NAME` = required is only for what requires that trait."""
    kept = {trait for each in aggregates for trait in kept_for(each)}
    findings = []
    for trait in sorted(kept - wanted.required):
        said = f"an aggregate of the host is kept for what requires the trait {_short(trait)}"
        findings.append(Finding(f"{TRAIT}:{_short(trait)} = '{REQUIRED}'", matched=False, reason=said))
    return Fit(tuple(findings))


def kept_for(metadata: Metadata) -> frozenset[str]:
    """The traits for which an aggregate is kept."""
    prefix = f"{TRAIT}:"
    return frozenset(
        key.removeprefix(prefix)
        for key, value in metadata.items()
        if key.startswith(prefix) and value == REQUIRED
    )


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - MAX_VALUES} more" if len(words) > MAX_VALUES else ""
    return ", ".join(f"'{_short(word)}'" for word in words[:MAX_VALUES]) + more


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
