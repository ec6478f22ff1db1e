"""Links that no daemon manages: the kernel does as it is told, at once, and keeps nothing over a restart."""

from libmh.context import Root
from libmh.errors import NotImplementedHere
from libmh.linux.net.keeper import Saved
from libmh.linux.net.kernelnet import Kernel, LinkState, kernel
from libmh.linux.net.netwish import AddRoute, RemoveRoute, SetAddresses, SetMtu, Turn, Wish


class ByKernel:
    """A `LinkKeeper`: the state before is what is brought back."""

    def __init__(self, root: Root, link: str) -> None:
        self._root = root
        self._link = link

    def save(self, wish: Wish, before: LinkState, seconds: float) -> Saved:
        if isinstance(wish, SetAddresses) and wish.dhcp:
            raise NotImplementedHere(
                f"nobody here can ask for addresses by DHCP: neither NetworkManager nor networkd manages "
                f"'{self._link}'",
                link=self._link,
            )
        return {"state": before.plain(), "seconds": seconds}

    def discard(self, saved: Saved) -> None:
        """Nothing was taken."""

    def make(self, wish: Wish, saved: Saved) -> None:
        with kernel(self._root, self._link) as link:
            _make(link, wish, LinkState.of(saved["state"]))

    def turn(self, *, up: bool) -> None:
        with kernel(self._root, self._link) as link:
            link.set_up(up=up)

    def done(self) -> bool:
        return True

    def keep(self, saved: Saved) -> None:
        """The kernel keeps it as long as it runs."""

    def undo(self, saved: Saved) -> None:
        with kernel(self._root, self._link) as link:
            link.restore(LinkState.of(saved["state"]))


def _make(link: Kernel, wish: Wish, before: LinkState) -> None:
    match wish:
        case SetAddresses():
            link.set_addresses(wish)
        case SetMtu():
            link.set_mtu(wish.mtu)
        case AddRoute():
            link.add_route(wish)
        case RemoveRoute():
            link.remove_routes(wish)
        case Turn.UP:
            link.set_up(up=True)
        case Turn.DOWN:
            link.set_up(up=False)
        case Turn.RESTART:
            link.set_up(up=False)
            link.set_up(up=True)
            if before.up:
                link.restore(before)
