"""`from libmh import Host`: the library without any agent."""

import subprocess
import sys

import pytest

import libmh
from libmh.api.host import Host as DeclaredHost
from libmh.spec import interface_of


def test_the_names_are_there() -> None:
    from libmh import Host, Network, Services, Sysconfig, connect

    assert [interface_of(each).short for each in (Host, Network, Services, Sysconfig)] == [
        "Host",
        "Network",
        "Services",
        "Sysconfig",
    ]
    assert callable(connect)
    assert DeclaredHost in Host.__mro__
    assert Host().memory() > 0
    assert set(libmh.__all__) <= set(dir(libmh))


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Hots'"):
        libmh.Hots  # noqa: B018


def test_importing_libmh_imports_nothing_else() -> None:
    snippet = "import sys, libmh; print([name for name in sys.modules if name.startswith('libmh.')])"
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_captured_machine_is_reached_like_any_other() -> None:
    from captured import ROOTS
    from libmh.testing import captured

    with captured(ROOTS / "s390x-zvm") as machine:
        host = machine.proxy(DeclaredHost)
        assert isinstance(host, DeclaredHost)  # type: ignore[misc]  # @interface makes it so
        assert host.uuid() == (ROOTS / "s390x-zvm/etc/machine-id").read_text().strip()
        assert "vx" in host.cpu_flags().split()
