"""A guest and its host without a network: Unix sockets, a stream that outlives its users, a real device."""

import asyncio
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqp_serving import run
from libmh.errors import InvalidArguments, Unavailable
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.connection import Connection
from mh_amqp.device import HEADER, MAX_WAITING, Stream, is_device
from mh_amqp.engine import DEFAULT_DOOR, DEFAULT_LIMITS, DEFAULT_LOGIN, Listener, dial
from mh_amqp.links import Delivery
from mh_amqp.messages import Message, encode
from mh_amqp.names import Place, place
from processes import agent, mhctl
from waiting import eventually, wait_for

RAW = encode(Message(data=b"x" * 100_000))


def descriptors() -> tuple[int, int]:
    left, right = socket.socketpair()
    for each in (left, right):
        each.setblocking(False)
    return left.detach(), right.detach()


async def guest_over(descriptor: int, seconds: float = 5) -> Connection:
    """The side that speaks first."""
    connection = Connection("guest", DEFAULT_LIMITS, DEFAULT_LOGIN, None)
    Stream(descriptor, lambda: connection.pump, "host", greets=True)
    async with asyncio.timeout(seconds):
        assert await connection.ready
    return connection


def host_over(descriptor: int) -> Stream:
    broker = Broker(BrokerLimits())
    listener = Listener(broker, "mh-broker", DEFAULT_DOOR, DEFAULT_LIMITS)
    return Stream(descriptor, listener.accept, "guest", greets=False)


async def exchange(connection: Connection) -> None:
    """Send something large there and back."""
    came: list[bytes] = []

    def take(delivery: Delivery) -> None:
        came.append(delivery.raw)
        delivery.accept()

    await connection.receiver("q", take)
    sender = await connection.sender("q")
    for _ in range(20):
        sender.send(RAW)
    await eventually(lambda: len(came) == 20, 10)
    assert set(came) == {RAW}


def test_a_connection_over_a_socket_pair() -> None:
    async def test() -> None:
        left, right = descriptors()
        host = host_over(left)
        guest = await guest_over(right)
        assert guest.remote_container == "mh-broker"
        await exchange(guest)
        await guest.close()
        await asyncio.wait_for(host.over, 5)

    run(test())


@pytest.mark.parametrize("before", [b"\x00", b"AMQP", b"AMQP\x03\x01\x00", os.urandom(50_000) + b"AMQP\x00"])
def test_what_an_earlier_connection_left_is_dropped(before: bytes) -> None:
    async def test() -> None:
        left, right = descriptors()
        os.write(right, before)
        os.write(left, before)
        host = host_over(left)
        guest = await guest_over(right)
        await exchange(guest)
        await guest.close()
        await asyncio.wait_for(host.over, 5)

    run(test())


def test_a_guest_that_never_speaks_costs_nothing() -> None:
    async def test() -> None:
        left, right = descriptors()
        made: list[bool] = []

        def accept() -> asyncio.Protocol:
            made.append(True)
            return asyncio.Protocol()

        host = Stream(left, accept, "guest", greets=False)
        os.write(right, b"login: " * 1000)
        await asyncio.sleep(0)
        await eventually(lambda: host._before not in (None, b""))
        os.close(right)
        await asyncio.wait_for(host.over, 5)
        assert not made

    run(test())


