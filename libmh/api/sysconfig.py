"""Configuration of a host: what has been applied."""

from typing import Annotated, Protocol

from libmh.spec import U32, interface, method, prop, writes


@interface("org.matahariproject.Sysconfig", version="1.0")
class Sysconfig(Protocol):
    """The record of configuration runs on a host."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @prop(source="the agent's settings", max_age=1.0)
    def is_postboot_configured(self) -> U32:
        """A mark for the application that configures hosts after boot: 0 until it sets another. It
        persists."""
        ...

    @writes("is_postboot_configured")
    def set_is_postboot_configured(self, value: U32) -> None:
        """Set the mark."""
        ...

    @method(objects=("key",), returns="status")
    def is_configured(
        self, key: Annotated[str, "letters, digits, '_', '-' and '.', not starting with '.'"]
    ) -> str:
        """The status text kept under a key: `OK`, or `FAILED` and more lines; else `unknown`."""
        ...
