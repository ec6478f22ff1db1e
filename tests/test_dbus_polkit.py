"""The real polkitd decides, by rules that look at what is acted on; an open dialog blocks nobody."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbus_dialog import dialog, held
from dbus_serving import Serving, serving
from libmh.bus import connect
from libmh.spec import interface_of
from mh_dbus.files import polkit_policy
from probe import Probe, ProbeHost
from source_tree import ROOT
from testbed import needs
from testbed.bus import private_bus
from testbed.callers import NOBODY, as_uid, run_python_as
from testbed.child import child
from testbed.polkit import polkit_bus
from waiting import eventually, wait_for

PLACE = ("org.example.Probe", "/org/example/Probe", "org.example.Probe")
BY_UNIT = """polkit.addRule(function(action, subject) {
    if (action.id == "org.example.Probe.guarded" && action.lookup("unit") == "ok.service"
        && action.lookup("key") == "k" && action.lookup("member") == "guarded")
        return polkit.Result.YES;
});"""
ASK = """polkit.addRule(function(action, subject) {
    if (action.id == "org.example.Probe.guarded") return polkit.Result.AUTH_ADMIN;
});
polkit.addAdminRule(function(action, subject) { return ["unix-user:0"]; });"""


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("actions")
    (directory / "probe.policy").write_text(polkit_policy(interface_of(Probe)))
    return directory


def call(address: str, member: str, *arguments: str, uid: int = NOBODY, ask: bool = False) -> list[str]:
    """The command of a foreign caller: busctl."""
    busctl = needs.command("busctl", "systemd")
    flags = [f"--address={address}", f"--allow-interactive-authorization={'yes' if ask else 'no'}"]
    command = [busctl, *flags, "--timeout=20", "call", *PLACE, member, *arguments]
    return as_uid(command, uid) if uid else command


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()


def test_rules_decide_by_what_is_acted_on(actions: Path, either: str) -> None:
    with polkit_bus(actions, {"10-unit": BY_UNIT}) as polkit, serving(polkit.address, ProbeHost):
        assert run(call(polkit.address, "guarded", "sss", "ok.service", "k", "v")) == 's "ok.service k v"'
        refused = run(call(polkit.address, "guarded", "sss", "bad.service", "k", "v"))
        assert "not authorized for specified action 'org.example.Probe.guarded'" in refused
        assert run(call(polkit.address, "guarded", "sss", "bad", "k", "v", uid=0)) == 's "bad k v"'
        assert run(call(polkit.address, "blob", "u", "0")) == "as 0"  # open to everybody
        polkit.drop_rule("10-unit")
        wait_for(
            lambda: "not authorized" in run(call(polkit.address, "guarded", "sss", "ok.service", "k", ""))
        )


def test_an_open_dialog_blocks_nobody(actions: Path, either: str) -> None:
    async def case(address: str) -> None:
        command = call(address, "guarded", "sss", "u", "k", "v", ask=True)
        async with asyncio.timeout(20), held(command) as caller, dialog(address, caller) as shown:
            go(caller)
            await eventually(lambda: shown.open)
            # nobody's other calls, root's guarded ones and open ones are answered while it is open
            assert await asyncio.to_thread(run, call(address, "blob", "u", "0")) == "as 0"
            assert await asyncio.to_thread(run, call(address, "guarded", "sss", "a", "b", "c", uid=0))
            refused = await asyncio.to_thread(run, call(address, "guarded", "sss", "u", "k", "v"))
            assert "somebody has to authenticate" in refused
            await shown.agree()
            said, _ = await asyncio.to_thread(caller.communicate, None, 10)
            assert said.strip() == 's "u k v"'

    with polkit_bus(actions, {"10-ask": ASK}) as polkit, serving(polkit.address, ProbeHost):
        asyncio.run(case(polkit.address))


def test_a_caller_who_goes_away_closes_the_dialog(actions: Path, either: str) -> None:
    async def case(address: str, served: Serving) -> None:
        command = call(address, "guarded", "sss", "u", "k", "v", ask=True)
        async with asyncio.timeout(20), held(command) as caller, dialog(address, caller) as shown:
            go(caller)
            await eventually(lambda: shown.open)
            caller.kill()
            await eventually(lambda: shown.cancelled)
            await eventually(lambda: served.dispatcher.counts().outstanding == 0)

    with polkit_bus(actions, {"10-ask": ASK}) as polkit, serving(polkit.address, ProbeHost) as served:
        asyncio.run(case(polkit.address, served))


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_no_polkit_is_a_refusal(either: str) -> None:
    with private_bus() as address, serving(address, ProbeHost):
        refused = run(call(address, "guarded", "sss", "u", "k", "v"))
        assert "polkit did not allow 'org.example.Probe.guarded'" in refused
        assert run(call(address, "guarded", "sss", "u", "k", "v", uid=0)) == 's "u k v"'


FLOOD = """
import asyncio, sys
from libmh.bus import connect

