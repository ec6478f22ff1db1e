"""Who manages a link: the one place where that is decided, and what each of them does for us."""

from collections.abc import Mapping
from typing import Any, Protocol

from libmh.api.network import Keeper
from libmh.context import Root
from libmh.errors import NotFound, Unavailable
from libmh.linux.daemons import SOCKET, Place, daemon
from libmh.linux.net import links
from libmh.linux.net.kernelnet import LinkState
from libmh.linux.net.netwish import Wish

DAEMON = Place("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")

Saved = Mapping[str, Any]
"""What a keeper wrote down before a change: plain, for JSON."""


class LinkKeeper(Protocol):
    """Changes of one link. `keep` and `undo` can be called again after a process died in them; each raises
    `unavailable` or `timeout` when its daemon is gone or hangs."""

    def save(self, wish: Wish, before: LinkState, seconds: float) -> Saved:
        """What `undo` needs. `seconds` is when all is over in any case. Nothing is changed yet, but what is
        wished is looked at: it raises when this keeper cannot do it."""
        ...

    def discard(self, saved: Saved) -> None:
        """There will be no change: forget what `save` took."""
        ...

    def make(self, wish: Wish, saved: Saved) -> None:
        """Begin the change; `done` tells when it has been made."""
        ...

    def turn(self, *, up: bool) -> None:
        """Begin to bring the link up or down, without a way back."""
        ...

    def done(self) -> bool:
        """Whether the keeper has ended what was begun; it raises when it failed."""
        ...

    def keep(self, saved: Saved) -> None:
        """Let the change outlive a restart, where it does. `conflict` when the keeper undid it itself."""
        ...

    def undo(self, saved: Saved) -> None:
        """Begin to bring back what was; `done` tells when it is."""
        ...


def who(root: Root, link: str) -> Keeper:
    """Raises `not-found` for what is no link, `unavailable` and `timeout` when a daemon that is there does
    not answer: nothing is changed on a guess."""
    if not links.known(root, link):
        raise NotFound(f"there is no network link '{link[:60]}'", link=link[:60])
    from libmh.linux.net import networkd, networkmanager

    if _on_the_bus(root, networkmanager.PLACE.name) and networkmanager.manages(root, link):
        return Keeper.NETWORK_MANAGER
    if _on_the_bus(root, networkd.PLACE.name) and networkd.manages(root, link):
        return Keeper.NETWORKD
    return Keeper.KERNEL


def keeper_of(root: Root, link: str, kind: Keeper) -> LinkKeeper:
    """A keeper of that kind for a link."""
    if kind is Keeper.NETWORK_MANAGER:
        from libmh.linux.net.networkmanager import ByNetworkManager

        return ByNetworkManager(root, link)
    if kind is Keeper.NETWORKD:
        from libmh.linux.net.networkd import ByNetworkd

        return ByNetworkd(root, link)
    from libmh.linux.net.bykernel import ByKernel

    return ByKernel(root, link)


def _on_the_bus(root: Root, name: str) -> bool:
    """Asked first: a call to a name would start its daemon."""
    try:
        return daemon(root, DAEMON).value(bool, "NameHasOwner", "s", name)
    except Unavailable:
        if not has_bus(root):
            return False
        raise


def has_bus(root: Root) -> bool:
    """Whether there is a socket of a system bus at all."""
    from libmh.bus import SYSTEM, resolve

    if str(root.base) != "/":
        return root.path(SOCKET).exists()
    address = resolve(SYSTEM)
    path = address.removeprefix("unix:path=").partition(",")[0]
    return not address.startswith("unix:path=") or root.path(path).exists()
