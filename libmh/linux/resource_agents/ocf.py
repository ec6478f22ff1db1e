"""OCF resource agents: which there are, and the environment that they are run in (OCF agent API 1.1).

An agent is an executable regular file /usr/lib/ocf/resource.d/PROVIDER/AGENT. Whatever else a name leads
to, a link out of that tree included, is none.
"""

import math
import os
import pwd
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from libmh.context import Root
from libmh.errors import InvalidArguments, NotFound
from libmh.spec import Plain

OCF_ROOT = "/usr/lib/ocf"
AGENTS = "resource.d"
DEFAULT_PROVIDER = "heartbeat"
API_VERSION = ("1", "0")  # the ancestor's; agents made for 1.1 take it
MAX_ENTRIES = 4096
MAX_PARAMETERS = 256
MAX_VALUE = 65_535
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# agents make file names of the instance's name, and options of what they are given
INSTANCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,254}")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}")
ACTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
PARAMETER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
CHECK_LEVEL = "OCF_CHECK_LEVEL"  # of a monitor; it is no parameter of the agent


def providers(root: Root) -> list[str]:
    """Directories of agents, sorted; none where OCF is not installed."""
    return sorted(name for name in _listed(_tree(root)) if _directory(root, name) is not None)


def agents(root: Root, provider: str) -> list[str]:
    """Names of a provider's agents, sorted. `not-found` when there is no such provider."""
    directory = _directory(root, provider)
    if directory is None:
        raise NotFound(f"there is no OCF provider '{provider}' here", provider=provider)
    return sorted(name for name in _listed(directory) if _agent(root, directory, name) is not None)


def find(root: Root, provider: str, agent: str) -> Path:
    """The program of an agent. `not-found` when there is none, or no such provider."""
    directory = _directory(root, provider)
    found = _agent(root, directory, agent) if directory is not None else None
    if found is None:
        raise NotFound(
            f"there is no OCF agent '{agent}' of provider '{provider}' here", agent=agent, provider=provider
        )
    return found


def environment(
    root: Root, name: str, provider: str, agent: str, parameters: Mapping[str, str]
) -> dict[str, str]:
    """What an agent finds in its environment, and nothing else."""
    major, minor = API_VERSION
    keys = {f"OCF_RESKEY_{key}": value for key, value in parameters.items() if key != CHECK_LEVEL}
    if CHECK_LEVEL in parameters:
        keys[CHECK_LEVEL] = parameters[CHECK_LEVEL]
    return {
        **keys,
        **system(),
        "OCF_ROOT": str(root.path(OCF_ROOT)),
        "OCF_RA_VERSION_MAJOR": major,
        "OCF_RA_VERSION_MINOR": minor,
        "OCF_RESOURCE_INSTANCE": name,
        "OCF_RESOURCE_TYPE": agent,
        "OCF_RESOURCE_PROVIDER": provider,
    }


def about(action: str, interval: int, timeout: int) -> dict[str, str]:
    """What a cluster manager says of the operation itself, milliseconds: OCF_RESKEY_CRM_meta_*."""
    return {"CRM_meta_name": action, "CRM_meta_interval": str(interval), "CRM_meta_timeout": str(timeout)}


def system() -> dict[str, str]:
    """The environment of every script that is run here: a path, the C locale, the user's home."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a uid that has no account
        home = "/"
    return {"PATH": PATH, "LC_ALL": "C", "HOME": home}


def texts(parameters: Mapping[str, Plain]) -> dict[str, str]:
    """The values of parameters as an environment carries them. `invalid-arguments` names what is refused: a
    list, a map, bytes, nothing at all, or a name that no environment can have."""
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidArguments(f"parameters: expected at most {MAX_PARAMETERS}, got {len(parameters)}")
    return {key: _text(key, value) for key, value in parameters.items()}


def _text(key: str, value: Plain) -> str:
    where = f"parameters.{key}"
    if not PARAMETER.fullmatch(key):
        raise InvalidArguments(f"parameters: '{key}' is not a parameter's name", argument="parameters")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, str) and len(value) <= MAX_VALUE and _fits(value):
        return value
    raise InvalidArguments(
        f"{where}: expected text, a number or a truth value, got {type(value).__name__}", argument=where
    )


def _fits(value: str) -> bool:
    """Whether an environment can carry it: no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def check(what: str, value: str, allowed: "re.Pattern[str]") -> str:
    """A name that may go into a command line and a file name; `invalid-arguments` says which is not."""
    if not allowed.fullmatch(value):
        raise InvalidArguments(
            f"{what}: expected a name of letters, digits and '_.-', got '{value[:60]}'", argument=what
        )
    return value


def _tree(root: Root) -> Path:
    return root.path(f"{OCF_ROOT}/{AGENTS}")


def _listed(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)]
    except OSError:  # there is no such directory
        return []


def _directory(root: Root, provider: str) -> Path | None:
    if not FILE.fullmatch(provider):
        return None
    path = _within(root, _tree(root) / provider)
    return path if path is not None and path.is_dir() else None


def _agent(root: Root, directory: Path, name: str) -> Path | None:
    if not FILE.fullmatch(name) or _within(root, directory / name) is None:
        return None
    try:
        mode = (directory / name).stat().st_mode
    except OSError:  # it went, or may not be looked at
        return None
    # under its own name: agents look at $0
    return directory / name if stat.S_ISREG(mode) and mode & 0o111 else None


def _within(root: Root, path: Path) -> Path | None:
    try:
        real = path.resolve(strict=True)
        return real if real.is_relative_to(root.path(OCF_ROOT).resolve(strict=True)) else None
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return None
