"""A private dbus-daemon: `with private_bus() as address`. Ready in some 20 ms; every uid may connect.

Without policies everything is allowed. With them the bus starts from the rules of Debian's system bus
(nobody owns a name, nobody calls anybody) and only what the given policy files allow is open.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import needs
from testbed.child import spawn, stop

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
{policy}
</busconfig>
"""

OPEN = """  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
    <allow eavesdrop="true"/>
  </policy>"""

# The default policy of /usr/share/dbus-1/system.conf, and polkit's own file so that a polkitd may join.
CLOSED = """  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include ignore_missing="yes">/etc/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>"""


@contextmanager
def private_bus(policies: Sequence[Path] = ()) -> Iterator[str]:
    """The address of a bus that lives as long as the block; `policies` are files as in dbus-1/system.d."""
    with bus_daemon(policies) as daemon:
        yield daemon.address


@contextmanager
def bus_daemon(policies: Sequence[Path] = ()) -> "Iterator[BusDaemon]":
    """The same with the daemon in hand, for tests in which the bus goes away and comes back."""
    with tempfile.TemporaryDirectory(prefix="mh-bus-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # callers of other uids must reach the socket
        (directory / "bus.conf").write_text(_configuration(directory, policies))
        daemon = BusDaemon(directory)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@dataclass(slots=True)
class BusDaemon:
    """A dbus-daemon at one address, which stays the same over `stop` and `start`."""

    directory: Path
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self.directory / 'socket'}"

    def start(self) -> None:
        """Start it and return when it accepts connections; RuntimeError when it does not come up."""
        daemon = needs.command("dbus-daemon", "dbus-daemon")
        options = [
            f"--config-file={self.directory / 'bus.conf'}",
            "--nofork",
            "--nopidfile",
            "--print-address=1",
        ]
        self.process = spawn([daemon, *options], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if (
            not self.process.stdout.readline()
        ):  # the address, or the end of a daemon that refused its configuration
            raise RuntimeError(f"dbus-daemon ended with {stop(self.process)} before it was ready")

    def stop(self) -> None:
        """Take the bus away: clients see their connection end, and later ones find no socket."""
        if self.process is not None:
            stop(self.process)
            self.process = None
        (self.directory / "socket").unlink(missing_ok=True)


def _configuration(directory: Path, policies: Sequence[Path]) -> str:
    includes = "".join(f"\n  <include>{path.resolve()}</include>" for path in policies)
    return CONFIG.format(socket=directory / "socket", policy=CLOSED + includes if policies else OPEN)
