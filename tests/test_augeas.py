"""The scheme `augeas` against the real libaugeas: its forecast is the edit that was asked for, whole."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Timeout
from libmh.linux.config import augeasline, augeastext, contents, lenses
from libmh.linux.config.augeas import Augeas
from libmh.linux.config.augeasline import Workers
from libmh.linux.config.lenses import COMMONEST, expression
from libmh.schemes import Edit, Forecast
from source_tree import ROOT
from testbed import needs
from testbed.machine import booted_host
from waiting import wait_for

SECONDS = 20.0
HOSTS = "# who is who\n127.0.0.1\tlocalhost   loopback # here\n\n::1 ip6-localhost\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Augeas]:
    """Over a root of its own: only what does not depend on files."""
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    augeas = Augeas(Root())
    yield augeas
    augeas.close()


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "hosts").write_text(HOSTS)
    return directory


@pytest.fixture
def augeas(tmp_path: Path) -> Iterator[Augeas]:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    made = Augeas(Root(tmp_path))
    yield made
    made.close()


def put(root: Path, path: str, text: str) -> None:
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).write_text(text)


EDITS = [
    ("/etc/hosts", HOSTS, "set /files/etc/hosts/1/ipaddr 127.0.0.9", "127.0.0.1\t", "127.0.0.9\t"),
    (
        "/etc/ssh/sshd_config",
        "# c\nPort   22\nPermitRootLogin yes\nMatch User x\n  X11Forwarding no\n",
        "set /files/etc/ssh/sshd_config/PermitRootLogin no",
        "PermitRootLogin yes",
        "PermitRootLogin no",
    ),
    (
        "/etc/sysctl.conf",
        "# a\nnet.ipv4.ip_forward=0\n ; b\nvm.swappiness  =  60\n",
        "set /files/etc/sysctl.conf/vm.swappiness 10",
        "=  60",
        "=  10",
    ),
    (
        "/etc/fstab",
        "# x\nUUID=a  /  ext4\tdefaults,noatime 0 1\nproc /proc proc nosuid 0 0\n",
        "set /files/etc/fstab/*[file='/']/passno 2",
        "0 1",
        "0 2",
    ),
    (
        "/etc/resolv.conf",
        "# by hand\nnameserver 192.0.2.1\noptions timeout:1\n",
        "set /files/etc/resolv.conf/nameserver 192.0.2.2",
        "192.0.2.1",
        "192.0.2.2",
    ),
    (
        "/etc/chrony/chrony.conf",
        "pool a.example  iburst\n# k\nmakestep 1 3\n",
        "set /files/etc/chrony/chrony.conf/pool b.example",
        "a.example",
        "b.example",
    ),
    (
        "/etc/sudoers",
        "Defaults  env_reset\n# who\nroot ALL=(ALL:ALL)  ALL\n",
        "set /files/etc/sudoers/spec/user admin",
        "root ALL",
        "admin ALL",
    ),
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nx:x:9:9::/:/bin/sh\n",
        "set /files/etc/passwd/root/shell /bin/sh",
        "/bin/bash",
        "/bin/sh",
    ),
    (
        "/etc/logrotate.d/apt",
        "# l\n/var/log/apt/term.log {\n  rotate 12\n    monthly\n}\n",
        "set /files/etc/logrotate.d/apt/rule/rotate 4",
        "12",
        "4",
    ),
    (
        "/etc/pam.d/login",
        "auth   required  pam_unix.so  nullok\n# p\n@include common-auth\n",
        "set /files/etc/pam.d/login/1/control sufficient",
        "required",
        "sufficient",
    ),
    (
        "/etc/puppet/puppet.conf",
        "[main]\n# c\nserver = a.example\n[agent]\nnoop=true\n",
        "set /files/etc/puppet/puppet.conf/agent/noop false",
        "noop=true",
        "noop=false",
    ),
    (
        "/etc/php/8.2/cli/php.ini",
        "[PHP]\n; m\nmemory_limit =  128M\nshort_open_tag=Off\n",
        "set /files/etc/php/8.2/cli/php.ini/PHP/memory_limit 256M",
        "128M",
        "256M",
    ),
]


@pytest.mark.parametrize(("path", "text", "command", "old", "new"), EDITS, ids=[each[0] for each in EDITS])
def test_an_edit_changes_what_it_says_and_no_other_byte(
    augeas: Augeas, tmp_path: Path, path: str, text: str, command: str, old: str, new: str
) -> None:
    put(tmp_path, path, text)
    assert text.count(old) == 1
    after = text.replace(old, new).encode()
    forecast = augeas.forecast(f"{command}\nsave\n", SECONDS)
    assert forecast.edits == (Edit(path, text.encode(), after),)
    assert forecast.saves
    assert forecast.exact
    assert (tmp_path / path.lstrip("/")).read_text() == text  # it was looked at only
    assert augeas.forecast(command, SECONDS) == Forecast(forecast.edits, "", saves=False)


def test_what_a_text_prints_is_what_augeas_prints(augeas: Augeas, etc: Path) -> None:
    text = (
        "get /files/etc/hosts/1/ipaddr\nmatch etc/hosts/*/canonical localhost\nget /files/etc/hosts/7\nsave"
    )
    told = "/files/etc/hosts/1/ipaddr = 127.0.0.1\n/files/etc/hosts/1/canonical\n/files/etc/hosts/7 (o)\n"
    assert augeas.forecast(text, SECONDS) == Forecast((), told)


def test_what_follows_the_last_save_is_not_written(augeas: Augeas, etc: Path) -> None:
    first = "set /files/etc/hosts/1/ipaddr 10.0.0.1\nsave\n"
    text = f"{first}set /files/etc/hosts/1/ipaddr 10.0.0.2\nprint /files/etc/hosts/1/ipaddr"
    forecast = augeas.forecast(text, SECONDS)
    assert forecast.edits[0].after == HOSTS.replace("127.0.0.1", "10.0.0.1").encode()
    assert forecast.output == 'Saved 1 file(s)\n/files/etc/hosts/1/ipaddr = "10.0.0.2"\n'
    undone = "set /files/etc/hosts/1/ipaddr 10.0.0.1\nload\nsave"
    assert augeas.forecast(undone, SECONDS).edits == ()


def test_files_are_made_and_removed(augeas: Augeas, etc: Path) -> None:
    made = augeas.forecast("set /files/etc/sysctl.d/9-x.conf/vm.swappiness 1\nsave", SECONDS)
    assert made.edits == (Edit("/etc/sysctl.d/9-x.conf", None, b"vm.swappiness = 1\n"),)
    assert augeas.forecast("rm /files/etc/hosts\nsave", SECONDS).edits == (
        Edit("/etc/hosts", HOSTS.encode(), None),
    )
    numbered = "set /files/etc/hosts/01/ipaddr 10.0.0.1\nset /files/etc/hosts/01/canonical new\nsave"
    assert augeas.forecast(numbered, SECONDS).edits[0].after == HOSTS.encode() + b"10.0.0.1\tnew\n"


def test_a_link_is_followed_and_never_out_of_the_root(augeas: Augeas, etc: Path, tmp_path: Path) -> None:
    (etc / "resolv.conf").symlink_to("/run/../run/resolv")
    put(tmp_path, "/run/resolv", "nameserver 192.0.2.1\n")
    text = "set /files/etc/resolv.conf/nameserver 192.0.2.2\nsave"
    assert augeas.forecast(text, SECONDS).edits == (
        Edit("/run/resolv", b"nameserver 192.0.2.1\n", b"nameserver 192.0.2.2\n"),
    )
    (etc / "hosts").unlink()
    (etc / "hosts").symlink_to("../../../../../../etc/hostname")
    assert contents.resolve(Root(tmp_path), "/etc/hosts") == "/etc/hostname"
    (etc / "fstab").symlink_to("fstab")
    with pytest.raises(BackendFailed, match="round in circles"):
        augeas.query("/files/etc/fstab/1/file")


def test_a_file_is_changed_under_one_name(augeas: Augeas, etc: Path, tmp_path: Path) -> None:
    put(tmp_path, "/etc/sysctl.d/1.conf", "a=1\n")
    (etc / "sysctl.d/2.conf").symlink_to("1.conf")
    with pytest.raises(BackendFailed, match="two names of one file"):
        augeas.forecast("setm /files/etc/sysctl.d/* a 3\nsave", SECONDS)
    assert len(augeas.forecast("set /files/etc/sysctl.d/2.conf/a 3\nsave", SECONDS).edits) == 1


def test_many_ask_at_once(augeas: Augeas, etc: Path) -> None:
    paths = [f"/files/etc/hosts/{number % 2 + 1}/ipaddr" for number in range(60)]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(augeas.query, paths))
    assert answers == ["127.0.0.1", "::1"] * 30
    assert len(augeas._workers._idle) <= augeasline.MAX_WORKERS


SANDBOXED = """
from libmh.context import Root
from libmh.linux.config.augeas import Augeas
augeas = Augeas(Root())
print(augeas.query("/files/etc/hosts/1/ipaddr"))
print(augeas.forecast("set /files/etc/hosts/1/ipaddr 10.0.0.1\\nsave", 20).edits[0].after.decode())
"""


def test_it_works_in_the_agents_sandbox() -> None:
    unit = (ROOT / "packaging/systemd/mh-dbus.service").read_text()
    kept = (
        "Capability",
        "Device",
        "IPAddress",
        "Keyring",
        "Lock",
        "Memory",
        "NoNew",
        "Restrict",
        "SystemCall",
    )
    sandbox = [f"--property={line}" for line in unit.splitlines() if line.startswith((*kept, "Tasks"))]
    with booted_host("augeas", files={"/etc/ask.py": SANDBOXED}) as host:
        run = ("systemd-run", "--quiet", "--pipe", "--wait", *sandbox)
        done = host.run(*run, sys.executable, "/etc/ask.py", check=False)
        assert done.stdout.startswith("127.0.0.1\n10.0.0.1 "), done.stderr


def test_bytes_that_are_no_utf_8_stay(augeas: Augeas, etc: Path) -> None:
    (etc / "hosts").write_bytes(b"# caf\xe9\n127.0.0.1 a\n")
    forecast = augeas.forecast("set /files/etc/hosts/1/canonical b\nsave", SECONDS)
    assert forecast.edits == (Edit("/etc/hosts", b"# caf\xe9\n127.0.0.1 a\n", b"# caf\xe9\n127.0.0.1 b\n"),)
    assert augeas.query("/files/etc/hosts/#comment") == "caf\ufffd"


def test_a_file_that_its_lens_cannot_parse_is_named_with_the_place(augeas: Augeas, etc: Path) -> None:
    (etc / "hosts").write_text("127.0.0.1 a\n10.0.0.1\n")
    with pytest.raises(BackendFailed, match=r"'/etc/hosts' cannot be parsed by .* at line 2") as failed:
        augeas.forecast("set /files/etc/hosts/1/ipaddr 10.0.0.2\nsave", SECONDS)
    assert failed.value.details["line"] == "2"
    assert failed.value.details["file"] == "/etc/hosts"
    with pytest.raises(BackendFailed, match="cannot be parsed"):
        augeas.settings("/etc/hosts")


def test_a_tree_that_no_file_can_say_changes_nothing(augeas: Augeas, etc: Path) -> None:
    with pytest.raises(BackendFailed, match="'/etc/hosts' would not be valid") as failed:
        augeas.forecast("set /files/etc/hosts/1/secret hunter2\nsave", SECONDS)
    assert "hunter2" not in str(failed.value)
    with pytest.raises(NotImplementedHere, match="no lens of augeas is for '/etc/nothing'"):
        augeas.forecast("set /files/etc/nothing 1\nsave", SECONDS)


def test_a_lens_can_be_named_and_may_be_the_wrong_one(augeas: Augeas, etc: Path) -> None:
    (etc / "mine").write_text("a = 1\n")
    text = "transform {} incl /etc/mine\nload\nset /files/etc/mine/a 2\nsave"
    assert augeas.forecast(text.format("Sysctl"), SECONDS).edits[0].after == b"a = 2\n"
    with pytest.raises(BackendFailed, match="Hosts"):
        augeas.forecast(text.format("Hosts.lns"), SECONDS)
    with pytest.raises(InvalidArguments, match="there is no lens 'Nonesuch"):
        augeas.forecast(text.format("@Nonesuch"), SECONDS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("get /files/etc/hosts/1\nfrobnicate", "line 2: 'frobnicate' is no command"),
        ("dump-xml /files /tmp/x", "line 1: 'dump-xml' is not run here"),
        ("\n# x\nset /files/etc/hosts/[ 1", "line 3: .*unmatched"),
        ("set /files/etc/hosts/*/ipaddr 1", "line 1: Too many matches"),
        ("set /files/etc/../../x 1", "line 1: .* leads upwards"),
        ("load-file ../x", "line 1: .* leads upwards"),
        ("transform Hosts.lns incl /etc/*", "line 1: expected 'transform LENS incl FILE'"),
        ("set /files/etc/hosts/1/ipaddr 1\0", "without NUL"),
        ("set /files/" + "[" * 100 + "]" * 100, "more than 32 deep"),
        ("get /files/" + "a" * 70000, "line 1: expected at most"),
        ("#\n" * 100_001, "at most 100000 lines"),
        ("x" * (17 << 20), "at most 16 MiB"),
    ],
    ids=range(12),
)
def test_a_hostile_text_is_refused_with_its_line(shared: Augeas, text: str, told: str) -> None:
    with pytest.raises(InvalidArguments, match=told):
        shared.forecast(text, SECONDS)


def test_no_text_makes_the_process_write(augeas: Augeas, etc: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    into = f"set /augeas/root {tmp_path}/\nset /augeas/save backup\n"
    assert augeas.forecast(f"{into}set /files/etc/hosts/1/ipaddr 1.1.1.1\nsave\nsave", SECONDS).saves
    assert sorted(tmp_path.rglob("*")) == before
    assert (etc / "hosts").read_text() == HOSTS


def test_what_is_no_text_is_left_alone(augeas: Augeas, etc: Path) -> None:
    (etc / "hosts").write_bytes(b"127.0.0.1 a\n\0")
    with pytest.raises(BackendFailed, match="NUL"):
        augeas.query("/files/etc/hosts/1/ipaddr")
    (etc / "hosts").unlink()
    os.mkfifo(etc / "hosts")
    with pytest.raises(BackendFailed, match="no regular file"):
        augeas.query("/files/etc/hosts/1/ipaddr")
    (etc / "fstab").write_bytes(b"#" * ((16 << 20) + 1))
    with pytest.raises(BackendFailed, match="16 MiB"):
        augeas.query("/files/etc/fstab/1/file")


def test_a_query_is_answered_with_a_value_or_unknown(augeas: Augeas, etc: Path) -> None:
    assert augeas.query("/files/etc/hosts/1/ipaddr") == "127.0.0.1"
    assert augeas.query("/files/etc/hosts/*[alias='loopback']/canonical") == "localhost"
    assert augeas.query("etc/hosts/2/ipaddr") == "::1"
    unknown = (
        "/files/etc/hosts/*/ipaddr",
        "/files/etc/hosts/9",
        "/files/etc/hosts/1",
        "/files/etc/fstab/1",
        "/[",
        "",
    )
    assert {path: augeas.query(path) for path in unknown} == dict.fromkeys(unknown, "unknown")


def test_a_pattern_over_files_finds_each_that_a_lens_is_for(
    augeas: Augeas, etc: Path, tmp_path: Path
) -> None:
    put(tmp_path, "/etc/sysctl.d/1.conf", "a=1\n")
    put(tmp_path, "/etc/sysctl.d/2.conf", "b=2\n")
    put(tmp_path, "/etc/sysctl.d/.3.conf", "b=2\n")
    put(tmp_path, "/etc/sysctl.d/broken.conf", "=\n")
    assert augeas.query("/files/etc/sysctl.d/*/b") == "2"
    assert augeas.query("//canonical[. = 'localhost']") == "localhost"
    edits = augeas.forecast("set /files/etc/sysctl.d/*/a 3\nsave", SECONDS).edits
    assert [(edit.path, edit.after) for edit in edits] == [("/etc/sysctl.d/1.conf", b"a=3\n")]


def test_settings_are_nodes_with_what_is_below_them(augeas: Augeas, etc: Path) -> None:
    found = augeas.settings("/etc/hosts", "*[canonical='localhost']")
    assert [(each.path.removeprefix("/files/etc/hosts/"), each.value) for each in found] == [
        ("1", None),
        ("1/ipaddr", "127.0.0.1"),
        ("1/canonical", "localhost"),
        ("1/alias", "loopback"),
        ("1/#comment", "here"),
    ]
    assert len(augeas.settings("/etc/hosts")) == 9
    assert augeas.settings("/etc/hosts", "nothing") == []
    for file in ("/etc/fstab", "/etc/of-no-lens"):
        with pytest.raises(NotImplementedHere):
            augeas.settings(file)
    for file, key in (
        ("etc/hosts", ""),
        ("/etc/../x", ""),
        ("/etc/hosts", "/x"),
        ("/etc/hosts", "a\nb"),
        ("/etc/hosts", "../x"),
    ):
        with pytest.raises(InvalidArguments):
            augeas.settings(file, key)


@pytest.mark.parametrize(
    "value", ['a "b" c', "it's", "back\\slash \\t", "[x] y", "tab\there", "{}|$&;# x", "é", ""]
)
def test_any_value_can_be_set(augeas: Augeas, etc: Path, tmp_path: Path, value: str) -> None:
    put(tmp_path, "/etc/puppet/puppet.conf", "[main]\na=1\n")
    text = (
        augeas.setting_text("/etc/puppet/puppet.conf", "main/a", value)
        + "get /files/etc/puppet/puppet.conf/main/a\n"
    )
    if not value:  # the lens has no place for it
        with pytest.raises(BackendFailed, match="would not be valid"):
            augeas.forecast(text, SECONDS)
    else:
        assert augeas.forecast(text, SECONDS).output.endswith(f"main/a = {value}\n")


def test_a_value_that_no_command_can_say_is_refused(augeas: Augeas, etc: Path) -> None:
    for value in ("a\nb", "a]", "\x1b"):
        with pytest.raises(InvalidArguments, match="the value has"):
            augeas.setting_text("/etc/hosts", "1/canonical", value)
    with pytest.raises(InvalidArguments, match="expected the key"):
        augeas.setting_text("/etc/hosts", "", "1")
    removed = augeas.setting_text("/etc/hosts", "2", None)
    assert (
        augeas.forecast(removed, SECONDS).edits[0].after == HOSTS.replace("::1 ip6-localhost\n", "").encode()
    )


def test_a_key_of_sshd_is_set_where_it_counts(augeas: Augeas, etc: Path, tmp_path: Path) -> None:
    file = "/etc/ssh/sshd_config"
    put(tmp_path, file, "permitrootlogin yes\nMatch User x\n  X11Forwarding no\n")
    set_there = augeas.forecast(augeas.setting_text(file, "PermitRootLogin", "no"), SECONDS)
    assert set_there.edits[0].after == b"permitrootlogin no\nMatch User x\n  X11Forwarding no\n"
    made = augeas.forecast(augeas.setting_text(file, "UseDNS", "no"), SECONDS)
    assert made.edits[0].after == b"permitrootlogin yes\nUseDNS no\nMatch User x\n  X11Forwarding no\n"


def test_the_process_ends_with_its_request_and_another_takes_its_place(augeas: Augeas, etc: Path) -> None:
    nested = "/files/etc/hosts/*" + "[ipaddr" * 30 + "]" * 30
    assert augeas.query(nested) == "unknown"
    with pytest.raises((Timeout, BackendFailed)):
        augeas.forecast("set /files/etc/hosts/1/ipaddr 1.1.1.1\n" * 30_000 + "save", 0.05)
    assert augeas.query("/files/etc/hosts/1/ipaddr") == "127.0.0.1"


def test_a_process_that_dies_costs_one_answer() -> None:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    workers = Workers()
    deep = {"do": "read", "path": "/files/a" + "[a" * 300_000, "files": []}
    with pytest.raises(BackendFailed, match="broke down"):
        workers.ask(deep, SECONDS)
    fine = {"do": "read", "path": "/augeas/version", "files": []}
    assert workers.ask(fine, SECONDS)["found"][0][0] == "/augeas/version"
    (worker,) = workers._idle
    os.kill(worker._pid, 9)
    wait_for(lambda: not worker.ready)
    assert "found" in workers.ask(fine, SECONDS)
    workers.close()


def test_a_process_ends_when_it_is_idle_or_its_parent_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    own = "from libmh.linux.config.augeasline import Worker; w = Worker(); w.ask({'do': 'index'}, 20)"
    program = f"import os; {own}; print(w._pid, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    wait_for(lambda: not Path(f"/proc/{done.stdout.strip()}/fd/0").exists())
    start = augeasline.START.replace("augeasworker.main", "augeasworker.IDLE = 0.05; augeasworker.main")
    monkeypatch.setattr(augeasline, "START", start)
    worker = augeasline.Worker()
    wait_for(lambda: not worker.ready)
    worker.end()


EVERY = """
help
info
set /files/etc/hosts/1/ipaddr 10.0.0.1
setm /files/etc/hosts/* alias x
clear /x/y
clearm /x y
touch /x/z
defvar first /files/etc/hosts/1
defnode made /x/made 5
get $made
label $first
ls /files/etc/hosts
match /files/etc/hosts/*
count /files/etc/hosts/*
print $first
source $first
ins canonical before /x/made
insert canonical after /x/made
mv /x/made /x/moved
move /x/moved /x/made
cp /x/made /x/copied
copy /x/made /x/copy
rename /x/copy other
rm /x
context /files/etc
get hosts/1/ipaddr
set /text "10.9.8.7 given\\n"
store Hosts.lns /text /stored
get /stored/1/canonical
retrieve Hosts.lns /text /stored /given
get /given
load-file /etc/hosts
errors
load
save
quit
nothing comes of this
"""


def test_every_command_that_is_taken_is_one(augeas: Augeas, etc: Path) -> None:
    verbs = {line.partition(" ")[0] for line in EVERY.strip().splitlines()[:-1]}
    assert verbs | {"transform"} == set(augeastext.COMMANDS)
    forecast = augeas.forecast(EVERY.replace("nothing comes", "get"), SECONDS)
    assert forecast.edits == ()
    for told in (
        "made = 5",
        "hosts/1/ipaddr = 10.0.0.1",
        "canonical = given",
        "= 10.9.8.7 given",
        "rm : /x ",
    ):
        assert told in forecast.output


def test_where_libaugeas_is_missing_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    start = augeasline.START.replace(
        "augeasworker.main", "augeasworker.LIBRARY = 'libnone.so'; augeasworker.main"
    )
    monkeypatch.setattr(augeasline, "START", start)
    with pytest.raises(NotImplementedHere, match="apt-get install libaugeas0") as failed:
        Augeas(Root()).query("/augeas/version")
    assert failed.value.details["package"] == "libaugeas0"


def test_the_table_of_files_says_what_libaugeas_says(shared: Augeas) -> None:
    known = shared._lenses.all()
    asked = {path: next((lens.name for lens in known if lens.takes(path)), "") for path in COMMONEST}
    assert {path: (name, COMMONEST[path]) for path, name in asked.items() if name != COMMONEST[path]} == {}
    assert len(known) > 200


def test_what_the_lenses_are_for_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask() -> object:
        asked.append(1)
        return [["Foo", ["/etc/foo/*.conf", "/etc/bar"], ["*.bak", "/etc/foo/x*"]], "nonsense"]

    monkeypatch.setattr(lenses, "DIRECTORIES", (str(tmp_path / "lenses"),))
    (tmp_path / "lenses").mkdir()
    for _ in range(2):
        known = lenses.Lenses(ask, tmp_path)
        names = ("/etc/foo/a.conf", "/etc/foo/a/b.conf", "/etc/foo/.a.conf", "/etc/foo/x.conf", "/etc/bar")
        assert [known.of(name) for name in names] == ["Foo.lns", None, None, None, "Foo.lns"]
    assert len(asked) == 1
    (tmp_path / "lenses" / "new.aug").touch()
    assert known.of("/etc/bar") == "Foo.lns"
    assert len(asked) == 2
    (tmp_path / lenses.FILE).write_text("{")
    assert lenses.Lenses(ask, tmp_path).of("/etc/bar") == "Foo.lns"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("/a/*.conf", "/a/b.conf", "/a/b/c.conf"),
        ("/a/[!.]*", "/a/b", "/a/.b"),
        ("/a/?", "/a/b", "/a/."),
        ("/a/b\\*", "/a/b*", "/a/bc"),
        ("/a/[a-c]]", "/a/b]", "/a/d]"),
    ],
)
def test_patterns_are_those_of_glob(pattern: str, fits: str, not_fits: str) -> None:
    made = expression(pattern, separate=True)
    assert made.fullmatch(fits)
    assert not made.fullmatch(not_fits)


def test_paths_are_told_from_values() -> None:
    parsed = augeastext.parse(
        "set /files/etc/hosts/1 /files/etc/passwd\ndefvar x '/files/etc/fstab/*[file = \"/\"]'\nrm $x\n"
    )
    assert {reach.labels for reach in parsed.reaches} == {("etc", "hosts", "1"), ("etc", "fstab")}
    within = "match /files/etc/group/*[gid = /files/etc/passwd/root/gid]"
    assert {reach.labels for reach in augeastext.parse(within).reaches} == {
        ("etc", "group"),
        ("etc", "passwd", "root", "gid"),
    }