async def main():
    callers = [await connect(sys.argv[1]) for _ in range(3)]
    probe = ("org.example.Probe", "/org/example/Probe", "org.example.Probe")
    waiting = [
        asyncio.ensure_future(each.call(*probe, "guarded", "sss", ["u", "k", "v"]))
        for each in callers
        for _ in range(60)
    ]
    await asyncio.sleep(0.5)
    print("flooded", flush=True)
    await asyncio.wait(waiting)

asyncio.run(main())
"""


def test_a_polkit_that_hangs_keeps_nobody_from_what_needs_no_leave(either: str) -> None:
    async def case(address: str) -> None:
        mute = await connect(address)
        mute.on_call(lambda _message: None)
        await mute.own("org.freedesktop.PolicyKit1")
        flood = as_uid([sys.executable, "-c", FLOOD, address])
        with child(flood, stdout=subprocess.PIPE) as flooding:
            assert flooding.stdout is not None
            assert await asyncio.to_thread(flooding.stdout.readline) == "flooded\n"
            for caller in (0, NOBODY):
                async with asyncio.timeout(5):
                    said = await asyncio.to_thread(run, call(address, "blob", "u", "0", uid=caller))
                assert said == "as 0"
        await mute.close()

    with private_bus() as address, serving(address, ProbeHost):
        asyncio.run(case(address))


def test_an_action_that_polkit_does_not_know_is_a_refusal(tmp_path: Path) -> None:
    with polkit_bus(tmp_path) as polkit, serving(polkit.address, ProbeHost):
        refused = run(call(polkit.address, "guarded", "sss", "u", "k", "v"))
        assert "polkit did not allow 'org.example.Probe.guarded'" in refused
        assert "not registered" in refused


def test_writing_a_property_needs_leave_and_reading_needs_none(actions: Path) -> None:
    busctl = needs.command("busctl", "systemd")
    with polkit_bus(actions) as polkit, serving(polkit.address, ProbeHost):
        base = [busctl, f"--address={polkit.address}"]
        assert run(as_uid([*base, "get-property", *PLACE, "number"])) == "u 1"
        refused = run(as_uid([*base, "set-property", *PLACE, "number", "u", "2"]))
        assert "not authorized for specified action 'org.example.Probe.number'" in refused
        assert run([*base, "set-property", *PLACE, "number", "u", "2"]) == ""
        assert run(as_uid([*base, "get-property", *PLACE, "number"])) == "u 2"


SHIPPED = ("org.matahariproject.Host", "/org/matahariproject/Host", "org.matahariproject.Host")
PROFILE = """polkit.addRule(function(action, subject) {
    if (action.id == "org.matahariproject.Host.set_power_profile" && action.lookup("profile") == "balanced")
        return polkit.Result.YES;
    if (action.id == "org.matahariproject.Host.get_uuid") return polkit.Result.YES;
});"""


def test_the_shipped_policies_work_on_a_closed_bus(tmp_path: Path) -> None:
    policies = sorted((ROOT / "packaging/dbus-1/system.d").glob("*.conf"))
    busctl = needs.command("busctl", "systemd")
    with polkit_bus(ROOT / "packaging/polkit-1/actions", {"10": PROFILE}, policies) as polkit:
        with agent(polkit.address, tmp_path):
            base = [busctl, f"--address={polkit.address}", "--allow-interactive-authorization=no"]

            def ask(*words: str) -> str:
                return run(as_uid([*base, *words]))

            assert ask("get-property", *SHIPPED, "cpu_count").startswith("u ")
            assert "get_uuid" in ask("introspect", *SHIPPED[:2])
            assert ask("call", *SHIPPED, "get_uuid", "s", "").startswith("s ")
            refused = ask("call", *SHIPPED, "set_power_profile", "s", "powersave")
            assert "not authorized for specified action" in refused
            allowed = ask("call", *SHIPPED, "set_power_profile", "s", "balanced")
            assert "not authorized" not in allowed  # whatever this machine makes of it
            assert "not authorized" in ask("call", *SHIPPED, "reboot")
        owning = "import sys, asyncio; from libmh.bus import connect\n"
        owning += "async def f(): await (await connect(sys.argv[1])).own('org.matahariproject.Host')\n"
        owning += "asyncio.run(f())"
        assert "NotAuthorized" in run_python_as(owning, polkit.address).stderr


@contextmanager
def agent(address: str, state: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """The command itself, ready."""
    command = [sys.executable, "-m", "mh_dbus.main", "--bus", address, "--state", str(state), *options]
    with child(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(f"ready: mh-dbus on {address} as "), said
        yield process
