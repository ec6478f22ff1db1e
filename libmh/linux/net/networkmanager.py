"""Links that NetworkManager manages (its D-Bus API, nm-dbus-interface).

A change is made in the memory of NetworkManager alone: the profile's file is written when it is kept. A
checkpoint of NetworkManager's own is taken before, and ends some seconds after our own time.
"""

import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from libmh.context import Root
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound, Problem, Timeout, Unavailable
from libmh.linux.daemons import Daemon, Place, daemon
from libmh.linux.net import nmprofile
from libmh.linux.net.keeper import Saved
from libmh.linux.net.kernelnet import LinkState, kernel
from libmh.linux.net.netproof import wait_until
from libmh.linux.net.netwish import AddRoute, RemoveRoute, SetAddresses, SetMtu, Turn, Wish
from libmh.linux.net.nmprofile import Profile

log = logging.getLogger("libmh.linux.net.networkmanager")
NAME = "org.freedesktop.NetworkManager"
PLACE = Place(NAME, "/org/freedesktop/NetworkManager", NAME)
SETTINGS = Place(NAME, "/org/freedesktop/NetworkManager/Settings", f"{NAME}.Settings")
DEVICE = f"{NAME}.Device"
ACTIVE = f"{NAME}.Connection.Active"
CONNECTION = f"{NAME}.Settings.Connection"
NONE = "/"
TO_DISK, IN_MEMORY = 0x1, 0x2
EXTERNAL = 0x80  # NM_ACTIVATION_STATE_FLAG_EXTERNAL: it only watches what others configured
UNMANAGED, DISCONNECTED, PREPARE, ACTIVATED, DEACTIVATING = 10, 30, 40, 100, 110
ACTIVATING, ACTIVE_NOW = 1, 2
DISCONNECT_SECONDS = 10.0
AVAILABLE_SECONDS = 5.0
SECONDS = 10.0


def manages(root: Root, link: str) -> bool:
    """Whether NetworkManager says that it manages a link, and does more than to watch it."""
    manager = daemon(root, PLACE)
    path = device_of(manager, link)
    if path is None:
        return False
    told = properties(manager, path, DEVICE)
    if not told.get("Managed") or told.get("State", 0) <= UNMANAGED:
        return False
    active = told.get("ActiveConnection", NONE)
    return active == NONE or not _is_external(manager, active)


def _is_external(manager: Daemon, active: str) -> bool:
    try:
        return bool(properties(manager, active, ACTIVE).get("StateFlags", 0) & EXTERNAL)
    except NotFound:  # it has just ended
        return False


def device_of(manager: Daemon, link: str) -> str | None:
    """The object of a link; None where NetworkManager knows none."""
    try:
        return manager.value(str, "GetDeviceByIpIface", "s", link)
    except BackendFailed as problem:
        if str(problem.details.get("dbus_error", "")).endswith(".UnknownDevice"):
            return None
        raise
    except NotFound as problem:  # it has its name before it has its objects
        raise Unavailable("NetworkManager is starting", source=NAME) from problem


def properties(manager: Daemon, path: str, interface: str) -> Mapping[str, Any]:
    (answer,) = manager.properties([path], interface, SECONDS)
    if isinstance(answer, Problem):
        raise answer
    return answer


