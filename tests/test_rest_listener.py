"""The listener of Nova's API: who is slow, who is many, TLS, and the command's options."""

import contextlib
import hashlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import certificates
from libmh.errors import BackendFailed, InvalidArguments
from mh_conductor.main import main
from mh_conductor.rest.listener import Place, place_of
from mh_conductor.rest.patience import Limits
from mh_conductor.rest.secured import Secured, secured_of
from processes import agent, command
from rest_serving import ask, rest
from testbed.child import spawn, stop
from waiting import wait_for

SECONDS = 60
IMPATIENT = Limits(look=0.05, head=0.3, answer=SECONDS)
NOWHERE = "amqp://127.0.0.1:1"
TAKES = b"GET /v2.1/flavors HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def dialled(url: str) -> Iterator[socket.socket]:
    at = urlsplit(url)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=SECONDS) as made:
        yield made


def read_all(peer: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    read = b""
    with contextlib.suppress(ConnectionError):
        while part := peer.recv(65536):
            read += part
    return read


@pytest.mark.parametrize(
    "sent", [b"", TAKES, TAKES + b"X-Slow: 1"], ids=["nothing", "a head", "half a line"]
)
def test_who_never_asks_is_hung_up_on(sent: bytes, tmp_path: Path) -> None:
    with rest(tmp_path, limits=IMPATIENT) as here, dialled(here.url) as slow:
        slow.sendall(sent)
        assert read_all(slow) == b""


def test_who_sends_his_head_byte_by_byte_is_hung_up_on(tmp_path: Path) -> None:
    with rest(tmp_path, limits=IMPATIENT) as here, dialled(here.url) as slow:
        slow.sendall(TAKES)
        gone = False
        ends = time.monotonic() + SECONDS
        while not gone and time.monotonic() < ends:
            try:
                slow.sendall(b"x")
                gone = bool(select.select([slow], [], [], 0.02)[0]) and not slow.recv(1)
            except ConnectionError:
                gone = True
        assert gone


def test_who_does_not_read_his_answer_is_hung_up_on(tmp_path: Path) -> None:
    with (
        rest(tmp_path, limits=Limits(look=0.05, head=SECONDS, answer=0.3)) as here,
        dialled(here.url) as deaf,
    ):
        deaf.sendall(b"POST /v2.1/flavors HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert read_all(deaf) == b""  # neither does its body ever come


def test_a_connection_serves_one_request_after_the_other(tmp_path: Path) -> None:
    with (
        rest(tmp_path, limits=Limits(look=0.05, head=10.0, answer=SECONDS)) as here,
        dialled(here.url) as peer,
    ):
        for _request in range(5):
            peer.sendall(TAKES + b"\r\n")
            read = b""
            while not read.endswith(b'{"flavors": []}'):
                part = peer.recv(65536)
                assert part, "hung up on"
                read += part


def test_there_are_so_many_connections_and_no_more(tmp_path: Path) -> None:
    with (
        rest(tmp_path, limits=Limits(connections=2)) as here,
        dialled(here.url) as one,
        dialled(here.url) as two,
    ):
        for peer in (one, two):
            peer.sendall(TAKES + b"\r\n")
            assert peer.recv(9) == b"HTTP/1.1 "
        with dialled(here.url) as third:
            assert read_all(third) == b""
        one.close()
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            try:
                assert here.ask("GET", "/flavors").status == 200
                return
            except OSError:  # the place is not free yet
                continue
        pytest.fail("the place of one that has gone was not given away")


def test_those_who_never_speak_tls_are_not_more(tmp_path: Path) -> None:
    trusted = certificates.authority(tmp_path)
    files = trusted.give("conductor")
    assert files.certificate is not None
    assert files.key is not None
    secured = Secured(files.certificate, files.key)
    with rest(tmp_path, tls=secured, limits=Limits(connections=2, head=SECONDS)) as here:
        with dialled(here.url), dialled(here.url), dialled(here.url) as third:
            assert read_all(third) == b""
        wait_for(lambda: _answered(here.url, trusted.path), SECONDS)
    with rest(tmp_path, tls=secured, limits=IMPATIENT) as here, dialled(here.url) as silent:
        assert read_all(silent) == b""
        assert _told(here.url, trusted.path, "") == b"200"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 400_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=range(6),
)
def test_what_is_no_request_is_refused(sent: bytes, tmp_path: Path) -> None:
    with rest(tmp_path) as here, dialled(here.url) as odd:
        with contextlib.suppress(OSError):  # it need not hear all of it
            odd.sendall(sent)
            odd.shutdown(socket.SHUT_WR)
        said = read_all(odd)
        assert said == b"" or b"HTTP/1.1 400 " in said, said[:200]
        assert b" 200 " not in said
        assert here.ask("GET", "/flavors").status == 200


def test_a_request_to_speak_otherwise_is_not_followed(tmp_path: Path) -> None:
    with rest(tmp_path) as here, dialled(here.url) as peer:
        peer.sendall(TAKES + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert peer.recv(64).startswith(b"HTTP/1.1 200 ")


def test_tls_shows_the_certificate_of_today(tmp_path: Path) -> None:
    trusted = certificates.authority(tmp_path)
    files = trusted.give("one", file="listener")
    assert files.certificate is not None
    assert files.key is not None
    tls = Secured(files.certificate, files.key)
    seen = []
    with rest(tmp_path, tls=tls) as here:
        assert here.url.startswith("https://")
        for name in ("one", "two"):
            trusted.give(name, file="listener")
            context = ssl.create_default_context(cafile=str(trusted.path))
            at = urlsplit(here.url)
            with (
                socket.create_connection((at.hostname or "", at.port or 0), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as peer,
            ):
                peer.sendall(TAKES + b"Connection: close\r\n\r\n")
                assert read_all(peer).startswith(b"HTTP/1.1 200 ")
                shown = peer.getpeercert()
                assert shown is not None
                seen.append(shown["subject"][-1][0][1])
        files.key.write_text("no key")  # the last good one stays
        with (
            socket.create_connection((at.hostname or "", at.port or 0), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as peer,
        ):
            assert peer.version() in ("TLSv1.2", "TLSv1.3")
    assert seen == ["one", "two"]


def test_tls_needs_both_files(tmp_path: Path) -> None:
    assert secured_of({}) is None
    with pytest.raises(InvalidArguments, match="expected a certificate with its key, or neither"):
        secured_of({"tls": {"certificate": "a.pem"}})
    with pytest.raises(BackendFailed, match="TLS cannot be set up from"):
        Secured(tmp_path / "a", tmp_path / "b").listening()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8774", Place("127.0.0.1", 8774, tls=False)),
        ("localhost:0", Place("localhost", 0, tls=False)),
        ("[::1]:8774", Place("::1", 8774, tls=False)),
        ("https://127.0.0.1:8774", Place("127.0.0.1", 8774, tls=True)),
        ("http://127.0.0.1:8774", Place("127.0.0.1", 8774, tls=False)),
        ("0.0.0.0:8774", Place("0.0.0.0", 8774, tls=True)),
        ("[::]:8774", Place("::", 8774, tls=True)),
        ("node1:8774", Place("node1", 8774, tls=True)),
    ],
)
def test_beyond_loopback_there_is_tls(text: str, place: Place) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--http", "8774"), "--http: expected HOST:PORT, got '8774'"),
        (("--http", "ftp://a:1"), "--http: expected HOST:PORT"),
        (("--http", "127.0.0.1:1/v2.1"), "--http: expected HOST:PORT"),
        (("--http", "127.0.0.1:99999"), "--http: expected HOST:PORT"),
        (("--http", "http://0.0.0.0:1"), "is not loopback, and needs TLS"),
        (("--http", "0.0.0.0:0"), "TLS needs a certificate and its key in [tls]"),
        (("--http", "https://127.0.0.1:0"), "TLS needs a certificate and its key in [tls]"),
        (("--http", "127.0.0.1:0", "--http-tokens", "/no/file"), "cannot read '/no/file'"),
        (("--http", "127.0.0.1:0", "--keystone", "/no/file"), "cannot read '/no/file'"),
        (("--http", "127.0.0.1:0", "--keystone", "a", "--http-tokens", "b"), "expected one of them"),
    ],
)
def test_what_would_be_open_to_all_does_not_start(
    options: tuple[str, ...], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--broker", NOWHERE, "--state", str(tmp_path), *options]) == 1
    assert says in capfd.readouterr().err


def test_beyond_loopback_there_have_to_be_tokens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = certificates.authority(tmp_path).give("c")
    config = tmp_path / "c.toml"
    config.write_text(f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n')
    options = ["--broker", NOWHERE, "--state", str(tmp_path), "--config", str(config), "--http", "0.0.0.0:0"]
    assert main(options) == 1
    assert "'0.0.0.0' is not loopback, and needs --http-tokens or --keystone" in capfd.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--broker", NOWHERE, "--state", str(tmp_path), "--http", f"127.0.0.1:{port}"]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capfd.readouterr().err


def test_the_command_serves_and_ends_in_order(tmp_path: Path) -> None:
    with agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker")) as broker:
        options = ("--broker", broker.url, "--state", str(tmp_path), "--http", "127.0.0.1:0")
        process = spawn(
            [command("mh-conductor"), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            url = _listening(process)
            assert ask(url, "POST", "/v2.1/os-aggregates", {"aggregate": {"name": "one"}}).status == 200
            (shown,) = ask(url, "GET", "/v2.1/os-aggregates").body["aggregates"]
            assert shown["name"] == "one"
            with dialled(url) as idle:
                process.send_signal(signal.SIGTERM)
                assert read_all(idle) == b""
            assert process.wait(SECONDS) == 0
        finally:
            stop(process)


def test_the_command_serves_with_tls_to_who_has_a_token(tmp_path: Path) -> None:
    trusted = certificates.authority(tmp_path)
    files = trusted.give("conductor")
    tokens, config = tmp_path / "tokens.toml", tmp_path / "conductor.toml"
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens.write_text(f'[[token]]\nsha256 = "{digest}"\nidentity = "web"\n')
    config.write_text(
        f'broker = ["{NOWHERE}"]\nhttp = "https://127.0.0.1:0"\nhttp-tokens = "{tokens}"\n'
        f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n[authority]\nweb = "guest"\n'
    )
    options = ("--config", str(config), "--state", str(tmp_path))
    process = spawn([command("mh-conductor"), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        url = _listening(process)
        assert url.startswith("https://")
        assert _told(url, trusted.path, "") == b"401"
        assert _told(url, trusted.path, "X-Auth-Token: secret\r\n") == b"200"
    finally:
        stop(process)


def _told(url: str, trusted: Path, header: str) -> bytes:
    """The status of a request for flavors."""
    context = ssl.create_default_context(cafile=str(trusted))
    with dialled(url) as plain, context.wrap_socket(plain, server_hostname="localhost") as peer:
        head = f"GET /v2.1/flavors HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
        peer.sendall(head.encode())
        return read_all(peer).split()[1]


def _answered(url: str, trusted: Path) -> bool:
    """Whether a request comes in."""
    try:
        return _told(url, trusted, "") == b"200"
    except OSError:  # the place is not free yet
        return False


def _listening(process: "subprocess.Popen[str]") -> str:
    """The URL that it says on stderr."""
    assert process.stderr is not None
    read = ""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        if select.select([process.stderr], [], [], 0.1)[0]:
            part = os.read(process.stderr.fileno(), 65536).decode()
            assert part, f"it has ended: {read}"
            read += part
            if found := re.search(r"listening on (https?://127\.0\.0\.1:\d+)\n", read):
                return found[1]
    raise TimeoutError(read)
