"""A scheme whose texts say what becomes of which file, and a machine to try it on.

A text is JSON: `{"/etc/a": "content", "/etc/b": null}`, with `"told"` true where another program is to do
it, `"code"` what that ends with, `"hang"` a file that it waits for.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libmh.context import Context, Root, Settings
from libmh.errors import BackendFailed
from libmh.events import Event
from libmh.linux.config import contents
from libmh.linux.sysconfig import LinuxSysconfig
from libmh.schemes import Edit, Execution, Forecast
from waiting import wait_for

OPTIONS = ("told", "code", "hang", "saves", "output")


def text(files: Mapping[str, str | None], **options: Any) -> str:
    return json.dumps({**files, **options})


@dataclass(slots=True)
class Dictated:
    """The scheme."""

    root: Root
    state: Path | None = None
    ran: list[str] = field(default_factory=list)
    act: Callable[[str, float], None] | None = None

    def forecast(self, text: str, seconds: float) -> Forecast:
        said = self._said(text)
        told = bool(said.get("told"))
        edits = []
        for path, content in said.items():
            if path in OPTIONS:
                continue
            named = "\0" not in path and len(path) < 4096
            before = contents.glimpse(self.root, contents.resolve(self.root, path)) if named else None
            after = None if content is None else content.encode()
            edits.append(Edit(path, before, None, f"+{content}") if told else Edit(path, before, after))
        return Forecast(
            tuple(edits), str(said.get("output", "")), exact=not told, saves=bool(said.get("saves", True))
        )

    def run(self, text: str, seconds: float) -> Execution:
        self.ran.append(text)
        if self.act is not None:
            self.act(text, seconds)
        said = self._said(text)
        for path, content in said.items():
            if path in OPTIONS:
                continue
            if content is None:
                self.root.path(path).unlink(missing_ok=True)
            else:
                self.root.path(path).write_text(content)
        if "hang" in said:
            self.root.path(said["hang"]).write_text("")
            wait_for(lambda: not self.root.path(said["hang"]).exists(), seconds=20)
        code = int(said.get("code", 0))
        return Execution(code, failed=code != 0, output=str(said.get("output", "")))

    def _said(self, text: str) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise BackendFailed(f"no JSON: {error}") from error
        return said


@dataclass(slots=True)
class Machine:
    """A root with some files, what configures it, and what that has told."""

    base: Path
    sysconfig: LinuxSysconfig
    events: list[Event]
    scheme: Dictated

    def path(self, name: str) -> Path:
        return self.base / name.lstrip("/")

    @property
    def state(self) -> Path:
        return self.base / "var/lib/matahari"

    def tree(self) -> dict[str, str]:
        """Every file but our own."""
        return tree(self.base)

    def another(self) -> "Machine":
        """A second agent of this host."""
        return machine(self.base)


def tree(base: Path) -> dict[str, str]:
    """What is below a root: contents, modes, targets of links; not our own records."""
    found = {}
    for path in sorted(base.rglob("*")):
        name = "/" + str(path.relative_to(base))
        if name.startswith("/var/lib/matahari") or "/var/lib/matahari".startswith(name):
            continue
        mode = f"{path.lstat().st_mode:o} {path.lstat().st_uid} "
        if path.is_symlink():
            found[name] = mode + str(path.readlink())
        else:
            found[name] = mode + (path.read_bytes().decode("latin-1") if path.is_file() else "")
    return found


MADE: list[LinuxSysconfig] = []
"""What `machine` has made and nobody has closed."""


def close_all() -> None:
    """Close what was made: each holds files open."""
    while MADE:
        MADE.pop().close()


def machine(base: Path) -> Machine:
    context = Context(root=Root(base), settings=Settings(base / "var/lib/matahari/settings.json"))
    events: list[Event] = []
    context.events.subscribe(events.append)
    sysconfig = LinuxSysconfig(context)
    MADE.append(sysconfig)
    scheme = Dictated(context.root)
    sysconfig._runs._schemes["augeas"] = sysconfig._runs._schemes["puppet"] = scheme
    return Machine(base, sysconfig, events, scheme)


def furnished(base: Path, files: Mapping[str, str] | None = None) -> Machine:
    """A machine with these files, below /etc if nothing else is said."""
    for name, content in (files or {"/etc/a": "one\n", "/etc/b": "two\n", "/etc/c": "three\n"}).items():
        path = base / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return machine(base)