class ByNetworkManager:
    """A `LinkKeeper`."""

    def __init__(self, root: Root, link: str) -> None:
        self._root = root
        self._link = link
        self._manager = daemon(root, PLACE)
        self._active: str | None = None

    def save(self, wish: Wish, before: LinkState, seconds: float) -> Saved:
        device = self._device()
        told = properties(self._manager, device, DEVICE)
        path = self._profile_of(told)
        current = self._settings(path) if path else nmprofile.new(self._link, str(uuid.uuid4()))
        saved: dict[str, Any] = {
            "active": told.get("State", 0) >= PREPARE,
            "up": before.up,
            "mtu": before.mtu,
            "turn": isinstance(wish, Turn),
            "new": path is None,
            "uuid": nmprofile.plain(current["connection"]["uuid"]),
        }
        if not isinstance(wish, Turn):
            saved["settings"] = nmprofile.written(current)
            saved["wanted"] = nmprofile.written(nmprofile.sendable(edited(current, wish)))
        saved["checkpoint"] = self._checkpoint(device, seconds)
        return saved

    def discard(self, saved: Saved) -> None:
        if "checkpoint" in saved:
            self._destroy(saved["checkpoint"])

    def make(self, wish: Wish, saved: Saved) -> None:
        if isinstance(wish, Turn):
            self._turned(wish, saved)
        elif saved["new"]:
            self._add(saved)
        else:
            profile = self._profile(saved)
            self._update(profile, nmprofile.read(saved["wanted"]), IN_MEMORY)
            self._apply(profile, active=saved["active"])

    def turn(self, *, up: bool) -> None:
        device = self._device()
        if not up:
            self._disconnect(device)
            return
        with kernel(self._root, self._link) as link:  # it activates nothing on a link that is down
            link.set_up(up=True)
        with suppress(Timeout):  # there is no carrier: it says so itself
            wait_until(lambda: self._state(device) >= DISCONNECTED, AVAILABLE_SECONDS, "it is unavailable")
        self._activate(NONE, device)

    def done(self) -> bool:
        if self._active is not None:
            return self._is_active(self._active)
        state = self._state(self._device())
        return not (PREPARE <= state < ACTIVATED or state == DEACTIVATING)

    def keep(self, saved: Saved) -> None:
        if not saved["turn"]:
            wanted, before = (nmprofile.read(saved[name]) for name in ("wanted", "settings"))
            profile = self._by_uuid(saved["uuid"])
            current = self._settings(profile) if profile else {}
            undone = nmprofile.same(current, before) and not nmprofile.same(wanted, before)
            if profile is None or undone:
                raise Conflict(
                    f"NetworkManager has rolled '{self._link}' back, or was restarted", link=self._link
                )
            self._update(profile, {}, TO_DISK)
        self._destroy(saved["checkpoint"])

    def undo(self, saved: Saved) -> None:
        try:
            results = self._manager.value(dict, "CheckpointRollback", "o", saved["checkpoint"])
            if any(results.values()):
                raise BackendFailed(f"NetworkManager could not roll '{self._link}' back: {results}")
        except (BackendFailed, InvalidArguments, NotFound) as problem:
            # it was restarted, or did it already
            log.info("'%s' has no checkpoint any more: %s", self._link, problem)
            self._bring_back(saved)
        self._forget_new(saved)
        if saved["turn"] and not saved["up"]:
            self._set_down()

    def _turned(self, wish: Turn, saved: Saved) -> None:
        if wish is Turn.RESTART and not saved["new"]:
            self._activate(self._profile(saved), self._device())
        elif wish is not Turn.UP or not (
            saved["active"] and saved["up"]
        ):  # to activate anew would cut it off
            self.turn(up=wish is not Turn.DOWN)

    def _apply(self, profile: str, *, active: bool) -> None:
        """In place where NetworkManager can, which cuts no connection; by a new activation elsewhere."""
        device = self._device()
        if active:
            try:
                self._call(device, DEVICE, "Reapply", "a{sa{sv}}tu", {}, 0, 0)
            except BackendFailed as problem:
                log.info("'%s' is activated anew: %s", self._link, problem)
            else:
                return
        self._activate(profile, device)

    def _add(self, saved: Saved) -> None:
        from libmh.bus import variant

        answer = self._manager.call(
            "AddAndActivateConnection2",
            "a{sa{sv}}ooa{sv}",
            nmprofile.read(saved["wanted"]),
            self._device(),
            NONE,
            {"persist": variant("s", "volatile")},
        )
        self._active = str(answer[1])

    def _bring_back(self, saved: Saved) -> None:
        """Without a checkpoint: the profile as it was, and activated if it was."""
        profile = None if saved["new"] else self._by_uuid(saved["uuid"])
        if profile and not saved["turn"]:
            before = nmprofile.read(saved["settings"])
            if not nmprofile.same(self._settings(profile), before):
                self._update(profile, nmprofile.sendable(before), IN_MEMORY)
        device = self._device()
        if saved["active"]:
            self._activate(profile or NONE, device)
        elif self._state(device) >= PREPARE:
            self._disconnect(device)
        with kernel(self._root, self._link) as link:  # a profile that names none leaves it as it is
            link.set_mtu(saved["mtu"])

    def _forget_new(self, saved: Saved) -> None:
        """A profile that we made goes, too."""
        path = self._by_uuid(saved["uuid"]) if saved["new"] and not saved["turn"] else None
        if path:
            with suppress(NotFound):  # it went with its activation
                self._call(path, CONNECTION, "Delete")

    def _profile(self, saved: Saved) -> str:
        """Its object has another name after a restart of NetworkManager."""
        found = self._by_uuid(saved["uuid"])
        if found is None:
            raise NotFound(f"NetworkManager has no profile '{saved['uuid']}' any more", link=self._link)
        return found

    def _by_uuid(self, wanted: str) -> str | None:
        try:
            return Daemon(self._manager.bus, SETTINGS).value(str, "GetConnectionByUuid", "s", wanted)
        except BackendFailed:  # there is none
            return None
        except NotFound as problem:
            raise Unavailable("NetworkManager is starting", source=NAME) from problem

    def _disconnect(self, device: str) -> None:
        """NetworkManager leaves a link up that it has disconnected, so as to see its carrier; what then
        takes it down is not undone by it."""
        with suppress(BackendFailed):  # it is not active
            self._call(device, DEVICE, "Disconnect")
        wait_until(
            lambda: self._state(device) <= DISCONNECTED,
            DISCONNECT_SECONDS,
            f"NetworkManager did not disconnect '{self._link}'",
        )
        self._set_down()

    def _set_down(self) -> None:
        with kernel(self._root, self._link) as link:
            link.set_up(up=False)

    def _activate(self, profile: str, device: str) -> None:
        self._active = self._manager.value(str, "ActivateConnection", "ooo", profile, device, NONE)

    def _is_active(self, path: str) -> bool:
        try:
            told = properties(self._manager, path, ACTIVE).get("State")
        except NotFound:
            told = None
        if told not in (ACTIVATING, ACTIVE_NOW):
            raise BackendFailed(f"NetworkManager could not activate '{self._link}'", link=self._link)
        return bool(told == ACTIVE_NOW)

    def _checkpoint(self, device: str, seconds: float) -> str:
        try:
            return self._manager.value(str, "CheckpointCreate", "aouu", [device], round(seconds), 0)
        except (BackendFailed, InvalidArguments) as problem:
            if "already" in problem.message:
                raise Conflict(
                    f"somebody else changes '{self._link}': {problem.message}", link=self._link
                ) from problem
            raise

    def _destroy(self, checkpoint: str) -> None:
        with suppress(BackendFailed, InvalidArguments, NotFound):  # there is none any more
            self._manager.call("CheckpointDestroy", "o", checkpoint)

    def _update(self, path: str, profile: Profile, flags: int) -> None:
        self._call(path, CONNECTION, "Update2", "a{sa{sv}}ua{sv}", profile, flags, {})

    def _settings(self, path: str) -> Profile:
        bus = self._manager.bus
        found = bus.call(NAME, path, CONNECTION, "GetSettings", timeout=SECONDS, raw=True)[0]
        return dict(found)

    def _profile_of(self, told: Mapping[str, Any]) -> str | None:
        active = told.get("ActiveConnection", NONE)
        if active != NONE:
            return str(properties(self._manager, active, ACTIVE)["Connection"])
        available = told.get("AvailableConnections") or []
        return str(available[0]) if available else None

    def _state(self, device: str) -> int:
        return int(properties(self._manager, device, DEVICE).get("State", 0))

    def _device(self) -> str:
        found = device_of(self._manager, self._link)
        if found is None:
            raise NotFound(f"NetworkManager knows no link '{self._link}'", link=self._link)
        return found

    def _call(
        self, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> list[Any]:
        return self._manager.bus.call(NAME, path, interface, member, signature, *arguments, timeout=SECONDS)


def edited(profile: Profile, wish: Wish) -> Profile:
    """A profile with what was wished."""
    match wish:
        case SetAddresses():
            return nmprofile.with_addresses(profile, wish)
        case SetMtu():
            return nmprofile.with_mtu(profile, wish.mtu)
        case AddRoute():
            return nmprofile.with_route(profile, wish)
        case RemoveRoute():
            left = nmprofile.without_route(profile, wish)
            if left is None:
                raise Conflict(
                    f"the route to '{wish.destination}' is not in the link's profile: it came by itself"
                )
            return left
    return profile
