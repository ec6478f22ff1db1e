"""`mh-broker` as a process: ready, stopped, refused."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proton import Message
from proton.utils import BlockingConnection, SyncRequestResponse

from amqp_peers import HOST, encoded
from libmh.api.broker import Broker as BrokerInterface
from libmh.api.broker import QueueState
from libmh.client import connect
from libmh.errors import InvalidArguments
from mh_amqp.broker_main import address_of
from mh_amqp.engine import Closed, dial
from mh_amqp.users import Users
from test_amqp_engine import run

COMMAND = (sys.executable, "-m", "mh_amqp.broker_main")


@contextmanager
def broker(tmp_path: Path, listen: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its ready line."""
    arguments = (*COMMAND, "--listen", listen, "--state", str(tmp_path))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_it_says_where_it_listens_and_stops_when_told(tmp_path: Path) -> None:
    async def ends(port: int, process: subprocess.Popen[str]) -> None:
        connection = await dial(HOST, port, container="test")
        await (await connection.sender("q")).send_acked(encoded(body=1))
        process.send_signal(signal.SIGTERM)
        assert await connection.closed == Closed("amqp:connection:forced", "shutting down")

    with broker(tmp_path, f"{HOST}:0") as (process, line):
        head, _, port = line.rpartition(":")
        assert head == "ready: mh-broker listening on 127.0.0.1"
        run(ends(int(port), process))
        assert process.wait(5) == 0
        assert process.communicate() == ("", "")


def test_it_serves_a_unix_socket(tmp_path: Path) -> None:
    async def answers(path: Path) -> None:
        connection = await dial(str(path), 0, container="test")
        await connection.close()

    path = tmp_path / "amqp"
    with broker(tmp_path, str(path)) as (_, line):
        assert line == f"ready: mh-broker listening on {path}"
        run(answers(path))


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("0.0.0.0:0", "not a loopback address"),
        ("5672", "no address to listen on"),
        ("127.0.0.1:99999", "no address"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(tmp_path: Path, listen: str, why: str) -> None:
    done = subprocess.run(
        (*COMMAND, "--listen", listen, "--state", str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("mh-broker: ")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    async def taken() -> str:
        server = await asyncio.start_server(lambda *_: None, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        arguments = (*COMMAND, "--listen", f"{HOST}:{port}", "--state", str(tmp_path))
        done = await asyncio.to_thread(
            subprocess.run, arguments, capture_output=True, text=True, timeout=20, check=False
        )
        server.close()
        return str(done.stderr)

    assert "cannot listen on" in asyncio.run(taken())


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:5672", ("127.0.0.1", 5672)), ("[::1]:0", ("::1", 0)), ("/run/x", ("/run/x", 0))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":1", "host:x", "host:-1", "host:65536", "host:٣"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidArguments):
        address_of(text)


def test_it_makes_the_line_of_a_user(tmp_path: Path) -> None:
    made = subprocess.run(
        [*COMMAND, "--make-user", "otto"], input="right\n", capture_output=True, text=True, timeout=20
    )
    (tmp_path / "users").write_text(made.stdout)
    users = Users(tmp_path / "users")
    assert users.check("otto", "right")
    assert not users.check("otto", "wrong")
    assert "right" not in made.stdout
    refused = subprocess.run([*COMMAND, "--make-user", "CN=x"], input="right\n", text=True, timeout=20)
    assert refused.returncode == 1


def test_it_answers_for_itself(tmp_path: Path) -> None:
    async def carried(port: int) -> None:
        connection = await dial(HOST, port, container="test")
        await (await connection.sender("q")).send_acked(encoded(body=1))
        await connection.close()

    config = tmp_path / "broker.toml"
    config.write_text('[authority]\n"anonymous" = "read-only"\n')
    arguments = (*COMMAND, "--listen", f"{HOST}:0", "--state", str(tmp_path), "--config", str(config))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = "amqp://" + process.stdout.readline().split()[-1]
        run(carried(int(url.rpartition(":")[2])))
        with connect(url) as here:
            broker = here.proxy(BrokerInterface)
            assert broker.queues("q") == [QueueState("q", 1, broker.queues("q")[0].bytes, 0, 0)]
            assert broker.traffic().received >= 1
            assert [each.name for each in broker.queues("mh.reply.*", 1)]
        foreign = BlockingConnection(url, timeout=5)
        asking = SyncRequestResponse(foreign, "$management")
        query = {"operation": "QUERY", "type": "org.amqp.management", "name": "self"}
        answer = asking.call(Message(properties=query, body={"attributeNames": []}))
        assert answer.properties is not None
        assert answer.properties["statusCode"] == 200
        foreign.close()
        process.terminate()
