"""The kinds of sinks: how each is compared with what it should be, and brought there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from mh_conductor.sinks import file
from mh_conductor.sinks.cloud import Cloud, connect
from mh_conductor.sinks.plan import plan
from mh_conductor.sinks.pushing import Pusher
from mh_conductor.sinks.reading import read
from mh_conductor.sinks.settings import File, OpenStack, SinkSettings
from mh_conductor.sinks.state import Desired
from mh_conductor.sinks.steps import Plan, Pushed


class Place(Protocol):
    """Either raises a `Problem` where nothing can be done at all."""

    def plan(self, desired: Desired) -> Plan:
        """What has to be done there, by what it is now."""
        ...

    def push(self, plan: Plan, desired: Desired, keep: Callable[[], None]) -> Pushed:
        """Carry out a plan that was made for this. `keep` is called before each step; no more are done when
        it raises a `Problem`."""
        ...


class FilePlace:
    """A file of JSON."""

    def __init__(self, settings: File) -> None:
        self._settings = settings

    def plan(self, desired: Desired) -> Plan:
        return file.plan(desired, file.read(self._settings))

    def push(self, plan: Plan, desired: Desired, keep: Callable[[], None]) -> Pushed:
        keep()
        if plan.steps:
            file.write(self._settings, desired)
        return Pushed(len(plan.steps) + plan.left)


class OpenStackPlace:
    """Nova and Placement of a cloud; connects when it is first asked something."""

    def __init__(self, settings: OpenStack) -> None:
        self._settings = settings
        self._connected: Cloud | None = None

    @property
    def _cloud(self) -> Cloud:
        if self._connected is None:
            self._connected = connect(self._settings)
        return self._connected

    def plan(self, desired: Desired) -> Plan:
        if not self._settings.traits:
            faults = {host: desired.faults[host] for host in desired.doubles}
            desired = replace(desired, traits={}, faults=faults)
        return plan(desired, read(self._cloud, self._settings), self._settings.owner)

    def push(
        self,
        plan: Plan,
        desired: Desired,  # noqa: ARG002 - the steps have it all
        keep: Callable[[], None],
    ) -> Pushed:
        return Pusher(self._cloud, self._settings, keep).push(plan.steps)


def place(settings: SinkSettings) -> Place:
    """Of a sink that is configured."""
    return FilePlace(settings) if isinstance(settings, File) else OpenStackPlace(settings)
