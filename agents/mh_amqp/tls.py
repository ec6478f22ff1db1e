"""TLS of diallers and listeners, by Python's own `ssl` under asyncio.

Not by proton's: its list of trusted authorities is added to the system's instead of taking its place
(CVE-2026-105031). What the files hold is read again when they change, so that a certificate is renewed
without a restart.
"""

import asyncio
import datetime as dt
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from libmh.errors import BackendFailed, InvalidArguments
from libmh.health import Certificates

log = logging.getLogger(__name__)
ANNOUNCED = 14 * 86_400.0
AGAIN = 86_400.0
LOOK_SECONDS = 3600.0
SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514."""
SPECIAL = frozenset('",+;<>\\')


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: our certificate (with those between it and its authority) and its key, the authorities that
    a peer's may be from, and their revocation lists. Without `authorities` a dialler trusts the system's,
    and a listener asks for no certificate."""

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None
    revoked: Path | None = None

    def all(self) -> tuple[Path, ...]:
        found = (self.certificate, self.key, self.authorities, self.revoked)
        return tuple(each for each in found if each is not None)


def files_of(config: Mapping[str, Any]) -> Files:
    """The table `[tls]` of a configuration: its keys are the names of `Files`. Raises `InvalidArguments`."""
    table = config.get("tls", {})
    known = [each.name for each in fields(Files)]
    for name, value in table.items():
        if name not in known or not isinstance(value, str) or not value:
            raise InvalidArguments(
                f"[tls] {name}: expected the path of a PEM file under one of {', '.join(known)}",
                argument="tls",
            )
    if ("key" in table) != ("certificate" in table):
        raise InvalidArguments("[tls]: expected a certificate with its key, or neither", argument="tls")
    return Files(**{name: Path(value) for name, value in table.items()})


@dataclass(slots=True)
class Tls:
    """The contexts of a set of files; a new one when a file has changed. Raises `BackendFailed` for files
    that cannot be read or do not fit together."""

    files: Files
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    _seen: tuple[tuple[int, int, int], ...] = ()
    _strict: bool = True

    @property
    def verifies(self) -> bool:
        """Whether a listener asks who the peer is."""
        return self.files.authorities is not None

    def dialling(self) -> ssl.SSLContext:
        """To dial with: the peer's certificate and name are always checked."""
        return self._context("dialling", ssl.PROTOCOL_TLS_CLIENT)

    def listening(self, *, strict: bool) -> ssl.SSLContext:
        """To listen with. `strict`: nobody comes in without a certificate."""
        if self.files.certificate is None:
            raise InvalidArguments("to listen with TLS needs a certificate and its key", argument="tls")
        self._strict = strict
        context = self._context("listening", ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._renew
        return context

    def _renew(self, peer: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        """Every handshake asks, with a name of ours or without: one that fails goes on with what was read
        before."""
        try:
            peer.context = self._context("listening", ssl.PROTOCOL_TLS_SERVER)
        except BackendFailed as problem:
            log.warning("%s; the certificate stays as it was", problem)
            last = self._contexts.get("listening")
            if last is not None:  # what was good last, not what was there first
                peer.context = last

    def expires(self) -> dt.datetime | None:
        """When our own certificate ends; None where there is none."""
        if self.files.certificate is None:
            return None
        from cryptography import x509

        try:
            raw = self.files.certificate.read_bytes()
            return x509.load_pem_x509_certificate(raw).not_valid_after_utc
        except (OSError, ValueError) as error:
            raise BackendFailed(
                f"cannot read the certificate in '{self.files.certificate}': {error}"
            ) from error

    def _context(self, name: str, protocol: int) -> ssl.SSLContext:
        seen = self._look()
        if seen != self._seen or name not in self._contexts:
            made = self._made(protocol)
            self._contexts = {name: made} if seen != self._seen else {**self._contexts, name: made}
            self._seen = seen
        return self._contexts[name]

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        try:
            found = [path.stat() for path in self.files.all()]
        except OSError as error:
            raise BackendFailed(f"cannot read '{error.filename}': {error.strerror}") from error
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)

    def _made(self, protocol: int) -> ssl.SSLContext:
        files, context = self.files, ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # who resumes a session is not looked at again
            if self.verifies:
                context.verify_mode = ssl.CERT_REQUIRED if self._strict else ssl.CERT_OPTIONAL
        try:
            if files.certificate is not None:
                # a key that wants a passphrase would ask for it on the terminal
                context.load_cert_chain(files.certificate, files.key, password=lambda: "")
            if files.authorities is not None:
                context.load_verify_locations(files.authorities)
            elif protocol == ssl.PROTOCOL_TLS_CLIENT:
                context.load_default_certs()
            if files.revoked is not None:
                context.load_verify_locations(files.revoked)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = ", ".join(map(str, files.all()))
            raise BackendFailed(f"TLS cannot be set up from {names}: {error}") from error
        return context


def subject(peer: ssl.SSLObject) -> str:
    """Whom the certificate of a peer names, as RFC 4514 writes it: `CN=console,O=Example`; empty when it has
    shown none in this session. The context has checked it."""
    # TLS 1.2 resumes sessions without tickets, too, and asks for no certificate then
    told = {} if peer.session_reused else peer.getpeercert() or {}
    return ",".join("+".join(map(_pair, part)) for part in reversed(told.get("subject", ())))


def ends(peer: ssl.SSLObject) -> float | None:
    """When the certificate of a peer ends, seconds since the epoch; None when it has shown none."""
    told = (peer.getpeercert() or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(told)) if isinstance(told, str) else None


def _pair(pair: Any) -> str:
    kind, value = pair
    return f"{SHORT.get(str(kind), kind)}={_escaped(str(value))}"


def _escaped(value: str) -> str:
    text = "".join(f"\\{each}" if each in SPECIAL else each for each in value)
    text = "".join(each if each.isprintable() else _hex(each) for each in text)
    if text[:1] in (" ", "#"):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and not text.endswith("\\ ") else text


def _hex(character: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


async def watch(tls: Tls, certificates: Certificates) -> None:
    """Tell when our own certificate ends, from two weeks before; for ever."""
    while tls.files.certificate is not None:
        try:
            expires = tls.expires()
        except BackendFailed as problem:
            log.warning("%s, ignoring", problem)
        else:
            if expires is not None:
                ends = int(expires.timestamp()) * 10**9
                certificates.expires(str(tls.files.certificate), ends, ANNOUNCED, AGAIN)
        await asyncio.sleep(LOOK_SECONDS)
