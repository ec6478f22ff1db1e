"""A thousand edits of generated files over ten lenses, planned, applied and undone: the file becomes what
the diff promised and nothing else, and undoing gives every byte back."""

import random
import subprocess
from pathlib import Path

import pytest

from libmh.api.sysconfig import RunResult
from libmh.context import Context, Root, Settings
from libmh.linux.sysconfig import LinuxSysconfig
from test_augeas_edits import KINDS, Kind, lines
from testbed import needs

EACH, ALL = 20, 100


def edit(sysconfig: LinuxSysconfig, root: Path, kind: Kind, rng: random.Random) -> None:
    made = list(lines(kind, rng))
    key, old, *_ = rng.choice([each for each in made if each[0]])
    names = {"key": key, "KEY": key.upper(), "old": old}
    before = "".join(f"{each}\n" for *_, each in made)
    file, value = root / kind.path.lstrip("/"), None if rng.random() < 0.3 else kind.value(rng)
    file.write_text(before)
    mode = rng.choice((0o600, 0o644, 0o640))
    file.chmod(mode)
    place = kind.whole if value is None else kind.at
    plan = sysconfig.plan_setting(kind.path, place.format(**names), value)
    assert file.read_text() == before
    run = sysconfig.apply(plan.id)
    if not plan.files:
        assert run.result is RunResult.UNCHANGED
        assert file.read_text() == before
        return
    assert [each.path for each in plan.files] == run.files == [kind.path]
    assert file.read_text() == patched(root, before, plan.files[0].diff)
    assert file.stat().st_mode & 0o7777 == mode
    assert sorted(path.name for path in file.parent.iterdir() if path.is_file()) == [file.name]
    sysconfig.apply(sysconfig.undo(run.id).id)
    assert file.read_text() == before


def patched(root: Path, before: str, diff: str) -> str:
    """What the diff promised."""
    copy = root / "promised"
    copy.write_text(before)
    subprocess.run(["patch", "-s", str(copy)], input=diff, text=True, check=True, timeout=20)
    return copy.read_text()


def several(root: Path, kind: Kind, count: int) -> None:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    needs.command("patch", "patch")
    (root / kind.path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(root / "var/lib/matahari/settings.json")
    sysconfig = LinuxSysconfig(Context(root=Root(root), settings=settings))
    try:
        for seed in range(count):
            edit(sysconfig, root, kind, random.Random(f"{kind.path} {seed}"))
    finally:
        sysconfig.close()


@pytest.mark.parametrize("kind", KINDS, ids=[kind.path for kind in KINDS])
def test_an_edit_becomes_what_its_diff_promised(tmp_path: Path, kind: Kind) -> None:
    several(tmp_path, kind, EACH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[kind.path for kind in KINDS])
def test_a_hundred_edits_each(tmp_path: Path, kind: Kind) -> None:
    several(tmp_path, kind, ALL)
