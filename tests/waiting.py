"""Wait for a condition with a deadline: the only way in which a test may let time pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar, overload

T = TypeVar("T")
STEP = 0.01


def wait_for(condition: Callable[[], T], seconds: float = 30, what: str = "") -> T:
    """Call `condition` until it gives something true, and return that; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{what or _name(condition)} did not come true within {seconds} s, last seen: {value!r}"
            )
        pause.wait(STEP)
    return value


@overload
async def eventually(condition: Callable[[], Awaitable[T]], seconds: float = 30, what: str = "") -> T: ...
@overload
async def eventually(condition: Callable[[], T], seconds: float = 30, what: str = "") -> T: ...
async def eventually(condition: Callable[[], Awaitable[T] | T], seconds: float = 30, what: str = "") -> T:
    """`wait_for` on a running loop; the condition may be awaitable, and one that hangs is cut off."""
    last: object = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                given = condition()
                value: T = await given if isinstance(given, Awaitable) else given
                if value:
                    return value
                last = value
                await asyncio.sleep(STEP)
    except TimeoutError as error:
        raise TimeoutError(
            f"{what or _name(condition)} did not come true within {seconds} s, last seen: {last!r}"
        ) from error


def _name(condition: object) -> str:
    return str(getattr(condition, "__qualname__", condition))