def test_a_writer_is_told_to_wait_for_who_does_not_read() -> None:
    async def test() -> None:
        left, right = descriptors()
        told: list[str] = []

        class Writer(asyncio.Protocol):
            def pause_writing(self) -> None:
                told.append("pause")

            def resume_writing(self) -> None:
                told.append("resume")

            def connection_lost(self, exc: Exception | None) -> None:
                told.append("lost")

        stream = Stream(left, Writer, "other", greets=True)
        size = 0
        while not told:
            stream.write(HEADER * 4096)
            size += len(HEADER) * 4096
        assert size > MAX_WAITING
        stream.close()
        read = bytearray()

        def drained() -> bool:
            try:
                read.extend(os.read(right, 1 << 20))
            except BlockingIOError:
                return False
            return len(read) == size

        await eventually(drained)
        await asyncio.wait_for(stream.over, 5)
        assert told == ["pause", "lost"]
        assert bytes(read) == HEADER * (size // len(HEADER))
        os.close(right)

    run(test())


def test_urls_of_paths() -> None:
    socket_ = Place("/run/mh.sock", 0, scheme="amqp+unix")
    assert place("amqp+unix:/run/mh.sock") == socket_
    named = place("amqp+unix:/run/mh.sock#1234")
    assert (named.host, named.uuid, named.secured) == ("/run/mh.sock", "1234", False)
    assert named.shown == "amqp+unix:/run/mh.sock#1234"
    for url in ("amqp+unix:run", "amqp+unix://host/run", "amqp+unix:", "amqp+unix:/x?y=1"):
        with pytest.raises(InvalidArguments):
            place(url)


def test_a_device_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(Unavailable, match="cannot connect to '/dev/full'"):
            await dial("/dev/full", 0, container="x", deadline=2)
        with pytest.raises(Unavailable):
            await dial(str(tmp_path / "nothing"), 0, container="x", deadline=2)

    assert is_device("/dev/full")
    assert not is_device(str(tmp_path))
    run(test())


def test_an_agent_listens_at_a_socket_and_knows_who_connects(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'[authority]\n"uid:{os.getuid()}" = "operator"\n')
    where = f"{tmp_path}/agent.sock"
    with agent("mh-amqp", "--listen", where, "--state", str(tmp_path), "--config", str(config)) as host:
        assert f"listening on {where} host" in host.ready
        done = mhctl("--on", f"amqp+unix:{where}", "set", "Host.update_interval", "7")
        assert done.returncode == 0, done.stderr


@contextmanager
def port_of_a_guest(path: Path) -> Iterator[str]:
    """A terminal for the guest, whose other end is a socket that is listened on at `path`, as QEMU does it
    with a virtio-serial port: what nobody takes stays in the terminal."""
    outside, inside = pty.openpty()
    tty.setraw(inside)
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        relay = threading.Thread(target=_relay, args=(outside, listening, stop))
        relay.start()
        try:
            yield os.ttyname(inside)
        finally:
            stop.set()
            relay.join(5)
            os.close(outside)
            os.close(inside)


def _relay(outside: int, listening: socket.socket, stop: threading.Event) -> None:
    host: socket.socket | None = None
    while not stop.is_set():
        watched = [listening.fileno()] if host is None else [listening.fileno(), outside, host.fileno()]
        ready = select.select(watched, [], [], 0.05)[0]
        if listening.fileno() in ready:
            host, _ = listening.accept()
        try:
            if host is not None and outside in ready:
                host.sendall(os.read(outside, 4096))
            if host is not None and host.fileno() in ready:
                data = host.recv(4096)
                while data:
                    data = data[os.write(outside, data) :]
        except OSError:  # the host's side has gone
            host = None


def test_a_guest_is_managed_through_its_port(tmp_path: Path) -> None:
    with (
        port_of_a_guest(tmp_path / "qemu.sock") as device,
        agent(
            *("mh-broker", "--listen", f"{tmp_path}/broker.sock", "--state", str(tmp_path / "b")),
            *("--attach", str(tmp_path / "qemu.sock")),
        ),
    ):
        options = (
            "--broker",
            f"amqp+unix:{device}",
            "--state",
            str(tmp_path / "a"),
            "--report-interval",
            "0",
        )
        for _ in range(2):  # the second finds what the first left in the port
            with agent("mh-amqp", *options) as guest:
                words = guest.ready.split()
                url = f"amqp+unix:{tmp_path}/broker.sock#{words[words.index('host') + 1]}"
                shown = wait_for(lambda at=url: _hostname(at), 40)  # type: ignore[misc]
                assert shown
                guest.process.kill()


def _hostname(url: str) -> str:
    done = mhctl("--on", url, "--timeout", "3", "get", "Host.hostname")
    return done.stdout if done.returncode == 0 else ""
