"""The `Sysconfig` of a Linux machine."""

from libmh.api.sysconfig import Sysconfig
from libmh.context import Context
from libmh.linux import identity, keys

POSTBOOT = "is_postboot_configured"


class LinuxSysconfig(Sysconfig):
    """The record of configuration runs on this machine."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._root = self._context.root

    def uuid(self) -> str:
        return identity.get(self._root, "filesystem")

    def hostname(self) -> str:
        return identity.hostname(self._root)

    def is_postboot_configured(self) -> int:
        return self._context.settings.number(POSTBOOT, 0)

    def set_is_postboot_configured(self, value: int) -> None:
        self._context.settings.set(POSTBOOT, value)

    def is_configured(self, key: str) -> str:
        return keys.status(self._root, key)
