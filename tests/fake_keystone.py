"""A fake of Keystone: as much of its API as keystonemiddleware asks for. The real one needs a web server,
fernet keys and a bootstrap; what is tested here is our side of the middleware.
"""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SERVICE = "token-of-the-service"
DOMAIN = {"id": "default", "name": "Default"}


@dataclass
class FakeKeystone:
    """`tokens`: user and roles by token; `asked`: how often a token was looked up."""

    port: int = 0
    tokens: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    asked: int = 0

    def file(self, directory: Path) -> Path:
        """What an operator would write for us."""
        at = f"http://127.0.0.1:{self.port}"
        path = directory / "keystone.conf"
        path.write_text(
            f"[keystone_authtoken]\nauth_type = password\nauth_url = {at}/v3\nwww_authenticate_uri = {at}\n"
            "username = matahari\npassword = secret\nproject_name = service\nuser_domain_name = Default\n"
            "project_domain_name = Default\nhttp_connect_timeout = 5\nhttp_request_max_retries = 0\n"
        )
        return path

    def token(self, user: str, roles: tuple[str, ...]) -> Any:
        """The body that tells of a token."""
        now = dt.datetime.now(dt.UTC)
        at = f"http://127.0.0.1:{self.port}/v3"
        catalog = [
            {
                "type": "identity",
                "name": "keystone",
                "id": "i",
                "endpoints": [
                    {"id": face, "interface": face, "region": "R", "region_id": "R", "url": at}
                    for face in ("public", "internal", "admin")
                ],
            }
        ]
        return {
            "token": {
                "methods": ["password"],
                "user": {"id": f"id-{user}", "name": user, "domain": DOMAIN},
                "project": {"id": "id-ops", "name": "ops", "domain": DOMAIN},
                "roles": [{"id": role, "name": role} for role in roles],
                "issued_at": f"{now:%Y-%m-%dT%H:%M:%S}.000000Z",
                "expires_at": f"{now + dt.timedelta(hours=1):%Y-%m-%dT%H:%M:%S}.000000Z",
                "audit_ids": ["a"],
                "catalog": catalog,
            }
        }


def _handler(keystone: FakeKeystone) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def say(self, status: int, body: Any, **headers: str) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            if not self.path.startswith("/v3/auth/tokens"):
                links = [{"rel": "self", "href": f"http://127.0.0.1:{keystone.port}/v3/"}]
                one = {"id": "v3.14", "status": "stable", "links": links}
                root = not self.path.startswith("/v3")
                self.say(*(300, {"versions": {"values": [one]}}) if root else (200, {"version": one}))
                return
            keystone.asked += 1
            found = keystone.tokens.get(self.headers.get("X-Subject-Token", ""))
            if self.headers.get("X-Auth-Token") != SERVICE:
                self.say(401, {"error": {"code": 401, "title": "Unauthorized", "message": "no"}})
            elif found is None:
                self.say(404, {"error": {"code": 404, "title": "Not Found", "message": "no such token"}})
            else:
                self.say(200, keystone.token(*found))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.say(201, keystone.token("matahari", ("service",)), X_Subject_Token=SERVICE)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
            """Say nothing."""

    return Handler


@contextmanager
def fake_keystone() -> Iterator[FakeKeystone]:
    """Serve until the block ends."""
    made = FakeKeystone()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
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
