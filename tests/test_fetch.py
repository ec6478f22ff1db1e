"""Downloads from real servers that are slow, large, cut off, lead elsewhere, or are not who they say."""

import gzip
import hashlib
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from certificates import authority
from libmh.context import Root
from libmh.errors import DownloadFailed
from libmh.linux.config.fetch import MAX_SIZE, fetch
from source_tree import ROOT
from testbed.machine import booted_host

TEXT = b"set /files/etc/hosts/1/ipaddr 127.0.0.1\n"
DIGEST = hashlib.sha256(TEXT).hexdigest()
SECONDS = 20.0
SLOW = 0.8
Answer = Callable[[BaseHTTPRequestHandler], None]


def say(handler: BaseHTTPRequestHandler, body: bytes, *headers: tuple[str, str], status: int = 200) -> None:
    handler.send_response(status)
    for name, value in headers or (("Content-Length", str(len(body))),):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def lead(where: str) -> Answer:
    return lambda handler: say(handler, b"", ("Location", where), ("Content-Length", "0"), status=302)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """100 MB that do not say how many they are."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(bytes(1 << 20))


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte at a time, for as long as somebody listens."""
    handler.send_response(200)
    handler.end_headers()
    pause = threading.Event()
    while not pause.wait(0.05):
        handler.wfile.write(b"#")
        handler.wfile.flush()


def heads(handler: BaseHTTPRequestHandler) -> None:
    for number in range(200):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if not number else b"X-%d: 1\r\n" % number)


ANSWERS: dict[str, Answer] = {
    "/text": lambda handler: say(handler, TEXT),
    "/chunks": lambda handler: say(
        handler, b"%x\r\n%s\r\n0\r\n\r\n" % (len(TEXT), TEXT), ("Transfer-Encoding", "chunked")
    ),
    "/cut-chunks": lambda handler: say(handler, b"ff\r\nabc", ("Transfer-Encoding", "chunked")),
    "/cut": lambda handler: say(handler, TEXT, ("Content-Length", "1000")),
    "/large": lambda handler: say(handler, b"", ("Content-Length", str(100 << 20))),
    "/endless": endless,
    "/bomb": lambda handler: say(handler, gzip.compress(bytes(1 << 24)), ("Content-Encoding", "gzip")),
    "/drip": drip,
    "/heads": heads,
    "/gone": lambda handler: say(handler, TEXT, status=404),
    "/round": lead("/round"),
    "/to-text": lead("text"),
    "/to-file": lead("file:///etc/passwd"),
    "/to-user": lead("https://me:secret@localhost/text"),
    "/to-nothing": lead(""),
    "/binary": lambda handler: say(handler, b"\xff\x00"),
    "/agent": lambda handler: say(handler, handler.headers["User-Agent"].encode()),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        target = self.path.partition("?to=")
        answer = lead(target[2]) if target[2] else ANSWERS[self.path]
        try:
            answer(self)
        except OSError:  # whoever asked has gone
            return

    def log_message(self, *args: object) -> None:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server's address, without the scheme."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server by https, and the authority that knows it."""
    known = authority(tmp_path_factory.mktemp("authority"))
    files = known.give("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(files.certificate), files.key)
    with serving(context) as address:
        yield f"https://{address}", known.path


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with serving() as address:
        yield f"http://{address}"


@pytest.mark.parametrize("path", ["/text", "/chunks", "/to-text"])
def test_a_text_comes_with_its_digest(trusted: tuple[str, Path], path: str) -> None:
    fetched = fetch(Root(), trusted[0] + path, SECONDS, trusted[1])
    assert (fetched.content, fetched.digest, fetched.text) == (TEXT, DIGEST, TEXT.decode())
    assert fetch(Root(), f"{trusted[0]}{path}#sha256={DIGEST.upper()}", SECONDS, trusted[1]) == fetched


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/gone", "answered 404"),
        ("/large", "has 104857600 bytes: expected at most 16777216"),
        ("/endless", "has more than 16777216 bytes"),
        ("/cut", "cut off, 960 bytes before its end"),
        ("/cut-chunks", "IncompleteRead"),
        ("/bomb", "sent it packed .'gzip'."),
        ("/heads", "more than 100 headers"),
        ("/round", "leads on more than 5 times"),
        ("/to-file", "leads to 'file:///etc/passwd'"),
        ("/to-user", "name of a user"),
        ("/to-nothing", "leads on more than 5 times"),
        ("/text#sha256=" + "0" * 64, f"its SHA-256 is {DIGEST}"),
        ("/text#sha1=0", "expected #sha256= and 64 digits"),
        (
            "/text?to=http://127.0.0.1:1/",
            "leads to 'http://127.0.0.1:1/', which anybody on the way can change",
        ),
        ("/text?to=gopher://127.0.0.1/", "expected https"),
    ],
)
def test_what_is_wrong_is_said(trusted: tuple[str, Path], path: str, told: str) -> None:
    with pytest.raises(DownloadFailed, match=told):
        fetch(Root(), trusted[0] + path, SECONDS, trusted[1])


