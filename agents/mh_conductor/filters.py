"""The filters that policies are made of: each keeps the hosts of a snapshot that fit what is asked.

`keep` decides about thousands at once, by aggregate and by distinct value; `fit` says of one host what
`libmh.match.fitting` says, and both agree.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from libmh.api.aggregates import HostState
from libmh.api.placement import Flavor, Hint
from libmh.match import Requirement, fitting
from libmh.match.extra_specs import Asked, Spec
from libmh.match.fitting import ZONE, Finding, Fit, Metadata
from libmh.selection import HOSTNAME, TRAITS, UUID, Where
from mh_conductor.inventory import Group, Known, Snapshot

Hosts = list[Known]
ONLY, AVOID, IMAGE = "hosts", "not_hosts", "image"
MAX_SHOWN = 5
MAX_TEXT = 100
SAID: Mapping[str, str] = MappingProxyType(
    {
        HostState.REGISTERED: "the host has not reported yet",
        HostState.SILENT: "the host's reports have stopped",
        HostState.GONE: "the host's reports have stopped, and its grace time is over",
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of hosts. No `project`: nobody's; no `zone`: any."""

    where: Where = field(default_factory=Where)
    flavor: Flavor | None = None
    asked: Asked = field(default_factory=Asked)
    zone: str = ""
    project: str | None = None
    hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_zone: str = fitting.DEFAULT_ZONE

    def image(self) -> dict[str, str]:
        """The properties of the image, by name."""
        pairs = (text.partition("=") for text in self.hints.get(IMAGE, ()))
        return {name.strip(): value.strip() for name, _, value in pairs}


def _whole(question: Question) -> Iterable[Question]:
    return (question,)


@dataclass(frozen=True, slots=True)
class Filter:
    """`fit` is given a host with the metadata of its aggregates. `hints`: those that it goes by. `parts` are
    questions of one requirement each, which together ask what the whole does: who is told why a host does
    not fit is not told of what comes after that."""

    name: str
    keep: Callable[[Snapshot, Question, Hosts], Hosts]
    fit: Callable[[Question, Known, Sequence[Metadata]], Fit]
    hints: tuple[Hint, ...] = ()
    parts: Callable[[Question], Iterable[Question]] = _whole


def members(groups: Iterable[Group]) -> set[str]:
    """All hosts of aggregates, by UUID."""
    return set().union(*(group.members for group in groups))


def _among(hosts: Hosts, uuids: set[str]) -> Hosts:
    return [host for host in hosts if host.uuid in uuids]


def _outside(hosts: Hosts, uuids: set[str]) -> Hosts:
    return [host for host in hosts if host.uuid not in uuids] if uuids else hosts


# whether a host is there


def _keep_up(_snapshot: Snapshot, _question: Question, hosts: Hosts) -> Hosts:
    return [host for host in hosts if host.state == HostState.UP]


