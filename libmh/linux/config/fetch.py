"""Texts of configuration from elsewhere: `https:`, `file:`, and `http:` where a digest vouches for them.

A download is done by a process of its own: it can be ended whatever it waits for, a name server included,
and where systemd runs it is a service without privileges, outside of the agent's sandbox, which allows no
connection to anywhere. Loopback and private addresses are allowed: that is where configuration is kept.
"""

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from libmh.context import Root
from libmh.errors import DownloadFailed, Problem, Timeout
from libmh.linux import ownunit
from libmh.linux.config import contents
from libmh.uris import shown

MAX_SIZE = contents.MAX_SIZE
MAX_URI = 8192
MAX_SECONDS = 300.0
MAX_REASON = 1000
PROGRAM = str(Path(__file__).with_name("downloader.py"))
DIGEST = re.compile(r"sha256=([0-9A-Fa-f]{64})")
LOCAL_HOSTS = ("", "localhost")
CONFINED = (
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "ProtectHome=read-only",
    "ProtectSystem=strict",  # /tmp, too; it stays in sight, for our own program may be installed there
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "MemoryMax=256M",
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at a URI, and its SHA-256 in hexadecimal."""

    content: bytes
    digest: str

    @property
    def text(self) -> str:
        """It as text; `download-failed` when it is none."""
        try:
            text = self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DownloadFailed(f"what was fetched is no text in UTF-8: {error.reason}") from error
        if "\0" in text:
            raise DownloadFailed("what was fetched has NUL in it: it is no text")
        return text


def fetch(root: Root, uri: str, seconds: float, authorities: Path | None = None) -> Fetched:
    """Fetch what is at a URI, at most 16 MiB, within so many seconds and 300 at most. `authorities`: a file
    with the certificates to trust (None: SSL_CERT_FILE, else the system's). Raises `download-failed`."""
    if not uri.isascii() or not uri.isprintable() or " " in uri or len(uri) > MAX_URI:
        raise DownloadFailed(
            f"'{shown(uri)[:200]}' is no URI: expected at most {MAX_URI} characters of ASCII"
        )
    where, _, fragment = uri.partition("#")
    wanted = _digest(uri, fragment)
    scheme = where.partition(":")[0].lower()
    if scheme == "file":
        content = _file(root, where)
    elif scheme in ("https", "http"):
        content = _download(root, where, min(seconds, MAX_SECONDS), authorities, sure=bool(wanted))
    else:
        raise DownloadFailed(
            f"'{shown(uri)[:200]}': expected https://, file://, or http:// with #sha256=DIGEST"
        )
    digest = hashlib.sha256(content).hexdigest()
    if wanted not in ("", digest):
        raise DownloadFailed(
            f"'{shown(where)[:200]}' is not what was meant: its SHA-256 is {digest}", digest=digest
        )
    return Fetched(content, digest)


def _digest(uri: str, fragment: str) -> str:
    found = DIGEST.fullmatch(fragment)
    if fragment and not found:
        raise DownloadFailed(
            f"'{shown(uri)[:200]}' ends with '#{fragment[:80]}': expected #sha256= and 64 digits"
        )
    return found[1].lower() if found else ""


def _file(root: Root, uri: str) -> bytes:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise DownloadFailed(f"'{shown(uri)[:200]}' is no URI: {error}") from error
    path = unquote(parts.path)
    if parts.netloc.lower() not in LOCAL_HOSTS or parts.query or not path.startswith("/") or "\0" in path:
        raise DownloadFailed(f"'{shown(uri)[:200]}': expected file:///PATH")
    try:
        content = contents.read(root, contents.resolve(root, path))
    except Problem as problem:
        raise DownloadFailed(problem.message) from problem
    if content is None:
        raise DownloadFailed(f"'{path}' does not exist here")
    return content


def _download(root: Root, uri: str, seconds: float, authorities: Path | None, *, sure: bool) -> bytes:
    trusted = str(authorities or os.environ.get("SSL_CERT_FILE", ""))
    arguments = (uri, str(MAX_SIZE), "sure" if sure else "unsure", trusted)
    python = (sys.executable, "-I", "-S", PROGRAM)
    try:
        ending = ownunit.run(root, (*python, *arguments), seconds, limit=MAX_SIZE + 1, properties=CONFINED)
    except Timeout as problem:
        raise DownloadFailed(f"'{shown(uri)[:200]}' did not come within {seconds:g} s") from problem
    if ending.rc:
        why = ending.stderr.decode("utf-8", "replace").strip()[-MAX_REASON:]
        raise DownloadFailed(f"'{shown(uri)[:200]}': {why or f'the download ended with {ending.rc}'}")
    return ending.stdout
