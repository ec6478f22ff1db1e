"""A declaration with every type that can be carried, and a provider that answers what it was given: what
the transports are tried with beyond the shipped interfaces."""

import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from libmh.context import Context
from libmh.errors import BY_WORD
from libmh.spec import (
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Access,
    Effect,
    Plain,
    Time,
    event,
    interface,
    method,
    prop,
    writes,
)


class Colour(StrEnum):
    """A word."""

    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Inner:
    """A record in a record."""

    name: Annotated[str, "any"]
    colour: Annotated[Colour, "red or green"]
    size: Annotated[U64 | None, "may be absent"] = None
    free: Annotated[Plain, "anything, or absent"] = None


@dataclass(frozen=True, slots=True)
class Outer:
    """A record."""

    inner: Annotated[Inner, "one"]
    more: Annotated[list[Inner], "some"]
    by_name: Annotated[dict[str, I64], "numbers"]
    flag: Annotated[bool | None, "may be absent"] = None


@interface("org.example.Probe", version="1.0")
class Probe(Protocol):
    """Everything that can be carried."""

    @prop(inline=True)
    def gauge(self) -> U64:
        """Counts how often it was read."""
        ...

    @prop(constant=True)
    def outer(self) -> Outer:
        """A record."""
        ...

    @prop()
    def maybe(self) -> str | None:
        """Absent until it is set."""
        ...

    @writes("maybe", access=Access.OPEN)
    def set_maybe(self, value: str | None) -> None:
        """Set it."""
        ...

    @prop()
    def number(self) -> U32:
        """A number that is guarded."""
        ...

    @writes("number")
    def set_number(self, value: U32) -> None:
        """Set it."""
        ...

    @method(
        access=Access.OPEN,
        returns=("flag", "u8", "u16", "u32", "u64", "i16", "i32", "i64", "double", "text", "raw", "time"),
    )
    def scalars(
        self,
        flag: bool,
        u8: U8,
        u16: U16,
        u32: U32,
        u64: U64,
        i16: I16,
        i32: I32,
        i64: I64,
        double: float,
        text: str,
        raw: bytes,
        time: Time,
    ) -> tuple[bool, U8, U16, U32, U64, I16, I32, I64, float, str, bytes, Time]:
        """Answers what it is given."""
        ...

    @method(access=Access.OPEN, returns=("names", "numbers", "outer", "colour", "maybe", "anything"))
    def shapes(
        self,
        names: list[str],
        numbers: dict[str, I32],
        outer: Outer,
        colour: Colour,
        maybe: U16 | None,
        anything: Plain,
    ) -> tuple[list[str], dict[str, I32], Outer, Colour, U16 | None, Plain]:
        """Answers what it is given."""
        ...

    @method(access=Access.OPEN, objects=("name",), deadline=10.0)
    def wait(self, name: str, seconds: float = 5.0) -> bool:
        """Answers when `release` was called, or the seconds have passed; false then."""
        ...

    @method(access=Access.OPEN, inline=True)
    def release(self) -> None:
        """Lets `wait` answer."""
        ...

    @method(access=Access.OPEN)
    def blob(self, kib: U32) -> list[str]:
        """As many strings of 1 KiB."""
        ...

    @method(effect=Effect.CHANGES, objects=("unit", "key"), returns="done")
    def guarded(self, unit: str, key: str, value: str) -> str:
        """Needs leave."""
        ...

    @method(access=Access.OPEN)
    def fail(self, word: str) -> None:
        """Fails with that word; with any other than a problem's, in a way that nobody expects."""
        ...

    @method(access=Access.OPEN)
    def announce(self, outer: Outer, maybe: str | None) -> None:
        """Raises `announced`."""
        ...

    @event()
    def announced(self, outer: Outer, maybe: str | None, count: U32) -> None:
        """Something was announced."""
        return


OUTER = Outer(
    Inner("a", Colour.GREEN, 2**64 - 1, {"k": [1, "two", None, b"\x00"]}),
    [Inner("b", Colour.RED)],
    {"n": -1},
)


class ProbeHost(Probe):
    """The provider."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._reads = 0
        self._maybe: str | None = None
        self._number = 1
        self._released = threading.Event()

    def gauge(self) -> int:
        self._reads += 1
        return self._reads

    def outer(self) -> Outer:
        return OUTER

    def maybe(self) -> str | None:
        return self._maybe

    def set_maybe(self, value: str | None) -> None:
        self._maybe = value

    def number(self) -> int:
        return self._number

    def set_number(self, value: int) -> None:
        self._number = value

    def scalars(
        self,
        flag: bool,
        u8: int,
        u16: int,
        u32: int,
        u64: int,
        i16: int,
        i32: int,
        i64: int,
        double: float,
        text: str,
        raw: bytes,
        time: int,
    ) -> tuple[bool, int, int, int, int, int, int, int, float, str, bytes, int]:
        return flag, u8, u16, u32, u64, i16, i32, i64, double, text, raw, time

    def shapes(
        self,
        names: list[str],
        numbers: dict[str, int],
        outer: Outer,
        colour: Colour,
        maybe: int | None,
        anything: Plain,
    ) -> tuple[list[str], dict[str, int], Outer, Colour, int | None, Plain]:
        return names, numbers, outer, colour, maybe, anything

    def wait(self, name: str, seconds: float = 5.0) -> bool:
        del name
        return self._released.wait(seconds)

    def release(self) -> None:
        self._released.set()

    def blob(self, kib: int) -> list[str]:
        return ["x" * 1024] * kib

    def guarded(self, unit: str, key: str, value: str) -> str:
        return f"{unit} {key} {value}"

    def fail(self, word: str) -> None:
        if word in BY_WORD:
            raise BY_WORD[word](f"as asked: {word}")
        raise ValueError(word)

    def announce(self, outer: Outer, maybe: str | None) -> None:
        self._context.events.emit(Probe.announced, outer=outer, maybe=maybe, count=1)
