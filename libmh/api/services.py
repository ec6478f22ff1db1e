"""Services of the host's service manager."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U32, U64, Time, interface, method, prop


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the service manager."""

    name: Annotated[str, "with its suffix: ssh.service"]
    description: Annotated[str, "for people"]
    load_state: Annotated[str, "loaded, not-found, masked, error ..."]
    active_state: Annotated[str, "active, reloading, inactive, failed, activating, deactivating"]
    sub_state: Annotated[str, "the type's own finer state: running, exited, dead ..."]
    enablement: Annotated[
        str | None, "enabled, disabled, static, masked, generated ...; absent where there is no unit file"
    ] = None
    type: Annotated[str | None, "of a service: simple, forking, oneshot, notify, dbus, idle"] = None
    main_pid: Annotated[U32 | None, "of a running service"] = None
    since: Annotated[Time | None, "when it came to its active state"] = None
    memory: Annotated[U64 | None, "bytes; absent where it is not accounted"] = None
    tasks: Annotated[U64 | None, "absent where they are not accounted"] = None
    restarts: Annotated[U32 | None, "automatic restarts of a service"] = None
    result: Annotated[
        str | None, "of the last run of a service: success, exit-code, signal, timeout ..."
    ] = None
    exit_status: Annotated[
        U32 | None, "of the last main process: exit code, or signal number when a signal ended it"
    ] = None
    fragment_path: Annotated[str | None, "the unit file"] = None


@interface("org.matahariproject.Services", version="1.0")
class Services(Protocol):
    """The services of a host, under systemd or as LSB init scripts."""

    @prop(source="/etc/machine-id", max_age=60.0)
    def uuid(self) -> str:
        """The host's UUID of lifetime Filesystem."""
        ...

    @prop(source="gethostname(2)", max_age=1.0)
    def hostname(self) -> str:
        """The host's name."""
        ...

    @method(returns="agents", name="list")
    def list_services(self) -> list[str]:
        """Names of all services, without a suffix."""
        ...

    @method(objects=("name",), returns="rc", deadline=90.0)
    def status(
        self,
        name: Annotated[str, "a service's name, with or without .service"],
        timeout: Annotated[U32, "milliseconds; 0 is the deadline of the call"],
    ) -> U32:
        """LSB's status code: 0 running, 1 dead with a pid file, 2 dead with a lock file, 3 not running, 4
        unknown or not installed; 198 when the time passed, 194 when a signal ended the script."""
        ...

    @method(returns="units")
    def units(
        self,
        pattern: Annotated[str, "a shell pattern over names: 'ssh*'; empty matches all"] = "",
        state: Annotated[
            str, "only units whose load, active or sub state is this word; empty matches all"
        ] = "",
    ) -> list[Unit]:
        """The units that are loaded, by name. Where there is no systemd: the init scripts as services."""
        ...
