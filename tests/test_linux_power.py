"""Turning off, and power profiles: daemons of a private bus, and programs of a machine that is a directory.

Nothing here can reach the machine that runs the tests: every root is a temporary directory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus_daemons import Answer, Methods, machine_with
from captured import put
from libmh.bus import variant
from libmh.context import Context, Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Unavailable
from libmh.linux.host import LinuxHost

LOGIND = "org.freedesktop.login1"
LOGIND_AT = "/org/freedesktop/login1"
PROPERTIES = "org.freedesktop.DBus.Properties"


class Logind:
    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def methods(self) -> Methods:
        def note(member: str) -> Any:
            def method(interactive: bool) -> Answer:
                self.asked.append((member, interactive))
                return "", []

            return (LOGIND_AT, f"{LOGIND}.Manager.{member}"), method

        return dict([note("PowerOff"), note("Reboot")])


def host_at(place: Path) -> LinuxHost:
    return LinuxHost(Context(root=Root(place)))


def program(place: Path, name: str, text: str = 'echo "$0 $*" >"${0%/*}/../ran"') -> Path:
    put(Context(root=Root(place)), f"/sbin/{name}", f"#!/bin/sh\n{text}\n", mode=0o755)
    return place / "ran"


def test_logind_is_asked_first_and_without_a_dialog(tmp_path: Path) -> None:
    logind = Logind()
    ran = program(tmp_path, "shutdown")
    with machine_with(tmp_path, (LOGIND, logind.methods())):
        host_at(tmp_path).shutdown()
        host_at(tmp_path).reboot()
    assert logind.asked == [("PowerOff", False), ("Reboot", False)]
    assert not ran.exists()


def test_without_logind_the_programs_of_old(tmp_path: Path) -> None:
    ran = program(tmp_path, "shutdown")
    program(tmp_path, "reboot")
    with machine_with(tmp_path):
        host_at(tmp_path).shutdown()
        assert ran.read_text().split()[1:] == ["-h", "now"]
        host_at(tmp_path).reboot()
        assert ran.read_text().split()[1:] == []


def test_without_systemd_nobody_is_asked(tmp_path: Path) -> None:
    ran = program(tmp_path, "reboot")
    host_at(tmp_path).reboot()
    assert ran.exists()


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    program(tmp_path, "reboot", "echo 'must be superuser.' >&2; exit 1")
    with pytest.raises(BackendFailed, match=r"'reboot' ended with 1: must be superuser\."):
        host_at(tmp_path).reboot()


def test_a_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    put(Context(root=Root(tmp_path)), "/sbin/reboot", "#!/no/such/interpreter\n", mode=0o755)
    with pytest.raises(BackendFailed, match="cannot be started"):
        host_at(tmp_path).reboot()


def test_nothing_can_turn_this_off(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedHere, match="neither logind nor 'shutdown'"):
        host_at(tmp_path).shutdown()


class Tuned:
    """com.redhat.tuned as tuned 2.24 answers."""

    def __init__(self, *profiles: str) -> None:
        self.profiles = list(profiles)
        self.active = "balanced"

    def methods(self) -> Methods:
        at = "/Tuned"
        control = "com.redhat.tuned.control"
        return {
            (at, f"{control}.profiles"): lambda: ("as", [self.profiles]),
            (at, f"{control}.active_profile"): lambda: ("s", [self.active]),
            (at, f"{control}.switch_profile"): self._switch,
            (at, f"{control}.disable"): self._disable,
        }

    def _switch(self, name: str) -> Answer:
        if name == "refused":
            return "(bs)", [[False, "Requested profile doesn't fit"]]
        self.active = name
        return "(bs)", [[True, "OK"]]

    def _disable(self) -> Answer:
        self.active = ""
        return "b", [True]


@pytest.fixture
def tuned(tmp_path: Path) -> Iterator[Tuned]:
    daemon = Tuned("balanced", "powersave", "refused")
    with machine_with(tmp_path, ("com.redhat.tuned", daemon.methods())):
        yield daemon


def test_profiles_of_tuned(tuned: Tuned, tmp_path: Path) -> None:
    host = host_at(tmp_path)
    assert host.list_power_profiles() == ["balanced", "powersave", "refused"]
    assert host.get_power_profile() == "balanced"
    assert host.set_power_profile("powersave") == 0
    assert host.get_power_profile() == tuned.active == "powersave"
    assert host.set_power_profile("off") == 0
    assert host.get_power_profile() == "off"
    tuned.profiles = []
    assert host.list_power_profiles() == ["off"]


@pytest.mark.parametrize("name", ["", "turbo", "-x", "balanced ", "a\nb", "x" * 5000])
def test_an_unknown_profile_is_refused(tuned: Tuned, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArguments, match="profile: expected one of balanced, powersave, refused"):
        host_at(tmp_path).set_power_profile(name)
    assert tuned.active == "balanced"


def test_what_tuned_refuses_is_told_in_its_words(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="doesn't fit"):
        host_at(tmp_path).set_power_profile("refused")
    assert tuned.active == "balanced"


NAMES = [
    ("org.freedesktop.UPower.PowerProfiles", "/org/freedesktop/UPower/PowerProfiles"),
    ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles"),
]


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_profiles_of_power_profiles_daemon(name: str, path: str, tmp_path: Path) -> None:
    active = ["balanced"]

    def get(_interface: str, member: str) -> Answer:
        if member == "ActiveProfile":
            return "v", [variant("s", active[0])]
        listed = [{"Profile": variant("s", each)} for each in ("power-saver", "balanced")]
        return "v", [variant("aa{sv}", listed)]

    def put_in(_interface: str, _member: str, value: Any) -> Answer:
        active[0] = value.value
        return "", []

    methods: Methods = {(path, f"{PROPERTIES}.Get"): get, (path, f"{PROPERTIES}.Set"): put_in}
    with machine_with(tmp_path, (name, methods), systemd=False):
        host = host_at(tmp_path)
        assert host.list_power_profiles() == ["power-saver", "balanced"]
        assert host.set_power_profile("power-saver") == 0
        assert host.get_power_profile() == active[0] == "power-saver"
        with pytest.raises(InvalidArguments):
            host.set_power_profile("off")


def test_nothing_manages_power(tmp_path: Path) -> None:
    with machine_with(tmp_path):
        host = host_at(tmp_path)
        assert host.list_power_profiles() == []
        with pytest.raises(BackendFailed, match="neither tuned nor power-profiles-daemon"):
            host.get_power_profile()
        with pytest.raises(BackendFailed, match="neither tuned nor power-profiles-daemon"):
            host.set_power_profile("balanced")


def test_no_bus_at_all(tmp_path: Path) -> None:
    assert host_at(tmp_path).list_power_profiles() == []
    with pytest.raises(BackendFailed):
        host_at(tmp_path).get_power_profile()


@pytest.mark.parametrize(
    ("member", "signature", "body"),
    [("profiles", "s", ["no list"]), ("profiles", "", []), ("active_profile", "i", [7])],
)
def test_a_daemon_that_answers_oddly(member: str, signature: str, body: list[Any], tmp_path: Path) -> None:
    methods = {
        **Tuned("x").methods(),
        ("/Tuned", f"com.redhat.tuned.control.{member}"): lambda: (signature, body),
    }
    with (
        machine_with(tmp_path, ("com.redhat.tuned", methods)),
        pytest.raises(BackendFailed, match="answered what is not expected"),
    ):
        host_at(tmp_path).get_power_profile()


def test_a_bus_that_went_away_is_unavailable(tmp_path: Path) -> None:
    logind = Logind()
    with machine_with(tmp_path, (LOGIND, logind.methods())):
        host_at(tmp_path).reboot()
    with pytest.raises((Unavailable, NotImplementedHere)):
        host_at(tmp_path).reboot()
    assert logind.asked == [("Reboot", False)]
