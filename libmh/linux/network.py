"""The `Network` of a Linux machine."""

from libmh.api.network import Dns, Keeper, Link, LinkAddress, Network, NetworkChange, Route
from libmh.context import Context
from libmh.linux.machine import identity
from libmh.linux.net import addresses as ip
from libmh.linux.net import dns, links, netlink, netwish, routes
from libmh.linux.net.linktable import LinkState
from libmh.linux.net.linkwatch import LinkChange, LinkWatch
from libmh.linux.net.netchanges import Changes
from libmh.linux.net.netwish import SetMtu, Turn

UP, DOWN = 0, 1
GONE = LinkState(0, up=False, carrier=False, operational_state="notpresent", mtu=0)


class LinuxNetwork(Network):
    """Reads the links of this machine anew at every call. A name that is not listed is unknown, whatever it
    holds."""

    def __init__(self, context: Context | None = None) -> None:
        context = context or Context()
        self._root = context.root
        self._events = context.events
        self._changes = Changes(context)
        self._links: LinkWatch | None = None

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def list_links(self) -> list[str]:
        return links.names(self._root)

    def status(self, iface: str) -> int:
        return UP if links.known(self._root, iface) and links.is_up(self._root, iface) else DOWN

    def get_ip_address(self, iface: str) -> str:
        if not links.known(self._root, iface):
            return ""
        index = links.index(self._root, iface) if str(self._root.base) == "/" else None
        return (index and ip.primary(index)) or "0.0.0.0"  # noqa: S104 - the ancestor's word for none

    def get_mac_address(self, iface: str) -> str:
        if not links.known(self._root, iface):
            return ""
        return links.mac(self._root, iface) or links.NO_MAC

    def links(self) -> list[Link]:
        return links.read_all(self._root)

    def link(self, iface: str) -> Link:
        return links.read_one(self._root, iface)

    def addresses(self, iface: str = "") -> list[LinkAddress]:
        netlink.here(self._root)
        return ip.read_all(links.index(self._root, iface) if iface else 0)

    def routes(self, iface: str = "", table: int = 0) -> list[Route]:
        netlink.here(self._root)
        return routes.read(links.index(self._root, iface) if iface else 0, table)

    def dns(self) -> list[Dns]:
        return dns.read(self._root)

    def start(self, iface: str) -> int:
        self._changes.turn(iface, up=True)
        return self.status(iface)

    def stop(self, iface: str) -> int:
        self._changes.turn(iface, up=False)
        return self.status(iface)

    def keeper(self, iface: str) -> Keeper:
        return self._changes.keeper(iface)

    def set_addresses(
        self, iface: str, addresses: list[str], gateway: str = "", confirm: int = 60
    ) -> NetworkChange:
        return self._changes.make(iface, netwish.addresses(addresses, gateway), confirm)

    def set_mtu(self, iface: str, mtu: int, confirm: int = 60) -> NetworkChange:
        return self._changes.make(iface, SetMtu(mtu), confirm)

    def add_route(
        self, iface: str, destination: str, gateway: str = "", metric: int = 0, confirm: int = 60
    ) -> NetworkChange:
        return self._changes.make(iface, netwish.add_route(destination, gateway, metric), confirm)

    def remove_route(
        self, iface: str, destination: str, gateway: str = "", confirm: int = 60
    ) -> NetworkChange:
        return self._changes.make(iface, netwish.remove_route(destination, gateway), confirm)

    def restart(self, iface: str, confirm: int = 60) -> NetworkChange:
        return self._changes.make(iface, Turn.RESTART, confirm)

    def up(self, iface: str, confirm: int = 60) -> NetworkChange:
        return self._changes.make(iface, Turn.UP, confirm)

    def down(self, iface: str, confirm: int = 60) -> NetworkChange:
        return self._changes.make(iface, Turn.DOWN, confirm)

    def confirm(self, id: str) -> NetworkChange:  # noqa: A002 - its wire name
        return self._changes.confirm(id)

    def roll_back(self, id: str) -> NetworkChange:  # noqa: A002 - its wire name
        return self._changes.roll_back(id)

    def changes(self) -> list[NetworkChange]:
        return self._changes.list_changes()

    def watch(self) -> None:
        """Raise events from now on, and look after changes that were left pending; the agent calls this
        once."""
        if str(self._root.base) == "/" and self._links is None:
            self._links = LinkWatch(self._link_changed)
            self._links.start()
        self._changes.watch()

    def close(self) -> None:
        """Raise no more events."""
        if self._links is not None:
            self._links.close()
        self._changes.close()

    def _link_changed(self, change: LinkChange) -> None:
        state = change.new or GONE
        self._events.emit(
            Network.link_changed,
            iface=change.name,
            change="removed" if change.new is None else "changed" if change.old else "added",
            up=state.up,
            carrier=state.carrier,
            operational_state=state.operational_state,
            mtu=state.mtu,
            addresses=list(state.addresses),
        )
