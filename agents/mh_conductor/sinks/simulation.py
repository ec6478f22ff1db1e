"""The aggregates there as they will be after each step of a plan."""

from collections.abc import Iterable

from mh_conductor.sinks.state import Found


class Simulation:
    """Names, zones and hosts by id; those that are made in the plan by the UUID that they have here."""

    def __init__(self, found: Iterable[Found]) -> None:
        self.names: dict[str, str] = {}
        self.zones: dict[str, str | None] = {}
        self.hosts: dict[str, set[str]] = {}
        for each in found:
            self.add(str(each.id), each.name, each.zone, each.hosts)

    def add(self, at: str, name: str, zone: str | None, hosts: Iterable[str] = ()) -> None:
        self.names[at] = name
        self.zones[at] = zone
        self.hosts[at] = set(hosts)

    def holder(self, name: str) -> str | None:
        """The aggregate of a name."""
        return next((at for at, each in self.names.items() if each == name), None)

    def rivals_of(self, host: str, at: str, zone: str) -> list[str]:
        """The other aggregates through which a host is in another zone."""
        return [
            other
            for other, theirs in self.zones.items()
            if theirs not in (None, zone) and other != at and host in self.hosts[other]
        ]

    def rivals(self, at: str, zone: str) -> bool:
        """Whether a member is in another zone through another aggregate."""
        return any(self.rivals_of(host, at, zone) for host in self.hosts[at])
