"""What a host is called here -> what Nova's aggregates call it.

An agent tells its host's own name, Nova has a service's `host` and a hypervisor's host name; each may be
short or fully qualified. A name that fits exactly wins; else a short one fits a qualified one with the same
first label, where that is nobody else's, here or there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mh_conductor.sinks.state import Compute


@dataclass(frozen=True, slots=True)
class Joined:
    """`hosts`: by the name here, the service host there; `faults`: the names here that found none;
    `disputed`: the service hosts that such a name could mean."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()


def join(names: Iterable[str], computes: Iterable[Compute]) -> Joined:
    """Find each name's service host."""
    exact: dict[str, set[str]] = {}
    short: dict[tuple[str, bool], set[str]] = {}
    for compute in computes:
        for word in (compute.host, compute.hypervisor):
            exact.setdefault(word, set()).add(compute.host)
            short.setdefault((label(word), "." in word), set()).add(compute.host)
    hosts: dict[str, str] = {}
    faults: dict[str, str] = {}
    disputed: set[str] = set()
    for name in sorted(set(names)):
        fitting = exact.get(name) or short.get((label(name), "." not in name)) or set()
        if len(fitting) == 1:
            (hosts[name],) = fitting
        elif fitting:
            listed = ", ".join(f"'{each}'" for each in sorted(fitting))
            faults[name] = f"'{name}' could be any of the compute hosts {listed}"
            disputed |= fitting
        else:
            faults[name] = f"there is no compute host or hypervisor '{name}' there"
    claimed = set(hosts.values())
    hosts, faults = _unique(hosts, faults)
    return Joined(hosts, faults, frozenset((disputed | claimed) - set(hosts.values())))


def label(name: str) -> str:
    """The first label of a host name, in lower case."""
    return name.partition(".")[0].lower()


def _unique(hosts: dict[str, str], faults: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Two names here for one host there are two hosts, and which of them it is cannot be told; one that is
    the very name of it wins."""
    claims: dict[str, list[str]] = {}
    for name, host in hosts.items():
        claims.setdefault(host, []).append(name)
    for host, names in claims.items():
        for name in names if len(names) > 1 else ():
            if name != host:
                others = ", ".join(f"'{each}'" for each in names if each != name)
                faults[name] = f"'{name}' and {others} would both be the compute host '{host}'"
                del hosts[name]
    return hosts, faults
