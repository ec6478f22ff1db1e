"""The provider of `Aggregates`: plain calls on the store, in any thread."""

from collections.abc import Mapping

from libmh.api.aggregates import (
    Aggregate,
    Aggregates,
    CapabilityReport,
    Evidence,
    FleetHost,
    HistoryEntry,
    Zone,
)
from libmh.api.placement import Flavor, Policy, Selection
from libmh.events import Hub
from mh_conductor import catalogue, flavors, history, hosts, naming, registry, zones
from mh_conductor.editing import Editing
from mh_conductor.explaining import Explaining
from mh_conductor.flavors import Flavors
from mh_conductor.limits import ZONE_KEY
from mh_conductor.placing import Placing
from mh_conductor.records import report_of
from mh_conductor.rules import RuleSet
from mh_conductor.store import Store


class FleetAggregates(Aggregates):
    """Answers from the store, and explains with the rules in force."""

    def __init__(
        self, store: Store, rules: RuleSet, events: Hub | None = None, placing: Placing | None = None
    ) -> None:
        self._store = store
        self._explaining = Explaining(rules)
        self._editing = Editing(store, events)
        self._flavors = Flavors(store)
        self._placing = placing or Placing(store)

    def canonical(self, member: str, objects: Mapping[str, str]) -> Mapping[str, str]:
        with self._store.read() as connection:
            return naming.canonical(connection, member, objects)

    def generation(self) -> int:
        with self._store.read() as connection:
            return registry.generation(connection)

    def list_aggregates(self) -> list[Aggregate]:
        with self._store.read() as connection:
            return catalogue.listing(connection)

    def show(self, name: str) -> Aggregate:
        with self._store.read() as connection:
            return catalogue.find(connection, name)

    def hosts(self, after: str = "", limit: int = 0) -> list[FleetHost]:
        with self._store.read() as connection:
            return hosts.listing(connection, after, limit)

    def create(self, name: str, zone: str = "") -> Aggregate:
        return self._editing.create(name, zone)

    def rename(self, name: str, new_name: str, generation: int = 0) -> Aggregate:
        return self._editing.rename(name, new_name, generation)

    def update(self, name: str, new_name: str = "", zone: str = "", generation: int = 0) -> Aggregate:
        values = {"name": new_name, ZONE_KEY: zone}
        return self._editing.update(name, {key: value for key, value in values.items() if value}, generation)

    def set_metadata(
        self, name: str, metadata: dict[str, str], remove: list[str] | None = None, generation: int = 0
    ) -> Aggregate:
        return self._editing.set_metadata(name, {**dict.fromkeys(remove or ()), **metadata}, generation)

    def add_host(self, name: str, host: str, generation: int = 0) -> Aggregate:
        return self._editing.add_host(name, host, generation)

    def remove_host(self, name: str, host: str, generation: int = 0) -> Aggregate:
        return self._editing.remove_host(name, host, generation)

    def delete(self, name: str, generation: int = 0) -> bool:
        return self._editing.delete(name, generation)

    def zones(self) -> list[Zone]:
        with self._store.read() as connection:
            return zones.zones(connection)

    def flavors(self) -> list[Flavor]:
        with self._store.read() as connection:
            return flavors.listing(connection)

    def flavor(self, name: str) -> Flavor:
        with self._store.read() as connection:
            return flavors.find(connection, name)

    def create_flavor(
        self,
        name: str,
        vcpus: int = 1,
        ram: int = 256,
        disk: int = 0,
        extra_specs: dict[str, str] | None = None,
        id: str = "",  # noqa: A002 - the field's name
        description: str | None = None,
        ephemeral: int = 0,
        swap: int = 0,
        public: bool = True,  # noqa: FBT001, FBT002 - as declared
        rxtx_factor: float = 1.0,
    ) -> Flavor:
        specs = extra_specs or {}
        made = Flavor(
            *(id, name, vcpus, ram, disk, specs, 0, 0, 0, description, ephemeral, swap, public, rxtx_factor)
        )
        return self._flavors.create(made)

    def describe_flavor(self, name: str, description: str | None = None, generation: int = 0) -> Flavor:
        return self._flavors.describe(name, description, generation)

    def set_extra_specs(
        self, name: str, extra_specs: dict[str, str], remove: list[str] | None = None, generation: int = 0
    ) -> Flavor:
        return self._flavors.set_extra_specs(name, extra_specs, remove or (), generation)

    def delete_flavor(self, name: str) -> bool:
        return self._flavors.delete(name)

    def select(
        self,
        where: list[str],
        flavor: str = "",
        zone: str = "",
        project: str = "",
        policy: str = "",
        hints: dict[str, str] | None = None,
        limit: int = 0,
        rejected: bool = False,  # noqa: FBT001, FBT002 - as declared
    ) -> Selection:
        return self._placing.select(where, flavor, zone, project, policy, hints, limit, rejected=rejected)

    def policies(self) -> list[Policy]:
        return self._placing.policies()

    def history(self, name: str = "", host: str = "", limit: int = 100) -> list[HistoryEntry]:
        with self._store.read() as connection:
            return history.history(connection, name, host, limit)

    def report(self, host: str) -> CapabilityReport:
        with self._store.read() as connection:
            return report_of(hosts.report_text(connection, hosts.resolve(connection, host).uuid))

    def why(self, host: str, name: str = "") -> list[Evidence]:
        with self._store.read() as connection:
            return self._explaining.why(connection, host, name)
