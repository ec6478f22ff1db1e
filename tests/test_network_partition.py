"""A console that reaches the agent through the very link that it changes."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from network_stage import LINKS, STATE, Stage, place, stage
from waiting import wait_for

CONFIRM = 2
AUTHORITY = '[authority]\n"anonymous" = "operator"\n'
CONSOLE = """
import sys, threading, time
from libmh.api.network import ChangeState, Network
from libmh.client import connect
from libmh.errors import Problem
url, link, wrong, confirm = sys.argv[1:]

def change():
    with connect(url) as there:
        there.proxy(Network).set_addresses(link, [wrong], "", int(confirm))

def standing():
    try:
        with connect(url) as there:
            found = there.proxy(Network).changes()
            return [str(each.state) for each in found if each.link == link][:1]
    except Problem:
        return []

threading.Thread(target=change, daemon=True).start()
end = time.monotonic() + 30
while standing() != ["rolled-back"] and time.monotonic() < end:
    threading.Event().wait(0.1)
print(*standing())
"""


@pytest.fixture(scope="module")
def staged() -> Iterator[Stage]:
    with stage("partition") as found:
        found.agent("stop")
        config = Path("/etc/matahari/mh-amqp.toml")
        found.host.run("sh", "-c", f"mkdir -p {config.parent}; printf '{AUTHORITY}' >{config}")
        found.host.run("ip", "-n", "far", "link", "set", "lo", "up")
        bring(found, "agent", f"{sys.prefix}/bin/mh-amqp", "--state", STATE, "--config", str(config),
              "--listen", "127.0.0.1:5672", "--only", "Network", notify=True)  # fmt: skip
        bring(found, "gate", *passing("0.0.0.0:5673", "127.0.0.1:5672"))
        for link in LINKS:
            port = 6000 + place(link)
            there = passing(f"127.0.0.1:{port}", f"10.9.{place(link)}.1:5673")
            bring(found, f"way-{link}", "/usr/sbin/ip", "netns", "exec", "far", *there)
        yield found


def bring(staged: Stage, unit: str, *command: str, notify: bool = False) -> None:
    kind = ("-p", "Type=notify") if notify else ()
    staged.host.run("systemd-run", "--quiet", f"--unit={unit}", *kind, *command)


def passing(listen: str, to: str) -> tuple[str, ...]:
    """What hands a connection on."""
    return ("systemd-socket-activate", "-l", listen, "/lib/systemd/systemd-socket-proxyd", to)


@pytest.mark.slow  # `mhctl` cuts itself off by the kernel's link in test_network_console
@pytest.mark.parametrize("link", LINKS)
def test_a_console_that_cuts_itself_off_finds_the_host_again(staged: Stage, link: str) -> None:
    before = staged.seen(link)
    wrong = f"10.99.{place(link)}.1/24"
    url = f"amqp://127.0.0.1:{6000 + place(link)}"
    console = (sys.executable, "-c", CONSOLE, url, link, wrong, str(CONFIRM))
    assert reached(staged, link)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(staged.host.run, "ip", "netns", "exec", "far", *console, seconds=60, check=False)
        wait_for(lambda: staged.seen(link).addresses == {wrong}, 10)
        assert not reached(staged, link)
        done = asked.result(60)
    assert (done.returncode, done.stdout) == (0, "rolled-back\n"), done.stderr
    assert staged.seen(link) == before
    assert reached(staged, link)


def reached(staged: Stage, link: str) -> bool:
    """Whether the far end gets through to the host."""
    attempt = f"timeout 0.4 bash -c '</dev/tcp/10.9.{place(link)}.1/5673'"
    return staged.host.run("ip", "netns", "exec", "far", "sh", "-c", attempt, check=False).returncode == 0
