"""Answers as tables, or as JSON with stable keys: drawn by `rich` on a terminal, aligned text in a pipe."""

import base64
import datetime as dt
import json
import re
import sys
from collections.abc import Mapping, Sequence

from libmh.spec import Field, ListOf, MapOf, OptionalOf, Plain, RecordOf, Scalar, Type, Word

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Aggregate": ("id", "name", "availability_zone", "hosts", "metadata", "owner"),
    "ConnectionStatus": ("url", "state", "since", "attempts", "last_error"),
    "Evidence": ("rule", "fact", "requirement", "matched", "reason"),
    "Candidate": ("hostname", "zone", "weight", "weights", "uuid", "last_seen"),
    "FleetHost": ("hostname", "state", "zone", "agent_version", "last_seen", "aggregates", "uuid"),
    "Flavor": ("id", "name", "vcpus", "ram", "disk", "extra_specs", "description"),
    "Held": ("id", "what", "made", "affected", "hosts", "why"),
    "HistoryEntry": ("time", "who", "aggregate", "change", "host", "why"),
    "Link": ("name", "kind", "operational_state", "mtu", "speed", "mac_address", "addresses", "driver"),
    "LinkAddress": (
        *("link", "address", "prefix_length", "scope", "dynamic", "deprecated", "tentative", "label"),
    ),
    "NetworkChange": ("id", "link", "what", "state", "keeper", "by", "time", "confirm_by", "reason"),
    "Route": ("destination", "kind", "gateway", "link", "source", "protocol", "scope", "metric", "table"),
    "Run": ("id", "time", "key", "scheme", "result", "by", "duration", "files", "confirm_by", "reason"),
    "AgentAction": ("name", "timeout", "interval", "depth", "role"),
    "Operation": (
        *("id", "standard", "provider", "agent", "interval", "expected", "last_rc", "last_time"),
        *("running", "interrupted"),
    ),
    "Unit": ("name", "load_state", "active_state", "sub_state", "enablement", "description"),
}
"""The columns of a table of these records; any other has all its fields, and `--json` always has."""
SHORT: Mapping[str, str] = {
    "Address": "{address}/{prefix_length}",
    "Hint": "{name}",
    "Weight": "{weigher} {normalized:.2f} x {multiplier:g}",
}
"""Records that have a usual notation, for a table's cell."""
STYLES: Mapping[str, str] = {
    "active": "green",
    "up": "green",
    "ok": "green",
    "connected": "green",
    "confirmed": "green",
    "applied": "green",
    "unchanged": "green",
    "pending": "yellow",
    "registered": "yellow",
    "silent": "yellow",
    "gone": "red",
    "undone": "yellow",
    "rolled-back": "yellow",
    "interrupted": "red",
    "failed": "bold red",
    "down": "red",
    "denied": "red",
    "waiting": "yellow",
    "timeout": "yellow",
    "stale": "yellow",
}
NANOSECONDS = 1_000_000_000
LATIN_1 = 0x100
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal takes for a command, new lines and tabs excepted, or shows in another order than it
stands: no host is trusted to send any."""


def as_json(plain: object, *, lines: bool = False) -> str:
    """JSON as `--json` prints it; bytes are base64."""
    text = json.dumps(plain, indent=None if lines else 2, ensure_ascii=False, default=_bytes)
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def harmless(text: str) -> str:
    """A peer's words for a terminal: control characters are spelled."""
    return CONTROLS.sub(_spelled, text)


