"""Properties that are held for different times, and a provider that counts how often it is asked."""

import threading
from collections import Counter
from typing import Protocol

from libmh.errors import BackendFailed
from libmh.spec import U32, Access, Effect, interface, method, prop, writes


@interface("org.example.Gauges", version="1.2")
class Gauges(Protocol):
    """Things to read."""

    @prop(constant=True)
    def built(self) -> str:
        """Never changes."""
        ...

    @prop(max_age=60.0)
    def level(self) -> U32:
        """May be a minute old."""
        ...

    @writes("level")
    def set_level(self, value: U32) -> None:
        """Set it."""
        ...

    @prop()
    def fresh(self) -> U32:
        """Is read each time."""
        ...

    @prop(inline=True)
    def counter(self) -> U32:
        """Answers from memory."""
        ...

    @prop(max_age=60.0)
    def broken(self) -> str:
        """Cannot be read."""
        ...

    @prop(max_age=60.0)
    def unknown(self) -> str | None:
        """Is absent."""
        ...

    @prop()
    def buggy(self) -> str:
        """Raises what nobody expects."""
        ...

    @prop(deadline=0.2)
    def slow(self) -> U32:
        """Waits for the gate."""
        ...

    @method(access=Access.OPEN, deadline=0.2, objects=("disk",), returns="size")
    def measure(self, disk: str) -> U32:
        """Waits for the gate."""
        ...

    @method(inline=True, returns="count")
    def reset(self) -> U32:
        """Needs leave, and answers at once."""
        ...

    @method(effect=Effect.CHANGES, objects=("disk",), deadline=600.0)
    def format(self, disk: str) -> U32:
        """Waits for the gate."""
        ...

    @method(effect=Effect.CHANGES, objects=("disk",))
    def wipe(self, disk: str, how: str = "") -> None:
        """Changes something; fails, or raises a bug, when asked how."""
        ...


class TestBench(Gauges):
    """The provider: `gate` is what the slow ones wait for."""

    __test__ = False

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.gate = threading.Event()
        self.now = 1

    def _read(self, name: str) -> int:
        self.reads[name] += 1
        return self.now

    def built(self) -> str:
        return f"built {self._read('built')}"

    def level(self) -> int:
        return self._read("level")

    def set_level(self, value: int) -> None:
        self.now = value

    def fresh(self) -> int:
        return self._read("fresh")

    def counter(self) -> int:
        return self._read("counter")

    def broken(self) -> str:
        raise BackendFailed(f"out of order {self._read('broken')}")

    def unknown(self) -> str | None:
        self._read("unknown")
        return None

    def buggy(self) -> str:
        raise ValueError(f"a bug {self._read('buggy')}")

    def slow(self) -> int:
        value = self._read("slow")
        self.gate.wait(20)
        return value

    def measure(self, disk: str) -> int:
        value = self._read(f"measure {disk}")
        self.gate.wait(20)
        return value

    def format(self, disk: str) -> int:
        value = self._read(f"format {disk}")
        self.gate.wait(20)
        return value

    def reset(self) -> int:
        return self._read("reset")

    def wipe(self, disk: str, how: str = "") -> None:
        self._read(f"wipe {disk}")
        if how == "fail":
            raise BackendFailed("will not")
        if how == "bug":
            raise ValueError("a bug")
