"""The provider of the `Agent` interface: this process, told by itself."""

import logging
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from libmh.api.agent import (
    Agent,
    Broken,
    CallCounts,
    Certificate,
    ConnectionStatus,
    Explanation,
    Job,
    PastEvent,
    Served,
)
from libmh.call import Verb
from libmh.connections import Connections
from libmh.dispatch import Dispatcher
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere
from libmh.journal import RUNNING, Journal
from libmh.policy import Asked, Explaining
from libmh.providers import Providers
from libmh.spec import Kind

History = Callable[[int, int], list[PastEvent]]
"""Events since a time, at most so many."""
MAX_EVENTS = 1000
LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_LOGGER = 255


def software_version() -> str:
    """The version of the distribution that is installed, or `unknown` in a bare source tree."""
    try:
        return version("matahari")
    except PackageNotFoundError:
        return "unknown"


class ThisAgent(Agent):
    """Answers for the process that it lives in; bound before its dispatcher exists, which `attach` gives
    it."""

    def __init__(self, name: str, providers: Providers, connections: Connections) -> None:
        self._name = name
        self._version = software_version()
        self._providers = providers
        self._connections = connections
        self._started = time.time_ns()
        self._clock = time.monotonic()
        self._dispatcher: Dispatcher | None = None
        self._history: History | None = None

    def remember(self, history: "History") -> None:
        """Answer `past_events` from there."""
        self._history = history

    def attach(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        directory = dispatcher.context.settings.directory
        if directory is not None:
            dispatcher.journal.open(directory / f"{self._name}.jobs")

    def name(self) -> str:
        return self._name

    def version(self) -> str:
        return self._version

    def started(self) -> int:
        return self._started

    def uptime(self) -> float:
        return time.monotonic() - self._clock

    def interfaces(self) -> list[Served]:
        return [
            Served(
                bound.interface.name,
                bound.interface.version,
                f"{type(bound.provider).__module__}.{type(bound.provider).__qualname__}",
                bound.interface.doc.partition("\n\n")[0],
            )
            for bound in self._providers.bound.values()
        ]

    def broken(self) -> list[Broken]:
        return list(self._providers.broken)

    def connections(self) -> list[ConnectionStatus]:
        return self._connections.list()

    def certificates(self) -> list[Certificate]:
        return self._connections.certificates.list()

    def calls(self) -> CallCounts:
        return self._dispatcher.counts() if self._dispatcher else CallCounts(0, 0, 0, 0, 0)

    def log_levels(self) -> dict[str, str]:
        loggers = {"": logging.getLogger()} | {
            name: logger
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and logger.level
        }
        return {name: logging.getLevelName(logger.level).lower() for name, logger in sorted(loggers.items())}

    def ping(self, payload: str = "") -> str:
        return payload

    def set_log_level(self, logger: str, level: str) -> None:
        word = level.lower()
        if word not in LEVELS and (word or not logger):
            raise InvalidArguments(
                f"level: expected one of {', '.join(LEVELS)}, got '{level[:MAX_LOGGER]}'", argument="level"
            )
        if logger and logger not in logging.root.manager.loggerDict:
            # making one for every name that a caller thinks of would never be freed
            raise InvalidArguments(
                f"logger: there is none called '{logger[:MAX_LOGGER]}'", argument="logger"
            )
        logging.getLogger(logger or None).setLevel(word.upper() if word else logging.NOTSET)

    def past_events(self, since: int = 0, limit: int = MAX_EVENTS) -> list[PastEvent]:
        if self._history is None:
            raise NotImplementedHere("this agent keeps no events: the one on AMQP does")
        return self._history(since, min(limit or MAX_EVENTS, MAX_EVENTS))

    def jobs(self, limit: int = 100) -> list[Job]:
        return self._journal().jobs()[: limit or None]

    def job(self, id: str) -> Job:  # noqa: A002 - its name on the wire
        found = self._journal().job(id)
        if found is None:
            raise NotFound(f"this agent was not asked '{id[:MAX_LOGGER]}'", id=id[:MAX_LOGGER])
        return found

    def operations(self) -> list[Job]:
        return [each for each in self._journal().jobs() if each.outcome == RUNNING]

    def cancel(self, id: str) -> bool:  # noqa: A002 - its name on the wire
        if self._dispatcher is None:
            raise NotFound("nothing runs here yet")
        return self._dispatcher.stop(id)

    def _journal(self) -> Journal:
        return self._dispatcher.journal if self._dispatcher else Journal()

    def explain(self, identity: str, member: str, arguments: dict[str, str]) -> Explanation:
        authority = self._dispatcher.authority if self._dispatcher else None
        if not isinstance(authority, Explaining):
            raise NotImplementedHere("polkit decides here, by its own rules: see pkcheck(1)")
        name, _, word = member.rpartition(".")
        bound = next(
            (
                each
                for each in self._providers.bound.values()
                if name in (each.interface.name, each.interface.short)
            ),
            None,
        )
        declared = bound.interface.members.get(word) if bound else None
        if bound is None or declared is None or declared.kind is Kind.EVENT:
            raise NotFound(f"nothing is called '{member[:MAX_LOGGER]}' here: expected Interface.member")
        verb = Verb.CALL if declared.kind is Kind.METHOD else Verb.SET
        objects = {key: value for key, value in arguments.items() if key in declared.objects}
        role, said = authority.explain(identity, Asked(bound.interface, declared, verb, objects, arguments))
        return Explanation(said.allowed, said.reason, role)
