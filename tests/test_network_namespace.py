"""Changes where neither systemd nor a bus runs: a namespace with a link, and the kernel alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from libmh.api.network import ChangeState, Keeper
from libmh.context import Context
from libmh.errors import Unavailable
from libmh.linux.net.netchanges import Changes
from libmh.linux.net.netrecord import MAX_ENDED, Record, Records, Stage
from testbed import needs
from testbed.child import spawn, stop
from waiting import wait_for

LAY = """
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
ip link add v0 type veth peer name v1
ip addr add 192.0.2.1/24 dev v0
ip link set v0 up
ip link set v1 up
ip route add 198.51.100.0/24 via 192.0.2.9
echo ready
exec sleep 300
"""
HERE = """
import os, signal, sys, threading
from pathlib import Path
from libmh.context import Context, Root, Settings
from libmh.linux.network import LinuxNetwork
context = Context(Root(), Settings(Path(sys.argv[1]) / "settings.json"))
context.events.subscribe(lambda event: print(event.name, event.fields.get("change", {}).get("state")))
network = LinuxNetwork(context)
"""


@dataclass(frozen=True, slots=True)
class Space:
    """The namespaces of a process."""

    pid: int
    state: Path

    def run(self, *command: str) -> str:
        inside = ["nsenter", f"--target={self.pid}", "--net", "--mount", f"--wdns={Path.cwd()}", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False, env=ENV)
        assert done.returncode in (0, -9), done.stderr
        return done.stdout

    def python(self, text: str) -> list[str]:
        return self.run(sys.executable, "-c", HERE + text, str(self.state)).splitlines()

    def mtu(self) -> int:
        return int(json.loads(self.run("ip", "-j", "link", "show", "v0"))[0]["mtu"])

    def addresses(self) -> Sequence[str]:
        (told,) = json.loads(self.run("ip", "-j", "-4", "addr", "show", "v0"))
        return [f"{each['local']}/{each['prefixlen']}" for each in told["addr_info"]]


ENV = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/no-bus"}


@contextmanager
def namespace(state: Path) -> Iterator[Space]:
    needs.root("make a network namespace")
    unshare = needs.command("unshare", "util-linux")
    process = spawn([unshare, "--net", "--mount", "sh", "-ec", LAY], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Space(process.pid, state)
    finally:
        stop(process)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    with namespace(tmp_path) as found:
        yield found


def test_the_kernel_is_told_and_brought_back(space: Space) -> None:
    told = space.python(
        """
print(network.keeper("v0"))
change = network.set_addresses("v0", ["192.0.2.7/24", "192.0.2.8/24"], "192.0.2.9", 60)
print(change.state, change.by, change.persistent)
print(network.roll_back(change.id).state)
print(network.down("v0", 0).state, network.status("v0"), network.start("v0"))
"""
    )
    assert told == [
        "kernel",
        "org.matahariproject.Network.network_changed pending",
        "pending local local False",
        "org.matahariproject.Network.network_changed rolled-back",
        "rolled-back",
        "org.matahariproject.Network.network_changed confirmed",
        "confirmed 1 0",
    ]
    assert space.addresses() == ["192.0.2.1/24"]


def test_the_first_address_stays_the_primary_one(space: Space) -> None:
    space.python("network.set_addresses('v0', ['192.0.2.8/24', '192.0.2.1/24', '203.0.113.1/32'], '', 0)")
    assert space.addresses() == ["192.0.2.8/24", "203.0.113.1/32", "192.0.2.1/24"]


def test_it_is_rolled_back_by_a_process_of_its_own(space: Space) -> None:
    space.python("network.set_mtu('v0', 1400, 1); os.kill(os.getpid(), signal.SIGKILL)")
    assert space.mtu() == 1400
    wait_for(lambda: space.mtu() == 1500)
    (record,) = wait_for(lambda: [each for each in Records(space.state).all() if each.stage.ended])
    assert record.shown.state is ChangeState.ROLLED_BACK


def test_an_agent_tells_of_a_rollback_in_time(space: Space) -> None:
    told = space.python(
        """
ended = threading.Event()
context.events.subscribe(lambda event: ended.set() if "rolled" in str(event.fields) else None)
network.set_mtu("v0", 1400, 1)
print(ended.wait(10))
"""
    )
    assert told[-2:] == ["org.matahariproject.Network.network_changed rolled-back", "True"]


def test_a_link_that_went_away_leaves_nothing_pending(space: Space) -> None:
    told = space.python(
        """
import subprocess
change = network.set_mtu("v0", 1400, 60)
subprocess.run(["ip", "link", "del", "v0"], check=True)
done = network.roll_back(change.id)
print(done.state, done.reason)
"""
    )
    assert told[-1] == "rolled-back local local asked for it; there is no network link 'v0'"


def ended(number: int) -> Record:
    return Record(
        id=f"{number:012x}",
        link="v0",
        keeper=Keeper.KERNEL,
        what="mtu 1400",
        stage=Stage.PENDING,
        time=number,
        by="local",
        persistent=False,
        confirm=60,
        boot="",
        due=0.0,
    )


def test_no_more_that_ended_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ENDED == 100
    few = 5
    monkeypatch.setattr("libmh.linux.net.netrecord.MAX_ENDED", few)
    records = Records(tmp_path)
    with records.beginning(1):
        for number in range(few + 3):
            records.step(records.put(ended(number)), Stage.CONFIRMED)
    records.put(ended(few + 3))
    assert [each.time for each in records.all()] == list(range(few + 3, 2, -1))


def test_a_record_that_is_none_is_passed_over(tmp_path: Path) -> None:
    directory = tmp_path / "network"
    directory.mkdir()
    for number, text in enumerate(["", "[]", "{", '{"id": 1}', "\0"]):
        (directory / f"{number:012x}.json").write_text(text)
    assert Records(tmp_path).all() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "x"),
        ("link", 5),
        ("saved", []),
        ("due", None),
        ("by", None),
        ("id", "../x"),
        ("confirm_by", ""),
    ],
)
def test_a_record_that_is_damaged_hides_no_other(tmp_path: Path, name: str, value: object) -> None:
    records = Records(tmp_path)
    with records.beginning(1):
        whole = records.put(ended(1))
    damaged = {**asdict(ended(2)), name: value}
    (records.directory / f"{ended(2).id}.json").write_text(json.dumps(damaged))
    assert records.all() == [whole]


def test_a_record_of_a_later_version_is_read(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with records.beginning(1):
        (records.directory / f"{ended(1).id}.json").write_text(json.dumps({**asdict(ended(1)), "more": 1}))
    assert records.all() == [ended(1)]


def test_without_a_state_directory_nothing_is_changed() -> None:
    with pytest.raises(Unavailable, match="state directory"):
        Changes(Context()).confirm("0123456789ab")
    assert Changes(Context()).list_changes() == []
