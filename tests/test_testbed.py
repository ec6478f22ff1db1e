"""The test bed itself: what the other tests stand on must be what it says."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from testbed import callers
from testbed.bus import bus_daemon, private_bus
from testbed.polkit import polkit_bus
from waiting import eventually, wait_for

ACTION = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <action id="org.example.write">
    <description>Write</description><message>Authentication is required</message>
    <defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults>
  </action>
</policyconfig>
"""
RULE = """polkit.addRule(function(action, subject) {
    if (action.id == "org.example.write" && action.lookup("unit") == "ok") return polkit.Result.YES;
});"""
POLICY = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><policy user="root"><allow own="org.example.Root"/></policy></busconfig>
"""


def call(address: str, member: str, *arguments: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """One call to the bus itself."""
    where = [
        f"--bus={address}",
        "--print-reply=literal",
        "--dest=org.freedesktop.DBus",
        "/org/freedesktop/DBus",
    ]
    command = ["dbus-send", *where, f"org.freedesktop.DBus.{member}", *arguments]
    wanted = callers.as_uid(command, uid) if uid else command
    return subprocess.run(wanted, capture_output=True, text=True, timeout=10, check=False)


def test_private_bus_answers_every_uid() -> None:
    with private_bus() as address:
        for uid in (0, callers.NOBODY):
            answer = call(address, "RequestName", f"string:org.example.U{uid}", "uint32:4", uid=uid)
            assert (answer.returncode, answer.stdout.split()) == (0, ["uint32", "1"]), answer.stderr


def test_policies_close_the_bus(tmp_path: Path) -> None:
    policy = tmp_path / "org.example.conf"
    policy.write_text(POLICY)
    with private_bus([policy]) as address:
        assert call(address, "RequestName", "string:org.example.Root", "uint32:4").returncode == 0
        assert "AccessDenied" in call(address, "RequestName", "string:org.example.Else", "uint32:4").stderr
        refused = call(address, "RequestName", "string:org.example.Root", "uint32:4", uid=callers.NOBODY)
        assert "AccessDenied" in refused.stderr


def test_bus_comes_back_at_the_same_address() -> None:
    with bus_daemon() as daemon:
        address = daemon.address
        daemon.stop()
        assert call(address, "GetId").returncode != 0
        daemon.start()
        assert call(daemon.address, "GetId").returncode == 0
        assert daemon.address == address


def test_bus_with_a_broken_policy_is_reported(tmp_path: Path) -> None:
    policy = tmp_path / "broken.conf"
    policy.write_text("<busconfig><policy>")
    with pytest.raises(RuntimeError, match="before it was ready"), private_bus([policy]):
        pass


def test_python_runs_as_another_uid() -> None:
    snippet = """
        import os, sys
        import dbus_next, email.mime.text
        print(os.getuid(), os.geteuid(), os.getgroups(), sys.argv[1:])
    """
    done = callers.run_python_as(snippet, "a b")
    assert done.stdout == "65534 65534 [] ['a b']\n", done.stderr


def pkcheck(address: str, *, unit: str, uid: int) -> int:
    """What polkit says of a process of that uid, asked by root; 0 is yes."""
    with subprocess.Popen(callers.as_uid(["sleep", "60"], uid)) as subject:
        wait_for(lambda: Path(f"/proc/{subject.pid}/comm").read_text() == "sleep\n")
        started = Path(f"/proc/{subject.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        which = [
            "--action-id",
            "org.example.write",
            "--process",
            f"{subject.pid},{started},{uid}",
            "--detail",
            "unit",
            unit,
        ]
        env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
        try:
            return subprocess.run(
                ["pkcheck", *which], env=env, timeout=10, check=False, capture_output=True
            ).returncode
        finally:
            subject.kill()


def test_polkit_decides_by_rule_and_detail(tmp_path: Path) -> None:
    (tmp_path / "org.example.policy").write_text(ACTION)
    with polkit_bus(tmp_path, {"10-example": RULE}) as polkit:
        assert pkcheck(polkit.address, unit="ok", uid=callers.NOBODY) == 0
        assert pkcheck(polkit.address, unit="other", uid=callers.NOBODY) == 1
        assert pkcheck(polkit.address, unit="other", uid=0) == 0
        polkit.drop_rule("10-example")
        assert wait_for(lambda: pkcheck(polkit.address, unit="ok", uid=callers.NOBODY) == 1)


def test_wait_for_names_what_did_not_come() -> None:
    with pytest.raises(TimeoutError, match=r"the moon did not come true within 0\.05 s, last seen: 0"):
        wait_for(lambda: 0, seconds=0.05, what="the moon")
    with pytest.raises(TimeoutError, match=r"the sun did not come true within 0\.05 s"):
        asyncio.run(eventually(lambda: asyncio.sleep(0, False), seconds=0.05, what="the sun"))


def test_waiting_gives_back_what_came() -> None:
    seen = iter([0, 0, 7])
    assert wait_for(lambda: next(seen)) == 7
    late = iter([None, "x"])
    assert asyncio.run(eventually(lambda: next(late))) == "x"
