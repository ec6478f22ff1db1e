"""Who comes in: anybody on loopback, or whoever shows a token of a file."""

import datetime as dt
import hashlib
import hmac
import ipaddress
import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from libmh.caller import Caller
from libmh.errors import InvalidArguments
from libmh.watched import Watched
from mh_conductor.rest.faults import Fault
from mh_conductor.rest.refusals import TRANSPORT, Refusals

log = logging.getLogger("mh_conductor.rest")
LOOPBACK = "loopback"
TOKEN = "x-auth-token"  # noqa: S105 - the name of a header
MAX_TOKENS = 10_000
MAX_NAME = 255
_DIGEST = re.compile(r"[0-9a-f]{64}")
KEYS = frozenset({"sha256", "identity", "roles", "expires"})


@dataclass(frozen=True, slots=True)
class Entrant(Caller):
    """Somebody who has come in with `roles` of the policy; without any, the policy goes by the identity."""

    roles: tuple[str, ...] = ()


def refused(refusals: Refusals, peer: str, why: str) -> Fault:
    """The answer to whom nobody knows, written down. It says no more than that."""
    refusals.entry(peer, why)
    return Fault(401, "The request you have made requires authentication.", {"WWW-Authenticate": "Keystone"})


@dataclass(frozen=True, slots=True)
class OnLoopback:
    """Everybody on this machine, but no page that a browser shows: it could be anybody's."""

    refusals: Refusals = field(default_factory=Refusals)

    async def enter(self, headers: Mapping[str, str], peer: str) -> Caller:
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            self.refusals.entry(peer, f"a page of '{origin}' asks")
            raise Fault(403, "requests of web pages need a token, and there are none here")
        if not is_loopback(_name_in(host)):
            self.refusals.entry(peer, f"asks for '{host}', which is not this machine")
            raise Fault(403, "without tokens this machine is served by the name localhost alone")
        return Entrant(TRANSPORT, LOOPBACK)


def _name_in(host: str) -> str:
    """The name or the address of a header `Host`; empty for what is no HOST[:PORT]."""
    try:
        found = urlsplit(f"//{host}")
    except ValueError:  # a bracket without the other
        return ""
    return "" if "@" in host or found.netloc != host else found.hostname or ""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine for sure."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Token:
    """`digest`: SHA-256 of what is shown, in hexadecimal."""

    digest: str
    identity: str
    roles: tuple[str, ...]
    expires: dt.datetime | None


def tokens_of(text: str) -> tuple[Token, ...]:
    """The tokens of a TOML file: `[[token]]` with `sha256`, `identity`, perhaps `roles` and `expires`.
    Raises `InvalidArguments`, which says which one."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArguments(f"not TOML: {error}") from error
    entries = tables.get("token", [])
    if set(tables) - {"token"} or not isinstance(entries, list) or len(entries) > MAX_TOKENS:
        raise InvalidArguments(f"expected at most {MAX_TOKENS} tables [[token]], and nothing else")
    return tuple(_token(number, entry) for number, entry in enumerate(entries, 1))


def _token(number: int, entry: Any) -> Token:
    if not isinstance(entry, dict) or set(entry) - KEYS:
        raise InvalidArguments(f"token {number}: expected a table with {', '.join(sorted(KEYS))}")
    digest, identity, roles = entry.get("sha256"), entry.get("identity"), entry.get("roles", [])
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidArguments(f"token {number}: sha256: expected 64 hexadecimal digits, in small letters")
    if not isinstance(identity, str) or not 1 <= len(identity) <= MAX_NAME or not identity.isprintable():
        raise InvalidArguments(f"token {number}: identity: expected 1 to {MAX_NAME} printable characters")
    if not isinstance(roles, list) or not all(isinstance(each, str) for each in roles):
        raise InvalidArguments(f"token {number}: roles: expected a list of names")
    return Token(digest, identity, tuple(roles), _expiry(number, entry.get("expires")))


def _expiry(number: int, value: object) -> dt.datetime | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise InvalidArguments(f"token {number}: expires: expected a time with its zone")
    return value


@dataclass(frozen=True, slots=True)
class WithTokens:
    """Whoever shows a token of the file."""

    file: Watched[tuple[Token, ...]]
    refusals: Refusals = field(default_factory=Refusals)

    async def enter(self, headers: Mapping[str, str], peer: str) -> Caller:
        shown = headers.get(TOKEN)
        if not shown:
            raise refused(self.refusals, peer, "shows no token")
        digest = hashlib.sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for token in self.file.current():  # all of them, however soon one fits
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise refused(self.refusals, peer, "shows a token that is not known")
        if found.expires is not None and found.expires < dt.datetime.now(dt.UTC):
            raise refused(self.refusals, peer, f"shows a token of '{found.identity}' that has expired")
        return Entrant(TRANSPORT, found.identity, roles=found.roles)
