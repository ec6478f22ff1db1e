"""A unified diff of what a file is and what it becomes, its secrets masked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from libmh.linux.config.masking import Masks, in_keys
from libmh.wire import MAX_STRING

MAX_DIFF = MAX_STRING
MAX_MATCHED = 2000
"""Lines that are looked at for what moved where: the time that takes grows with their square."""
CONTEXT = 3
NO_END = "\\ No newline at end of file\n"
CUT = "\n... the rest is not shown\n"
Block = tuple[str, int, int, int, int]


def unified(path: str, before: bytes | None, after: bytes | None) -> str:
    """At most 64 KiB of it; empty where nothing changes."""
    if before == after:
        return ""
    old, new = _named(path, before), _named(path, after)
    if b"\0" in (before or b"") or b"\0" in (after or b""):
        return (
            f"Binary files {old} ({len(before or b'')} bytes) and {new} ({len(after or b'')} bytes) differ\n"
        )
    a, b = _lines(before), _lines(after)
    masked = _Masked(path, Masks(), {"-": (a, in_keys(a)), "+": (b, in_keys(b)), " ": (b, in_keys(b))})
    parts = [f"--- {old}\n", f"+++ {new}\n"]
    size = 0
    for group in _groups(a, b):
        for line in _hunk(group, masked):
            size += len(line.encode("utf-8", "replace"))
            if size > MAX_DIFF - 1024:
                return "".join(parts) + CUT
            parts.append(line)
    return "".join(parts)


def _named(path: str, content: bytes | None) -> str:
    return "/dev/null" if content is None else path


def _lines(content: bytes | None) -> list[str]:
    text = (content or b"").decode("utf-8", "backslashreplace")
    return [line + "\n" for line in text[:-1].split("\n")] if text.endswith("\n") else _unended(text)


def _unended(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def _groups(a: list[str], b: list[str]) -> list[list[Block]]:
    start = _common(a, b, 0, min(len(a), len(b)))
    end = _common(a[::-1], b[::-1], 0, min(len(a), len(b)) - start)
    blocks = _matched(a[start : len(a) - end], b[start : len(b) - end], start)
    whole: list[Block] = []
    if start:
        whole.append(("equal", 0, start, 0, start))
    whole += blocks
    if end:
        whole.append(("equal", len(a) - end, len(a), len(b) - end, len(b)))
    return _grouped(whole)


def _common(a: list[str], b: list[str], at: int, most: int) -> int:
    while at < most and a[at] == b[at]:
        at += 1
    return at


def _matched(a: list[str], b: list[str], by: int) -> list[Block]:
    if len(a) + len(b) > MAX_MATCHED:
        return [("replace", by, by + len(a), by, by + len(b))]
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return [(tag, by + i, by + j, by + k, by + m) for tag, i, j, k, m in matcher.get_opcodes()]


def _grouped(blocks: list[Block]) -> list[list[Block]]:
    """Changes with some lines around; those that are near to each other together."""
    groups: list[list[Block]] = [[]]
    for at, (tag, i, j, k, m) in enumerate(blocks):
        if tag != "equal":
            groups[-1].append((tag, i, j, k, m))
            continue
        first, last = at == 0, at == len(blocks) - 1
        if not first and (last or j - i > 2 * CONTEXT):
            groups[-1].append((tag, i, min(j, i + CONTEXT), k, min(m, k + CONTEXT)))
            groups.append([])
        if not last and (first or j - i > 2 * CONTEXT):
            groups[-1].append((tag, max(i, j - CONTEXT), j, max(k, m - CONTEXT), m))
        elif not first and not last:
            groups[-1].append((tag, i, j, k, m))
    return [group for group in groups if any(tag != "equal" for tag, *_ in group)]


@dataclass(frozen=True, slots=True)
class _Masked:
    """The lines of both sides by their sign; those that are shown are masked when they are."""

    path: str
    masks: Masks
    sides: Mapping[str, tuple[list[str], list[bool]]]

    def shown(self, sign: str, start: int, end: int) -> Iterator[str]:
        lines, keys = self.sides[sign]
        for at in range(start, end):
            line = sign + self.masks.one(lines[at], self.path, key=keys[at])
            yield line if line.endswith("\n") else f"{line}\n{NO_END}"


def _hunk(group: list[Block], masked: _Masked) -> Iterator[str]:
    old, new = _range(group[0][1], group[-1][2]), _range(group[0][3], group[-1][4])
    yield f"@@ -{old} +{new} @@\n"
    for tag, i, j, k, m in group:
        if tag == "equal":
            yield from masked.shown(" ", k, m)
        else:
            yield from masked.shown("-", i, j)
            yield from masked.shown("+", k, m)


def _range(start: int, end: int) -> str:
    count = end - start
    return f"{start + 1 if count else start},{count}" if count != 1 else str(start + 1)
