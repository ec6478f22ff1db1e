"""All hosts against all rules at once, in memory. Pure: what reads and writes it is in `fleetstore`.

Most hosts are where the rules want them, and that is seen by comparing two dictionaries; only the others are
planned for one by one, as when they report, each on what the one before has left.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mh_conductor.compiled import Answers, Compiled, members
from mh_conductor.judge import Answer, Subject, Verdict, verdicts
from mh_conductor.limits import ZONE_KEY
from mh_conductor.plan import Change, Current, Kind, Known, Membership, Owned, Plan, orphans, plan
from mh_conductor.replan import given, trait_lines


@dataclass(slots=True)
class Resident:
    """A host. `yes`, `unsure`: the rules that answer so; `held`: those of `unsure` that keep it wherever
    they put it; `texts`: of the facts in names, None for what has none; `places`: aggregate -> rule, None
    where it was added by hand."""

    uuid: str
    hostname: str
    state: str
    yes: int = 0
    unsure: int = 0
    held: int = 0
    texts: tuple[str | None, ...] = ()
    given: tuple[str, ...] = ()
    places: dict[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class Place:
    """An aggregate as it is so far. `id` is 0 while it is not in the store, `rivals` are the zones that its
    members have through others, None while nobody has asked."""

    known: Known
    count: int = 0
    id: int = 0
    generation: int = 0
    rivals: set[str] | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """Where rules want every host that answers alike: aggregate -> rule, and the traits that they give.
    `unchanged`: that all of these rules are in force already as they are."""

    places: Mapping[str, str | None]
    given: tuple[str, ...]
    unchanged: bool


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What has to change for one host, its traits with it; `lines` are the history's about these."""

    resident: Resident
    plan: Plan
    given: tuple[str, ...] | None = None
    lines: tuple[dict[str, str], ...] = ()

    @property
    def moves(self) -> bool:
        """Whether the host comes or goes anywhere."""
        joins = (Kind.HOST_ADDED, Kind.HOST_REMOVED)
        return self.given is not None or any(each.kind in joins for each in self.plan.changes)


