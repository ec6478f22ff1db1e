"""The `Services` of a Linux machine: systemd's where it runs, init scripts elsewhere. This is where that is
decided."""

from libmh.api.services import Services, Unit
from libmh.context import Context
from libmh.errors import InvalidArguments, NotImplementedHere
from libmh.linux import identity, lsb, sysfs, systemd
from libmh.linux.daemons import SYSTEMD, Daemon, booted, daemon


class LinuxServices(Services):
    """Asks the service manager anew at every call."""

    def __init__(self, context: Context | None = None) -> None:
        self._root = (context or Context()).root

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def list_services(self) -> list[str]:
        manager = self._systemd()
        return systemd.names(manager) if manager else lsb.names(self._root)

    def status(self, name: str, timeout: int) -> int:
        if not name:
            raise InvalidArguments("name: expected a service's name, got ''", argument="name")
        seconds = min(timeout / 1000, lsb.MAX_SECONDS) if timeout else lsb.MAX_SECONDS
        manager = self._systemd()
        return systemd.status(manager, name, seconds) if manager else lsb.status(self._root, name, seconds)

    def units(self, pattern: str = "", state: str = "") -> list[Unit]:
        manager = self._systemd()
        return systemd.units(manager, pattern, state) if manager else lsb.units(self._root, pattern, state)

    def _systemd(self) -> Daemon | None:
        """None where init scripts are the services; `not-implemented` where there are neither."""
        if booted(self._root):
            return daemon(self._root, SYSTEMD)
        if not sysfs.exists(self._root, lsb.SCRIPTS):
            raise NotImplementedHere(f"neither systemd nor '{lsb.SCRIPTS}' is here", source=lsb.SCRIPTS)
        return None
