"""What a host serves: the literal list, plug-ins, and what happens to those that are broken."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gauges import TestBench
from libmh.context import Context
from libmh.errors import InvalidArguments
from libmh.providers import (
    GROUP,
    Providers,
    all_interfaces,
    find_interface,
    load,
    plugin_interfaces,
    resolve,
    shipped_interfaces,
)

SHIPPED = {"Host", "Network", "Services", "Sysconfig"}
Install = Callable[[str, str], None]

GOOD = """
from typing import Protocol
from libmh.spec import interface, prop

@interface("org.example.Clock", version="1.0")
class Clock(Protocol):
    \"\"\"A clock.\"\"\"
    @prop(source="the sun")
    def time(self) -> str:
        \"\"\"The time.\"\"\"
        ...

class Sundial(Clock):
    def __init__(self, context: object) -> None:
        self.context = context
    def time(self) -> str:
        return "noon"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a module and its entry point where importlib.metadata looks."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        information = tmp_path / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {name}:Sundial\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return put


BROKEN = [
    ("raise RuntimeError('no\\nsun')", "RuntimeError: no sun"),
    ("import nothing_of_that_name", "ModuleNotFoundError"),
    ("raise SystemExit('it is dark')", "SystemExit: it is dark"),
    ("class Sundial: pass", "BadDeclaration: Sundial does not declare an interface"),
    ("Moondial = 1", "AttributeError"),
    ("def broken(:", "SyntaxError"),
    (GOOD.replace("-> str:", "-> int:"), "BadDeclaration: org.example.Clock.time: a bare int"),
    (GOOD.replace("self.context = context", "raise OSError('no battery')"), "OSError: no battery"),
    (GOOD.replace(", context: object", ""), "TypeError"),
    (
        GOOD.replace("org.example.Clock", "org.matahariproject.Host"),
        "InvalidArguments: two providers answer",
    ),
]


def test_what_is_shipped_is_served() -> None:
    providers = load(Context())
    assert {bound.interface.short for bound in providers.bound.values()} >= SHIPPED
    assert [broken.name for broken in providers.broken if broken.name in SHIPPED] == []


def test_a_plug_in_is_served_with_its_context(install: Install) -> None:
    install("mh_test_good", GOOD)
    context = Context()
    provider = load(context).bound["org.example.Clock"].provider
    assert provider.time() == "noon"  # type: ignore[attr-defined]  # a Sundial
    assert provider.context is context  # type: ignore[attr-defined]
    assert "org.example.Clock" in {interface.name for interface in plugin_interfaces()}


@pytest.mark.parametrize(("text", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_a_broken_plug_in_is_reported_and_the_rest_served(
    install: Install, text: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("mh_test_broken", text)
    caplog.set_level(logging.WARNING)
    providers = load(Context())
    assert "org.matahariproject.Host" in providers.bound
    [broken] = [broken for broken in providers.broken if broken.name == "mh_test_broken"]
    assert broken.error.startswith(says)
    assert any("mh_test_broken" in record.getMessage() for record in caplog.records)


def test_interfaces_of_a_broken_plug_in_are_left_out(install: Install) -> None:
    install("mh_test_broken", "raise RuntimeError('no sun')")
    assert {interface.name for interface in shipped_interfaces()} <= {each.name for each in all_interfaces()}
    assert find_interface("Clock") is None


@pytest.mark.parametrize(
    ("only", "served"),
    [
        (["Host"], ["org.matahariproject.Host"]),
        (["org.matahariproject.Network"], ["org.matahariproject.Network"]),
        (["Host", "Clock"], ["org.matahariproject.Host", "org.example.Clock"]),
        (["org.example.Clock"], ["org.example.Clock"]),
        (["org.example.Host"], []),
        (["Nothing"], []),
    ],
)
def test_only_what_is_named_is_loaded(install: Install, only: list[str], served: list[str]) -> None:
    install("mh_test_good", GOOD)
    assert list(load(Context(), only).bound) == served


def test_a_platform_without_an_implementation_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    providers = load(Context(), ["Host"])
    assert providers.bound == {}
    assert [(each.name, each.error) for each in providers.broken] == [
        ("Host", "has no implementation for 'plan9'")
    ]


def test_one_interface_has_one_provider() -> None:
    providers = Providers()
    providers.add(TestBench())
    with pytest.raises(InvalidArguments, match="two providers answer for"):
        providers.add(TestBench())


@pytest.mark.parametrize(
    "name", ["Host", "host", "HOST", "org.matahariproject.Host", "Aggregates", "reports"]
)
def test_an_interface_is_found_by_its_name(name: str) -> None:
    found = find_interface(name)
    assert found is not None
    assert found.short.lower() == name.lower().rpartition(".")[2]


@pytest.mark.parametrize("name", ["", ".", "Hos", "org.example.Host", "Host ", "x" * 5000])
def test_no_other_name_finds_one(name: str) -> None:
    assert find_interface(name) is None


def test_shipped_interfaces_are_all_there() -> None:
    declared = {interface.short for interface in shipped_interfaces()}
    assert declared >= SHIPPED | {"Agent", "Aggregates", "Reports"}


def test_a_place_is_resolved() -> None:
    assert resolve("libmh.providers:load") is load
