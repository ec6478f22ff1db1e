"""A booted machine with services of every temper, and the machine as a provider sees it from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libmh.context import Context, Root
from testbed.machine import Host, booted_host

IGNORE = "trap '' TERM; touch /run/mh-deaf; while :; do sleep 0.1; done"
UNITS = {
    "runs": "[Unit]\nDescription=Runs\n[Service]\nExecStart=/bin/sleep 1000\n"
    "[Install]\nWantedBy=basic.target\n",
    "fails": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no such luck; exit 7'\n",
    "late": "[Service]\nType=exec\nExecStart=/bin/sh -c 'sleep 0.7; exit 9'\n",
    "killed": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
    "slow": "[Service]\nType=oneshot\nExecStart=/bin/sleep 30\n",
    "limited": "[Service]\nType=oneshot\nTimeoutStartSec=300ms\nExecStart=/bin/sleep 30\n",
    "needy": "[Unit]\nRequires=mh-fails.service\nAfter=mh-fails.service\n"
    "[Service]\nExecStart=/bin/sleep 1000\n",
    "unmet": "[Unit]\nConditionPathExists=/no/such\n[Service]\nExecStart=/bin/sleep 1000\n",
    "deaf": f'[Service]\nTimeoutStopSec=500ms\nExecStart=/bin/sh -c "{IGNORE}"\n',
    "forks": "[Service]\nType=forking\nExecStart=/bin/sh -c 'sleep 1000 & sleep 1001 & exit 0'\n",
    "reloads": "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/true\n",
    "many@": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true %i\n",
    "once@": "[Unit]\nConditionPathExists=/etc\n[Service]\nType=oneshot\nExecStart=/bin/true %i\n",
    "held": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    "holds": "[Unit]\nWants=mh-held.service\n[Service]\nExecStart=/bin/sleep 1000\n",
    "flaps@": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
}
FILES = {f"/etc/systemd/system/mh-{name}.service": text for name, text in UNITS.items()}


@contextmanager
def machine_with_units(name: str, more: dict[str, str] | None = None) -> Iterator[Host]:
    with booted_host(name, files=FILES | (more or {})) as host:
        yield host


def context_of(machine: Host) -> Context:
    """The machine as seen from outside: its files, and its bus among them."""
    socket = Path(machine.bus_address().removeprefix("unix:path="))
    return Context(root=Root(socket.parents[2]))
