"""What a console shows and whom it trusts: a TOML file of its user's, or the machine's.

The first of `$MATAHARI_CONSOLE`, `matahari/console.toml` below the user's configuration and
`/etc/matahari/console.toml` that is there; `[tls]` in it is that of `mh_amqp.tls`, and `key` in `[signing]`
the file of the key that signs what is asked. The password of a URL
that names a user alone is in `$MATAHARI_PASSWORD`: what a command line says, others can read.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from libmh.errors import InvalidArguments
from libmh.keys import PrivateKey, load
from mh_amqp.names import Place

NAMED = "MATAHARI_CONSOLE"
PASSWORD = "MATAHARI_PASSWORD"  # noqa: S105 - where it is, not what it is
SYSTEM = Path("/etc/matahari/console.toml")
MAX_FILE = 1 << 20


def configuration() -> Mapping[str, Any]:
    """The tables of the file; none where there is no file. Raises `InvalidArguments` for one that is not
    TOML, cannot be read, or was named and is not there."""
    named = os.environ.get(NAMED)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - Path.home raises
    places = [Path(named)] if named else [Path(home) / "matahari" / "console.toml", SYSTEM]
    for path in places:
        try:
            with path.open("rb") as file:
                return tomllib.loads(file.read(MAX_FILE).decode())
        except FileNotFoundError:
            if named:
                raise InvalidArguments(f"'{path}', which {NAMED} names, does not exist") from None
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not TOML
            raise InvalidArguments(f"cannot read the configuration '{path}': {error}") from error
    return {}


def with_password(where: Place) -> Place:
    """A place whose URL names a user and no password gets the one of the environment, if there is one."""
    if where.user is None or where.password is not None:
        return where
    return replace(where, password=os.environ.get(PASSWORD))


def key_of(config: Mapping[str, Any]) -> PrivateKey | None:
    """The key that a console signs with, if it has one. Raises as `libmh.keys.load`."""
    table = config.get("signing", {})
    path = table.get("key")
    if not set(table) <= {"key"} or not isinstance(path, str | None):
        raise InvalidArguments("[signing]: expected key, the path of a private key", argument="signing")
    return None if path is None else load(Path(path))