def test_http_needs_a_digest(plain: str, trusted: tuple[str, Path]) -> None:
    with pytest.raises(DownloadFailed, match="expected https"):
        fetch(Root(), f"{plain}/text", SECONDS)
    assert fetch(Root(), f"{plain}/text#sha256={DIGEST}", SECONDS).content == TEXT
    led = f"{trusted[0]}/x?to={plain}/text#sha256={DIGEST}"
    assert fetch(Root(), led, SECONDS, trusted[1]).content == TEXT
    upwards = f"{plain}/x?to={trusted[0]}/text#sha256={DIGEST}"
    assert fetch(Root(), upwards, SECONDS, trusted[1]).content == TEXT


def test_who_is_not_trusted_is_not_asked(
    trusted: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = authority(tmp_path).path
    for authorities in (None, stranger):
        with pytest.raises(DownloadFailed, match="its certificate is not valid"):
            fetch(Root(), f"{trusted[0]}/text", SECONDS, authorities)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted[1]))
    assert fetch(Root(), f"{trusted[0]}/text", SECONDS).digest == DIGEST
    with pytest.raises(DownloadFailed, match="No such file"):
        fetch(Root(), f"{trusted[0]}/text", SECONDS, tmp_path / "none")


def test_no_proxy_is_asked(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert fetch(Root(), f"{plain}/text#sha256={DIGEST}", SECONDS).content == TEXT


def test_time_passes_whatever_is_waited_for(trusted: tuple[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uris = (f"{trusted[0]}/drip", f"https://127.0.0.1:{silent.getsockname()[1]}/")
        for uri in uris:
            began = time.monotonic()
            with pytest.raises(DownloadFailed, match="did not come within"):
                fetch(Root(), uri, SLOW, trusted[1])
            assert time.monotonic() - began < SLOW + 25


@pytest.mark.parametrize(
    "uri",
    [
        *("", "ftp://localhost/x", "x", "https:///x", "https://[/", "https://a b/", "https://a/\r\nX: y"),
        *("https://\xe9/", "https://me@localhost/", "https://localhost:99999/", "https://" + "a" * 9000),
        *("file://elsewhere/etc/hosts", "file:etc/hosts", "file:///etc/hosts?x", "file:///etc/%00"),
        *("file:///nowhere", "http://[x#sha256=" + "0" * 64),
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(DownloadFailed):
        fetch(Root(), uri, SECONDS)


def test_nobody_there_is_said() -> None:
    with pytest.raises(DownloadFailed, match="Connection refused"):
        fetch(Root(), "https://127.0.0.1:1/", SECONDS)


def test_a_file_is_regular_and_small_enough(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(TEXT)
    root = Root(tmp_path)
    for uri in ("file:///a%20b", f"FILE://localhost/a%20b#sha256={DIGEST}", "file:///../../x/../a%20b"):
        assert fetch(root, uri, SECONDS).content == TEXT
    with pytest.raises(DownloadFailed, match="is not what was meant"):
        fetch(root, "file:///a%20b#sha256=" + "1" * 64, SECONDS)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", MAX_SIZE + 1)
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "large", "link", "directory", "none"):
        with pytest.raises(DownloadFailed):
            fetch(root, f"file:///{name}", SECONDS)


def test_what_is_no_text_says_so(trusted: tuple[str, Path], tmp_path: Path) -> None:
    fetched = fetch(Root(), f"{trusted[0]}/binary", SECONDS, trusted[1])
    with pytest.raises(DownloadFailed, match="no text in UTF-8"):
        assert fetched.text
    (tmp_path / "x").write_bytes(b"a\0")
    with pytest.raises(DownloadFailed, match="NUL"):
        assert fetch(Root(tmp_path), "file:///x", SECONDS).text


SANDBOXED = """
import sys
from libmh.context import Root
from libmh.errors import DownloadFailed
from libmh.linux.config.fetch import fetch
print(fetch(Root(), sys.argv[1], 20).digest)
try:
    fetch(Root(), "https://nobody.example/", 1)
except DownloadFailed as problem:
    print(problem)
"""
SERVER = f"""
import http.server, socket
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))  # a name server that never answers
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write({TEXT!r})
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


def test_the_agents_sandbox_is_not_the_downloads() -> None:
    unit = (ROOT / "packaging/systemd/mh-dbus.service").read_text()
    sandbox = [
        f"--property={line}"
        for line in unit.splitlines()
        if line.startswith(("Capability", "IPAddress", "Memory", "NoNew", "Restrict", "SystemCall"))
    ]
    patient = "nameserver 127.0.0.1\noptions timeout:20\n"
    files = {"/etc/fetch.py": SANDBOXED, "/etc/serve.py": SERVER, "/etc/resolv.conf": patient}
    with booted_host("fetch", files=files) as host:
        host.run("systemd-run", "--quiet", "--unit=serve", sys.executable, "/etc/serve.py")
        uri = f"http://127.0.0.1:8080/#sha256={DIGEST}"
        host.python("-c", "import socket\nwhile socket.socket().connect_ex(('127.0.0.1', 8080)): pass")
        run = ("systemd-run", "--quiet", "--pipe", "--wait", *sandbox)
        done = host.run(*run, sys.executable, "/etc/fetch.py", uri, check=False)
        assert not done.returncode, done.stderr
        digest, late = done.stdout.splitlines()
        assert digest == DIGEST, done.stderr
        assert "did not come within 1 s" in late
