"""The project's own source as data, for the tests that judge its shape."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testbed import needs

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("libmh/", "agents/")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path from the root, its import name, its text and its tree."""

    path: str
    module: str
    text: str
    tree: ast.Module

    def lines(self) -> int:
        return self.text.count("\n")


def tracked() -> tuple[str, ...]:
    """The paths under version control, from the root."""
    git = needs.command("git", "git")
    if not (ROOT / ".git").exists():
        needs.missing("a checkout under git")
    command = [git, "-c", "safe.directory=*", "-C", str(ROOT), "ls-files"]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return tuple(listing.stdout.splitlines())


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file under version control."""
    return tuple(read(path) for path in tracked() if path.endswith(".py") and (ROOT / path).exists())


def product() -> tuple[Source, ...]:
    """The files that are installed."""
    return tuple(source for source in sources() if source.path.startswith(PRODUCT))


def read(path: str) -> Source:
    text = (ROOT / path).read_text(encoding="utf-8")
    return parse(path, text)


def parse(path: str, text: str) -> Source:
    return Source(path, module_name(path), text, ast.parse(text, path))


def module_name(path: str) -> str:
    """`agents/mh_dbus/server.py` -> `mh_dbus.server`."""
    parts = Path(path.removeprefix("agents/").removesuffix(".py")).parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (
        node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from `def` to its end, its docstring not counted."""
    end = function.end_lineno or function.lineno
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    return end - function.lineno + 1 - ((first.end_lineno or 0) - first.lineno + 1 if documented else 0)
