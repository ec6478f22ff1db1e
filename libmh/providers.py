"""What this host serves: one literal list, and the plug-ins that entry points name.

A plug-in is a class that subclasses a declared Protocol and is made with a `Context`; its distribution names
it in the entry point group `matahari.providers`. One that cannot be loaded is reported by `Agent.broken`,
never fatal.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from libmh.call import Bound
from libmh.context import Context
from libmh.errors import InvalidArguments, Problem, carriable
from libmh.spec import Interface, interface_of

if TYPE_CHECKING:  # both are dear to import, and most processes that read a host need neither
    from importlib.metadata import EntryPoint

    from libmh.api.agent import Broken

log = logging.getLogger("libmh.providers")
GROUP = "matahari.providers"
MAX_TEXT = 255


@dataclass(frozen=True, slots=True)
class Shipped:
    """A declaration of ours, and who answers for it by platform (`sys.platform`)."""

    declaration: str
    implementations: Mapping[str, str]


SHIPPED: tuple[Shipped, ...] = (
    Shipped("libmh.api.host:Host", {"linux": "libmh.linux.host:LinuxHost"}),
    Shipped("libmh.api.network:Network", {"linux": "libmh.linux.network:LinuxNetwork"}),
    Shipped("libmh.api.resources:Resources", {"linux": "libmh.linux.resources:LinuxResources"}),
    Shipped(
        "libmh.api.services:Services",
        {"linux": "libmh.linux.services:LinuxServices", "win32": "libmh.windows.services:WindowsServices"},
    ),
    Shipped(
        "libmh.api.sysconfig:Sysconfig",
        {
            "linux": "libmh.linux.sysconfig:LinuxSysconfig",
            "win32": "libmh.windows.sysconfig:WindowsSysconfig",
        },
    ),
)
ELSEWHERE: tuple[str, ...] = (
    "libmh.api.agent:Agent",
    "libmh.api.aggregates:Aggregates",
    "libmh.api.aggregates:Reports",
    "libmh.api.broker:Broker",
    "libmh.api.conductor:Conductor",
    "libmh.api.sinks:Sinks",
)
"""Declarations that a process answers for by itself, not the host."""


@dataclass(slots=True)
class Providers:
    """What was loaded, by interface name, and what could not be."""

    bound: dict[str, Bound] = field(default_factory=dict)
    broken: "list[Broken]" = field(default_factory=list)

    def add(self, provider: object) -> None:
        """Let an object answer for the interface that its class declares."""
        declared = interface_of(type(provider))
        if declared.name in self.bound:
            raise InvalidArguments(f"two providers answer for '{declared.name}'")
        self.bound[declared.name] = Bound(declared, provider)

    def report(self, name: str, error: str) -> None:
        """Say that a provider could not be loaded; everything else is served."""
        from libmh.api.agent import Broken

        log.warning("provider '%s' cannot be loaded: %s, ignoring", name, error)
        self.broken.append(Broken(name[:MAX_TEXT], carriable(error)))


def resolve(place: str) -> Any:
    """The object that `package.module:Name` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def plugins() -> "Iterator[EntryPoint]":
    """Entry points of other distributions, in the order of their names."""
    from importlib.metadata import entry_points

    yield from sorted(entry_points(group=GROUP), key=lambda point: point.name)


def load(context: Context, only: Collection[str] = ()) -> Providers:
    """The providers of this host; `only` names the interfaces wanted, in full or by their last word."""
    found = Providers()
    for shipped in SHIPPED:
        place = shipped.implementations.get(sys.platform)
        name = shipped.declaration.partition(":")[2]
        if only and not any(asked.rpartition(".")[2] == name for asked in only):
            continue  # without importing it: start-up is dear
        if place is None:
            found.report(name, f"has no implementation for '{sys.platform}'")
        else:
            _attempt(found, name, partial(resolve, place), context, only)
    if not only or _missing(found, only):
        for point in plugins():
            _attempt(found, point.name, point.load, context, only)
    return found


def _attempt(
    found: Providers, name: str, factory: Callable[[], Any], context: Context, only: Collection[str]
) -> None:
    try:
        provider = factory()
        if wanted(interface_of(provider), only):
            found.add(provider(context))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code: the rest is served
        found.report(name, f"{type(error).__name__}: {error}")


def watch(providers: Providers) -> None:
    """Begin what providers do only in an agent: those that have a `watch` are called once. It must not
    wait."""
    for bound in providers.bound.values():
        begin = getattr(bound.provider, "watch", None)
        if begin is not None:
            try:
                begin()
            except (Exception, SystemExit) as error:
                trace = None if isinstance(error, Problem) else error
                log.warning("%s does not watch: %s, ignoring", bound.interface.name, error, exc_info=trace)


def wanted(interface: Interface, only: Collection[str]) -> bool:
    """Whether `--only` names this interface; an empty one names all."""
    return not only or interface.name in only or interface.short in only


def _missing(found: Providers, only: Collection[str]) -> list[str]:
    interfaces = [bound.interface for bound in found.bound.values()]
    return [name for name in only if not any(wanted(interface, (name,)) for interface in interfaces)]


def shipped_interfaces() -> tuple[Interface, ...]:
    """Every interface that we declare, in the order of the list."""
    places = (*(shipped.declaration for shipped in SHIPPED), *ELSEWHERE)
    return tuple(interface_of(resolve(place)) for place in places)


def plugin_interfaces() -> tuple[Interface, ...]:
    """The interfaces that other distributions declare; one that cannot be read is left out."""
    found = []
    for point in plugins():
        try:
            found.append(interface_of(point.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code: the rest is shown
            log.warning("provider '%s' cannot be read: %s, ignoring", point.name, error)
    return tuple(found)


def all_interfaces() -> tuple[Interface, ...]:
    """Ours and those of plug-ins."""
    return (*shipped_interfaces(), *plugin_interfaces())


def find_interface(name: str) -> Interface | None:
    """By full name or last word, in any case; plug-ins are asked only when we declare none of that name."""
    asked = name.lower()
    places = (*(shipped.declaration for shipped in SHIPPED), *ELSEWHERE)
    likely = (place for place in places if place.lower().endswith(f":{asked.rpartition('.')[2]}"))
    for group in (lambda: map(interface_of, map(resolve, likely)), plugin_interfaces):
        for interface in group():
            if asked in (interface.name.lower(), interface.short.lower()):
                return interface
    return None
