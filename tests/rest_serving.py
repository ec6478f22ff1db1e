"""Nova's API as the conductor serves it, in a thread of a test's own, and what asks it."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fleet
from libmh.context import Context
from libmh.dispatch import Authority, Dispatcher
from libmh.providers import Providers
from mh_conductor.intake import Intake
from mh_conductor.rest.application import Entrance, application
from mh_conductor.rest.authority import authority
from mh_conductor.rest.entrance import OnLoopback
from mh_conductor.rest.listener import Place, Web, serving
from mh_conductor.rest.patience import Limits
from mh_conductor.rest.secured import Secured
from mh_conductor.service import FleetAggregates
from mh_conductor.store import Store, open_store

SECONDS = 60
NEWEST = "2.104"
NO_RULES = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered; `body` is the tree of JSON, the text of what is none."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def message(self) -> str:
        """Of a fault."""
        (fault,) = self.body.values()
        return str(fault["message"])


def ask(url: str, method: str, path: str, body: Any = None, version: str = NEWEST, **headers: str) -> Reply:
    """Send a request; a body of bytes goes as it is."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=SECONDS)
    given = {
        "Content-Type": "application/json",
        **({"OpenStack-API-Version": f"compute {version}"} if version else {}),
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, sent, given)
        got = connection.getresponse()
        text = got.read().decode()
        told = {name.lower(): value for name, value in got.getheaders()}
    finally:
        connection.close()
    plain = (
        json.loads(text) if text and told.get("content-type", "").startswith("application/json") else text
    )
    return Reply(got.status, plain or None, told)


@dataclass(frozen=True, slots=True)
class Rest:
    """A conductor's API."""

    url: str
    store: Store
    intake: Intake

    def ask(self, method: str, path: str, body: Any = None, version: str = NEWEST, **headers: str) -> Reply:
        """A request below /v2.1."""
        return ask(self.url, method, f"/v2.1{path}", body, version, **headers)

    def hosts(self, *numbers: int) -> None:
        """Let hosts report."""
        for number in numbers:
            self.intake.take(fleet.report(number))


@contextmanager
def rest(
    directory: Path,
    entrance: Entrance | None = None,
    rights: Authority | None = None,
    tls: Secured | None = None,
    limits: Limits | None = None,
    store_url: str = "",
) -> Iterator[Rest]:
    """Serve a store, in this directory without a URL, until the block ends; hosts node1 to node3 have
    reported."""
    store = open_store(store_url) if store_url else fleet.new_store(directory)
    rules = fleet.rules(NO_RULES)
    intake = Intake(store, rules)
    context = Context()
    providers = Providers()
    providers.add(FleetAggregates(store, rules, context.events))
    listening: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []
    begun, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        own = Dispatcher(providers.bound, context, rights or authority({}, None))
        web = Web(application(own, entrance or OnLoopback()), tls, limits or Limits())
        async with serving(web, Place("127.0.0.1", 0, tls is not None)) as url:
            listening.append(url)
            loops.append(asyncio.get_running_loop())
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert begun.wait(SECONDS), "it does not listen"
        made = Rest(listening[0], store, intake)
        made.hosts(1, 2, 3)
        yield made
    finally:
        if loops:
            loops[0].call_soon_threadsafe(ended.set)
        thread.join(SECONDS)
        store.close()
