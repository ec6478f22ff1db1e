"""Matahari: one declared API for the systems management of a host.

`from libmh import Host; Host().memory()` reads this machine in this process; `connect(url)` reaches another.
Importing `libmh` itself imports nothing else: each name is resolved when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libmh.client import connect
    from libmh.linux.host import LinuxHost as Host
    from libmh.linux.network import LinuxNetwork as Network
    from libmh.linux.resources import LinuxResources as Resources
    from libmh.linux.services import LinuxServices as Services
    from libmh.linux.sysconfig import LinuxSysconfig as Sysconfig

__all__ = ["Host", "Network", "Resources", "Services", "Sysconfig", "connect"]

_PLACES = {"connect": ("libmh.client", "connect")} | {
    name: (f"libmh.linux.{name.lower()}", f"Linux{name}")
    for name in ("Host", "Network", "Resources", "Services", "Sysconfig")
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'libmh' has no attribute '{name}'")
    module, attribute = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
