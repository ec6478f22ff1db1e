"""The record of configuration runs: the ancestor's key store and mark."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captured import put
from libmh.context import Context, Root, Settings
from libmh.errors import BackendFailed
from libmh.linux.sysconfig import LinuxSysconfig
from testbed.callers import run_python_as

STORE = "/var/lib/matahari/sysconfig-keys"


@pytest.mark.parametrize("status", ["OK", "OK\nout", "FAILED\n1", "FAILED\n2\nout\n", "ERROR"])
def test_status_is_the_text_that_was_kept(status: str, tmp_path: Path) -> None:
    context = Context(root=Root(tmp_path))
    put(context, f"{STORE}/post-boot_1.2", status)
    assert LinuxSysconfig(context).is_configured("post-boot_1.2") == status


@pytest.mark.parametrize("key", ["absent", "", ".hidden", "../secret", "a/b", "a b", "a\0b", "x" * 256, "-"])
def test_what_is_not_kept_or_not_a_key_is_unknown(key: str, tmp_path: Path) -> None:
    context = Context(root=Root(tmp_path))
    put(context, f"{STORE}/empty", "")
    put(context, "/var/lib/matahari/secret", "no business of anybody")
    put(context, f"{STORE}/.hidden", "OK")
    sysconfig = LinuxSysconfig(context)
    assert sysconfig.is_configured(key) == sysconfig.is_configured("empty") == "unknown"


@given(key=st.text(max_size=40))
def test_any_text_is_answered(key: str) -> None:
    assert LinuxSysconfig(Context(root=Root(Path("/nonexistent")))).is_configured(key) == "unknown"


def test_a_key_that_is_no_file_is_a_problem_not_a_status(tmp_path: Path) -> None:
    (tmp_path / STORE.lstrip("/") / "directory").mkdir(parents=True)
    with pytest.raises(BackendFailed, match="directory"):
        LinuxSysconfig(Context(root=Root(tmp_path))).is_configured("directory")


def test_a_key_that_may_not_be_read_is_denied_not_unknown(tmp_path: Path) -> None:
    put(Context(root=Root(tmp_path)), f"{STORE}/key", "OK", mode=0o600)
    snippet = """
        import ctypes, sys
        from pathlib import Path
        from libmh.context import Context, Root
        from libmh.errors import Problem
        from libmh.linux.sysconfig import LinuxSysconfig

        ctypes.CDLL(None).prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
        import os
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(header, data)
        try:
            print(LinuxSysconfig(Context(root=Root(Path(sys.argv[1])))).is_configured("key"))
        except Problem as problem:
            print(problem.word)
    """
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.is_relative_to("/tmp/pytest-of-root"):
            directory.chmod(0o755)
    done = run_python_as(snippet, str(tmp_path))
    assert done.stdout.strip() == "not-authorized", done.stderr


def test_the_mark_persists(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    sysconfig = LinuxSysconfig(Context(settings=Settings(path)))
    assert sysconfig.is_postboot_configured() == 0
    sysconfig.set_is_postboot_configured(2**32 - 1)
    assert LinuxSysconfig(Context(settings=Settings(path))).is_postboot_configured() == 2**32 - 1


@pytest.mark.parametrize("kept", ["-1", "4294967296", '"1"', "null"])
def test_a_mark_that_is_none_counts_as_zero(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(f'{{"is_postboot_configured": {kept}}}')
    assert LinuxSysconfig(Context(settings=Settings(path))).is_postboot_configured() == 0