class Fleet:
    """`unchanged` are the rules that are in force already as they are."""

    def __init__(self, compiled: Compiled, unchanged: frozenset[str] = frozenset()) -> None:
        self.compiled = compiled
        self.unchanged = unchanged
        self.residents: dict[str, Resident] = {}
        self.places: dict[str, Place] = {}
        self._wishes: dict[tuple[int, tuple[str | None, ...]], Wish] = {}
        self._sound: dict[str, bool] = {}
        self._asked: set[str] = set()
        self._by_name = compiled.rules.by_name()

    def again(self) -> "Fleet":
        """The same hosts, with nothing planned."""
        return self.after(self.unchanged)

    def after(self, unchanged: frozenset[str]) -> "Fleet":
        """The same hosts after other rules, with nothing planned."""
        fresh = Fleet(self.compiled, unchanged)
        fresh.residents = self.residents
        if unchanged == self.unchanged:
            fresh._wishes = self._wishes
        return fresh

    def unsettled(self) -> list[str]:
        """The hosts that a plan may change anything for, by name."""
        found = [each for each in self.residents.values() if not self._settled(each)]
        return [each.uuid for each in sorted(found, key=lambda each: (each.hostname, each.uuid))]

    def _settled(self, resident: Resident) -> bool:
        wish = self._wish(resident)
        placed = wish.unchanged if resident.places == wish.places else self._stays(resident, wish)
        return placed and self._traits_hold(resident, wish) and all(map(self._is_sound, wish.places))

    def _stays(self, resident: Resident, wish: Wish) -> bool:
        """Whether it is in every place that is wished, and in no other that a rule would take it out of."""
        if wish.places.keys() - resident.places.keys():
            return False
        for name, owner in resident.places.items():
            if owner is None:
                continue
            if owner not in self.unchanged or (name in wish.places and wish.places[name] != owner):
                return False
            if name not in wish.places and not self._keeps(resident, owner, name):
                return False
        return True

    def _keeps(self, resident: Resident, owner: str, name: str) -> bool:
        at = self.compiled.index.get(owner)
        if at is None or not resident.unsure >> at & 1:
            return False
        return bool(resident.held >> at & 1) or self._name(resident.texts, at) in ("", name)

    def _traits_hold(self, resident: Resident, wish: Wish) -> bool:
        if resident.given == wish.given:
            return True
        unsure = {trait for at in members(resident.unsure) for trait in self.compiled.rules.rules[at].gives}
        wanted = set(wish.given) | (unsure & set(resident.given))
        return tuple(sorted(wanted)) == resident.given

    def _wish(self, resident: Resident) -> Wish:
        key = (resident.yes, resident.texts)
        wish = self._wishes.get(key)
        if wish is None:
            wish = self._wishes[key] = self._wished(*key)
        return wish

    def _wished(self, yes: int, texts: tuple[str | None, ...]) -> Wish:
        places: dict[str, str | None] = {}
        traits: set[str] = set()
        for at in members(yes):
            rule = self.compiled.rules.rules[at]
            traits.update(rule.gives)
            if rule.aggregate.text:
                places.setdefault(self._name(texts, at), rule.name)
        unchanged = all(owner in self.unchanged for owner in places.values())
        return Wish(places, tuple(sorted(traits)), unchanged)

    def _name(self, texts: tuple[str | None, ...], at: int) -> str:
        """The aggregate of the n-th rule; empty where a fact in its name is not known."""
        names = self.compiled.templated[at]
        template = self.compiled.rules.rules[at].aggregate
        if not names:
            return template.text and template.render({})
        known = {
            name: text
            for name, text in zip(self.compiled.named, texts, strict=True)
            if text is not None and name in names
        }
        return template.render(known) if len(known) == len(names) else ""

    def _is_sound(self, name: str) -> bool:
        """Whether an aggregate says what its rule wants it to say."""
        known = self._sound.get(name)
        if known is None:
            known = self._sound[name] = self._says(name)
        return known

    def _says(self, name: str) -> bool:
        place = self.places.get(name)
        rule = self._by_name.get(place.known.owner or "") if place else None
        if place is None or rule is None or place.known.binding.keys() != set(rule.aggregate.names):
            return False
        if rule.aggregate.render(place.known.binding) != name:
            return False
        wanted = {key: each.render(place.known.binding) for key, each in rule.templates.items()}
        held = {key: each.value for key, each in place.known.metadata.items() if each.owner is not None}
        return wanted == held

    def plan(self, subject: Subject) -> HostPlan:
        """Plan for a host of which `subject` holds the facts that rules look at, and go on from there."""
        resident = self.residents[subject.uuid]
        judged = self._judged(resident, subject)
        made = plan(subject, judged, self.compiled.rules, self._current(resident, judged), self.unchanged)
        for change in made.changes:
            self._apply(resident, change)
        for name, stay in made.kept.items():
            resident.places[name] = stay.owner
        wanted = given(judged, resident.given)
        if wanted == resident.given:
            return HostPlan(resident, made)
        lines = trait_lines(resident.hostname, resident.given, wanted, judged)
        resident.given = wanted
        return HostPlan(resident, made, wanted, tuple(lines))

    def _judged(self, resident: Resident, subject: Subject) -> tuple[Verdict, ...]:
        which = resident.yes | resident.unsure
        for owner in resident.places.values():
            if owner is not None and owner in self.compiled.index:
                which |= 1 << self.compiled.index[owner]
        judged = verdicts(subject, self.compiled, Answers(resident.yes, resident.unsure, 0), which)
        if not resident.held:
            return judged
        held = {self.compiled.rules.rules[at].name for at in members(resident.held)}
        return tuple(replace(each, aggregate="") if each.rule.name in held else each for each in judged)

    def _current(self, resident: Resident, judged: tuple[Verdict, ...]) -> Current:
        zones: dict[str, str] = {}
        names = set(resident.places)
        for verdict in judged:
            if verdict.answer is Answer.YES and verdict.rule.aggregate.text:
                names.add(verdict.aggregate)
                if verdict.rule.zone:
                    zones[verdict.aggregate] = verdict.rule.zone.render(verdict.binding)
        known = {
            name: self._known(name, self.places[name], resident, zones)
            for name in names
            if name in self.places
        }
        return Current(known, {name: Membership(owner) for name, owner in resident.places.items()})

    def _known(self, name: str, place: Place, resident: Resident, zones: Mapping[str, str]) -> Known:
        others = place.count > (name in resident.places)
        moves = name in zones and place.known.zone != zones[name]
        rivals = frozenset(self._rivals(name, place)) if moves else frozenset[str]()
        if place.known.others is not others or place.known.rival_zones != rivals:
            place.known = replace(place.known, others=others, rival_zones=rivals)
        return place.known

    def _rivals(self, name: str, place: Place) -> set[str]:
        if place.rivals is None:
            hosts = (each for each in self.residents.values() if name in each.places)
            place.rivals = {zone for each in hosts for zone in self._zones_beside(each, name)}
            self._asked.add(name)
        return place.rivals

    def _zones_beside(self, resident: Resident, name: str) -> Iterator[str]:
        for other in resident.places:
            zone = self.places[other].known.zone
            if other != name and zone is not None:
                yield zone

    def _apply(self, resident: Resident, change: Change) -> None:
        name = change.aggregate
        if change.kind is Kind.CREATED:
            self.places[name] = Place(Known(name, change.owner, change.binding))
        place = self.places[name]
        place.generation += 1
        if change.kind is Kind.METADATA:
            place.known = described(place.known, change)
            if ZONE_KEY in change.metadata:
                self._forget_rivals()
        elif change.kind is Kind.HOST_ADDED:
            resident.places[name] = change.owner
            place.count += 1
            self._meet_rivals(resident)
        elif change.kind is Kind.HOST_REMOVED:
            del resident.places[name]
            place.count -= 1
            self._forget_rivals()
        elif change.kind is Kind.DELETED:
            del self.places[name]
        if change.kind not in (Kind.HOST_ADDED, Kind.HOST_REMOVED):
            self._sound.pop(name, None)

    def _forget_rivals(self) -> None:
        for name in self._asked & self.places.keys():
            self.places[name].rivals = None
        self._asked.clear()

    def _meet_rivals(self, resident: Resident) -> None:
        """A place more can only add to what is known."""
        for name in self._asked & resident.places.keys():
            rivals = self.places[name].rivals
            if rivals is not None:
                rivals.update(self._zones_beside(resident, name))

    def rezoned(self) -> Mapping[str, list[str]]:
        """The members of each aggregate that is to be another zone: they move with it."""
        moving = {name for name, place in self.places.items() if self._moves(place.known)}
        found: dict[str, list[str]] = {name: [] for name in moving}
        for resident in self.residents.values() if moving else ():
            for name in moving & resident.places.keys():
                found[name].append(resident.uuid)
        return found

    def _moves(self, known: Known) -> bool:
        rule = self._by_name.get(known.owner or "")
        if rule is None or rule.zone is None or known.binding.keys() != set(rule.aggregate.names):
            return False
        return rule.zone.render(known.binding) != known.zone

    def left_over(self) -> tuple[Change, ...]:
        """Delete the empty aggregates that nobody wants any more."""
        known = {name: replace(place.known, others=place.count > 0) for name, place in self.places.items()}
        gone = orphans(self.compiled.rules, known)
        for change in gone:
            del self.places[change.aggregate]
        return gone

    def count(self) -> None:
        """Count the members anew, after a change of hosts or memberships from outside."""
        counted = Counter(name for each in self.residents.values() for name in each.places)
        for name, place in self.places.items():
            place.count = counted[name]


def described(known: Known, change: Change) -> Known:
    """What a change of metadata makes of an aggregate: what a rule owns is taken over with it."""
    held = {
        key: each if each.owner is None else Owned(each.value, change.owner)
        for key, each in known.metadata.items()
        if key not in change.metadata
    }
    held |= {key: Owned(text, change.owner) for key, text in change.metadata.items() if text is not None}
    return replace(known, owner=change.owner, binding=change.binding, metadata=held)


def line_of(change: Change, uuid: str) -> str:
    """A change without what differs from one minute to the next: plans of equal lines are the same plan."""
    metadata = sorted(change.metadata.items()) if change.metadata else ""
    return f"{change.kind} {change.aggregate!r} {change.owner!r} {uuid} {metadata}"
