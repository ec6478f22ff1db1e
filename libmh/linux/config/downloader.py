"""The process that downloads: it has no privileges to lose, and whoever it asks can only waste its time.

It imports nothing of ours. Its arguments are the URI, the most bytes, whether a digest vouches for the
answer (`sure`, else `unsure`), and a file with certificates of authorities (empty: the system's). The answer
is its standard output; why there is none is its standard error, and it then ends with 1. Whoever started it
kills it when it takes too long: a name server, a handshake, headers or a body that never end.
"""

import http.client
import ssl
import sys
from typing import NoReturn
from urllib.parse import SplitResult, urljoin, urlsplit

SECONDS = 30.0  # for one answer of the other side; the whole has a limit of its own
MAX_REDIRECTS = 5
CHUNK = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "matahari", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
OK = 200
SECURE, INSECURE = "https", "http"


class Refused(Exception):
    """Why there is no answer."""


def shown(uri: str) -> str:
    """A URI without its user and its query, which may be secrets."""
    scheme, mark, rest = uri.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"[:200]


def check(uri: str, before: str, *, sure: bool) -> SplitResult:
    """A URI that may be asked for, the first one or one that `before` led to."""
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"'{shown(uri)}' is no URI: {error}") from error
    led = f"'{shown(before)}' leads to " if before else ""
    if parts.scheme not in (SECURE, INSECURE) or not host:
        raise Refused(f"{led}'{shown(uri)}': expected https://HOST/..., or http:// with a digest")
    if parts.scheme == INSECURE and not sure:
        raise Refused(f"{led}'{shown(uri)}', which anybody on the way can change: expected https")
    if parts.username is not None:
        raise Refused(f"{led}a URI with the name of a user in it")
    return parts


def ask(parts: SplitResult, trusted: ssl.SSLContext) -> http.client.HTTPResponse:
    """The answer of a server, its headers read. No proxy is asked, whatever the environment says."""
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == SECURE:
        connection = http.client.HTTPSConnection(host, parts.port, timeout=SECONDS, context=trusted)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers=HEADERS)
    return connection.getresponse()


def follow(uri: str, trusted: ssl.SSLContext, *, sure: bool) -> http.client.HTTPResponse:
    """The answer that a URI leads to in the end."""
    before = ""
    for _ in range(MAX_REDIRECTS + 1):
        response = ask(check(uri, before, sure=sure), trusted)
        if response.status not in REDIRECTS:
            return response
        before, uri = uri, urljoin(uri, response.getheader("Location", ""))
        response.close()
    raise Refused(f"it leads on more than {MAX_REDIRECTS} times, the last time to '{shown(uri)}'")


def body(response: http.client.HTTPResponse, most: int) -> bytes:
    """What a server sent, whole and as it is: nothing is unpacked."""
    if response.status != OK:
        raise Refused(f"the server answered {response.status} {response.reason[:100]}")
    encoding = response.getheader("Content-Encoding", "identity")
    if encoding != "identity":
        raise Refused(f"the server sent it packed ('{encoding[:20]}'), which was not asked for")
    if response.length is not None and response.length > most:
        raise Refused(f"it has {response.length} bytes: expected at most {most}")
    received = bytearray()
    while part := response.read(min(CHUNK, most + 1 - len(received))):
        received += part
        if len(received) > most:
            raise Refused(f"it has more than {most} bytes")
    if response.length:
        raise Refused(f"it was cut off, {response.length} bytes before its end")
    return bytes(received)


def reason(error: Exception) -> str:
    """Why it failed, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"the server did not answer within {SECONDS:g} s"
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return f"{type(error).__name__}: {error}" if isinstance(error, http.client.HTTPException) else str(error)


def fail(why: str) -> NoReturn:
    sys.stderr.write(why)
    sys.exit(1)


def main() -> None:
    """Download what the arguments say."""
    uri, most, vouched, authorities = sys.argv[1:]
    try:
        trusted = ssl.create_default_context(cafile=authorities or None)
        content = body(follow(uri, trusted, sure=vouched == "sure"), int(most))
    except (
        Refused,
        OSError,
        http.client.HTTPException,
        ValueError,
    ) as error:  # ValueError: what no header can carry
        fail(reason(error))
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
