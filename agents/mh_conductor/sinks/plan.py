"""Desired x actual -> steps, each with why. Pure.

The order is such that no host is ever without what restricts it: an aggregate has its metadata before a host
joins, hosts join the new before they leave the old, and keys go when the hosts have gone. Only where two
zones meet has the old place to go first: Nova lets a host be in one zone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from mh_conductor.limits import ZONE_KEY, key_fault, name_fault, value_fault
from mh_conductor.sinks.matching import Matched, match, tentative
from mh_conductor.sinks.mirror import mirroring
from mh_conductor.sinks.naming import join
from mh_conductor.sinks.providers import provide
from mh_conductor.sinks.simulation import Simulation
from mh_conductor.sinks.state import MARKS, OWNER_KEY, RESERVED, UUID_KEY, Actual, Desired, Found, Wanted
from mh_conductor.sinks.steps import Action, Plan, Step, limited


def plan(desired: Desired, actual: Actual, owner: str) -> Plan:
    """What has to be done there so that what `owner` owns is as wanted."""
    members = {host for each in desired.aggregates for host in each.hosts}
    joined = join(members | desired.traits.keys(), actual.computes)
    hosts, faults = joined.hosts, joined.faults
    sure = {name: host for name, host in hosts.items() if name not in desired.doubles}
    wanted = tuple(_renamed(each, sure) for each in desired.aggregates)
    unsure = joined.disputed | {hosts[name] for name in desired.doubles if name in hosts}
    told = {host for host in faults if host in members or desired.traits.get(host)}
    unnamed = [Step(Action.NAME, host, faults[host]) for host in sorted(told)]
    planner = Planner(wanted, actual, owner, unsure)
    traits = provide(desired, actual, hosts)
    mirror = mirroring(planner.matched, actual)
    before, after = list(planner.before()), list(planner.after())
    steps = [*traits.created, *before, *traits.changed, *after, *mirror.steps]
    return limited(steps, [*unnamed, *planner.conflicts, *traits.conflicts, *mirror.conflicts])


def _renamed(wanted: Wanted, hosts: Mapping[str, str]) -> Wanted:
    return replace(wanted, hosts=frozenset(hosts[host] for host in wanted.hosts if host in hosts))


class Planner:
    """The working state of one plan: the steps so far are carried out in a simulation, which knows what zone
    every host is in at each of them."""

    def __init__(
        self, wanted: tuple[Wanted, ...], actual: Actual, owner: str, unsure: Iterable[str] = ()
    ) -> None:
        self._owner = owner
        self.conflicts: list[Step] = []
        # where those belong of which it is not known who they are here is not known, either
        self._unsure = frozenset(unsure)
        self._held: set[str] = set()
        fit = tuple(each for each in wanted if self._fits(each))
        self.matched: Matched = match(fit, actual.aggregates, owner)
        self._stays = {str(there.id): here for here, there in self.matched.pairs}
        self._gone = {str(there.id): there for there in self.matched.gone}
        self._world = Simulation(actual.aggregates)
        self._kept = {there.id: self._metadata(here) for here, there in self.matched.pairs}

    def _fits(self, wanted: Wanted) -> bool:
        fault = name_fault(wanted.name)
        if fault:
            self._refuse(Step(Action.CREATE, wanted.name, f"its name: {fault}"))
        return not fault

    def _refuse(self, step: Step) -> None:
        self.conflicts.append(step)

    def _metadata(self, wanted: Wanted) -> dict[str, str | None]:
        """What it should have, the marks with it; with None the keys that must stay as they are."""
        metadata: dict[str, str | None] = {OWNER_KEY: self._owner, UUID_KEY: wanted.uuid}
        for key, value in sorted(wanted.metadata.items()):
            fault = f"'{RESERVED}...' is ours" if key.startswith(RESERVED) else key_fault(key)
            if fault := fault or value_fault(value):
                self._refuse(Step(Action.SET_METADATA, wanted.name, f"metadata '{key}': {fault}"))
                if key not in MARKS:
                    metadata[key] = None
            else:
                metadata[key] = value
        return metadata

    def before(self) -> Iterator[Step]:
        """What makes places and fills them."""
        for here, there in self.matched.pairs:
            yield from self._set(here, there)
        yield from self._rename()
        for here in self.matched.new:
            yield from self._create(here)
        for at, here in self._stays.items():
            yield from self._join(at, here)

    def after(self) -> Iterator[Step]:
        """What empties places and takes them away. Only after `before`."""
        for at, here in self._stays.items():
            yield from self._empty(at, self._world.hosts[at] - here.hosts, f"is not in '{here.name}' here")
        for here, there in self.matched.pairs:
            yield from self._unset(here, there)
        for at, there in self._gone.items():
            why = f"there is no '{there.name}' here any more"
            yield from self._empty(at, self._world.hosts[at], f"leaves, for {why}")
            if not self._world.hosts[at]:
                yield Step(Action.DELETE, there.name, why, at)

    def _empty(self, at: str, hosts: Iterable[str], why: str) -> Iterator[Step]:
        for host in sorted(hosts):
            if host in self._unsure:
                why_not = f"{host} stays for as long as it cannot be told which host it is here"
                self._refuse(Step(Action.REMOVE_HOST, self._world.names[at], why_not, at, host))
            elif host in self._held:
                why_not = f"{host} stays for as long as it cannot join what it belongs to"
                self._refuse(Step(Action.REMOVE_HOST, self._world.names[at], why_not, at, host))
            else:
                yield self._leave(at, host, f"{host} {why}")

    def _set(self, here: Wanted, there: Found) -> Iterator[Step]:
        at = str(there.id)
        wanted = self._kept[there.id]
        changes = {
            key: value
            for key, value in wanted.items()
            if value is not None and there.metadata.get(key) != value
        }
        zone = changes.get(ZONE_KEY)
        if zone is not None:
            for host in sorted(self._world.hosts[at]):
                keep = host in here.hosts
                yield from self._make_room(at, host, zone, keep=keep)
            if self._world.rivals(at, zone):
                del changes[ZONE_KEY]
            else:
                self._world.zones[at] = zone
        if changes:
            why = "the values here are others" if OWNER_KEY not in changes else "it has to be marked as ours"
            yield Step(Action.SET_METADATA, here.name, why, at, metadata=changes)

    def _unset(self, here: Wanted, there: Found) -> Iterator[Step]:
        going = sorted(there.metadata.keys() - self._kept[there.id].keys())
        if ZONE_KEY in going:
            going.remove(ZONE_KEY)
            why = f"zone '{there.zone}' stays: Nova does not take a zone away that was set"
            self._refuse(Step(Action.UNSET_METADATA, here.name, why))
        if going and (staying := sorted(self._world.hosts[str(there.id)] - here.hosts)):
            why = f"the metadata stay for as long as {staying[0]} does"
            self._refuse(Step(Action.UNSET_METADATA, here.name, why, metadata=dict.fromkeys(going)))
        elif going:
            why = f"'{here.name}' does not have {'it' if len(going) == 1 else 'them'} here"
            yield Step(
                Action.UNSET_METADATA, here.name, why, str(there.id), metadata=dict.fromkeys(going, None)
            )

    def _rename(self) -> Iterator[Step]:
        waiting = {there.id: (here, there) for here, there in self.matched.pairs if here.name != there.name}
        while waiting:
            free = [each for each in waiting.values() if each[0].name not in self._world.names.values()]
            if free:
                here, there = free[0]
                del waiting[there.id]
                yield self._renaming(there, here.name, f"it is called '{here.name}' here")
                continue
            here, there = next(iter(waiting.values()))
            holder = self._world.holder(here.name)
            if holder in {str(each) for each in waiting}:  # they have each other's names
                aside = tentative(self._owner, here.uuid)
                yield self._renaming(
                    there, aside, "its name is for another one, and its own is not free yet"
                )
            else:
                del waiting[there.id]
                self._taken(Action.RENAME, here, holder)

    def _renaming(self, there: Found, name: str, why: str) -> Step:
        at = str(there.id)
        step = Step(Action.RENAME, self._world.names[at], why, at, name=name)
        self._world.names[at] = name
        return step

    def _taken(self, action: Action, here: Wanted, holder: str | None) -> None:
        if holder in self._gone or holder in self._stays:
            why = "an aggregate of ours has this name until this plan is carried out: then plan again"
        else:
            why = (
                "there is an aggregate of this name that is not ours, and is left alone: rename it, or let "
                f"it be ours with the metadata {OWNER_KEY}={self._owner}"
            )
        self._refuse(Step(action, here.name, why))

    def _create(self, here: Wanted) -> Iterator[Step]:
        holder = self._world.holder(here.name)
        if holder is not None:
            self._taken(Action.CREATE, here, holder)
            self._held |= here.hosts
            return
        metadata = {key: value for key, value in self._metadata(here).items() if value is not None}
        self._world.add(here.uuid, here.name, metadata.get(ZONE_KEY))
        self._stays[here.uuid] = here
        yield Step(Action.CREATE, here.name, "there is none of this name", here.uuid, metadata=metadata)

    def _join(self, at: str, here: Wanted) -> Iterator[Step]:
        for host in sorted(here.hosts - self._world.hosts[at]):
            zone = self._world.zones[at]
            if zone:
                yield from self._make_room(at, host, zone, keep=True)
                if self._world.rivals_of(host, at, zone):
                    self._held.add(host)
                    continue
            self._world.hosts[at].add(host)
            yield Step(Action.ADD_HOST, here.name, f"{host} is in '{here.name}' here", at, host)

    def _make_room(self, at: str, host: str, zone: str, *, keep: bool) -> Iterator[Step]:
        """Take a host out of other zones that it has no business in any more; what cannot be, is told."""
        for other in self._world.rivals_of(host, at, zone):
            here = self._stays.get(other)
            name, rival = self._world.names[other], self._world.zones[other]
            if host in self._unsure:
                why = f"{host} is in zone '{rival}' through '{name}', and stays as it is"
                self._refuse(Step(Action.ADD_HOST, self._world.names[at], why, at, host))
            elif other in self._gone or (here and host not in here.hosts):
                yield self._leave(
                    other, host, f"{host} can be in one zone only, and leaves '{rival}' for '{zone}'"
                )
            elif not keep:
                yield self._leave(at, host, f"{host} is not in '{self._world.names[at]}' here")
                return
            else:
                why = f"{host} is in zone '{rival}' through '{name}', so it cannot be in '{zone}'"
                self._refuse(Step(Action.ADD_HOST, self._world.names[at], why, at, host))

    def _leave(self, at: str, host: str, why: str) -> Step:
        self._world.hosts[at].discard(host)
        return Step(Action.REMOVE_HOST, self._world.names[at], why, at, host)
