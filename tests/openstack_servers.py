"""Nova and Placement as PyPI has them, on SQLite, for the tests of one session: the real API servers, their
computes but records.

Between them and whoever asks, Nova included, stands a `Gate` each: it counts, and lets a test do something
before a request gets through, or answer in the server's stead.
"""

import http.client
import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from foreign_clients import DRIVERS, python_environment
from processes import ready_line
from testbed.child import spawn, stop

HOST = "127.0.0.1"
START_SECONDS = 240
NOVA_VERSION = {"X-OpenStack-Nova-API-Version": "2.53"}
PLACEMENT_VERSION = {"OpenStack-API-Version": "placement 1.23"}
UNSAFE = "sqlite_synchronous = false\n"
"""Nobody will miss these databases after a power cut."""
SERVER = DRIVERS / "openstack_server.py"
COMPUTES = {f"node{number}": f"node{number}.example.org" for number in range(1, 5)}
"""Service hosts, and the host names of their hypervisors."""
UNPROVIDED = "node4"
"""The one that Placement has no provider of."""
BARE_METAL = "ironic"
"""A service host with two hypervisors."""

Answer = tuple[int, bytes]
Before = Callable[[str, str], "Answer | None"]
"""(method, path) -> None to let the request through."""


@dataclass
class Gate:
    """A proxy before a server; `before` is asked of every request, `seen` has those that came."""

    port: int = 0
    upstream: int | None = None
    before: Before | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def pass_on(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer, str]:
        """The answer to a request, and its content type."""
        self.seen.append((method, path))
        own = self.before(method, path) if self.before else None
        if own is None and self.upstream is None:
            own = (503, b'{"error": {"message": "nobody is behind this gate"}}')
        if own is not None:
            return own, "application/json"
        assert self.upstream is not None
        connection = http.client.HTTPConnection(HOST, self.upstream, timeout=START_SECONDS)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return (response.status, response.read()), response.headers.get("Content-Type", "text/plain")
        finally:
            connection.close()

    def writes(self) -> list[str]:
        """What was asked to change."""
        return [f"{method} {path}" for method, path in self.seen if method != "GET"]


