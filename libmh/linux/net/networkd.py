"""Links that systemd-networkd manages (org.freedesktop.network1(5)).

A change is a network file for that link alone, which comes before the one that applied: a copy of it,
drop-ins included, edited. While it is unconfirmed it is below /run; `keep` writes it below /etc. Up and down
are done as networkctl(1) does them, and networkd follows.
"""

import json
import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from libmh.context import Root, replace_file
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound, Problem
from libmh.linux.daemons import Daemon, Place, daemon
from libmh.linux.net import networkfile
from libmh.linux.net.keeper import Saved
from libmh.linux.net.kernelnet import LinkState, kernel
from libmh.linux.net.netwish import AddRoute, RemoveRoute, SetAddresses, SetMtu, Turn, Wish

log = logging.getLogger("libmh.linux.net.networkd")
PLACE = Place("org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.network1.Manager")
DIRECTORIES = ("/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network")
PENDING = "/run/systemd/network/0-matahari-{}.network"
KEPT = "/etc/systemd/network/1-matahari-{}.network"
COMMENT = "Written by matahari for this link alone; it comes before any other network file."
NAME = re.compile(r"[0-9A-Za-z_.:@+-]+")  # others would be patterns to networkd
NO_SUCH_LINK = ".NoSuchLink"
UNMANAGED, LINGERING, FAILED, CONFIGURED = "unmanaged", "linger", "failed", "configured"
BUSY = ("pending", "initialized")
MODE = 0o644


def manages(root: Root, link: str) -> bool:
    """Whether networkd says that it manages a link: its AdministrativeState is not `unmanaged`."""
    try:
        told = describe(daemon(root, PLACE), link)
    except NotFound:  # it is not told of it yet
        return False
    return told.get("AdministrativeState", UNMANAGED) not in (UNMANAGED, LINGERING, "")


def describe(networkd: Daemon, link: str) -> dict[str, Any]:
    """What networkd tells of a link (Manager.DescribeLink). `not-found` when it does not know it."""
    try:
        told = json.loads(networkd.value(str, "DescribeLink", "i", index(networkd, link)))
    except ValueError as error:
        raise BackendFailed(f"networkd describes '{link}' in no JSON: {error}") from error
    return told if isinstance(told, dict) else {}


def index(networkd: Daemon, link: str) -> int:
    """The link's number as networkd knows it."""
    try:
        answer = networkd.call("GetLinkByName", "s", link)
    except BackendFailed as problem:
        if str(problem.details.get("dbus_error", "")).endswith(NO_SUCH_LINK):
            raise NotFound(f"networkd knows no link '{link}'", link=link) from problem
        raise
    return int(answer[0])


class ByNetworkd:
    """A `LinkKeeper`."""

    def __init__(self, root: Root, link: str) -> None:
        self._root = root
        self._link = link
        self._networkd = daemon(root, PLACE)

    def save(self, wish: Wish, before: LinkState, seconds: float) -> Saved:
        if not NAME.fullmatch(self._link):
            raise InvalidArguments(
                f"iface: '{self._link}' cannot be named in a network file", argument="iface"
            )
        if isinstance(wish, Turn):
            return {"up": before.up, "seconds": seconds}
        path = str(describe(self._networkd, self._link).get("NetworkFile") or "")
        sections = networkfile.matching_only(self._sections(path), self._link)
        return {
            "text": networkfile.written(_edited(sections, wish), COMMENT),
            "kept": self._text(self._kept()),
            "pending": self._text(self._pending()),
            "mtu": before.mtu,
            "seconds": seconds,
        }

    def discard(self, saved: Saved) -> None:
        """Nothing was taken."""

    def make(self, wish: Wish, saved: Saved) -> None:
        if isinstance(wish, Turn):
            self._turned(wish)
        else:
            self._write(self._pending(), saved["text"])
            self._reconfigure()

    def turn(self, *, up: bool) -> None:
        with kernel(self._root, self._link) as link:
            link.set_up(up=up)

    def done(self) -> bool:
        told = describe(self._networkd, self._link).get("AdministrativeState")
        if told == FAILED:
            raise BackendFailed(f"networkd failed to configure '{self._link}'", link=self._link)
        return told not in BUSY

    def keep(self, saved: Saved) -> None:
        """Onto the disk; networkd is not told, for it has that configuration already."""
        if "text" in saved:
            self._write(self._kept(), saved["text"])
            self._write(self._pending(), None)

    def undo(self, saved: Saved) -> None:
        if "text" not in saved:
            self.turn(up=saved["up"])
            return
        self._write(self._pending(), saved["pending"])
        if self._text(self._kept()) != saved["kept"]:  # it was being confirmed, which failed
            self._write(self._kept(), saved["kept"])
        self._networkd.call("Reload")
        with kernel(self._root, self._link) as link:  # networkd leaves it where no file names it
            link.set_mtu(saved["mtu"])
        self._reconfigure()

    def _turned(self, wish: Turn) -> None:
        if wish is Turn.RESTART:
            self.turn(up=False)
        self.turn(up=wish is not Turn.DOWN)

    def _reconfigure(self) -> None:
        self._networkd.call("Reload")
        self._networkd.call("ReconfigureLink", "i", index(self._networkd, self._link))

    def _pending(self) -> str:
        return PENDING.format(self._link)

    def _kept(self) -> str:
        return KEPT.format(self._link)

    def _sections(self, path: str) -> list[networkfile.Section]:
        """The file that applies, or what became of it when it was kept, with its drop-ins."""
        text = self._text(path)
        if text is None and path == self._pending():
            path, text = self._kept(), self._text(self._kept())
        if text is None:
            raise Conflict(f"networkd configures '{self._link}' by '{path}', which is not there", file=path)
        found = networkfile.parse(text)
        for each in self._drop_ins(Path(path).name):
            found += networkfile.parse(self._text(each) or "")
        return found

    def _drop_ins(self, name: str) -> list[str]:
        by_name: dict[str, str] = {}
        for directory in reversed(DIRECTORIES):
            with suppress(OSError):  # there is none
                for each in self._root.path(f"{directory}/{name}.d").glob("*.conf"):
                    by_name[each.name] = f"{directory}/{name}.d/{each.name}"
        return [by_name[each] for each in sorted(by_name)]

    def _text(self, path: str) -> str | None:
        if not path or not self._root.path(path).is_file():
            return None
        return self._root.read(path)

    def _write(self, path: str, text: str | None) -> None:
        place = self._root.path(path)
        try:
            if text is None:
                place.unlink(missing_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, text, MODE)
        except OSError as error:
            raise BackendFailed(f"cannot write '{path}': {error.strerror}", file=path) from error


def _edited(sections: list[networkfile.Section], wish: Wish) -> list[networkfile.Section]:
    match wish:
        case SetAddresses():
            return networkfile.with_addresses(sections, wish)
        case SetMtu():
            return networkfile.with_mtu(sections, wish.mtu)
        case AddRoute():
            return networkfile.with_route(sections, wish)
        case RemoveRoute():
            left = networkfile.without_route(sections, wish)
            if left is None:
                raise not_configured(wish)
            return left
    return sections


def not_configured(wish: RemoveRoute) -> Problem:
    """The manager would bring back what its configuration does not have: DHCP, or a router, told of it."""
    return Conflict(
        f"the route to '{wish.destination}' is not in the link's configuration: it came by itself"
    )
