"""Where in a TOML text the tables of an array and their keys stand: the standard parser does not tell.

A line is taken for what it looks like; a multi-line string that looks like TOML can only make a message name
a wrong line.
"""

import re
from dataclasses import dataclass

HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")
SETTINGS_HEADER = re.compile(r"\s*\[\s*settings\s*\]|\s*settings\s*[.=]")
KEY = r"""(?:^|[\s{{,.\[])["']?{key}["']?\s*[=.\]]"""
TOP, SETTINGS = -1, -2


@dataclass(frozen=True, slots=True)
class Positions:
    """`starts` are the numbers, from 0, of the lines of the `[[rule]]` headers, `settings` that of the
    `[settings]` one."""

    lines: tuple[str, ...]
    starts: tuple[int, ...]
    settings: int = 0

    def line(self, table: int, key: str = "") -> int:
        """The line, from 1, of a key of the n-th table, or of its header; `TOP` is the whole text."""
        begin, end = self._span(table)
        if key:
            pattern = re.compile(KEY.format(key=re.escape(key)))
            begin = next((at for at in range(begin, end) if pattern.search(self.lines[at])), begin)
        return begin + 1

    def _span(self, table: int) -> tuple[int, int]:
        if table == SETTINGS:
            return self.settings, len(self.lines)
        if not 0 <= table < len(self.starts):
            return 0, len(self.lines)
        after = self.starts[table + 1] if table + 1 < len(self.starts) else len(self.lines)
        return self.starts[table], after


def positions(text: str) -> Positions:
    """Find the headers of a text."""
    lines = tuple(text.split("\n"))
    starts = tuple(at for at, line in enumerate(lines) if HEADER.match(line))
    return Positions(
        lines, starts, next((at for at, line in enumerate(lines) if SETTINGS_HEADER.match(line)), 0)
    )