def _handler(gate: Gate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            (status, text), kind = gate.pass_on(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - names that the base class calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - nor is this one ours
            """Say nothing."""

    return Handler


@contextmanager
def gate() -> Iterator[Gate]:
    made = Gate()
    server = ThreadingHTTPServer((HOST, 0), _handler(made))
    server.daemon_threads = True
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class OpenStack:
    """A small cloud's two servers. The methods are those of somebody beside the conductor: they go past the
    gates."""

    python: str
    directory: Path
    nova: Gate
    placement: Gate
    running: "dict[str, subprocess.Popen[str]]" = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)

    def configure(self) -> None:
        (self.directory / "placement.conf").write_text(
            f"[DEFAULT]\nlog_file = {self.directory}/placement.log\n[api]\nauth_strategy = noauth2\n"
            f"[placement_database]\nconnection = sqlite:///{self.directory}/placement.db\n"
            f"sync_on_startup = true\n{UNSAFE}"
        )
        (self.directory / "nova.conf").write_text(
            f"[DEFAULT]\nlog_file = {self.directory}/nova.log\nstate_path = {self.directory}\n"
            f"transport_url = fake:///\n[database]\nconnection = sqlite:///{self.directory}/main.db\n{UNSAFE}"
            f"[api_database]\nconnection = sqlite:///{self.directory}/api.db\n{UNSAFE}"
            "[placement]\nauth_type = none\n"
            f"endpoint_override = http://{HOST}:{self.placement.port}\n"
        )
        shutil.copy(DRIVERS / "nova-api-paste.ini", self.directory / "api-paste.ini")

    def make(self) -> None:
        """Nova's databases, with records of computes."""
        computes = list(COMPUTES.items())
        computes += [(BARE_METAL, f"metal{number}") for number in (1, 2)]
        self.uuids = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for _, name in computes}
        words = [f"{host}={name}={self.uuids[name]}" for host, name in computes]
        subprocess.run(
            [self.python, SERVER, "make", self.directory, *words], check=True, timeout=START_SECONDS
        )

    def start(self, what: str) -> None:
        """Run a server until it answers, and open its gate."""
        self.begin(what)
        self.open(what)

    def begin(self, what: str) -> None:
        with (self.directory / f"{what}.err").open("a") as errors:
            command = [self.python, str(SERVER), what, str(self.directory)]
            self.running[what] = spawn(command, stdout=subprocess.PIPE, stderr=errors.fileno())

    def open(self, what: str) -> None:
        """Wait for the port that a server tells once it listens."""
        self._gate(what).upstream = int(ready_line(self.running[what], START_SECONDS))

    def stop(self, what: str) -> None:
        """End a server; its gate answers 503."""
        self._gate(what).upstream = None
        stop(self.running.pop(what))

    def _gate(self, what: str) -> Gate:
        return self.nova if what == "nova" else self.placement

    def ask(self, what: str, method: str, path: str, body: Any = None) -> Any:
        """A request of somebody else; answers the tree, and fails the test when it is refused."""
        port = self._gate(what).upstream
        assert port is not None
        connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
        version = NOVA_VERSION if what == "nova" else PLACEMENT_VERSION
        base = "/v2.1" if what == "nova" else ""
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, base + path, text, {**version, "Content-Type": "application/json"})
            response = connection.getresponse()
            told = response.read()
        finally:
            connection.close()
        assert response.status < 400, (method, path, response.status, told)
        return json.loads(told) if told else None

    def aggregates(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {each["name"]: each for each in self.ask("nova", "GET", "/os-aggregates")["aggregates"]}

    def create(self, name: str, *hosts: str, **metadata: str) -> int:
        """An aggregate made by hand; answers its id."""
        made = self.ask("nova", "POST", "/os-aggregates", {"aggregate": {"name": name}})["aggregate"]
        if metadata:
            self.act(made["id"], "set_metadata", {"metadata": metadata})
        for host in hosts:
            self.act(made["id"], "add_host", {"host": host})
        return int(made["id"])

    def act(self, aggregate: int, action: str, body: Any) -> None:
        self.ask("nova", "POST", f"/os-aggregates/{aggregate}/action", {action: body})

    def traits(self, host: str) -> set[str]:
        told = self.ask("placement", "GET", f"/resource_providers/{self.provider(host)}/traits")
        return set(told["traits"])

    def set_traits(self, host: str, *traits: str) -> None:
        self.touched.add(host)
        path = f"/resource_providers/{self.provider(host)}/traits"
        for trait in traits:
            if trait.startswith("CUSTOM_"):
                self.ask("placement", "PUT", f"/traits/{trait}")
        generation = self.ask("placement", "GET", path)["resource_provider_generation"]
        self.ask(
            "placement", "PUT", path, {"traits": list(traits), "resource_provider_generation": generation}
        )

    def mirrored(self, host: str) -> set[str]:
        """UUIDs of the aggregates that Placement has the host in."""
        path = f"/resource_providers/{self.provider(host)}/aggregates"
        return set(self.ask("placement", "GET", path)["aggregates"])

    def set_mirrored(self, host: str, *uuids: str) -> None:
        self.touched.add(host)
        path = f"/resource_providers/{self.provider(host)}/aggregates"
        generation = self.ask("placement", "GET", path)["resource_provider_generation"]
        self.ask(
            "placement", "PUT", path, {"aggregates": list(uuids), "resource_provider_generation": generation}
        )

    def provider(self, host: str) -> str:
        return self.uuids[COMPUTES[host]]

    def provide(self) -> None:
        """The providers that each nova-compute would have made."""
        for host, name in COMPUTES.items():
            if host != UNPROVIDED:
                self.ask(
                    "placement", "POST", "/resource_providers", {"name": name, "uuid": self.uuids[name]}
                )

    def clear(self) -> None:
        """Leave no aggregate and no trait; what was asked through the gates is forgotten."""
        for each in (self.nova, self.placement):
            each.before = None
            each.seen.clear()
        for aggregate in self.aggregates().values():
            for host in aggregate["hosts"]:
                self.act(aggregate["id"], "remove_host", {"host": host})
            self.ask("nova", "DELETE", f"/os-aggregates/{aggregate['id']}")
        traits = self.ask("placement", "GET", "/traits?name=startswith:CUSTOM_")["traits"]
        for host in (COMPUTES.keys() - {UNPROVIDED}) if traits else self.touched:
            self.set_traits(host)
            self.set_mirrored(host)
        self.touched.clear()
        for trait in traits:
            self.ask("placement", "DELETE", f"/traits/{trait}")


@pytest.fixture(scope="session")
def openstack_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    python = python_environment("openstack", DRIVERS / "openstack.txt")
    with gate() as nova, gate() as placement:
        servers = OpenStack(python, tmp_path_factory.mktemp("openstack"), nova, placement)
        servers.configure()
        try:
            servers.begin("placement")
            servers.make()
            servers.begin("nova")
            servers.open("placement")
            servers.open("nova")
            servers.provide()
            yield servers
        finally:
            for what in list(servers.running):
                servers.stop(what)


@pytest.fixture
def cloud(openstack_servers: OpenStack) -> Iterator[OpenStack]:
    """The servers, with nothing left in them of the test before."""
    openstack_servers.clear()
    yield openstack_servers
    for what in ("placement", "nova"):
        if what not in openstack_servers.running:
            openstack_servers.start(what)
