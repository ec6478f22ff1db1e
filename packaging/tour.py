"""The tour: start everything here, show one host end to end with `mhctl`, and stay up until Ctrl-C.

A broker on loopback, the D-Bus agent, the conductor and the AMQP agent are children of this process; their
state and logs are under one directory, and they end with it, in reverse order.
"""

import argparse
import asyncio
import fcntl
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, TextIO
from urllib.parse import quote
from xml.sax.saxutils import escape

from libmh import bus
from libmh.errors import Problem

CHECKOUT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent
BUS_NAME = "org.matahariproject.Host"
READY_SECONDS = 20.0
STOP_SECONDS = 12.0
ARRIVAL_SECONDS = 30.0
STEP = 0.05
MAX_LINES = 30
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_SOCKET = 100  # sun_path holds 108 bytes, dbus-daemon wants a few

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Stopped(Exception):
    """The tour cannot go on; the message is one sentence for people."""


@dataclass(slots=True)
class Stage:
    """Where this run keeps its things, and what it has started so far."""

    state: Path
    children: list["Child"] = field(default_factory=list)
    scratch: Path | None = None

    def log(self, name: str) -> Path:
        return self.state / "log" / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Child:
    """A daemon of this run."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say in which step it was that the tour could not go on."""
    try:
        yield
    except (
        Stopped,
        OSError,
    ) as reason:  # OSError: the state directory is full, read-only, or not what it should be
        raise Stopped(f"stopped at '{name}': {reason}") from reason


# --- state ---


@contextmanager
def held_state(wanted: Path | None) -> Iterator[Path]:
    """A state directory that no other run uses: `wanted`, or the first free of .state, .state-2, ..."""
    default = CHECKOUT / ".state"
    candidates = (
        [wanted] if wanted else [default, *(CHECKOUT / f".state-{number}" for number in range(2, 10))]
    )
    for state in candidates:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (state / "lock").open("a+") as lock:
            if not _locks(lock):
                continue
            if state not in (wanted, default):
                print(f"another run uses {default}: this one keeps its state in {state}")
            (state / "log").mkdir(exist_ok=True)
            yield state.resolve()
            return
    raise Stopped(
        f"the state directory {candidates[-1]} is used by another run: name another with --state DIR"
    )


