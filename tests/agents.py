"""Machines with resource agents of a test's own, and what runs them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from libmh.context import Context, Root, Settings
from libmh.events import Event, Hub
from libmh.linux.resources import LinuxResources

AGENTS = "usr/lib/ocf/resource.d"
EVENT = "resource_op"


def put(base: Path, agent: str, body: str, *, provider: str = "test", mode: int = 0o755) -> Path:
    """Put an agent of `sh` below a root."""
    path = base / AGENTS / provider / agent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


@dataclass(slots=True)
class Heard:
    """The events of operations, as they came."""

    events: list[Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def codes(self, name: str = "r") -> list[object]:
        with self.lock:
            return [each.fields["rc"] for each in self.events if each.fields["name"] == name]


@dataclass(frozen=True, slots=True)
class Machine:
    """A root with agents, and its resources."""

    base: Path
    resources: LinuxResources
    heard: Heard

    def run(self, agent: str) -> int:
        """The code of one monitor of a test's agent."""
        return self.resources.invoke("r", "ocf", "test", agent, "monitor", 0, {}, 20_000)[0]

    def recur(
        self, agent: str, interval: int, *, name: str = "r", expected: int = 0, timeout: int = 20_000
    ) -> int:
        """The code of the first of a recurring monitor."""
        answer = self.resources.invoke(
            name, "ocf", "test", agent, "monitor", interval, {}, timeout, expected, "mine"
        )
        return answer[0]


@contextmanager
def machine(base: Path, state: Path | None = None) -> Iterator[Machine]:
    """The resources of a root until the block ends."""
    heard, hub = Heard(), Hub()
    end = hub.subscribe(heard.hear)
    settings = Settings(state / "settings.json") if state else Settings()
    resources = LinuxResources(Context(Root(base), settings, hub))
    try:
        yield Machine(base, resources, heard)
    finally:
        resources.close()
        end()


def counted(path: Path) -> Callable[[], int]:
    """How many lines a file has: what agents do to say that they ran."""
    return lambda: len(path.read_text().splitlines()) if path.exists() else 0