def _fit_up(_question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    up = host.state == HostState.UP
    said = "the host reports" if up else SAID.get(host.state, f"the host is {host.state}")
    return Fit((Finding("state up", up, said, (host.state,), "a host that reports"),))


# what people ask of facts


def _keep_where(_snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    for fact, requirement in question.where.requirements:
        hosts = _by_value(hosts, _values_of(hosts, fact), requirement.predicate())
    return hosts


def _values_of(hosts: Hosts, fact: str) -> list[object]:
    if fact == UUID:
        return [host.uuid for host in hosts]
    if fact == HOSTNAME:
        return [host.hostname for host in hosts]
    if fact == TRAITS:
        lists: dict[frozenset[str], object] = {
            traits: list(traits) for traits in {host.traits for host in hosts}
        }
        return [lists[host.traits] for host in hosts]
    return _values_at(hosts, fact)


def _values_at(hosts: Hosts, fact: str) -> list[object]:
    return [host.facts.get(fact) for host in hosts]


def _by_value(hosts: Hosts, values: list[object], holds: Callable[[object], bool]) -> Hosts:
    """The hosts whose value holds. It is asked once of each object: in a snapshot, equal ones are one."""
    objects = {id(value): value for value in values}
    answers = {which: holds(value) for which, value in objects.items()}
    return [host for host, value in zip(hosts, values, strict=True) if answers[id(value)]]


def _fit_where(question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    return Fit(tuple(_said(host, *each) for each in question.where.requirements))


def _parts_of_where(question: Question) -> Iterator[Question]:
    return (replace(question, where=Where((each,))) for each in question.where.requirements)


def _said(host: Known, fact: str, requirement: Requirement) -> Finding:
    (value,) = _values_of([host], fact)
    found = requirement.match(value)
    shown = fact[:MAX_TEXT]
    asked_for = f"{shown}={requirement.text[:MAX_TEXT]}"
    return Finding(asked_for, found.matched, f"{shown} {found.reason}", wanted=requirement.wanted())


# what Nova's filters ask


def _keep_zone(snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    if not question.zone:
        return hosts
    inside = members(
        group for group in snapshot.groups.values() if group.metadata.get(ZONE) == question.zone
    )
    if question.zone == question.default_zone:
        return [host for host in hosts if host.uuid not in snapshot.zones or host.uuid in inside]
    return _among(hosts, inside)


def _fit_zone(question: Question, _host: Known, aggregates: Sequence[Metadata]) -> Fit:
    if not question.zone:
        return Fit()
    return fitting.zone_fits(aggregates, question.zone, question.default_zone)


def _keep_project(snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    allowed = {which: fitting.tenants_of(group.metadata) for which, group in snapshot.groups.items()}
    kept = [which for which, projects in allowed.items() if projects]
    closed = members(snapshot.groups[which] for which in kept)
    ours = members(snapshot.groups[which] for which in kept if question.project in allowed[which])
    return _outside(hosts, closed - ours)


def _fit_project(question: Question, _host: Known, aggregates: Sequence[Metadata]) -> Fit:
    return fitting.tenant_fits(aggregates, question.project)


def groups_that_match(snapshot: Snapshot, spec: Spec) -> Iterator[Group]:
    """The aggregates that fulfil an extra spec."""
    (key,) = spec.path
    holds = spec.requirement.holds
    return (
        group
        for group in snapshot.groups.values()
        if any(map(holds, fitting.values_of(group.metadata, key)))
    )


def _keep_aggregates(snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    for spec in question.asked.aggregates:
        hosts = _among(hosts, members(groups_that_match(snapshot, spec)))
    return hosts


def _fit_aggregates(question: Question, _host: Known, aggregates: Sequence[Metadata]) -> Fit:
    return fitting.aggregates_match(aggregates, question.asked)


def _parts_of_aggregates(question: Question) -> Iterator[Question]:
    return (replace(question, asked=Asked(aggregates=(each,))) for each in question.asked.aggregates)


def _keep_capabilities(_snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    for spec in question.asked.capabilities:
        if len(spec.path) == 1 and spec.path[0] not in fitting.NOVA_NAMES:
            values = _values_at(hosts, spec.path[0])
        else:
            values = [fitting.capability(host.facts, spec.path) for host in hosts]
        hosts = _by_value(hosts, values, _holds_as_text(spec))
    for spec in question.asked.unscoped:
        (name,) = spec.path
        holds, unknown = _holds_as_text(spec), {host.uuid for host in hosts if name not in host.facts}
        if len(unknown) < len(hosts):
            inside = _by_value(hosts, _values_at(hosts, name), holds)
            hosts = _among(hosts, unknown | {host.uuid for host in inside})
    return hosts


def _holds_as_text(spec: Spec) -> Callable[[object], bool]:
    holds = spec.requirement.predicate()
    return lambda value: value is not None and holds(str(value))


def _fit_capabilities(question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    return fitting.facts_match(host.facts, question.asked)


def _parts_of_capabilities(question: Question) -> Iterator[Question]:
    for each in question.asked.capabilities:
        yield replace(question, asked=Asked(capabilities=(each,)))
    for each in question.asked.unscoped:
        yield replace(question, asked=Asked(unscoped=(each,)))


def _keep_traits(_snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    need = question.asked.required
    ban = {each.trait for each in question.asked.traits if not each.required}
    if not question.asked.traits:
        return hosts
    return [host for host in hosts if need <= host.traits and ban.isdisjoint(host.traits)]


def _fit_traits(question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    return fitting.has_traits(host.traits, question.asked)


def _parts_of_traits(question: Question) -> Iterator[Question]:
    return (replace(question, asked=Asked(traits=(each,))) for each in question.asked.traits)


def _keep_size(_snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    flavor = question.flavor
    if flavor is None:
        return hosts
    wanted = (flavor.vcpus, flavor.ram * fitting.MEBI, flavor.disk * fitting.GIBI)
    for fact, least in zip(("cpu_count", "memory", "disk_bytes"), wanted, strict=True):
        if least > 0:
            hosts = [
                host for host in hosts if not isinstance(has := host.facts.get(fact), int) or has >= least
            ]
    return hosts


def _fit_size(question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    flavor = question.flavor
    return Fit() if flavor is None else fitting.size_fits(host.facts, flavor.vcpus, flavor.ram, flavor.disk)


def _keep_image(snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    for key, value in question.image().items():
        if value:
            said = [
                (group, values)
                for group in snapshot.groups.values()
                if (values := fitting.values_of(group.metadata, key))
            ]
            listed = members(group for group, values in said if value in values)
            hosts = _outside(hosts, members(group for group, _ in said) - listed)
    return hosts


def _fit_image(question: Question, _host: Known, aggregates: Sequence[Metadata]) -> Fit:
    return fitting.image_fits(aggregates, question.image())


def _keep_isolation(snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    required = question.asked.required
    groups = snapshot.groups.values()
    return _outside(hosts, members(each for each in groups if fitting.kept_for(each.metadata) - required))


def _fit_isolation(question: Question, _host: Known, aggregates: Sequence[Metadata]) -> Fit:
    return fitting.isolation_fits(aggregates, question.asked)


# what the caller says of hosts by name


def _named(host: Known, names: Iterable[str]) -> bool:
    return host.hostname in names or host.uuid in names


def _keep_named(_snapshot: Snapshot, question: Question, hosts: Hosts) -> Hosts:
    only, avoid = frozenset(question.hints.get(ONLY, ())), frozenset(question.hints.get(AVOID, ()))
    if only:
        hosts = [host for host in hosts if _named(host, only)]
    return [host for host in hosts if not _named(host, avoid)] if avoid else hosts


def _fit_named(question: Question, host: Known, _aggregates: Sequence[Metadata]) -> Fit:
    findings = []
    for hint, wanted in ((ONLY, True), (AVOID, False)):
        names = question.hints.get(hint, ())
        if names:
            named = _named(host, names)
            said = f"the host is {'' if named else 'not '}one of {', '.join(names[:MAX_SHOWN])}"
            findings.append(Finding(f"hint '{hint}'", named is wanted, said))
    return Fit(tuple(findings))


WHERE = Filter("where", _keep_where, _fit_where, parts=_parts_of_where)
"""What is asked of facts: no policy goes without it."""
FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        each.name: each
        for each in (
            Filter("state", _keep_up, _fit_up),
            Filter("zone", _keep_zone, _fit_zone),
            Filter("project", _keep_project, _fit_project),
            Filter("aggregates", _keep_aggregates, _fit_aggregates, parts=_parts_of_aggregates),
            Filter("capabilities", _keep_capabilities, _fit_capabilities, parts=_parts_of_capabilities),
            Filter("traits", _keep_traits, _fit_traits, parts=_parts_of_traits),
            Filter("size", _keep_size, _fit_size),
            Filter(
                "image",
                _keep_image,
                _fit_image,
                (Hint(IMAGE, "NAME=VALUE,...: properties of the image, against the aggregates' metadata"),),
            ),
            Filter("isolation", _keep_isolation, _fit_isolation),
            Filter(
                "names",
                _keep_named,
                _fit_named,
                (
                    Hint(ONLY, "NAME,...: only these hosts, by name or UUID"),
                    Hint(AVOID, "NAME,...: none of these hosts"),
                ),
            ),
        )
    }
)
