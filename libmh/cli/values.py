"""What a person types, as the plain tree that a member takes: JSON where a word is not enough."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any

import click

from libmh.errors import InvalidArguments
from libmh.spec import Anything, ListOf, MapOf, OptionalOf, Plain, RecordOf, Scalar, Type, Word, Words
from libmh.wire import refuse

MAX_SECONDS = 7 * 24 * 3600
NANOSECONDS = 10**9
AGO = re.compile(r"([0-9]{1,9})([smhd])")
UNITS_OF_TIME: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TRUTH: Mapping[str, bool] = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Seconds(click.ParamType[float]):
    """A time that can be waited for: some, and a week at most."""

    name = "seconds"

    def __init__(self, least: float) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = click.FLOAT.convert(value, param, ctx)
        if not self.least <= seconds <= MAX_SECONDS:  # always so for one that is not a number
            self.fail(f"expected {self.least:g} to {MAX_SECONDS} seconds, got {value}", param, ctx)
        return seconds


def from_text(declared: Type, text: str, where: str) -> Plain:
    """The plain tree of a word. Raises `invalid-arguments`; ranges are checked by whoever is asked."""
    match declared:
        case Scalar(word):
            return _scalar(word, text, where)
        case Words():
            return text
        case OptionalOf(item):
            return from_text(item, text, where)
        case Anything():
            return _json_or_text(text)
        case ListOf(Scalar(Word.STRING)) if not text.lstrip().startswith("["):
            return [part for part in text.split(",") if part]
        case ListOf() | MapOf() | RecordOf():
            return _json(text, where)


def _scalar(word: Word, text: str, where: str) -> Plain:
    match word:
        case Word.STRING:
            return text
        case Word.BYTES:
            return text.encode()
        case Word.BOOL:
            if text.lower() not in TRUTH:
                raise refuse(where, "true or false", text)
            return TRUTH[text.lower()]
        case Word.DOUBLE:
            return _number(text, where)
        case _:
            return _whole_number(text, where)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise refuse(where, "a number", text) from None


def _whole_number(text: str, where: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise refuse(where, "a whole number", text) from None


def _json(text: str, where: str) -> Plain:
    try:
        value: Plain = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise InvalidArguments(
            f"{where}: expected JSON, got '{text[:60]}': {error}", argument=where
        ) from None
    return value


def _json_or_text(text: str) -> Plain:
    try:
        value: Plain = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def placeholder(declared: Type) -> str:
    """What help shows in the place of a value."""
    match declared:
        case Scalar(word):
            return {Word.STRING: "TEXT", Word.BOOL: "true|false", Word.DOUBLE: "NUMBER"}.get(word, "NUMBER")
        case Words(choices):
            return "|".join(choices)
        case OptionalOf(item):
            return placeholder(item)
        case ListOf(Scalar(Word.STRING)):
            return "TEXT,..."
        case _:
            return "JSON"


def spelled(declared: Type) -> str:
    """A type in words, for help and documentation: `list of Link`, `map of double`, `u32`."""
    match declared:
        case Scalar(word):
            return str(word)
        case ListOf(item):
            return f"list of {spelled(item)}"
        case MapOf(value):
            return f"map of {spelled(value)}"
        case OptionalOf(item):
            return f"{spelled(item)}, optional"
        case Words(choices):
            return " | ".join(choices)
        case RecordOf(record):
            return record.__name__
        case Anything():
            return "any"


def moment_of(text: str) -> int:
    """Nanoseconds since the epoch of `10m` (ago) or an ISO time; 0 for nothing."""
    if not text:
        return 0
    now = dt.datetime.now(dt.UTC)
    ago = AGO.fullmatch(text)
    try:
        when = now - dt.timedelta(seconds=int(ago[1]) * UNITS_OF_TIME[ago[2]]) if ago else None
        when = when or dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise InvalidArguments(f"--since: expected 10m, 2h, 1d or an ISO time, got '{text}'") from None
    return max(0, int(when.timestamp() * NANOSECONDS))
