"""A fleet: simulated hosts answer a request to all of them, through our broker and through RabbitMQ.

    .venv/bin/python tests/bench/bench_fleet.py [--hosts 500,1000,2000,5000] [--runs N] [--shared 10000]

Broker, simulator and console are processes of their own, and the console is this one: it knows the hosts, as
from a conductor, asks them by one message, and accounts for each of them. A run counts only when all have
answered. Owed are 0.7 s for 1,000 hosts, 3 s for 5,000 and 6 s for 10,000 that share connections; 0.12 ms of
the console for a reply, 0.35 ms of our broker for a cast and its reply, and 40 kB of our broker for a
connection that says nothing.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:  # run as a script
    sys.path[:0] = [str(ROOT), str(ROOT / "agents"), str(ROOT / "tests")]

from bench.measure import Cost, tell  # noqa: E402
from libmh.api.agent import Agent  # noqa: E402
from libmh.call import Request  # noqa: E402
from libmh.fleet import fan_out  # noqa: E402
from libmh.outcomes import Account, Host, Plan  # noqa: E402
from libmh.selection import Where  # noqa: E402
from libmh.spec import interface_of  # noqa: E402
from libmh.testing.invented import hostname_of, uuid_of  # noqa: E402
from mh_amqp.fleet import AmqpLine  # noqa: E402
from mh_amqp.fleet import connect as connect_line  # noqa: E402
from rabbitmq import rabbitmq  # noqa: E402

OWED = {1_000: 0.7, 5_000: 3.0}
OWED_SHARED = 6.0
OWED_CONSOLE, OWED_BROKER, OWED_MEMORY = 0.12, 0.35, 40.0
READY_SECONDS = 180.0
PAUSE = 0.2
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PING = interface_of(Agent).name


def knowing(line: AmqpLine, hosts: list[Host]) -> AmqpLine:
    """The line with a conductor that knows all hosts: who is asked is not part of what is measured."""

    async def select(_where: Where) -> list[Host] | None:
        return hosts

    setattr(line, "select", select)  # noqa: B010 - mypy does not let methods be replaced
    return line


@dataclass(slots=True)
class Found:
    """Seconds of each run that counts, and processor milliseconds for each host: console, broker,
    simulator."""

    hosts: int
    seconds: list[float] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    console: float = 0.0
    broker: float = 0.0
    simulator: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("inf")

    @property
    def processor(self) -> float:
        """Milliseconds of all three for each host: what else the machine does changes it little."""
        return self.console + self.broker + self.simulator


class NotReadyError(Exception):
    """A program did not get so far; its last words."""


def processor(pid: int) -> float:
    """Seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def running(*command: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program of ours, and what it says when it is ready."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'agents'}"}
    with (path / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--state", str(path / command[0])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        overdue = threading.Timer(READY_SECONDS, process.kill)
        overdue.start()
        line = process.stdout.readline() if process.stdout else ""
        overdue.cancel()
        if not line.startswith("ready"):
            raise NotReadyError(" ".join((path / "log").read_text().splitlines()[-1:])[-300:])
        yield process, line
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def simulated(url: str, hosts: int, path: Path, shared: int = 0) -> Iterator[subprocess.Popen[str]]:
    """So many hosts, all connected."""
    options = ("--broker", url, "--hosts", str(hosts), "--connections", str(shared), "--rate", "400")
    with running("libmh.testing.simulate", *options, path=path) as (process, _):
        yield process


async def ask(url: str, found: Found, runs: int, pids: Callable[[], tuple[float, float]]) -> None:
    """Ask all hosts so often; one run before that does not count."""
    hosts = [Host(uuid_of(number), hostname_of(number)) for number in range(found.hosts)]
    line = knowing(await connect_line(url), hosts)
    own, before = 0.0, (0.0, 0.0)
    try:
        for run in range(runs + 1):
            if run == 1:
                own, before = processor(os.getpid()), pids()
            account = await _once(line, found if run else Found(found.hosts))
            if run and not account.good:
                found.short.append(account.summary())
            if run < runs:
                await asyncio.sleep(PAUSE)
    finally:
        await line.close()
    after, replies = pids(), found.hosts * runs / 1000
    found.console = (processor(os.getpid()) - own) / replies
    found.broker, found.simulator = (
        (late - early) / replies for late, early in zip(after, before, strict=True)
    )


async def _once(line: AmqpLine, found: Found) -> Account:
    started = time.perf_counter()
    account = await fan_out(line, Request(PING, "ping", deadline=20.0), Plan())
    if account.good:
        found.seconds.append(time.perf_counter() - started)
    return account


def at_peer(url: str, broker: int, hosts: int, runs: int, path: Path) -> Found:
    """The same at RabbitMQ, which may not get so far."""
    try:
        return measured(url, broker, hosts, runs, path)
    except NotReadyError as error:
        return Found(hosts, short=[f"not all had come after {READY_SECONDS:g} s: {error}"])


def measured(url: str, broker: int, hosts: int, runs: int, path: Path, shared: int = 0) -> Found:
    found = Found(hosts)
    with simulated(url, hosts, path, shared) as process:
        asyncio.run(ask(url, found, runs, lambda: (processor(broker), processor(process.pid))))
    return found


def said(found: Found) -> str:
    if not found.seconds:
        return f"no run was whole: {found.short[:1]}"
    return (
        f"{found.median:.2f} s ({min(found.seconds):.2f} to {max(found.seconds):.2f}, "
        f"{len(found.seconds)} of {len(found.seconds) + len(found.short)} runs whole)"
    )


def shares(found: Found) -> str:
    return f"ms a host: console {found.console:.3f}, broker {found.broker:.3f}, agent {found.simulator:.3f}"


def report(found: Found, peer: Found | None, owed: float | None, what: str = "") -> None:
    beside = "" if peer is None else f"RabbitMQ {said(peer)}, ratio {found.median / peer.median:.2f}"
    load = os.getloadavg()[0]
    holds = None if owed is None else not found.short and max(found.seconds, default=1e9) <= owed
    limit = "" if owed is None else f"at most {owed} s, all of them"
    tell(f"{found.hosts} hosts answer {what}".strip(), said(found), beside=beside, owed=limit, holds=holds)
    with_peer = f"; with RabbitMQ {shares(peer)}" if peer and peer.seconds else ""
    print(f"    {shares(found)}{with_peer}; load {load:.1f}", flush=True)


def memory_of(url: str, broker: int, hosts: int, path: Path) -> float:
    """Kilobytes of the broker's own memory for each idle connection."""
    before = Cost.of(broker).own
    with simulated(url, hosts, path):
        return (Cost.of(broker).own - before) * 1024 / hosts


Curve = list[tuple[Found, Found | None]]
"""Ours, and RabbitMQ beside it."""


def curve_of(options: argparse.Namespace, path: Path, peer_url: str, peer_pid: int) -> Curve:
    curve: Curve = []
    with running("mh_amqp.broker_main", "--listen", "127.0.0.1:0", "--connections", "15000", path=path) as (
        broker,
        line,
    ):
        url = f"amqp://127.0.0.1:{line.rpartition(':')[2].strip()}"
        kilobytes = memory_of(url, broker.pid, 1_000, path)
        tell(
            "our broker, one idle agent", f"{kilobytes:.1f} kB", owed=f"{OWED_MEMORY} kB",
            holds=kilobytes <= OWED_MEMORY,
        )  # fmt: skip
        for hosts in options.hosts:
            found = measured(url, broker.pid, hosts, options.runs, path)
            peer = None
            if peer_url:
                peer = at_peer(peer_url, peer_pid, hosts, max(3, options.runs // 4), path)
            report(found, peer, OWED.get(hosts))
            curve.append((found, peer))
        if options.shared:
            shared = measured(url, broker.pid, options.shared, min(options.runs, 5), path, shared=1_000)
            report(shared, None, OWED_SHARED, "over 1,000 connections")
    return curve


def told(curve: Curve) -> None:
    """The costs of one reply, of the largest fleet that was asked, and how they grow."""
    own = [each for each, _ in curve]
    for name, cost, owed in (
        ("console, a reply", [each.console for each in own], OWED_CONSOLE),
        ("our broker, cast and reply", [each.broker for each in own], OWED_BROKER),
    ):
        tell(name, f"{cost[-1]:.3f} ms", owed=f"{owed} ms", holds=cost[-1] <= owed)
    peers = [peer for _, peer in curve if peer is not None]
    for name, found in (("mh-broker", own), ("RabbitMQ", peers)):
        for each in found:
            print(grown(name, each, found[0]), flush=True)


def grown(name: str, found: Found, base: Found) -> str:
    """One point of a curve that would be straight if a host cost as much in any fleet."""
    if not found.seconds:
        return f"growth {name:9} {found.hosts:6} hosts  {said(found)}"
    times = found.median / base.median / (found.hosts / base.hosts)
    return (
        f"growth {name:9} {found.hosts:6} hosts  {found.median:6.3f} s, worst {max(found.seconds):6.3f} s  "
        f"{found.median / found.hosts * 1000:.3f} ms a host, {times:.2f} of linear, "
        f"{found.processor:.3f} ms of processors"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default=[500, 1000, 2000, 5000],
                        type=lambda text: [int(part) for part in text.split(",")])  # fmt: skip
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--shared", type=int, default=10_000, help="hosts over 1,000 connections; 0: none")
    parser.add_argument("--no-peer", action="store_true", help="without RabbitMQ")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer_url, peer_pid = "", 0
        if RABBITMQ.exists() and not options.no_peer:
            peer = stack.enter_context(rabbitmq(Path("/"), plugin=True))
            assert peer.running is not None
            peer_url, peer_pid = peer.url(), peer.running.pid
        told(curve_of(options, path, peer_url, peer_pid))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
