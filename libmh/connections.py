"""The buses and brokers that an agent is connected to, as `Agent.connections` tells them."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from libmh.api.agent import Agent, ConnectionState, ConnectionStatus
from libmh.call import Request
from libmh.errors import carriable
from libmh.events import Hub
from libmh.health import Certificates
from libmh.spec import Plain

MAX_ERROR = 500


def without_credentials(url: str) -> str:
    """The URL with any user name and password left out."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not match
        return url.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


Ask = Callable[[Request], Awaitable[Plain]]
"""Carries a request to whoever answers it, and the plain answer back; raises a `Problem`."""


class Connections:
    """Transports tell it what happens to each URL; every change is the event `connection_changed`. `broker`
    asks the broker's own node, as long as there is a connection to one that has it."""

    def __init__(self, events: Hub) -> None:
        self.events = events
        self.certificates = Certificates(events)
        self.broker: Ask | None = None
        self._by_url: dict[str, ConnectionStatus] = {}

    def list(self) -> list[ConnectionStatus]:
        return list(self._by_url.values())

    def connecting(self, url: str) -> None:
        """One more try begins."""
        known = self._known(url)
        self._to(url, replace(known, state=ConnectionState.CONNECTING, attempts=known.attempts + 1))

    def connected(self, url: str) -> None:
        self._to(url, replace(self._known(url), state=ConnectionState.CONNECTED, attempts=0))

    def waiting(self, url: str, error: str) -> None:
        """Lost or refused, and to be tried again."""
        self._to(url, self._with_error(url, ConnectionState.WAITING, error))

    def closed(self, url: str, error: str | None = None) -> None:
        """Ended for good."""
        if error is None:
            self._to(url, replace(self._known(url), state=ConnectionState.CLOSED))
        else:
            self._to(url, self._with_error(url, ConnectionState.CLOSED, error))

    def _with_error(self, url: str, state: ConnectionState, error: str) -> ConnectionStatus:
        return replace(
            self._known(url),
            state=state,
            last_error=carriable(error)[:MAX_ERROR],
            last_error_time=time.time_ns(),
        )

    def _known(self, url: str) -> ConnectionStatus:
        shown = without_credentials(url)
        found = self._by_url.get(shown)
        return found or ConnectionStatus(shown, ConnectionState.CLOSED, time.time_ns(), 0)

    def _to(self, url: str, status: ConnectionStatus) -> None:
        before = self._known(url)
        if before.state is not status.state:
            status = replace(status, since=time.time_ns())
        self._by_url[status.url] = status
        if before != status:
            self.events.emit(Agent.connection_changed, connection=status)
