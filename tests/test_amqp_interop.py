"""A listening agent, asked by AMQP clients that nobody here wrote and nobody here has changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from certificates import authority
from foreign_clients import SERVICEBUS, UAMQP, Foreign, node_client, python_client
from mh_amqp.users import verifier
from processes import Agent, agent

HOST, AGENT = "org.matahariproject.Host", "org.matahariproject.Agent"
USER, PASSWORD = "otto", "correct horse"


def asked(operation: str, type_: str, body: Any = None, **properties: str) -> Mapping[str, Any]:
    named = {"operation": operation, "type": type_, "name": "self", **properties}
    return {"properties": named, "body": {} if body is None else body}


REQUESTS = (
    asked("QUERY", "org.amqp.management", {"attributeNames": ["hostname", "memory"]}, entityType=HOST),
    asked("READ", HOST),
    asked("get_uuid", HOST, {"lifetime": "Reboot"}),
    asked("ping", AGENT, {"payload": "grüß"}),
    asked("dance", AGENT),
    asked("UPDATE", HOST, {"update_interval": 7}),
)


def check(answers: list[Mapping[str, Any]]) -> None:
    """The answers to `REQUESTS`, as every client has them."""
    query, read, uuid, ping, dance, update = answers
    assert [each["status"] for each in (query, read, uuid, ping)] == [200, 200, 200, 200]
    assert query["body"]["attributeNames"] == ["hostname", "memory"]
    hostname, memory = query["body"]["results"][0]
    assert (read["body"]["hostname"], read["body"]["memory"]) == (hostname, memory)
    assert (memory > 0, uuid["body"]["uuid"]) == (True, read["body"]["boot_id"])
    assert ping["body"] == {"payload": "grüß"}
    assert "dance" in dance["description"]
    assert "not-authorized" in update["description"] or "may not" in update["description"]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    state = tmp_path_factory.mktemp("open")
    config = state / "agent.toml"
    config.write_text('[authority]\nanonymous = "read-only"\n')
    options = ("--listen", "127.0.0.1:0", "--state", str(state), "--config", str(config))
    with agent("mh-amqp", *options) as host:
        yield host


def port(host: Agent) -> int:
    return int(host.url.rpartition(":")[2])


def refusals(answers: list[Mapping[str, Any]]) -> list[Any]:
    return [each["status"] for each in answers[-2:]]


def test_rhea(listening: Agent) -> None:
    answers = node_client("drive_rhea.cjs").drive(port(listening), REQUESTS)
    check(answers)
    assert refusals(answers) == [404, 403]
    assert [each["id"] for each in answers] == list(range(len(REQUESTS)))  # numbers, as they were sent


def test_azure_core_amqp(listening: Agent) -> None:
    answers = node_client("drive_core_amqp.cjs").drive(port(listening), REQUESTS)
    check(answers)
    # it makes errors of what was refused, with names of its own for each status: this is 403
    assert refusals(answers) == ["ServiceCommunicationError", "QuotaExceededError"]


def test_azure_servicebus(listening: Agent) -> None:
    answers = python_client(SERVICEBUS, "drive_servicebus.py").drive(port(listening), REQUESTS)
    check(answers)
    assert refusals(answers) == [404, 403]


@pytest.fixture(scope="module")
def uamqp() -> Foreign:
    return python_client(UAMQP, "drive_uamqp.py")


def test_uamqp_over_tls(uamqp: Foreign, tmp_path: Path) -> None:
    trusted = authority(tmp_path / "ours")
    shown = trusted.give("agent")
    (tmp_path / "users").write_text(verifier(USER, PASSWORD).line(USER) + "\n")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[tls]\ncertificate = "{shown.certificate}"\nkey = "{shown.key}"\n'
        f'[login]\nusers = "{tmp_path}/users"\n[authority]\n"{USER}" = "read-only"\n'
    )
    options = ("--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"), "--config", str(config))
    with agent("mh-amqp", *options) as host:
        answers = uamqp.drive(port(host), REQUESTS, str(trusted.path), USER, PASSWORD)
    check(answers)
    assert refusals(answers) == [404, 403]
    assert USER in answers[-1]["description"]
