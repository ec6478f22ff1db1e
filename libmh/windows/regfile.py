"""The text of a .reg file: what it would do to which keys, and keys as such a text.

The format is that of regedit.exe: `Windows Registry Editor Version 5.00`, or `REGEDIT4` whose strings in
bytes are in the code page of the machine.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from libmh.errors import InvalidArguments

MAX_TEXT = 16 << 20
MAX_LINES = 200_000
MAX_NAME = 16_383
MAX_KEY = 4096
SHOWN = 100
OLD, NEW = "REGEDIT4", "Windows Registry Editor Version 5.00"
STRING, EXPANDED, BINARY, DWORD, BIG_DWORD, STRINGS, QWORD = 1, 2, 3, 4, 5, 7, 11  # winnt.h: REG_SZ ...
HIVES: Mapping[str, str] = {
    **{name: name for name in ("HKEY_CLASSES_ROOT", "HKEY_CURRENT_CONFIG", "HKEY_CURRENT_USER")},
    **{name: name for name in ("HKEY_LOCAL_MACHINE", "HKEY_USERS")},
    "HKCR": "HKEY_CLASSES_ROOT",
    "HKCU": "HKEY_CURRENT_USER",
    "HKLM": "HKEY_LOCAL_MACHINE",
    "HKU": "HKEY_USERS",
    "HKCC": "HKEY_CURRENT_CONFIG",
}
KEY = re.compile(r"\[(-?)([^\]\\]+(?:\\.*?)?)\\?\]\s*(?:;.*)?")
VALUE = re.compile(r'(?:@|"((?:\\.|[^"\\])*)")\s*=\s*(.*)', re.DOTALL)
QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"\s*(?:;.*)?', re.DOTALL)
NUMBER = re.compile(r"dword:([0-9A-Fa-f]{1,8})\s*(?:;.*)?")
BYTES = re.compile(r"hex(?:\(([0-9A-Fa-f]{1,8})\))?:([0-9A-Fa-f,\s]*)(?:;.*)?")

Data = str | int | bytes | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A value: its type as winnt.h numbers them, and what is in it: a string, a number, strings, bytes."""

    kind: int
    data: Data


@dataclass(frozen=True, slots=True)
class Step:
    """What a line asks for: a key (made, or removed with all below it), or a value; None removes it."""

    key: str
    name: str | None = None
    value: Value | None = None
    removes: bool = False


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a text, in their order. Raises `invalid-arguments` with the line that is wrong."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_TEXT or text.count("\n") > MAX_LINES or "\0" in text:
        raise InvalidArguments("expected a .reg file of at most 16 MiB, without NUL", argument="text")
    lines = _lines(text)
    number, head = next(lines, (1, ""))
    if head not in (OLD, NEW):
        raise refused(number, f"expected '{NEW}' or '{OLD}', got '{head[:SHOWN]}'")
    return tuple(_steps(lines, wide=head == NEW))


def export(key: str, values: Mapping[str, Value]) -> str:
    """A key as a text that makes it so, its values in the order of their names."""
    lines = [f"[{key}]"]
    for name in sorted(values, key=str.lower):
        shown = f'"{_escaped(name)}"' if name else "@"
        lines.append(f"{shown}={_shown(values[name])}")
    return "\n".join(lines) + "\n"


def refused(number: int, why: str) -> InvalidArguments:
    """The problem with a line."""
    return InvalidArguments(f"line {number}: {why}", argument="text", line=str(number))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers: comments and empty ones left out, continued ones as one."""
    begun, first = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not begun and (not line or line.startswith(";")):
            continue
        first = first if begun else number
        begun += line
        if line.endswith("\\") and "=hex" in begun.replace(" ", ""):
            begun = begun[:-1]
            continue
        yield first, begun
        begun = ""
    if begun:
        yield first, begun


def _steps(lines: Iterator[tuple[int, str]], *, wide: bool) -> Iterator[Step]:
    key, removed = "", False
    for number, line in lines:
        if found := KEY.fullmatch(line):
            key, removed = _key(number, found[2]), bool(found[1])
            if removed and key.count("\\") < 2:
                raise refused(number, f"'{key}' is not removed: expected a key further below")
            yield Step(key, removes=removed)
        elif not key or removed or not (found := VALUE.fullmatch(line)):
            raise refused(number, f"expected '[KEY]' or '\"NAME\"=VALUE', got '{line[:SHOWN]}'")
        else:
            name = _bare(found[1] or "")
            if len(name) > MAX_NAME:
                raise refused(number, f"the name of a value has at most {MAX_NAME} characters")
            yield Step(key, name, _value(number, found[2].strip(), wide=wide))


def _key(number: int, name: str) -> str:
    hive, _, below = name.partition("\\")
    known = HIVES.get(hive.upper())
    parts = below.split("\\") if below else []
    if known is None or len(name) > MAX_KEY or any(not part or len(part) > 255 for part in parts):
        raise refused(
            number, f"'{name[:SHOWN]}' is no key: expected HKEY_LOCAL_MACHINE\\... or another hive"
        )
    return "\\".join([known, *parts])


def _value(number: int, text: str, *, wide: bool) -> Value | None:
    if text.partition(";")[0].strip() == "-":
        return None
    if found := QUOTED.fullmatch(text):
        return Value(STRING, _bare(found[1]))
    if found := NUMBER.fullmatch(text):
        return Value(DWORD, int(found[1], 16))
    if found := BYTES.fullmatch(text):
        digits = [part.strip() for part in found[2].split(",") if part.strip()]
        if all(len(part) <= 2 for part in digits):
            kind = int(found[1], 16) if found[1] else BINARY
            return Value(kind, _typed(number, kind, bytes(int(part, 16) for part in digits), wide=wide))
    raise refused(number, f"'{text[:SHOWN]}' is no value: expected \"...\", dword:..., hex:... or -")


def _typed(number: int, kind: int, data: bytes, *, wide: bool) -> Data:
    """What bytes say that are given for a type."""
    if kind in (STRING, EXPANDED, STRINGS):
        try:
            text = data.decode("utf-16-le" if wide else "cp1252")
        except UnicodeDecodeError as error:
            raise refused(number, f"the bytes are no text: {error.reason}") from error
        if kind == STRINGS:
            return tuple(part for part in text.split("\0") if part)
        return text.partition("\0")[0]
    if kind in (DWORD, QWORD):
        if len(data) != (4 if kind == DWORD else 8):
            raise refused(number, f"a number of {4 if kind == DWORD else 8} bytes has {len(data)}")
        return int.from_bytes(data, "little")
    return data


def _shown(value: Value) -> str:
    match value.kind, value.data:
        case 1, str(text):
            return f'"{_escaped(text)}"'
        case 4, int(number):
            return f"dword:{number:08x}"
        case kind, str(text):
            data = (text + "\0").encode("utf-16-le", "surrogatepass")
        case kind, int(number):
            data = number.to_bytes(8, "little")
        case kind, tuple(texts):
            data = "".join(f"{each}\0" for each in (*texts, "")).encode("utf-16-le", "surrogatepass")
        case kind, bytes(data):
            pass
    return f"hex{'' if kind == BINARY else f'({kind:x})'}:" + data.hex(",")


def _bare(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
