"""Init scripts without a systemd: their codes, their children, what starts with the machine, OpenRC."""

import shutil
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from captured import put
from libmh.api.services import Action, JobResult
from libmh.context import Context, Root
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere
from libmh.linux.services import LinuxServices
from testbed import needs
from waiting import wait_for

HEADER = """### BEGIN INIT INFO
# Provides:          good
# Required-Start:    $network $syslog
# Default-Start:     2 3 4 5
# Short-Description: A good <service> & more
# Description:       It does
#                    what it should.
### END INIT INFO
"""
SCRIPT = f"""#!/bin/sh
{HEADER}
case "$1" in
start) touch "$0.running" ;;
stop) rm -f "$0.running" ;;
status) test -e "$0.running" || exit 3 ;;
restart|force-reload) exit 0 ;;
*) echo "what is $1?" >&2; exit 3 ;;
esac
"""
TOOL = '#!/bin/sh\necho "${0##*/} $*" >>/said\n'


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context(root=Root(tmp_path))
    put(made, "/etc/init.d/good", SCRIPT, mode=0o755)
    return made


def test_start_stop_and_what_they_say(context: Context) -> None:
    services = LinuxServices(context)
    assert [services.status("good", 1000), services.start("good", 1000), services.status("good", 1000)] == [
        3,
        0,
        0,
    ]
    stopped = services.act("good", Action.STOP, 1000)
    assert (stopped.unit, stopped.result, stopped.active_state) == (
        "good.service",
        JobResult.DONE,
        "inactive",
    )
    assert services.act("good", Action.RELOAD_OR_RESTART).result is JobResult.DONE
    unknown = services.reload("good")
    assert (unknown.result, unknown.exit_status) == (JobResult.FAILED, 3)
    assert unknown.reason == "the script of 'good' does not know 'reload'"
    assert [line.message for line in unknown.log or ()] == ["what is reload?"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 42])
def test_each_code_is_passed_on(context: Context, code: int) -> None:
    put(context, "/etc/init.d/odd", f"#!/bin/sh\nexit {code}\n", mode=0o755)
    services = LinuxServices(context)
    assert (services.start("odd", 1000), services.stop("odd", 1000)) == (code, code)


def test_a_signal_and_a_limit(context: Context, tmp_path: Path) -> None:
    put(context, "/etc/init.d/killed", "#!/bin/sh\nkill -9 $$\n", mode=0o755)
    put(context, "/etc/init.d/stuck", f"#!/bin/sh\nsleep 600 &\necho $! >{tmp_path}/pid\nwait\n", mode=0o755)
    services = LinuxServices(context)
    assert services.start("killed", 1000) == 194
    began = time.monotonic()
    assert services.start("stuck", 300) == 198
    assert time.monotonic() - began < 60
    child = Path("/proc", (tmp_path / "pid").read_text().strip())
    wait_for(lambda: not child.exists(), what="the script's child is gone")
    assert services.act("stuck", Action.START, 300).result is JobResult.TIMEOUT


@pytest.mark.parametrize("name", ["../../bin/true", "/bin/true", "-x", "a b", "absent", "good\0", ".."])
def test_what_is_no_script_runs_nothing(context: Context, name: str) -> None:
    services = LinuxServices(context)
    assert [services.start(name, 1000), services.enable(name), services.disable(name)] == [5, 5, 5]
    for ask in (services.restart, services.describe, services.logs, services.unit):
        with pytest.raises((NotFound, InvalidArguments)):
            ask(name)


def test_only_systemd_can(context: Context) -> None:
    services = LinuxServices(context)
    for ask in (services.mask, services.unmask, services.kill, services.reset_failed):
        with pytest.raises(NotImplementedHere, match="only systemd can"):
            ask("good")
    with pytest.raises(NotImplementedHere, match=r"none of update-rc\.d, chkconfig, insserv"):
        services.enable("good")


def test_the_header_describes(context: Context) -> None:
    services = LinuxServices(context)
    agent = ET.fromstring(services.describe("good").encode())
    assert agent.findtext("shortdesc") == "A good <service> & more"
    assert agent.findtext("longdesc") == "It does what it should."
    assert agent.findtext("special/Required-Start") == "$network $syslog"
    assert services.unit("good").requires == ["$network", "$syslog"]


def with_a_shell(context: Context) -> None:
    """A root to which one can change: a shell, and what it is linked with."""
    needs.root("change the root directory")
    shell = Path("/bin/sh").resolve()
    linked = subprocess.run(
        ["ldd", str(shell)], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    for word in ["/bin/sh", *(word for word in linked.split() if word.startswith("/"))]:
        target = context.root.path(word)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(word).resolve(), target)


@pytest.mark.parametrize(
    ("tool", "enabled", "disabled"),
    [
        (
            "update-rc.d",
            ["update-rc.d good defaults", "update-rc.d good enable"],
            ["update-rc.d good disable"],
        ),
        ("chkconfig", ["chkconfig --add good", "chkconfig good on"], ["chkconfig good off"]),
        ("insserv", ["insserv good"], ["insserv --remove good"]),
    ],
)
def test_the_distributions_tool_is_told(
    context: Context, tool: str, enabled: list[str], disabled: list[str]
) -> None:
    with_a_shell(context)
    put(context, f"/usr/sbin/{tool}", TOOL, mode=0o755)
    services = LinuxServices(context)
    assert (services.enable("good"), services.disable("good.service")) == (0, 0)
    assert context.root.path("/said").read_text().splitlines() == [*enabled, *disabled]


def test_openrc_runs_scripts_where_it_is(context: Context) -> None:
    with_a_shell(context)
    for name in ("rc-service", "rc-update"):
        put(context, f"/sbin/{name}", TOOL, mode=0o755)
    put(context, "/run/openrc/started/good", "")
    services = LinuxServices(context)
    (unit,) = services.units("good")
    assert (unit.active_state, unit.sub_state, unit.enablement) == ("active", "started", "disabled")
    assert services.units("good", "inactive") == []
    assert [services.start("good", 2000), services.enable("good"), services.disable("good")] == [0, 0, 0]
    put(context, "/etc/runlevels/default/good", "")
    assert (services.status("good", 2000), services.disable("good")) == (0, 0)
    assert context.root.path("/said").read_text().splitlines() == [
        "rc-service good start",
        "rc-update add good default",
        "rc-service good status",
        "rc-update del good default",
    ]
