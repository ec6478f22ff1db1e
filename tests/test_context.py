"""What providers are given: the machine's files, and settings that outlive the process."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from libmh.context import Root, Settings, default_state, replace_file, unreadable
from libmh.errors import BackendFailed, NotAuthorized, NotImplementedHere, Problem
from testbed.child import spawn
from waiting import wait_for


def test_settings_outlive_the_process(tmp_path: Path) -> None:
    Settings(tmp_path / "settings.json").set("interval", 7)
    assert Settings(tmp_path / "settings.json").get("interval", 5) == 7


def test_two_agents_of_a_host_see_each_others_settings(tmp_path: Path) -> None:
    one, two = (Settings(tmp_path / "new" / "settings.json") for _ in range(2))
    assert two.get("interval", 5) == 5
    one.set("interval", 7)
    assert two.get("interval", 5) == 7
    two.set("mark", 1)
    assert (one.get("interval", 5), one.get("mark", 0)) == (7, 1)


def test_without_a_file_settings_are_kept_in_memory() -> None:
    settings = Settings()
    settings.set("interval", 7)
    assert settings.get("interval", 5) == 7


WRITER = """
import sys
from pathlib import Path
from libmh.context import Settings
settings = Settings(Path(sys.argv[1]))
for number in range(40):
    settings.set(f"{sys.argv[2]}{number}", number)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    command = [sys.executable, "-c", WRITER, str(file)]
    writers = [spawn([*command, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(json.loads(file.read_text())) == 120


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings.json")
    threads = [threading.Thread(target=settings.set, args=(f"k{number}", number)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(json.loads((tmp_path / "settings.json").read_text())) == 20


HALF_WAY = """
import os, signal, sys
from pathlib import Path
from libmh.context import Settings
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
Settings(Path(sys.argv[1])).set("interval", 9)
"""


def test_a_process_killed_half_way_leaves_the_old_values(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    Settings(file).set("interval", 7)
    done = subprocess.run([sys.executable, "-c", HALF_WAY, str(file)], timeout=20)
    assert done.returncode == -signal.SIGKILL
    assert Settings(file).get("interval", 5) == 7
    assert len(list(tmp_path.iterdir())) == 2
    Settings(file).set("interval", 8)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_whoever_reads_while_others_write_sees_old_or_new(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    Settings(file).set("a0", 0)
    writer = spawn([sys.executable, "-c", WRITER, str(file), "a"])
    reader = Settings(file)
    wait_for(lambda: reader.get("a39", None) == 39, 30)
    assert writer.wait(20) == 0


@pytest.mark.parametrize("text", ["{", "[1", "\udcff", '{"a": ', "[" * 100_000], ids=range(5))
def test_a_broken_file_says_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(BackendFailed, match="cannot read the settings in"):
        Settings(file).get("interval", 5)


@pytest.mark.parametrize("value", ["7", True, -1, 2**32, 1.5, None, [1]])
def test_what_is_no_number_of_32_bits_counts_as_absent(tmp_path: Path, value: object) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"interval": value}))
    assert Settings(file).number("interval", 5) == 5


def test_a_disk_that_refuses_leaves_the_old_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path / "settings.json")
    settings.set("interval", 7)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BackendFailed, match=r"cannot write the settings in .*No space left"):
            settings.set("interval", 9)
    assert settings.get("interval", 5) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(tmp_path / "file" / "settings.json")
    with pytest.raises(BackendFailed, match="cannot write the settings in"):
        settings.set("interval", 7)


def test_a_lock_that_is_not_released_ends_in_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmh.settings.LOCK_SECONDS", 0.05)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(BackendFailed, match=r"another process keeps .* locked"):
            Settings(tmp_path / "settings.json").set("interval", 7)
    finally:
        os.close(directory)
    Settings(tmp_path / "settings.json").set("interval", 7)


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    replace_file(file, "new", 0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/home/u/state"}, "/home/u/state/matahari"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/matahari"),
    ],
)
def test_where_state_is_kept(
    environment: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state() == path
    if "STATE_DIRECTORY" not in environment:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert default_state() == "/var/lib/matahari"


def test_a_root_is_read_below(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "name").write_bytes(b" h\xff1 \n")
    root = Root(tmp_path)
    assert root.path("/etc/name") == tmp_path / "etc" / "name"
    assert root.read("/etc/name") == " h\ufffd1 \n"
    assert root.read("/etc/name", 2) == " h"
    assert root.read_optional("/etc/name") == "h\ufffd1"
    assert root.read_optional("/etc/other") is None
    with pytest.raises(NotImplementedHere, match="'/etc/other' does not exist here"):
        root.read("/etc/other")
    with pytest.raises(BackendFailed, match="cannot read '/etc': Is a directory"):
        root.read("/etc")


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOENT, NotImplementedHere),
        (errno.ENOTDIR, NotImplementedHere),
        (errno.ENXIO, NotImplementedHere),
        (errno.EACCES, NotAuthorized),
        (errno.EPERM, NotAuthorized),
        (errno.EIO, BackendFailed),
    ],
)
def test_what_the_kernel_says_becomes_a_problem(number: int, problem: type[Problem]) -> None:
    met = unreadable("/a", OSError(number, os.strerror(number)))
    assert type(met) is problem
    assert "'/a'" in met.message
    assert met.details == {"source": "/a"}


def test_a_damaged_file_makes_room_for_the_next_setting(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text("{broken")
    with pytest.raises(BackendFailed, match="cannot read the settings"):
        Settings(file).get("a", 1)
    Settings(file).set("a", 2)
    assert Settings(file).get("a", 1) == 2
    assert (tmp_path / "settings.json.damaged").read_text() == "{broken"
