"""The layers, written as permissions: what a module may import, first match counts.

A name stands for itself and everything below it. The standard library is free to all, except `subprocess`.
Imports inside functions count like any other.
"""

import ast
import sys
from collections.abc import Iterator

import pytest

import source_tree
from source_tree import Source, parse

CORE = ("libmh.spec", "libmh.declaration", "libmh.errors", "libmh.wire", "libmh.match")
GIVEN = (  # what dispatch hands to a provider, and what providers share
    *("libmh.caller", "libmh.context", "libmh.events", "libmh.facts", "libmh.guard"),
    *("libmh.schemes", "libmh.uris"),
)
PERMISSIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("libmh.api", ("libmh.spec", "libmh.api")),
    *((module, CORE) for module in CORE),
    ("libmh.bus", ("libmh.errors", "dbus_next", "dbus_fast")),
    ("libmh.systembus", ("libmh.errors", "libmh.bus")),
    (
        "libmh.linux",
        (
            "subprocess",
            *CORE,
            *GIVEN,
            "libmh.api",
            "libmh.bus",
            "libmh.systembus",
            "libmh.linux",
            "psutil",
            "pyroute2",
        ),
    ),
    ("libmh.windows", ("subprocess", *CORE, *GIVEN, "libmh.api", "libmh.windows", "psutil")),
    ("libmh.cli", ("libmh", "click", "rich")),
    ("libmh.keys", ("libmh.errors", "cryptography")),
    ("libmh", ("libmh",)),
    ("mh_dbus", ("libmh", "mh_dbus")),
    ("mh_amqp", ("libmh", "mh_amqp", "proton", "cproton", "scramp", "cryptography", "dns")),
    (
        "mh_conductor",
        (
            "libmh",
            "mh_conductor",
            "sqlalchemy",
            "alembic",
            "starlette",
            "uvicorn",
            "jsonschema",
            "openstack",
            "keystoneauth1",
            "keystonemiddleware",
        ),
    ),
)
REFUSALS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("libmh.cli", ("libmh.linux",)),
    ("mh_", ("libmh.cli",)),
)

# proton's engine is driven in one place, its C calls are made in another; the rest of mh_amqp sees values.
ENGINE_CLASSES = {
    *("Connection", "Transport", "Collector", "Session", "Link", "Sender", "Receiver", "Delivery", "Event"),
    *("SASL", "SSL", "SSLDomain"),
}
ENGINE_MODULES = {"mh_amqp.pump"}
C_MODULE = "mh_amqp.pn"


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix if prefix.endswith("_") else prefix + ".")


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import; `from a import b` gives a.b where that is a module."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (
                    source.module.split(".")
                    if source.path.endswith("__init__.py")
                    else source.module.split(".")[:-1]
                )
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield from ((node.lineno, _target(base, alias.name)) for alias in node.names)


def _target(base: str, name: str) -> str:
    known = {source.module for source in source_tree.sources()}
    return f"{base}.{name}" if f"{base}.{name}" in known else base


def trespasses(source: Source) -> list[str]:
    """What this module imports and may not."""
    allowed = next(names for prefix, names in PERMISSIONS if within(source.module, prefix))
    refused = [name for prefix, names in REFUSALS if within(source.module, prefix) for name in names]
    return [
        f"{source.path}:{line}: {source.module} may not import {target}"
        for line, target in imports(source)
        if not _permitted(target, allowed) or any(within(target, name) for name in refused)
    ]


def _permitted(target: str, allowed: tuple[str, ...]) -> bool:
    if target.split(".")[0] in sys.stdlib_module_names and target != "subprocess":
        return True
    return any(within(target, name) for name in allowed)


def importers(*libraries: str) -> set[str]:
    return {
        s.module
        for s in source_tree.product()
        if any(within(t, x) for _, t in imports(s) for x in libraries)
    }


@pytest.mark.parametrize("source", source_tree.product(), ids=lambda source: source.module)
def test_module_stays_in_its_layer(source: Source) -> None:
    assert trespasses(source) == []


def test_one_module_imports_the_dbus_library() -> None:
    assert importers("dbus_next", "dbus_fast") <= {"libmh.bus"}


def test_one_package_imports_proton() -> None:
    assert {module.split(".")[0] for module in importers("proton", "cproton")} <= {"mh_amqp"}


def engine_names(source: Source) -> set[str]:
    """Engine classes of proton that a module imports by name."""
    froms = [node for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in froms if within(node.module or "", "proton") for alias in node.names}
    return names & ENGINE_CLASSES


def test_the_engine_is_driven_in_one_place() -> None:
    assert {source.module for source in source_tree.product() if engine_names(source)} <= ENGINE_MODULES
    assert importers("cproton") <= {C_MODULE}


@pytest.mark.parametrize(
    ("path", "text", "forbidden"),
    [
        ("libmh/api/host.py", "import psutil", "psutil"),
        ("libmh/api/host.py", "def f():\n    from ..linux import host", "libmh.linux"),
        ("libmh/wire.py", "from libmh.dispatch import Dispatcher", "libmh.dispatch"),
        ("libmh/client.py", "import subprocess", "subprocess"),
        ("libmh/linux/host.py", "import libmh.dispatch", "libmh.dispatch"),
        ("libmh/cli/main.py", "from libmh.linux import host", "libmh.linux"),
        ("libmh/cli/main.py", "import mh_amqp.client", "mh_amqp.client"),
        ("agents/mh_dbus/main.py", "import mh_amqp", "mh_amqp"),
        ("agents/mh_conductor/main.py", "import proton", "proton"),
        ("agents/mh_dbus/server.py", "import dbus_fast.aio", "dbus_fast.aio"),
    ],
)
def test_a_trespass_is_seen(path: str, text: str, forbidden: str) -> None:
    seen = trespasses(parse(path, text))
    assert len(seen) == 1
    assert f"may not import {forbidden}" in seen[0]


def test_what_is_allowed_passes() -> None:
    text = "import subprocess, psutil, pathlib\nfrom libmh.api import host\nfrom libmh import errors"
    assert trespasses(parse("libmh/linux/host.py", text)) == []
    assert (
        trespasses(parse("libmh/api/host.py", "from libmh.spec import interface\nfrom . import agent")) == []
    )
