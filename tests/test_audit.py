"""The record of who did what, as a log and as JSON."""

import asyncio
import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_peers import Echo, listening
from libmh import audit
from libmh.caller import Caller
from libmh.errors import BackendFailed, NotAuthorized
from mh_amqp.engine import Door, Login, dial
from mh_amqp.users import Users, verifier
from processes import agent, command
from waiting import wait_for


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    before = list(audit.log.handlers)
    audit.keep(tmp_path / "audit.json")
    yield tmp_path / "audit.json"
    for handler in audit.log.handlers:
        if handler not in before:
            handler.close()
    audit.log.handlers = before


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_json_whatever_it_says(file: Path) -> None:
    caller = Caller("amqp", 'CN="a\nb"\ud800', None)
    audit.record("call", "a.B.c", {"name": "x\ny"}, caller, "done", "1")
    (line,) = lines(file)
    assert line["objects"] == {"name": "x\ny"}
    assert (line["action"], line["outcome"], line["transport"]) == ("a.B.c", "done", "amqp")
    assert str(line["time"]).endswith("Z")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "odd", ["\x9b2J", "\x85", "\u2028", "\u202e", "\x7f", "\U000e0001", "\udc80", "\n\x1b[2J"]
)
def test_a_line_stays_one_and_harmless_whatever_it_says(file: Path, odd: str) -> None:
    """The controls of a terminal, the other ends of lines, what turns text round."""
    audit.record("call", "a", {"x": odd}, Caller("amqp", odd), "done", odd)
    (line,) = file.read_text().splitlines()
    assert line.isprintable()
    said = json.loads(line)
    assert said["identity"] == said["objects"]["x"] == said["request"] == odd


def test_it_goes_on_when_the_file_was_rotated(file: Path) -> None:
    audit.record("call", "a.B.c", {}, Caller("x", "y"), "done", "1")
    file.rename(file.with_suffix(".1"))
    audit.record("call", "a.B.d", {}, Caller("x", "y"), "done", "2")
    assert [line["action"] for line in lines(file)] == ["a.B.d"]
    logging.getLogger("libmh.audit").warning("something %s", "else")
    assert lines(file)[-1]["message"] == "something else"


def test_a_place_that_has_gone_stops_nobody(tmp_path: Path, file: Path) -> None:
    away = tmp_path.with_name(tmp_path.name + "-away")
    tmp_path.rename(away)
    for number in range(2):
        audit.record("call", "a.B.c", {}, Caller("x", "y"), "done", str(number))
    away.rename(tmp_path)
    audit.record("call", "a.B.c", {}, Caller("x", "y"), "done", "2")
    assert [line["request"] for line in lines(file)] == ["2"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="the audit file"):
        audit.keep(tmp_path / "no" / "such" / "place")


def test_a_login_that_fails_is_written_down(file: Path, tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "users").write_text(verifier("otto", "right").line("otto"))
        async with listening(Echo(), door=Door(users=Users(tmp_path / "users"))) as listener:
            for login in (Login(("PLAIN",), "otto", "wrong"), Login(("SCRAM-SHA-256",), "nobody", "x")):
                with pytest.raises(NotAuthorized):
                    await dial("127.0.0.1", listener.port, container="test", login=login)

    asyncio.run(test())
    assert [line["verb"] for line in lines(file)] == ["enter", "enter"]
    assert "wrong password, or no such user: 'otto'" in str(lines(file)[0]["why"])
    assert "wrong" not in str(lines(file)[0]["peer"])


def test_an_agent_writes_down_changes_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    options = ("--listen", "127.0.0.1:0", "--state", f"{tmp_path}/state", "--audit-file", str(path))
    with agent("mh-amqp", *options) as host:
        asks = (("get", "Host.hostname"), ("set", "Host.update_interval", "9"), ("call", "Services.list"))
        for asked in asks:
            words = [command("mhctl"), "--on", host.url, *asked]
            subprocess.run(words, capture_output=True, timeout=30, check=False)
        wait_for(lambda: len(lines(path)) == 2)
    said = [(line["verb"], line["action"], line["identity"], line["outcome"]) for line in lines(path)]
    assert said == [
        ("set", "org.matahariproject.Host.update_interval", "anonymous", "not-authorized"),
        ("call", "org.matahariproject.Services.list", "anonymous", "not-authorized"),
    ]


def test_a_uri_is_told_without_its_secrets(file: Path) -> None:
    uri = "https://me:QWERTY@host/a.pp?sig=QWERTY"
    audit.record("call", "a.B.run_uri", {"uri": uri}, Caller("x", "y"), "done", "1")
    assert lines(file)[0]["objects"] == {"uri": "https://<secret>@host/a.pp?<secret>"}
