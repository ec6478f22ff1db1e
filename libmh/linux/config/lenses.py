"""Which lens of augeas is for a file: the commonest files by a table, the others by what the lenses say.

Loading all lenses to ask them costs half a second, so that what they say is kept until their directory
changes.
"""

import glob
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from libmh.context import replace_file

log = logging.getLogger("libmh.linux.config.lenses")

DIRECTORIES = ("/usr/share/augeas/lenses", "/usr/share/augeas/lenses/dist")
FILE = "augeas-lenses.json"
MAX_FILE = 1 << 20
MAGIC = re.compile(r"[*?\[]")

COMMONEST: Mapping[str, str] = {
    "/etc/hosts": "Hosts.lns",
    "/etc/hostname": "Hostname.lns",
    "/etc/ssh/sshd_config": "Sshd.lns",
    "/etc/ssh/ssh_config": "Ssh.lns",
    "/etc/sysctl.conf": "Sysctl.lns",
    "/etc/fstab": "Fstab.lns",
    "/etc/resolv.conf": "Resolv.lns",
    "/etc/nsswitch.conf": "Nsswitch.lns",
    "/etc/passwd": "Passwd.lns",
    "/etc/group": "Group.lns",
    "/etc/shadow": "Shadow.lns",
    "/etc/sudoers": "Sudoers.lns",
    "/etc/login.defs": "Login_defs.lns",
    "/etc/crontab": "Cron.lns",
    "/etc/exports": "Exports.lns",
    "/etc/services": "Services.lns",
    "/etc/default/grub": "Shellvars.lns",
    "/etc/chrony.conf": "Chrony.lns",
    "/etc/ntp.conf": "Ntp.lns",
    "/etc/logrotate.conf": "Logrotate.lns",
    "/etc/rsyslog.conf": "Rsyslog.lns",
    "/etc/dnsmasq.conf": "Dnsmasq.lns",
    "/etc/host.conf": "Host_Conf.lns",
    "/etc/hosts.allow": "Hosts_Access.lns",
    "/etc/hosts.deny": "Hosts_Access.lns",
    "/etc/network/interfaces": "Interfaces.lns",
    "/etc/puppet/puppet.conf": "Puppet.lns",
    "/etc/apt/sources.list": "Aptsources.lns",
    "/etc/security/limits.conf": "Limits.lns",
}
"""A file -> the lens that libaugeas would find for it."""

UNTOLD: Mapping[str, str] = {"/etc/chrony/chrony.conf": "Chrony.lns"}
"""A file that libaugeas has a lens for and does not know by this name: it is Debian's."""


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens and the patterns of the files that it is for: glob(7), and fnmatch(3) for those that it is not
    for."""

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def takes(self, path: str) -> bool:
        """Whether it is for this file."""
        return any(_fits(path, each) for each in self.include) and not self.refuses(path)

    def refuses(self, path: str) -> bool:
        """Whether it is not for a file that its patterns fit. One without a slash is of names alone."""
        name = path.rpartition("/")[2]
        return any(
            expression(each, separate=False).fullmatch(path if "/" in each else name) is not None
            for each in self.exclude
        )


class Lenses:
    """What the lenses of this machine say. `ask` gives what the worker answers to `index`; `state` is where
    that is kept, None for nowhere."""

    def __init__(self, ask: Callable[[], object], state: Path | None) -> None:
        self._ask, self._state = ask, state
        self._known: tuple[Lens, ...] = ()
        self._key: list[int] = []

    def of(self, path: str) -> str | None:
        """The lens for a file, by its absolute name; None where there is none. Raises what asking raises."""
        known = COMMONEST.get(path) or UNTOLD.get(path)
        return known or next((lens.name for lens in self.all() if lens.takes(path)), None)

    def below(self, root: Path, directory: str) -> Iterator[tuple[str, str]]:
        """Every file below a directory of a root that a lens is for, with that lens."""
        base = "" if str(root) == "/" else str(root)
        inside = directory.rstrip("/") + "/"
        for lens in self.all():
            for pattern in lens.include:
                fixed = MAGIC.split(pattern, maxsplit=1)[0]
                if not fixed.startswith(inside) and not inside.startswith(fixed):
                    continue
                for found in glob.iglob(glob.escape(base) + pattern):  # noqa: PTH207 - patterns are absolute
                    path = found.removeprefix(base)
                    if path.startswith(inside) and not lens.refuses(path):
                        yield path, lens.name

    def all(self) -> tuple[Lens, ...]:
        """Every lens; asked for again when a lens was added or removed."""
        key = [_changed(Path(directory)) for directory in DIRECTORIES]
        if key != self._key:
            known = self._kept(key)
            if known is None:
                known = self._ask()
                self._keep(key, known)
            self._known, self._key = tuple(_lenses(known)), key
        return self._known

    def _kept(self, key: list[int]) -> object:
        try:
            if self._state is None:
                return None
            with (self._state / FILE).open("rb") as file:
                kept = json.loads(file.read(MAX_FILE))
        except (OSError, ValueError, RecursionError):  # not there, or not ours: it is made anew
            return None
        return kept.get("lenses") if isinstance(kept, dict) and kept.get("changed") == key else None

    def _keep(self, key: list[int], known: object) -> None:
        if self._state is None:
            return
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._state / FILE, json.dumps({"changed": key, "lenses": known}))
        except OSError as error:  # it is asked for again next time
            log.info("cannot keep what the lenses of augeas are for: %s", error)


def normal(lens: str) -> str:
    """The full name of a lens: `Hosts.lns` for `Hosts` and `@Hosts`."""
    name = lens.removeprefix("@")
    return name if "." in name else f"{name}.lns"


def expression(pattern: str, *, separate: bool) -> re.Pattern[str]:
    """A pattern of glob(7) as a regular expression; `separate`: `*` and `?` stand for no slash. A
    leading dot has to be written."""
    other = "[^/]" if separate else "."
    parts = re.findall(r"\[[!^]?\]?[^\]/]*\]|\\.|.", pattern, re.DOTALL)
    made = ""
    for part in parts:
        start = "(?!\\.)" if not made or (separate and made.endswith("/")) else ""
        if part == "*":
            made += f"{start}{other}*"
        elif part == "?":
            made += f"{start}{other}"
        elif part.startswith("[") and len(part) > 1:
            made += "[" + re.sub(r"^[!^]", "^", part[1:-1]).replace("\\", "\\\\") + "]"
        else:
            made += re.escape(part.removeprefix("\\") or part)
    return re.compile(f"(?s:{made})")


def _fits(path: str, pattern: str) -> bool:
    if not MAGIC.search(pattern):
        return path == pattern
    if not path.startswith(MAGIC.split(pattern, maxsplit=1)[0]):
        return False
    return expression(pattern, separate=True).fullmatch(path) is not None


def _changed(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except OSError:  # there is none
        return 0


def _lenses(known: object) -> Iterator[Lens]:
    """What was kept or answered, whoever wrote it: what makes no sense is left out."""
    for each in known if isinstance(known, list) else ():
        match each:
            case [str(name), list(include), list(exclude)]:
                yield Lens(
                    normal(name),
                    tuple(one for one in include if isinstance(one, str)),
                    tuple(one for one in exclude if isinstance(one, str)),
                )
