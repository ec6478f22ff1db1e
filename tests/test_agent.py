"""The agent, told by itself: what it serves, its connections, its loggers."""

import logging
import time
from collections.abc import Iterator

import pytest

from gauges import TestBench
from libmh.agent import MAX_LOGGER, ThisAgent, software_version
from libmh.api.agent import Agent, Broken, CallCounts, ConnectionState
from libmh.connections import Connections, without_credentials
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import InvalidArguments
from libmh.events import Event, Hub
from libmh.providers import Providers
from libmh.testing import conforming, loopback, unanswered

NAME = "libmh.test.agent"


@pytest.fixture
def providers() -> Providers:
    made = Providers()
    made.add(TestBench())
    made.broken.append(Broken("sensors", "ImportError: no sensors"))
    return made


@pytest.fixture
def agent(providers: Providers) -> ThisAgent:
    made = ThisAgent("mh-test", providers, Connections(Hub()))
    providers.add(made)
    return made


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger(NAME)
    yield made
    made.setLevel(logging.NOTSET)


def test_it_answers_everything_that_is_declared(agent: ThisAgent) -> None:
    assert unanswered(ThisAgent) == []
    plain = conforming(agent)
    assert (plain["name"], plain["version"]) == ("mh-test", software_version())
    assert plain["broken"] == [{"name": "sensors", "error": "ImportError: no sensors"}]


def test_it_tells_what_is_served_itself_included(agent: ThisAgent) -> None:
    gauges, itself = agent.interfaces()
    assert (gauges.name, gauges.version, gauges.provider) == (
        "org.example.Gauges",
        "1.2",
        "gauges.TestBench",
    )
    assert gauges.summary == "Things to read."
    assert itself.name == "org.matahariproject.Agent"


def test_it_counts_once_it_has_a_dispatcher(agent: ThisAgent, providers: Providers) -> None:
    assert agent.calls() == CallCounts(0, 0, 0, 0, 0)
    agent.attach(Dispatcher(providers.bound, Context()))
    assert agent.calls() == CallCounts(0, 0, 0, 0, 0)


def test_it_knows_how_long_it_has_been_up(agent: ThisAgent) -> None:
    assert 0 <= agent.uptime() < 60
    assert abs(time.time_ns() - agent.started()) < 60e9


def test_it_answers_a_ping_over_a_transport(agent: ThisAgent) -> None:
    with loopback(agent) as connection:
        here = connection.proxy(Agent)
        assert here.ping() == ""
        assert here.ping("x" * 60_000) == "x" * 60_000
        with pytest.raises(InvalidArguments, match="payload: expected a string"):
            here.ping("x" * 70_000)


@pytest.mark.parametrize(("level", "number"), [("debug", 10), ("ERROR", 40), ("", 0)])
def test_a_logger_says_as_much_as_it_is_told_to(
    agent: ThisAgent, logger: logging.Logger, level: str, number: int
) -> None:
    logger.setLevel(logging.CRITICAL)
    agent.set_log_level(NAME, level)
    assert logger.level == number
    assert agent.log_levels().get(NAME) == (level.lower() or None)


def test_the_root_logger_has_no_name(agent: ThisAgent) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        agent.set_log_level("", "critical")
        assert root.level == logging.CRITICAL
        assert agent.log_levels()[""] == "critical"
    finally:
        root.setLevel(before)


@pytest.mark.parametrize(
    ("name", "level", "says"),
    [
        (NAME, "loud", "level: expected one of debug, info, warning, error, critical, got 'loud'"),
        (NAME, "notset", "level: expected one of"),
        ("", "", "level: expected one of"),
        ("no.such.logger", "debug", "logger: there is none called 'no.such.logger'"),
        ("x" * 5000, "debug", f"logger: there is none called '{'x' * MAX_LOGGER}'$"),
        (NAME, "y" * 5000, f"got '{'y' * MAX_LOGGER}'$"),
    ],
)
def test_what_is_no_logger_or_level_is_refused(
    agent: ThisAgent, logger: logging.Logger, name: str, level: str, says: str
) -> None:
    with pytest.raises(InvalidArguments, match=says):
        agent.set_log_level(name, level)
    assert logger.level == logging.NOTSET
    assert "no.such.logger" not in logging.root.manager.loggerDict


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://broker:5672", "amqp://broker:5672"),
        ("amqp://me:secret@broker:5672/a?b", "amqp://broker:5672/a?b"),
        ("amqp://me:p@ss@broker", "amqp://broker"),
        ("amqp://me:secret@[::1", "[::1"),
        ("unix:path=/run/bus", "unix:path=/run/bus"),
    ],
)
def test_credentials_are_never_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_connection_is_told_through_its_life() -> None:
    hub, seen = Hub(), list[Event]()
    hub.subscribe(seen.append)
    connections = Connections(hub)
    url = "amqp://me:secret@broker"
    connections.connecting(url)
    connections.waiting(url, "refused\nby secret service")
    connections.connecting(url)
    connections.connected(url)
    connections.connected(url)
    connections.closed(url)
    [status] = connections.list()
    assert (status.url, status.state, status.attempts) == ("amqp://broker", ConnectionState.CLOSED, 0)
    assert status.last_error == "refused by secret service"
    states = [dict(event.fields["connection"]) for event in seen]  # type: ignore[arg-type]  # a record
    assert [(state["state"], state["attempts"]) for state in states] == [
        ("connecting", 1),
        ("waiting", 1),
        ("connecting", 2),
        ("connected", 0),
        ("closed", 0),
    ]
    assert states[0]["since"] <= states[-1]["since"]
    assert "secret@" not in str(seen)


def test_an_error_is_kept_short() -> None:
    connections = Connections(Hub())
    connections.closed("amqp://broker", "x" * 100_000)
    assert len(connections.list()[0].last_error or "") == 500
