"""`mhctl network` at a console beyond the very link that it changes, and on the machine's own bus."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from network_stage import KERNEL, MANAGER, Stage, stage
from waiting import wait_for

PORT = 5699
MHCTL = "import sys; from libmh.cli.main import main; sys.argv[0] = 'mhctl'; main()"
# agents listen on loopback alone: this is the network between them and a console
BROKER_PORT = 5697
RELAY = """
import asyncio
import sys

inside, outside = map(int, sys.argv[1:])

async def pour(reader, writer):
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def carry(reader, writer):
    inner, outer = await asyncio.open_connection("127.0.0.1", inside)
    await asyncio.gather(pour(reader, outer), pour(inner, writer))

async def main():
    server = await asyncio.start_server(carry, "0.0.0.0", outside)
    await server.serve_forever()

asyncio.run(main())
"""
AGENT = f"{sys.prefix}/bin/mh-amqp --listen 127.0.0.1:{PORT} --state /var/lib/console --only Network"


@pytest.fixture(scope="module")
def staged() -> Iterator[Stage]:
    with stage("console") as found:
        host = found.host
        host.run("sh", "-c", 'printf \'[authority]\\n"*" = "operator"\\n\' >/etc/console.toml')
        for name, command in (
            ("relay", relay(PORT)),
            ("agent", [*AGENT.split(), "--config", "/etc/console.toml"]),
        ):
            host.run("systemd-run", "--quiet", f"--unit=console-{name}", *command)
        wait_for(lambda: console(found, "network", "list").returncode == 0, 20, "the agent answers")
        yield found


def relay(port: int) -> list[str]:
    """What carries to a port of loopback what comes in at the next one."""
    return [sys.executable, "-c", RELAY, str(port), str(port + 1)]


def console(staged: Stage, *words: str, before: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """`mhctl` beyond `k0`; `before` are words of a command that runs it."""
    where = ["--on", f"amqp://10.9.0.1:{PORT + 1}"]
    command = [*before, sys.executable, "-c", MHCTL, *where, *words]
    return staged.host.run("ip", "netns", "exec", "far", *command, check=False, seconds=60)


def test_what_does_not_cut_the_console_off_is_confirmed(staged: Stage) -> None:
    done = console(staged, "--json", "network", "set-mtu", KERNEL, "1400", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["state"] == "confirmed"
    assert staged.seen(KERNEL).mtu == 1400


def test_what_cuts_the_console_off_is_taken_back(staged: Stage) -> None:
    before = staged.seen(KERNEL)
    done = console(staged, "network", "set-addresses", KERNEL, "10.9.77.1/24", "--yes", "--confirm", "5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{KERNEL}: addresses 10.9.77.1/24: rolled back: it was not confirmed in time" in done.stdout
    assert staged.seen(KERNEL) == before
    assert "rolled-back" in console(staged, "network", "changes").stdout


def test_a_link_that_comes_back_is_reached_over_a_new_connection(staged: Stage) -> None:
    done = console(staged, "network", "restart", KERNEL, "--yes", "--confirm", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "confirmed, and kept" in done.stdout


@pytest.mark.slow
def test_a_link_that_goes_down_comes_back(staged: Stage) -> None:
    done = console(staged, "network", "down", KERNEL, "--yes", "--confirm", "6")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "rolled back" in done.stdout
    assert staged.seen(KERNEL).up


@pytest.mark.slow
def test_ctrl_c_leaves_it_to_be_rolled_back(staged: Stage) -> None:
    interrupted = ("timeout", "--preserve-status", "--signal=INT", "3")
    words = ("network", "down", KERNEL, "--yes", "--confirm", "5")
    done = console(staged, *words, before=interrupted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{KERNEL}: left as it is: the host rolls it back 5 s after it was made" in done.stderr
    wait_for(lambda: staged.seen(KERNEL).up, 15, "it was rolled back")


@pytest.mark.slow
def test_a_terminal_shows_what_is_waited_for(staged: Stage) -> None:
    words = [sys.executable, "-c", MHCTL, "--on", f"amqp://10.9.0.1:{PORT + 1}", "network", "down", KERNEL]
    shown = shlex.join(["ip", "netns", "exec", "far", *words, "--confirm", "4"])
    typed = f"(sleep 2; echo y; sleep 12) | script --quiet --return --command {shlex.quote(shown)} /dev/null"
    done = staged.host.run("sh", "-c", typed, check=False, seconds=60)
    assert f"'down' of '{KERNEL}' may cut amqp://10.9.0.1:{PORT + 1} off. Go on? [y/N]: " in done.stdout
    assert f"reaching amqp://10.9.0.1:{PORT + 1} anew, " in done.stdout
    assert "rolled back" in done.stdout
    assert staged.seen(KERNEL).up


def test_on_the_bus_of_the_machine(staged: Stage) -> None:
    words = ["--on", "system:", "network", "set-mtu", MANAGER, "1400", "--yes"]
    done = staged.host.python("-c", MHCTL, *words, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{MANAGER}: mtu 1400: confirmed, and kept\n" in done.stdout
    assert staged.seen(MANAGER).mtu == 1400
    listed = staged.host.python("-c", MHCTL, "--on", "system:", "network", "changes", "--pending")
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_host_is_reached_at_its_new_address_through_a_broker(staged: Stage) -> None:
    host, far = staged.host, ("ip", "netns", "exec", "far")
    host.run(*far, "ip", "link", "set", "lo", "up")
    listen = f"{sys.prefix}/bin/mh-broker --listen 127.0.0.1:{BROKER_PORT} --state /var/lib/broker"
    agent = f"{sys.prefix}/bin/mh-amqp --broker amqp://10.9.0.2:{BROKER_PORT + 1} --state /var/lib/through"
    for name, command in (
        ("broker", [*far, *listen.split()]),
        ("broker-relay", [*far, *relay(BROKER_PORT)]),
        ("through", [*agent.split(), "--config", "/etc/console.toml"]),
    ):
        host.run("systemd-run", "--quiet", f"--unit={name}", *command)
    uuid = json.loads(host.python("-c", MHCTL, "--json", "get", "Host.uuid").stdout)
    mhctl = [*far, sys.executable, "-c", MHCTL, "--on", f"amqp://127.0.0.1:{BROKER_PORT}/{uuid}"]
    listed = [*mhctl, "--timeout", "2", "network", "list"]
    wait_for(lambda: host.run(*listed, check=False).returncode == 0, 30, "the agent answers")
    words = ["network", "set-addresses", KERNEL, "10.9.0.5/24", "--yes"]
    done = host.run(*mhctl, *words, check=False, seconds=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KERNEL}: addresses 10.9.0.5/24: confirmed, and kept" in done.stdout
    assert staged.seen(KERNEL).addresses == {"10.9.0.5/24"}
