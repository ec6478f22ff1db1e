"""How a peer proves who it is: the SASL mechanisms that are allowed, and who may be listened to."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libmh import errors
from mh_amqp.tls import Tls, files_of
from mh_amqp.users import Users

ANONYMOUS = "ANONYMOUS"
EXTERNAL = "EXTERNAL"
PLAIN = "PLAIN"
SCRAM = ("SCRAM-SHA-256",)


@dataclass(frozen=True, slots=True)
class Login:
    """What a dialler offers, the best first. A password is never sent beyond loopback without TLS."""

    mechanisms: tuple[str, ...] = (ANONYMOUS,)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a listener lets a peer prove itself by. `external`: whom the connection itself proves it to be,
    by a certificate or the credentials of a Unix socket; empty for nobody."""

    mechanisms: tuple[str, ...]
    users: Users | None = None
    external: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """Whom a listener lets in: whoever shows a certificate of `tls.authorities`, the `users`, and where
    there is neither whoever is on this machine."""

    users: Users | None = None
    tls: Tls | None = None

    @property
    def anonymous(self) -> bool:
        """Whether strangers come in; they can be on this machine alone."""
        return self.users is None and self.tls is None

    def offer(self, external: str) -> Offer:
        """What a peer may prove itself by; `external` is whom its connection proves it to be."""
        by_password = (*SCRAM, PLAIN) if self.users is not None else ()
        found = (*((EXTERNAL,) if external else ()), *by_password, *((ANONYMOUS,) if self.anonymous else ()))
        return Offer(found, self.users, external)


def door_of(config: Mapping[str, Any]) -> Door:
    """Whom a configuration lets in: `[tls]` as in `mh_amqp.tls`, and `users`, a file, in `[login]`. Raises
    `InvalidArguments` and `BackendFailed` for what cannot be, before anybody comes."""
    files = files_of(config)
    table = config.get("login", {})
    path = table.get("users")
    if not set(table) <= {"users"} or not isinstance(path, str | None):
        raise errors.InvalidArguments("[login]: expected users, the path of a file", argument="login")
    users = None if path is None else Users(Path(path))
    if users is not None:
        users.read()
    return Door(users, Tls(files) if files.certificate else None)


def is_unix(host: str) -> bool:
    """A host that starts with a slash is the path of a Unix socket."""
    return host.startswith("/")


def is_loopback(host: str) -> bool:
    """Whether every address that `host` resolves to is on this machine's loopback. A name that does not
    resolve is not."""
    if is_unix(host):
        return True
    try:
        found = socket.getaddrinfo(host or None, None, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    except OSError:  # no such name
        return False
    return all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)


def check_listen(host: str, door: Door) -> None:
    """Refuse to listen where strangers could come unless each has to prove who it is, unheard by others.
    Raises `InvalidArguments`."""
    if is_loopback(host):
        return
    if door.tls is None:
        raise errors.InvalidArguments(
            f"cannot listen on '{host}' without TLS: it is not a loopback address, and who is there could be"
            " anybody; expected a certificate, or 127.0.0.1, ::1 or the path of a Unix socket"
        )
    if door.users is None and not door.tls.verifies:
        raise errors.InvalidArguments(
            f"cannot listen on '{host}': nobody could prove who he is; expected the authorities that"
            " clients have their certificates from, or a file of users"
        )


def check_login(host: str, login: Login) -> None:
    """Refuse to send a password where others could read it. Raises `InvalidArguments`."""
    if login.password is not None and login.tls is None and not is_loopback(host):
        raise errors.InvalidArguments(f"a password is not sent to '{host}' without TLS: expected amqps://")