def _spelled(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < LATIN_1 else f"\\u{number:04x}"


def _bytes(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not plain")


def show(declared: Type, plain: Plain) -> None:
    """Print a value as its type deserves: a table of records, a table of a record's fields, or a line."""
    match declared:
        case OptionalOf(item):
            show(item, plain)
        case ListOf(RecordOf(record, fields)) if isinstance(plain, list):
            show_records(record.__name__, fields, plain)
        case MapOf(RecordOf(record, fields)) if isinstance(plain, dict):
            keyed = [{"name": name, **each} for name, each in plain.items()]
            show_records(record.__name__, (Field("name", Scalar(Word.STRING)), *fields), keyed)
        case RecordOf(_, fields) if isinstance(plain, dict):
            show_fields("field", [(f.name, f.type, plain.get(f.name)) for f in fields])
        case MapOf(value) if isinstance(plain, dict):
            table(("key", "value"), [(key, cell(value, each)) for key, each in plain.items()])
        case ListOf(item) if isinstance(plain, list):
            for each in plain:
                print(cell(item, each))
        case _:
            print(cell(declared, plain))


def show_fields(head: str, fields: Sequence[tuple[str, Type, Plain]]) -> None:
    """Named values of any types: a row each, a row for each field of a record, and titled tables below them
    for what is a table itself."""
    rows: list[tuple[str, str]] = []
    below: list[tuple[str, Type, Plain]] = []
    for name, declared, plain in fields:
        match declared:
            case RecordOf(_, inner) if isinstance(plain, dict):
                rows += [(f"{name}.{f.name}", cell(f.type, plain[f.name])) for f in inner if f.name in plain]
            case ListOf(RecordOf()) | MapOf(RecordOf()) if plain:
                below.append((name, declared, plain))
            case _:
                rows.append((name, cell(declared, plain)))
    table((head, "value"), rows)
    for name, declared, plain in below:
        print(f"\n{name}")
        show(declared, plain)


def show_records(record: str, fields: Sequence[Field], plain: Sequence[Plain]) -> None:
    """A table of records; columns that no row fills are left out."""
    rows = [row for row in plain if isinstance(row, dict)]
    by_name = {field.name: field for field in fields}
    wanted = COLUMNS.get(record, tuple(by_name))
    if "name" in by_name and "name" not in wanted:
        wanted = ("name", *wanted)
    shown = [
        by_name[name]
        for name in wanted
        if not rows or any(row.get(name) not in (None, [], {}) for row in rows)
    ]
    table([field.name for field in shown], [[cell(f.type, row.get(f.name)) for f in shown] for row in rows])


def cell(declared: Type, plain: Plain) -> str:
    """A value in the room of a table's cell."""
    if plain is None:
        return "-"
    match declared:
        case OptionalOf(item):
            return cell(item, plain)
        case Scalar(Word.TIME) if isinstance(plain, int):
            return moment(plain)
        case ListOf(item) if isinstance(plain, list):
            return ", ".join(cell(item, each) for each in plain)
        case MapOf(value) if isinstance(plain, dict):
            return ", ".join(f"{harmless(key)}={cell(value, each)}" for key, each in plain.items())
        case RecordOf(record) if isinstance(plain, dict) and record.__name__ in SHORT:
            return harmless(SHORT[record.__name__].format_map(plain))
        case RecordOf(_, fields) if isinstance(plain, dict):
            return " ".join(cell(f.type, plain[f.name]) for f in fields if f.name in plain)
    return word(plain)


def word(plain: Plain) -> str:
    """A value whose type nobody declared."""
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, float):
        return f"{plain:g}"
    if isinstance(plain, list):
        return " ".join(word(each) for each in plain)
    return harmless(plain) if isinstance(plain, str) else as_json(plain, lines=True)


def moment(nanoseconds: int) -> str:
    """A time in the reader's zone, to the second; `-` for 0, which means never."""
    if nanoseconds == 0:
        return "-"
    try:
        when = dt.datetime.fromtimestamp(nanoseconds // NANOSECONDS, dt.UTC)
    except (OverflowError, ValueError):
        return str(nanoseconds)
    return when.astimezone().isoformat(sep=" ")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, a line for each row whatever is in it."""
    rows = [[harmless(text).replace("\n", "\\n").replace("\t", "\\t") for text in row] for row in rows]
    if sys.stdout and sys.stdout.isatty():
        _rich_table(heads, rows)
        return
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    for row in [[head.upper() for head in heads], *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for head in heads:
        drawn.add_column(head, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text, style=STYLES.get(text, "")) for text in row))
    Console().print(drawn)
