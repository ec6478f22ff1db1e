"""Captured machines: small trees of the files that the kernel and the installed system show, under
`roots/`."""

import shutil
from pathlib import Path

from libmh.context import Context, Root

ROOTS = Path(__file__).with_name("roots")
MACHINES = tuple(sorted(path.name for path in ROOTS.iterdir()))


def captured(name: str) -> Context:
    """One of them, as it is in the checkout: read it only."""
    return Context(root=Root(ROOTS / name))


def copy_of(name: str, place: Path) -> Context:
    """One of them below `place`, to be changed."""
    shutil.copytree(ROOTS / name, place, symlinks=True, dirs_exist_ok=True)
    return Context(root=Root(place))


def put(context: Context, name: str, text: str, *, mode: int = 0o644) -> Path:
    """Write a file of a copied machine."""
    path = context.root.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path
