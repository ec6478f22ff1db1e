"""The house rules, as tests: one command does everything."""

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import source_tree
from source_tree import ROOT, Source
from testbed import needs

TOP_LEVEL = {
    *("pyproject.toml", "agents", "libmh", "tests", "packaging", "README.md", "LICENSE"),
    *(".gitignore", ".ci", ".editorconfig", ".gitattributes", ".pre-commit-config.yaml"),
}
UNFINISHED = re.compile(r"TODO|FIXME|XXX|NotImplementedError|pragma: no cover|time\.sleep\(")
DANGEROUS = re.compile(r"shell\s*=\s*True|os\.system\(|yaml\.load\(|pickle\.loads?\(|(?<![\w.])eval\(")
MACHINE_PATH = re.compile(r"(?<![\w}$])/(work|farm|root)/[a-z.]")
TEXT = (".py", ".md", ".toml", ".sh", ".service", ".conf", ".xml", ".policy", ".rules", ".json")


def run(*arguments: str, seconds: float = 300) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"


def test_ruff_has_nothing_to_say() -> None:
    run("ruff", "check", "--output-format=concise", ".")


def test_code_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


def test_types_hold() -> None:
    run("mypy")


def test_modules_are_small() -> None:
    sizes = {source.path: source.lines() for source in source_tree.sources() if source.lines()}
    assert {path: size for path, size in sizes.items() if size > 600} == {}
    assert statistics.median(sizes.values()) <= 180


@pytest.mark.parametrize("scope", [source_tree.product, source_tree.sources])
def test_functions_are_small(scope: object) -> None:
    assert callable(scope)
    files: Iterable[Source] = scope()
    sizes = sorted(source_tree.body_lines(f) for source in files for f in source_tree.functions(source))
    assert statistics.median(sizes) <= 8
    assert sizes[int(len(sizes) * 0.9)] <= 30, f"the longest: {sizes[-10:]}"


def test_top_level_is_the_agreed_one() -> None:
    assert {path.split("/")[0] for path in source_tree.tracked()} <= TOP_LEVEL


def test_no_package_where_a_name_would_be_shadowed() -> None:
    forbidden = {f"{directory}/__init__.py" for directory in ("agents", "tests", "packaging")}
    assert [path for path in forbidden if (ROOT / path).exists()] == []


def test_no_grab_bag_modules() -> None:
    assert [
        source.path for source in source_tree.sources() if source.path.endswith(("utils.py", "helpers.py"))
    ] == []


def found(pattern: re.Pattern[str], files: Sequence[tuple[str, str]]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in files
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_product_is_finished() -> None:
    assert found(UNFINISHED, [(source.path, source.text) for source in source_tree.product()]) == []


def test_nothing_evaluates_or_sleeps() -> None:
    everything = [(source.path, source.text) for source in source_tree.sources()]
    installed = [file for file in everything if not file[0].startswith("tests/")]
    assert found(DANGEROUS, installed) == []
    assert found(re.compile(r"time\.sleep\("), everything) == []


def test_no_path_of_one_machine() -> None:
    paths = [
        path
        for path in source_tree.tracked()
        if path.endswith(TEXT) or path.startswith((".ci/", "packaging/"))
    ]
    files = [
        (path, (ROOT / path).read_text("utf-8", "replace")) for path in paths if (ROOT / path).is_file()
    ]
    assert found(MACHINE_PATH, files) == []


def catches_everything(source: Source) -> list[str]:
    """Handlers of `Exception`, or of all there is, that do not pass on what they caught."""
    handlers = (node for node in ast.walk(source.tree) if isinstance(node, ast.ExceptHandler))
    return [f"{source.path}:{h.lineno}" for h in handlers if _is_wide(h.type) and not _raises(h.body[-1])]


def _is_wide(caught: ast.expr | None) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        n is None or (isinstance(n, ast.Name) and n.id in {"Exception", "BaseException"}) for n in names
    )


def _raises(last: ast.stmt) -> bool:
    return isinstance(last, ast.Raise)


def test_exception_is_caught_once() -> None:
    """In dispatch, where bugs become replies; beside that where foreign code is loaded and run."""
    caught = [place for source in source_tree.product() for place in catches_everything(source)]
    allowed = ("libmh/dispatch.py:", "libmh/guard.py:", "libmh/providers.py:")
    assert [place for place in caught if not place.startswith(allowed)] == []
    assert sum(place.startswith("libmh/dispatch.py:") for place in caught) <= 1


def test_the_rules_see_what_they_forbid() -> None:
    sample = source_tree.parse("libmh/sample.py", "try:\n    pass\nexcept (OSError, Exception):\n    pass\n")
    assert catches_everything(sample) == ["libmh/sample.py:3"]
    passes_on = source_tree.parse("libmh/sample.py", "try:\n    pass\nexcept BaseException:\n    raise\n")
    assert catches_everything(passes_on) == []
    assert found(MACHINE_PATH, [("a.md", "see /" + "work/main")]) == ["a.md:1: see /" + "work/main"]
    documented = source_tree.parse(
        "a.py", 'def f() -> None:\n    """One.\n\n    Two.\n    """\n    g()\n    h()\n'
    )
    assert [source_tree.body_lines(f) for f in source_tree.functions(documented)] == [3]


@pytest.mark.parametrize(
    ("reason", "unattended", "accepted"),
    [
        ("needs fuse (apt-get install fuse3)", False, True),
        ("needs fuse (apt-get install fuse3)", True, False),
        ("needs /dev/fuse", True, True),
        ("not today", False, False),
    ],
)
def test_a_skip_owes_a_reason(reason: str, unattended: bool, accepted: bool) -> None:
    assert (needs.fault(reason, unattended=unattended) == "") is accepted


@pytest.mark.parametrize(
    ("skip", "unattended", "status"),
    [
        ("pytest.skip('needs fuse (apt-get install fuse3)')", "", 0),
        ("pytest.skip('needs fuse (apt-get install fuse3)')", "true", 1),
        ("pytest.skip('not today')", "", 1),
        ("pytest.importorskip('no_such_module')", "", 1),
    ],
)
def test_a_run_with_an_unowed_skip_fails(tmp_path: Path, skip: str, unattended: str, status: int) -> None:
    (tmp_path / "test_sample.py").write_text(f"import pytest\n\n\ndef test_sample():\n    {skip}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", "test_sample.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "CI": unattended},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 failed" if status else "1 skipped")
