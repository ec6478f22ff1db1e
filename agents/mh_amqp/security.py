"""How a peer proves who it is: the SASL mechanisms that are allowed, and who may be listened to."""

import ipaddress
import socket
from dataclasses import dataclass, field

from libmh import errors

ANONYMOUS = "ANONYMOUS"
EXTERNAL = "EXTERNAL"
PLAIN = "PLAIN"


@dataclass(frozen=True, slots=True)
class Login:
    """What a dialler offers. A password is never sent beyond loopback without TLS."""

    mechanisms: tuple[str, ...] = (ANONYMOUS,)
    user: str | None = None
    password: str | None = field(default=None, repr=False)


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


def check_listen(host: str) -> None:
    """Refuse to listen where strangers could come, for ANONYMOUS would let them in. Raises
    `InvalidArguments`."""
    if not is_loopback(host):
        raise errors.InvalidArguments(
            f"cannot listen on '{host}': it is not a loopback address, and without TLS and"
            " client certificates every peer that reaches it would be trusted;"
            " expected 127.0.0.1, ::1 or the path of a Unix socket"
        )


def check_login(host: str, login: Login) -> None:
    """Refuse to send a password where others could read it. Raises `InvalidArguments`."""
    if login.password is not None and not is_loopback(host):
        raise errors.InvalidArguments(f"a password is not sent to '{host}' without TLS")
