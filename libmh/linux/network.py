"""The `Network` of a Linux machine."""

from libmh.api.network import Link, Network
from libmh.context import Context
from libmh.linux import addresses, identity, links

UP, DOWN = 0, 1


class LinuxNetwork(Network):
    """Reads the links of this machine anew at every call. A name that is not listed is unknown, whatever it
    holds."""

    def __init__(self, context: Context | None = None) -> None:
        self._root = (context or Context()).root

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
        own = addresses.read(self._root).get(iface, [])
        return next((each.address for each in own if each.family == "ipv4"), "0.0.0.0")  # noqa: S104 - the ancestor's word for none

    def get_mac_address(self, iface: str) -> str:
        if not links.known(self._root, iface):
            return ""
        return links.mac(self._root, iface) or links.NO_MAC

    def links(self) -> list[Link]:
        return links.read_all(self._root)

    def link(self, iface: str) -> Link:
        return links.read_one(self._root, iface)
