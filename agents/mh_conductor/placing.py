"""Where something fits: `select`, over a snapshot of the fleet, by a policy."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import MappingProxyType

from libmh import selection
from libmh.api.placement import Candidate, Flavor, Policy, Rejected, Selection, Weight
from libmh.errors import InvalidArguments
from libmh.match import extra_specs, weighing
from libmh.match.extra_specs import nearest
from libmh.match.weighing import WEIGHERS, Weigher
from libmh.selection import HOSTNAME, TRAITS, UUID
from mh_conductor import flavors, policies
from mh_conductor.filters import FILTERS, WHERE, Filter, Question, groups_that_match
from mh_conductor.inventory import Inventory, Known, Snapshot
from mh_conductor.store import Store

NUMBERS: Mapping[str, int] = MappingProxyType({name: number for number, name in enumerate(WEIGHERS)})
MAX_HINT = 32_000
MAX_DETAILED = 1000
"""Candidates that are told what their weight is made of."""
MAX_ANSWER = 7_000_000
"""Bytes, about: transports take some more. All that fit are told, and of the others who has room in it."""
CANDIDATE_SIZE, REJECTED_SIZE = 200, 160
MAX_ESCAPED = 6
MAX_SHOWN = 5
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Dropped:
    """Hosts that a filter refused, and what it asked of them."""

    by: Filter
    question: Question
    hosts: list[Known]


@dataclass(frozen=True, slots=True)
class Scale:
    """What a weigher says of all candidates, in their order."""

    weigher: Weigher
    raws: Sequence[float | None]
    shares: Sequence[float]
    multipliers: Sequence[float]


class Placing:
    """Answers `select` and `policies` from a store."""

    def __init__(self, store: Store, known: Mapping[str, Policy] = policies.SHIPPED) -> None:
        self._store = store
        self._inventory = Inventory(store)
        self._policies = known

    def policies(self) -> list[Policy]:
        return [self._policies[name] for name in sorted(self._policies)]

    def select(
        self,
        where: Sequence[str],
        flavor: str = "",
        zone: str = "",
        project: str = "",
        policy: str = "",
        hints: Mapping[str, str] | None = None,
        limit: int = 0,
        *,
        rejected: bool = False,
    ) -> Selection:
        """The hosts that fit, the best first; and those that do not, with why. Raises `InvalidArguments`,
        and `NotFound` for the flavor and the policy."""
        by = policies.named(self._policies, policy)
        wanted, told = selection.where(where), _hints(hints or {}, by)
        of = self._flavor(flavor) if flavor else None
        asked = extra_specs.asked(of.extra_specs if of else {})
        question = Question(wanted, of, asked, zone, project or None, told, self._store.default_zone)
        return answer(self._inventory.current(), question, by, limit, rejected=rejected)

    def _flavor(self, name: str) -> Flavor:
        with self._store.read() as connection:
            return flavors.find(connection, name)


def answer(
    snapshot: Snapshot, question: Question, policy: Policy, limit: int = 0, *, rejected: bool = False
) -> Selection:
    """Of a snapshot of the fleet."""
    fitting, dropped = _sieve(snapshot, question, policy)
    hosts, warnings = _ranked(snapshot, fitting, policy, limit), list(_warnings(snapshot, question, policy))
    refused = None
    if rejected:
        refused = list(_as_many(_rejections(snapshot, dropped), MAX_ANSWER - CANDIDATE_SIZE * len(hosts)))
        if len(refused) < len(snapshot.hosts) - len(fitting):
            count = len(snapshot.hosts) - len(fitting)
            warnings.append(f"{count} hosts do not fit, and an answer has room for {len(refused)} of them")
    return Selection(
        hosts=hosts,
        considered=len(snapshot.hosts),
        policy=policy.name,
        generation=snapshot.generation,
        warnings=warnings,
        rejected=refused,
    )


def _hints(hints: Mapping[str, str], policy: Policy) -> Mapping[str, tuple[str, ...]]:
    known = [hint.name for hint in policy.hints]
    for name, text in hints.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidArguments(
                f"hints: policy '{policy.name}' does not understand '{name[:SHOWN]}'{nearest(name, known)}; "
                f"it understands: {listed}",
                argument="hints",
            )
        if len(text) > MAX_HINT:
            raise InvalidArguments(f"hints: '{name}' is longer than {MAX_HINT}", argument="hints")
    return {
        name: tuple(part for each in text.split(",") if (part := each.strip()))
        for name, text in hints.items()
    }


def _sieve(snapshot: Snapshot, question: Question, policy: Policy) -> tuple[list[Known], list[Dropped]]:
    """(who passes all filters, who was dropped by which)."""
    left, dropped = list(snapshot.hosts.values()), []
    for each in (WHERE, *(FILTERS[name] for name in policy.filters)):
        for part in each.parts(question):
            kept = each.keep(snapshot, part, left)
            if len(kept) != len(left):
                stay = {host.uuid for host in kept}
                dropped.append(Dropped(each, part, [host for host in left if host.uuid not in stay]))
            left = kept
    return left, dropped


# who is the best


def _ranked(snapshot: Snapshot, hosts: list[Known], policy: Policy, limit: int) -> list[Candidate]:
    scales = [
        scale
        for name, multiplier in policy.weighers.items()
        if (scale := _scale(snapshot, hosts, WEIGHERS[name], multiplier)) is not None
    ]
    weights = _sums(scales, len(hosts))
    # hosts are in the order of their names, which stays that of equals
    order: Iterable[int] = range(len(hosts))
    if scales:
        order = sorted(order, key=[-weight for weight in weights].__getitem__)
    return list(_candidates(snapshot, hosts, weights, scales, list(order)[: limit or None]))


def _candidates(
    snapshot: Snapshot, hosts: list[Known], weights: list[float], scales: list[Scale], chosen: list[int]
) -> Iterator[Candidate]:
    zones, detailed, others = snapshot.zones, chosen[:MAX_DETAILED], chosen[MAX_DETAILED:]
    of_each = zip(*(_weights(each, detailed) for each in scales), strict=True) if scales else repeat(())
    for at, told in zip(detailed, of_each, strict=False):
        host, known = hosts[at], [weight for weight in told if weight is not None]
        zone = zones.get(host.uuid, snapshot.default_zone)
        yield Candidate(host.uuid, host.hostname, host.last_seen, zone, weights[at], known or None)
    for at in others:
        host = hosts[at]
        zone = zones.get(host.uuid, snapshot.default_zone)
        yield Candidate(host.uuid, host.hostname, host.last_seen, zone, weights[at])


def _weights(scale: Scale, chosen: list[int]) -> list[Weight | None]:
    name, raws, shares, multipliers = scale.weigher.name, scale.raws, scale.shares, scale.multipliers
    return [
        None if (raw := raws[at]) is None else Weight(name, raw, shares[at], multipliers[at])
        for at in chosen
    ]


def _scale(snapshot: Snapshot, hosts: list[Known], weigher: Weigher, multiplier: float) -> Scale | None:
    """None where no candidate tells what is weighed."""
    number = NUMBERS[weigher.name]
    raws = [host.raws[number] for host in hosts]
    own = _multipliers(snapshot, weigher.key, multiplier)
    multipliers = [own.get(host.uuid, multiplier) for host in hosts] if own else [multiplier] * len(hosts)
    if raws.count(None) == len(raws):
        return None
    # Nova does not weigh one host alone
    shares = weighing.normalized(raws, multipliers, weigher.minimum) if len(hosts) > 1 else [0.0]
    return Scale(weigher, raws, shares, multipliers)


def _multipliers(snapshot: Snapshot, key: str, default: float) -> dict[str, float]:
    """Of the hosts whose aggregates speak of it."""
    said: dict[str, list[Mapping[str, str]]] = {}
    for group in snapshot.groups.values():
        if key in group.metadata:
            for uuid in group.members:
                said.setdefault(uuid, []).append(group.metadata)
    return {uuid: weighing.multiplier_of(aggregates, key, default) for uuid, aggregates in said.items()}


def _sums(scales: Sequence[Scale], count: int) -> list[float]:
    sums = [0.0] * count
    for scale in scales:
        sums = [
            total + share * times
            for total, share, times in zip(sums, scale.shares, scale.multipliers, strict=True)
        ]
    return sums


# why the others do not fit


def _rejections(snapshot: Snapshot, dropped: Sequence[Dropped]) -> Iterator[Rejected]:
    aggregates = snapshot.aggregates() if dropped else {}
    for each in dropped:
        for host in each.hosts:
            lacking = each.by.fit(each.question, host, aggregates.get(host.uuid, [])).lacking
            if lacking is None:  # the filters agree, which tests hold them to
                continue
            yield Rejected(host.uuid, host.hostname, each.by.name, lacking.requirement, lacking.reason)


def _as_many(refused: Iterable[Rejected], room: int) -> Iterator[Rejected]:
    for each in refused:
        texts = each.requirement + each.reason
        room -= REJECTED_SIZE + len(texts) * (1 if texts.isascii() and texts.isprintable() else MAX_ESCAPED)
        if room < 0:
            return
        yield each


def _warnings(snapshot: Snapshot, question: Question, policy: Policy) -> Iterator[str]:
    """What probably means something else than it says, or is nowhere in the fleet."""
    if question.flavor is not None:
        yield from extra_specs.warnings(question.flavor.extra_specs)
    if "aggregates" in policy.filters:
        yield from _on_aggregates(snapshot, question)
    if "zone" in policy.filters and question.zone not in (
        "",
        question.default_zone,
        *snapshot.zones.values(),
    ):
        near = nearest(question.zone, set(snapshot.zones.values()))
        yield f"no host is in a zone '{question.zone[:SHOWN]}'{near}"
    yield from _on_facts(snapshot, question)
    if "traits" in policy.filters and question.asked.required:
        seen = frozenset().union(*{host.traits for host in snapshot.hosts.values()})
        for trait in sorted(question.asked.required - seen):
            yield f"no host has the trait '{trait[:SHOWN]}'{nearest(trait, seen)}"


def _on_aggregates(snapshot: Snapshot, question: Question) -> Iterator[str]:
    for spec in question.asked.aggregates:
        if any(groups_that_match(snapshot, spec)):
            continue
        (key,) = spec.path
        groups = snapshot.groups.values()
        seen = sorted({group.metadata[key] for group in groups if key in group.metadata})
        if seen:
            listed = ", ".join(f"'{value[:SHOWN]}'" for value in seen[:MAX_SHOWN])
            near = nearest(spec.requirement.text, seen)
            yield f"no aggregate fulfils {spec.text}{near}; there is {listed}"
        else:
            keys = {each for group in groups for each in group.metadata}
            yield f"no aggregate has the metadata '{key[:SHOWN]}'{nearest(key, keys)}"


def _on_facts(snapshot: Snapshot, question: Question) -> Iterator[str]:
    named = [fact for fact, _ in question.where.requirements if fact not in (UUID, HOSTNAME, TRAITS)]
    for name in named:
        if not any(name in host.facts for host in snapshot.hosts.values()):
            known = {each for host in snapshot.hosts.values() for each in host.facts}
            yield f"no host reports '{name[:SHOWN]}'{nearest(name, known)}"
