"""What the D-Bus agent's declaration derives, as files: run this module to write them anew, then review the
diff."""

from collections.abc import Mapping
from pathlib import Path

from libmh.providers import shipped_interfaces
from libmh.spec import Interface
from mh_dbus.files import FLEET, installed
from mh_dbus.surface import surface_of
from source_tree import ROOT

REGENERATE = "regenerate with: .venv/bin/python tests/dbus_golden.py (then review the diff: additions only)"


def interfaces() -> tuple[Interface, ...]:
    """Ours that a host serves; plug-ins that happen to be installed are left out."""
    return tuple(interface for interface in shipped_interfaces() if interface.name not in FLEET)


def expected() -> Mapping[Path, str]:
    """Every derived file of the tree with its content."""
    files = {ROOT / "packaging" / path: text for path, text in installed(interfaces()).items()}
    for place in surface_of(interfaces()).places.values():
        name = place.path.strip("/").replace("/", ".") or "root"
        files[ROOT / "tests/golden/dbus" / f"{name}.xml"] = place.xml
    return files


def kept() -> set[Path]:
    """The files that are there."""
    places = ("packaging/dbus-1", "packaging/polkit-1/actions", "tests/golden/dbus")
    return {path for place in places for path in (ROOT / place).rglob("*") if path.is_file()}


def main() -> None:
    """Write what is derived, and remove what no longer is."""
    files = expected()
    for path in kept() - files.keys():
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
