"""The scheme `augeas`: commands of augeas, run on trees in memory; what they change is written by others."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libmh.api.sysconfig import Setting
from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere
from libmh.linux.config import augeastext, contents
from libmh.linux.config.augeasline import Workers
from libmh.linux.config.augeastext import Reach, escaped, quoted, refused
from libmh.linux.config.lenses import Lenses
from libmh.schemes import Edit, Execution, Forecast

UNKNOWN = "unknown"
QUICK = 10.0  # seconds for one question
LONGEST = 60.0  # for a text: the parsers need no more for what is no attack on them
MAX_FILES = 5000
MAX_BYTES = 64 << 20
MAX_SETTINGS = 10_000
MAX_KEY = 4096
INDEX = {"do": "index"}
PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
CASELESS = ("Sshd.lns", "Ssh.lns")  # their programs do not mind how a key is written


@dataclass(slots=True)
class Loaded:
    """Files of a request. `named`: those that must be parsed; `without`: those that no lens is for."""

    root: Root
    contents: dict[str, bytes | None] = field(default_factory=dict)
    lenses: dict[str, str] = field(default_factory=dict)
    resolved: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    without: set[str] = field(default_factory=set)
    size: int = 0

    def add(self, path: str, lens: str, *, named: bool) -> None:
        """Raises `backend-failed` for what is no text, and when it is too much."""
        self.named |= {path} if named else set()
        if path in self.contents:
            return
        resolved = contents.resolve(self.root, path)
        content = contents.read(self.root, resolved)
        self.size += len(content or b"")
        if self.size > MAX_BYTES or len(self.contents) >= MAX_FILES:
            raise BackendFailed(f"expected at most {MAX_FILES} files and {MAX_BYTES >> 20} MiB of them")
        if content is not None and b"\0" in content:
            if named:
                raise BackendFailed(f"'{path}' has NUL in it: it is no text", source=path)
            return
        self.contents[path], self.lenses[path], self.resolved[path] = content, lens, resolved

    def request(self) -> list[list[Any]]:
        """As the worker takes it."""
        return [
            [escaped(path), self.lenses[path], None if text is None else _text(text), path in self.named]
            for path, text in self.contents.items()
        ]


class Augeas:
    """The files below a root, by the lenses of this machine. `state`: where what the lenses are for is kept
    (None: nowhere)."""

    def __init__(self, root: Root, state: Path | None = None) -> None:
        self._root = root
        self._workers = Workers()
        self._lenses = Lenses(lambda: self._workers.ask(INDEX, QUICK).get("lenses"), state)

    def close(self) -> None:
        """End the processes that wait for more."""
        self._workers.close()

    def forecast(self, text: str, seconds: float) -> Forecast:
        """What the commands would write, a `save` or not. Raises `invalid-arguments` with the line,
        `backend-failed` where a file cannot be parsed or would not be valid, `not-implemented` where no lens
        is for a file that is made."""
        end = time.monotonic() + min(seconds, LONGEST)
        parsed = augeastext.parse(text)
        loaded = self._load(parsed.reaches, parsed.lenses)
        request = {
            "do": "run",
            "files": loaded.request(),
            "lines": parsed.lines,
            "without": [escaped(path) for path in loaded.without],
        }
        answer = self._workers.ask(request, max(0.001, end - time.monotonic()))
        _raise(answer)
        by_tree = {escaped(path): path for path in loaded.contents}
        edits = tuple(
            Edit(loaded.resolved[path], loaded.contents[path], None if after is None else _bytes(after))
            for tree, after in answer["files"]
            if (path := by_tree[tree]) and (after is None or _bytes(after) != loaded.contents[path])
        )
        if len({edit.path for edit in edits}) < len(edits):
            raise BackendFailed("two names of one file are changed: expected the file under one name alone")
        return Forecast(edits, _shown(answer["output"]), saves=bool(answer["saves"]))

    def run(self, text: str, seconds: float) -> Execution:  # noqa: ARG002 - the protocol's
        """What a forecast says is all: there is nothing to run."""
        raise NotImplementedHere("what commands of augeas change is written by the agent itself")

    def query(self, path: str) -> str:
        """The value at a path; `unknown` where there is none or more than one, and for what is no path."""
        try:
            found = self._read(path, augeastext.reaches(path))
        except InvalidArguments:
            return UNKNOWN
        return _shown(found[0][1]) if len(found) == 1 and found[0][1] is not None else UNKNOWN

    def settings(self, file: str, key: str = "") -> list[Setting]:
        """Nodes below a file with what is below them; all of them where there is no key."""
        path = self._below(file, key)
        self._lens(file)
        if contents.read(self._root, contents.resolve(self._root, file)) is None:
            raise NotImplementedHere(f"'{file}' does not exist here", source=file)
        expression = f"({path})/descendant-or-self::*" if key else f"{path}/descendant::*"
        found = self._read(expression, augeastext.reaches(path))[:MAX_SETTINGS]
        return [Setting(_shown(each), None if value is None else _shown(value)) for each, value in found]

    def setting_text(self, file: str, key: str, value: str | None) -> str:
        """The commands that set a value of a file, or remove it."""
        if not key:
            raise InvalidArguments("expected the key of a setting, got ''", argument="key")
        path = self._below(file, key)
        if value is None:
            return f"rm {path}\nsave\n"
        made = f"set {path} {quoted(value)}\nsave\n"
        lens = self._lens(file)
        if not PLAIN_KEY.fullmatch(key) or lens not in CASELESS:
            return made
        top = escaped(file)
        written = self._read(f"{top}/*[label()=~regexp('{re.escape(key)}', 'i')]", [_reach(file)])
        if written:
            return f"set {written[0][0]} {quoted(value)}\nsave\n"
        block = "Match" if lens == "Sshd.lns" else "Host"
        if self._read(f"{top}/{block}", [_reach(file)]):  # after it, it would be part of the block
            return f"ins {key} before {top}/{block}[1]\n{made}"
        return made

    def _below(self, file: str, key: str) -> str:
        if not file.startswith("/") or "\0" in file or ".." in file.split("/") or file.endswith("/"):
            raise InvalidArguments(
                f"'{file[:100]}' is no absolute name of a file without '..'", argument="file"
            )
        if len(key) > MAX_KEY or key.startswith("/") or any(each < " " for each in key):
            raise InvalidArguments(
                f"'{key[:100]}' is no key: expected a name, or a path below the file", argument="key"
            )
        path = escaped(file) + (f"/{key}" if key else "")
        for _ in augeastext.reaches(path):  # which refuses what leads upwards
            pass
        return path

    def _lens(self, file: str) -> str:
        lens = self._lenses.of(file)
        if lens is None:
            raise NotImplementedHere(f"no lens of augeas is for '{file}'", file=file)
        return lens

    def _read(self, path: str, reaches: Sequence[Reach] | Any) -> list[list[Any]]:
        loaded = self._load(set(reaches), {})
        answer = self._workers.ask({"do": "read", "path": path, "files": loaded.request()}, QUICK)
        _raise(answer)
        found: list[list[Any]] = answer["found"]
        return found

    def _load(self, reaches: set[Reach], lenses: Mapping[str, str]) -> Loaded:
        """The files that paths lead to, as they are now."""
        loaded = Loaded(self._root)
        for path, lens in lenses.items():
            loaded.add(path, lens, named=True)
        for reach in reaches:
            self._follow(reach, lenses, loaded)
        return loaded

    def _follow(self, reach: Reach, lenses: Mapping[str, str], loaded: Loaded) -> None:
        path = ""
        for label in reach.labels:
            path += f"/{label}"
            if path in lenses:
                return
            if contents.is_directory(self._root, path):
                continue
            lens = self._lenses.of(path)
            if lens is not None:
                loaded.add(path, lens, named=True)
                return
            if contents.is_file(self._root, path):
                break
        else:
            if contents.is_directory(self._root, path or "/"):
                for each, lens in self._lenses.below(self._root.base, path or "/"):
                    if contents.is_file(self._root, each):
                        loaded.add(each, lens, named=False)
                return
        loaded.without.add(path)


def _reach(file: str) -> Reach:
    return Reach(tuple(file.strip("/").split("/")))


def _raise(answer: Mapping[str, Any]) -> None:
    """The problem that an answer is, if it is one."""
    if "error" not in answer:
        return
    told = {name: _shown(str(value)) for name, value in answer.items() if value not in (None, "")}
    file = re.sub(r"\\(.)", r"\1", told.get("path", "")).removeprefix("/files")
    message, lens = told.get("message", ""), told.get("lens", "")
    known = {name: told[name] for name in ("line", "char", "lens") if name in told} | {"file": file}
    match answer["error"]:
        case "command":
            raise refused(int(told.get("number", "0")), message)
        case "parse":
            place = f" at line {told.get('line', '?')}, character {told.get('char', '?')}"
            raise BackendFailed(f"'{file}' cannot be parsed by {lens}{place}: {message}", **known)
        case "put":
            raise BackendFailed(f"'{file}' would not be valid: {message} ({lens})", **known)
        case "again":
            raise BackendFailed(f"'{file}' would say something else than was asked for ({lens})", **known)
        case "without":
            raise NotImplementedHere(f"no lens of augeas is for '{file}'", file=file)
        case "lens":
            raise InvalidArguments(f"there is no lens '{lens}': {message}", lens=lens)
        case "memory":
            raise BackendFailed("libaugeas wanted too much memory for this", source="libaugeas")
        case _:
            raise BackendFailed(f"libaugeas: {message or answer['error']}", source="libaugeas")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    """What any transport can carry: bytes that are no UTF-8 are replaced."""
    return _bytes(text).decode("utf-8", "replace")
