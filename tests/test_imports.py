"""What a cold start pays for: each module that is not needed costs milliseconds of every `mhctl`."""

import subprocess
import sys

import pytest

LIBRARIES = (
    "dbus_next",
    "dbus_fast",
    "proton",
    "cproton",
    "sqlalchemy",
    "alembic",
    "rich",
    "psutil",
    "pyroute2",
)
LOOP = ("asyncio", "concurrent.futures.thread", "multiprocessing", "ssl")
SLOW = ("importlib.metadata", "email", "tomllib", "sqlite3", "argparse", "hashlib")
AGENTS = ("mh_dbus", "mh_amqp", "mh_conductor", "libmh.serve", "libmh.dispatch", "libmh.linux.services")


ONE_READING = """
from libmh.client import connect
from libmh.api.host import Host
with connect() as here: here.proxy(Host).hostname()"""


def imported(program: str) -> set[str]:
    """The modules that a program has in the end, beyond those that the interpreter starts with."""
    shown = "import sys; print(*sys.modules, file=sys.stderr)"
    first, second = (
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True)
        for text in (shown, f"{program}\n{shown}")
    )
    return set(second.stderr.split()) - set(first.stderr.split())


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("import libmh", (*LIBRARIES, *LOOP, *SLOW, *AGENTS, "libmh.spec", "dataclasses")),
        ("import libmh.spec, libmh.wire, libmh.errors", (*LIBRARIES, *LOOP, *SLOW, *AGENTS, "logging")),
        ("import libmh.client", (*LIBRARIES, *LOOP, *SLOW, *AGENTS, "libmh.providers", "libmh.api")),
        ("import libmh.local", (*LIBRARIES, *LOOP, *SLOW, *AGENTS, "libmh.api")),
        ("from libmh import Host; Host().memory()", (*LIBRARIES, *LOOP, *SLOW, *AGENTS)),
        (
            ONE_READING,
            (*LIBRARIES, *LOOP, *SLOW, *AGENTS, "libmh.api.network", "libmh.api.agent"),
        ),
    ],
    ids=lambda each: each.splitlines()[-1][:40] if isinstance(each, str) else "",
)
def test_nothing_is_imported_that_is_not_needed(program: str, forbidden: tuple[str, ...]) -> None:
    assert imported(program) & set(forbidden) == set()
