"""Where in a TOML text the tables of an array and their keys stand: the standard parser does not tell.

A line is taken for what it looks like; a multi-line string that looks like TOML can only make a message name
a wrong line.
"""

import re
from dataclasses import dataclass

HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")
KEY = r"""(?:^|[\s{{,.\[])["']?{key}["']?\s*[=.\]]"""


@dataclass(frozen=True, slots=True)
class Positions:
    """`starts` are the numbers, from 0, of the lines of the `[[rule]]` headers."""

    lines: tuple[str, ...]
    starts: tuple[int, ...]

    def line(self, table: int, key: str = "") -> int:
        """The line, from 1, of a key of the n-th table, or of its header; table -1 is what comes before."""
        begin = self.starts[table] if 0 <= table < len(self.starts) else 0
        end = self.starts[table + 1] if 0 <= table + 1 < len(self.starts) else len(self.lines)
        if key:
            pattern = re.compile(KEY.format(key=re.escape(key)))
            span = range(begin, end if table >= 0 else len(self.lines))
            begin = next((at for at in span if pattern.search(self.lines[at])), begin)
        return begin + 1


def positions(text: str) -> Positions:
    """Find the headers of a text."""
    lines = tuple(text.split("\n"))
    return Positions(lines, tuple(at for at, line in enumerate(lines) if HEADER.match(line)))
