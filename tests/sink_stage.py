"""A conductor's store and its sinks, as callers meet them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleet
from libmh.api.sinks import SinkPlan, SinkResult, Sinks, SinkStep
from libmh.context import Context
from libmh.testing import loopback
from mh_conductor.editing import Editing
from mh_conductor.intake import Intake
from mh_conductor.sinks.service import FleetSinks
from mh_conductor.sinks.settings import sinks
from mh_conductor.store import Store, open_store

SINK = "there"
NO_RULES = ""


def settings_of(nova: int, placement: int, **more: Any) -> dict[str, Any]:
    """The table of a sink: the servers at these ports."""
    urls = {"compute": f"http://127.0.0.1:{nova}/v2.1", "placement": f"http://127.0.0.1:{placement}"}
    return {"type": "openstack", **urls, **more}


@dataclass
class Stage:
    """`aggregates` is what people edit; hosts are reported, and named, by number."""

    store: Store
    intake: Intake
    aggregates: Editing
    sinks: Sinks

    def host(self, number: int, *traits: str, sequence: int = 1, hostname: str = "") -> str:
        made = fleet.report(
            number, sequence, traits=traits, hostname=hostname or f"node{number}.example.org"
        )
        self.intake.take(made)
        return made.hostname

    def aggregate(self, name: str, *hosts: str, **metadata: str) -> None:
        """Make one, as people do."""
        self.aggregates.create(name)
        if metadata:
            self.aggregates.set_metadata(name, metadata)
        for host in hosts:
            self.aggregates.add_host(name, host)

    def plan(self) -> SinkPlan:
        return self.sinks.plan(SINK)

    def push(self) -> SinkResult:
        """Plan and apply."""
        return self.sinks.apply(SINK, self.plan().id)

    def drift(self) -> list[str]:
        return lines(self.sinks.drift(SINK))


def lines(steps: list[SinkStep]) -> list[str]:
    return [f"{step.action} {step.target} {step.detail}".strip() for step in steps]


@contextmanager
def stage(store: Path | str, **settings: Any) -> Iterator[Stage]:
    """With one sink of these settings; `store` is its URL, or the directory of a new one."""
    with stage_of(store, {SINK: settings}) as made:
        yield made


@contextmanager
def stage_of(place: Path | str, tables: Mapping[str, Any]) -> Iterator[Stage]:
    store, context = open_store(place) if isinstance(place, str) else fleet.new_store(place), Context()
    with loopback(FleetSinks(store, sinks(tables)), context=context) as connection:
        intake = Intake(store, fleet.rules(NO_RULES))
        yield Stage(store, intake, Editing(store, context.events), connection.proxy(Sinks))
    store.close()