def _locks(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another run has it
        return False
    return True


# --- children ---


def start(
    stage: Stage, name: str, *command: str, ready: str = "ready: ", label: str = ""
) -> tuple[Child, str]:
    """Start a daemon and wait for its ready line, which is returned. Its stderr goes to the log."""
    told = stage.state / "log" / f"{label or name}.out"
    log = stage.log(label or name)
    with told.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [*_tied(), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=0,  # Ctrl-C is for this process, which ends its children in order
        )
    child = Child(label or name, process, log)
    stage.children.append(child)
    line = _wait(lambda: _ready_line(child, told, ready), READY_SECONDS)
    if not line:
        raise Stopped(
            f"{child.name} was not ready within {READY_SECONDS:g} s{child.last_words()} (log: {log})"
        )
    return child, line


def _tied() -> Sequence[str]:
    # should this process be killed, the kernel ends its children
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=TERM", "--"] if setpriv else []


def _ready_line(child: Child, told: Path, ready: str) -> str:
    status = child.process.poll()
    if status is not None:
        raise Stopped(f"{child.name} ended with status {status}{child.last_words()} (log: {child.log})")
    lines = told.read_text("utf-8", "replace").splitlines(keepends=True)
    return next((line.strip() for line in lines if line.startswith(ready) and line.endswith("\n")), "")


def _wait(condition: Callable[[], Any], seconds: float) -> Any:
    """What `condition` gives once it is true, or its last false value after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        Event().wait(STEP)
    return value


def end(stage: Stage) -> None:
    """End the children by their pids, the last one started first."""
    for child in reversed(stage.children):
        child.process.terminate()
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{child.name} did not end within {STOP_SECONDS:g} s, killing it", file=sys.stderr)
            child.process.kill()
            child.process.wait()
    if stage.scratch is not None:
        shutil.rmtree(stage.scratch, ignore_errors=True)


# --- the buses ---


def start_dbus_agent(stage: Stage) -> str:
    """Start `mh-dbus` where it may own its names, and return the URL for `mhctl --on`."""
    obstacle = system_bus_obstacle()
    if obstacle:
        print(f"  a private bus is used: {obstacle}")
        url = start_private_bus(stage)
        start(stage, "mh-dbus", *_agent(stage, "mh-dbus", "--bus", url))
        return url
    start(stage, "mh-dbus", *_agent(stage, "mh-dbus"))
    return "system:"


def system_bus_obstacle() -> str:
    """Why our names cannot be owned on the system bus, or "" when they can."""
    if not Path(bus.SYSTEM_ADDRESS.partition("=")[2]).is_socket():
        return "there is no system bus here"
    try:
        asyncio.run(_try_to_own())
    except Problem as problem:
        return f"the system bus says: {problem}"
    return ""


async def _try_to_own() -> None:
    connection = await bus.connect()
    try:
        await connection.own(BUS_NAME)
    finally:
        await connection.close()


def start_private_bus(stage: Stage) -> str:
    """Start a dbus-daemon of our own and return its address."""
    daemon = shutil.which("dbus-daemon", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if daemon is None:
        raise Stopped("dbus-daemon is not installed: apt-get install dbus-daemon")
    directory = stage.state / "bus"
    if len(bytes(directory / "socket")) > MAX_SOCKET:
        directory = stage.scratch = Path(tempfile.mkdtemp(prefix="matahari-bus-"))
    directory.mkdir(exist_ok=True)
    socket = directory / "socket"
    socket.unlink(missing_ok=True)
    address = f"unix:path={quote(str(socket), safe='/-_.')}"
    config = directory / "bus.conf"
    config.write_text(BUS_CONFIG.format(address=escape(address)), "utf-8")
    options = [f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"]
    _, line = start(stage, "dbus-daemon", daemon, *options, ready="unix:")
    return line.partition(",")[0]


def _agent(stage: Stage, name: str, *options: str) -> list[str]:
    return [str(COMMANDS / name), "--state", str(stage.state), *options]


def start_fleet_side(stage: Stage) -> str:
    """Start broker, conductor and AMQP agent; returns the broker's URL."""
    _, line = start(stage, "mh-broker", *_agent(stage, "mh-broker", "--listen", "127.0.0.1:0"))
    found = re.search(r"127\.0\.0\.1:(\d+)", line)
    if found is None:
        raise Stopped(f"mh-broker did not say where it listens: '{line}'")
    broker = f"amqp://127.0.0.1:{found[1]}"
    store = f"sqlite:///{stage.state / 'conductor.db'}"
    # aggregates may be tried out; of the host itself anonymous stays a guest
    settings = stage.state / "conductor.toml"
    settings.write_text('[authority]\nanonymous = "operator"\n')
    conductor = ("--broker", broker, "--store", store, "--rules", "default", "--config", str(settings))
    start(stage, "mh-conductor", *_agent(stage, "mh-conductor", *conductor))
    start(stage, "mh-amqp", *_agent(stage, "mh-amqp", "--broker", broker))
    return broker


# --- the tour ---


def title(text: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def mhctl(*arguments: str, seconds: float = 30.0) -> str:
    """What `mhctl` prints; it has to succeed."""
    try:
        done = subprocess.run(
            [str(COMMANDS / "mhctl"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Stopped(f"`mhctl {shlex.join(arguments)}` gave no answer within {seconds:g} s") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip() or "nothing"
        raise Stopped(
            f"`mhctl {shlex.join(arguments)}` failed with status {done.returncode} and said: {words}"
        )
    return done.stdout


def show(heading: str, *arguments: str) -> None:
    """One stop of the tour: what it is, what to type, what comes."""
    title(heading)
    print(f"$ mhctl {shlex.join(arguments)}", flush=True)
    with step(heading):
        output = mhctl(*arguments)
        if not output.strip():
            raise Stopped(f"`mhctl {shlex.join(arguments)}` printed nothing")
    width = shutil.get_terminal_size((120, 40)).columns
    lines = [line if len(line) <= width else line[: width - 1] + "…" for line in output.splitlines()]
    print("\n".join(lines[:MAX_LINES]))
    if len(lines) > MAX_LINES:
        print(f"... and {len(lines) - MAX_LINES} lines more")


def take_tour(local: str, broker: str) -> tuple[str, str]:
    """Show one host end to end; returns its UUID and an aggregate that it joined."""
    show("1. This host, over D-Bus", "--on", local, "host", "show")
    uuid = json.loads(mhctl("--on", local, "--json", "get", "Host.uuid"))
    host = f"{broker}/{uuid}"
    show("2. The same host, over AMQP through the broker", "--on", host, "host", "show")
    show("3. A live heartbeat", "--on", broker, "events", "Host.heartbeat", "--count", "1")
    with step("waiting for the capability report"):
        member_of: list[str] = _wait(lambda: _aggregates_of(broker, uuid), ARRIVAL_SECONDS)
        if not member_of:
            raise Stopped(f"this host was in no aggregate {ARRIVAL_SECONDS:g} s after its agent was ready")
    show("4. Its capability report, as the conductor has it", "--on", broker, "aggregate", "report", uuid)
    show("5. The aggregates that it joined, by rule", "--on", broker, "aggregate", "list")
    show("6. And why", "--on", broker, "why", uuid)
    show("7. The fleet at a glance", "--on", broker, "hosts")
    show("8. Where something fits", "--on", broker, "select", "memory=>= 1", "--limit", "5")
    return uuid, member_of[0]


def _aggregates_of(broker: str, uuid: str) -> list[str]:
    hosts = json.loads(mhctl("--on", broker, "--json", "call", "Aggregates.hosts"))
    return next((host["aggregates"] for host in hosts if host["uuid"] == uuid), [])


def suggest(local: str, broker: str, uuid: str, aggregate: str) -> None:
    command = COMMANDS / "mhctl"
    title("Everything is up. Six commands worth trying, in another terminal:")
    for words in (
        ["--on", local, "network", "links"],
        ["--on", local, "services", "list"],
        ["--on", f"{broker}/{uuid}", "agent"],
        ["--on", broker, "events"],
        ["--on", broker, "why", uuid, aggregate],
        ["--on", broker, "aggregate", "create", "mine", "--zone", "az1"],
    ):
        print(f"  {shlex.join([str(command), *words])}")


def stay(stage: Stage) -> None:
    """Until Ctrl-C; the unexpected end of a child ends the run."""
    print("\nCtrl-C ends it all.", flush=True)
    while True:
        for child in stage.children:
            if (status := child.process.poll()) is not None:
                raise Stopped(
                    f"{child.name} ended with status {status}{child.last_words()} (log: {child.log})"
                )
        Event().wait(0.5)


def run(state: Path | None, *, once: bool) -> None:
    """Start, show, stay."""
    with ExitStack() as stack:
        stage = Stage(stack.enter_context(held_state(state)))
        stack.callback(end, stage)
        stack.callback(_end_in_peace)
        title(f"Starting (state and logs: {stage.state})")
        with step("starting the D-Bus agent"):
            local = start_dbus_agent(stage)
        print(f"  mh-dbus answers at {local}", flush=True)
        with step("starting broker, conductor and AMQP agent"):
            broker = start_fleet_side(stage)
        print(f"  mh-broker, mh-conductor and mh-amqp are connected at {broker}", flush=True)
        uuid, aggregate = take_tour(local, broker)
        if once:
            print("\nThe tour is complete.")
            return
        suggest(local, broker, uuid, aggregate)
        stay(stage)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_in_peace() -> None:
    # the children end within a bounded time; one more Ctrl-C would leave some of them behind
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    """0: the tour was taken (and Ctrl-C ended the stay); 1: a step failed; 130: interrupted before that."""
    parser = argparse.ArgumentParser("packaging/run", description="Start matahari here and take the tour.")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="state and logs (default: .state in the checkout)"
    )
    parser.add_argument("--once", action="store_true", help="end after the tour")
    options = parser.parse_args()
    for number in ENDINGS:
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # it may know fewer characters than the tour shows
    try:
        run(options.state, once=options.once)
    except Stopped as reason:
        print(f"\npackaging/run: {reason}", file=sys.stderr)
        return 1
    except OSError as error:  # the state directory: full, read-only, or not what it should be
        print(f"\npackaging/run: cannot keep its state: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended.")
        return 130 if options.once else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
