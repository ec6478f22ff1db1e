"""The store -> what sinks should have: every aggregate, and the custom traits of every host."""

import json
from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, case, select

from libmh.api.aggregates import Aggregate, HostState
from mh_conductor import catalogue, registry
from mh_conductor.sinks.state import Desired, Wanted
from mh_conductor.sinks.traits import CUSTOM, MAX_TRAIT, named
from mh_conductor.tables import HOSTS


def desired(connection: Connection, prefix: str, *, aggregate_traits: bool) -> Desired:
    """What there is now. With `aggregate_traits` the members of an aggregate have a trait of its name."""
    aggregates = catalogue.listing(connection)
    traits: dict[str, set[str]] = {}
    doubles: set[str] = set()
    for hostname, told in _told(connection, prefix):
        if hostname in traits:
            doubles.add(hostname)
        traits.setdefault(hostname, set()).update(told)
    names = {each.name for each in aggregates} if aggregate_traits else set()
    reported = {trait for told in traits.values() for trait in told}
    made = named(names | reported, prefix)
    for each in aggregates if aggregate_traits else ():
        for host in each.hosts:
            traits.setdefault(host, set()).add(each.name)
    return Desired(
        tuple(map(_wanted, aggregates)),
        {
            host: frozenset(made.traits[each] for each in told if each in made.traits)
            for host, told in traits.items()
        },
        dict(made.faults) | {host: f"several hosts are called '{host}' here" for host in doubles},
        made.disputed,
        frozenset(doubles),
        registry.generation(connection),
    )


def _wanted(aggregate: Aggregate) -> Wanted:
    return Wanted(aggregate.uuid, aggregate.name, frozenset(aggregate.hosts), dict(aggregate.metadata))


def _told(connection: Connection, prefix: str) -> Iterator[tuple[str, set[str]]]:
    """Every host, and those of its traits that can be ours, reported or given by rules. nova-compute sees
    to the others."""
    # most reports have none of them, and to move and read all that text is what would take the time
    text = case((HOSTS.c.report.contains(prefix, autoescape=True), HOSTS.c.report), else_="")
    columns = (HOSTS.c.hostname, HOSTS.c.state, text, HOSTS.c.given)
    for hostname, state, report, given in connection.execute(select(*columns)):
        there = report and state != HostState.GONE
        told = json.loads(report)["traits"] if there else ()
        yield hostname, _ours((*told, *json.loads(given)), prefix)


def _ours(traits: Iterable[str], prefix: str) -> set[str]:
    return {
        each
        for each in traits
        if each.startswith(prefix) and CUSTOM.fullmatch(each) and len(each) <= MAX_TRAIT
    }
