"""The real polkitd on a private bus: `with polkit_bus(actions, {"10-tests": rule}) as polkit`; up in 80 ms.

polkitd has its directories compiled in, so it gets a mount namespace of its own in which they are ours. It
drops to its own user, so everything it reads is made readable. Root is always authorised; without logind
nobody is local or active, so `allow_any` is the default that counts.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import needs
from testbed.bus import private_bus
from testbed.child import child
from waiting import wait_for

POLKITD = "/usr/lib/polkit-1/polkitd"
ACTIONS = "/usr/share/polkit-1/actions"
RULES = "/etc/polkit-1/rules.d"
VENDOR_RULES = "/usr/share/polkit-1/rules.d"

# The machine's own rules are hidden: a test sees its rules and nothing else.
ENTER = f"""set -e
mount --bind "$1/actions" {ACTIONS}
mount --bind "$1/rules" {RULES}
mount -t tmpfs -o mode=755 tmpfs {VENDOR_RULES}
exec {POLKITD}
"""


@dataclass(frozen=True, slots=True)
class Polkit:
    """A bus with a polkitd on it."""

    address: str
    rules: Path

    def write_rule(self, name: str, text: str) -> None:
        """Put a rule in place; polkitd loads it within milliseconds and raises `Authority.Changed`."""
        (self.rules / f"{name}.rules").write_text(text)

    def drop_rule(self, name: str) -> None:
        """Take a rule away again."""
        (self.rules / f"{name}.rules").unlink()


@contextmanager
def polkit_bus(
    actions: Path, rules: Mapping[str, str] | None = None, policies: Sequence[Path] = ()
) -> Iterator[Polkit]:
    """A private bus with polkitd: actions from the *.policy files there, rules by name -> JavaScript."""
    needs.root("give polkitd a mount namespace of its own")
    needs.file(POLKITD, "polkitd")
    with tempfile.TemporaryDirectory(prefix="mh-polkit-") as name, private_bus(policies) as address:
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("actions", "rules"):
            (directory / part).mkdir()
        for policy in actions.glob("*.policy"):
            shutil.copyfile(policy, directory / "actions" / policy.name)
        polkit = Polkit(address, directory / "rules")
        for rule, text in (rules or {}).items():
            polkit.write_rule(rule, text)
        with _polkitd(directory, address):
            yield polkit


@contextmanager
def _polkitd(directory: Path, address: str) -> Iterator[None]:
    unshare = needs.command("unshare", "util-linux")
    enter = [unshare, "--mount", "--propagation=private", "sh", "-c", ENTER, "polkitd", str(directory)]
    with child(enter, env={"DBUS_SYSTEM_BUS_ADDRESS": address}, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: _answers(address, process), what="polkitd on its private bus")
        yield


def _answers(address: str, process: subprocess.Popen[str]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"polkitd ended with {process.returncode} before it was ready")
    dbus_send = needs.command("dbus-send", "dbus-bin")
    ask = [
        dbus_send,
        f"--bus={address}",
        "--print-reply=literal",
        "--dest=org.freedesktop.DBus",
        "/org/freedesktop/DBus",
    ]
    owner = [*ask, "org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.PolicyKit1"]
    return "true" in subprocess.run(owner, capture_output=True, text=True, timeout=5, check=True).stdout
