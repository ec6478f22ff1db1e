"""TLS of the HTTP listener: the certificate of the table `[tls]`, as the other listeners have it."""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.errors import BackendFailed, InvalidArguments

log = logging.getLogger("mh_conductor.rest")


@dataclass(slots=True)
class Secured:
    """A certificate and its key; a renewed one is used from the next connection on."""

    certificate: Path
    key: Path
    _seen: tuple[tuple[int, int, int], ...] = ()
    _context: ssl.SSLContext | None = None

    def listening(self) -> ssl.SSLContext:
        """Raises `BackendFailed` for files that cannot be read or do not fit together."""
        context = self._current()
        context.sni_callback = self._renew
        return context

    def _renew(self, peer: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        try:
            peer.context = self._current()
        except BackendFailed as problem:
            log.warning("%s; the certificate stays as it was", problem)
            if self._context is not None:
                peer.context = self._context

    def _current(self) -> ssl.SSLContext:
        try:
            found = tuple(path.stat() for path in (self.certificate, self.key))
            seen = tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
            if self._context is None or seen != self._seen:
                self._context, self._seen = _made(self.certificate, self.key), seen
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = f"'{self.certificate}' and '{self.key}'"
            raise BackendFailed(f"TLS cannot be set up from {names}: {error}") from error
        return self._context


def _made(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # a key that wants a passphrase would ask for it on the terminal
    context.load_cert_chain(certificate, key, password=lambda: "")
    return context


def secured_of(config: Mapping[str, Any]) -> Secured | None:
    """What the table `[tls]` has of it. Raises `InvalidArguments`."""
    table = config.get("tls", {})
    files = [table.get(name) for name in ("certificate", "key")]
    if not any(files):
        return None
    if not all(isinstance(each, str) and each for each in files):
        raise InvalidArguments("[tls]: expected a certificate with its key, or neither", argument="tls")
    return Secured(Path(table["certificate"]), Path(table["key"]))
