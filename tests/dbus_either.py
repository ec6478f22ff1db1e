"""`either`: a test that uses it runs once with each D-Bus library."""

from collections.abc import Iterator

import pytest

from libmh import bus

LIBRARIES = ("dbus-fast", "dbus-next")


@pytest.fixture(params=LIBRARIES)
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test once with each D-Bus library."""
    monkeypatch.setenv("MATAHARI_DBUS_LIBRARY", request.param)
    bus.library.cache_clear()
    yield request.param
    bus.library.cache_clear()
