"""An event loop in a thread of its own, for plain Python that has to wait for what happens in it."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from libmh.errors import InvalidArguments, Timeout, Unavailable

R = TypeVar("R")
CLOSE_SECONDS = 3.0


class LoopThread:
    """Runs from the start until `stop`."""

    def __init__(self) -> None:
        self.closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="libmh-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R], seconds: float | None) -> R:
        """What `work` answers. Raises `Timeout` after `seconds`, `Unavailable` once this has ended, and
        `InvalidArguments` for a time that nobody can wait."""
        if self.closed:
            work.close()
            raise Unavailable("this connection is closed")
        future = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise Timeout(f"no answer within {seconds:g} s") from None
        except OverflowError:
            future.cancel()
            raise InvalidArguments(f"nobody can wait for {seconds:g} s", argument="deadline") from None
        except CancelledError:
            raise Unavailable("this connection was closed meanwhile") from None

    def stop(self) -> None:
        """End the loop with all that runs in it. Does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        ended = asyncio.run_coroutine_threadsafe(_end_all(), self._loop)
        ended.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


async def _end_all() -> None:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS / 2)
    await loop.shutdown_asyncgens()


async def _awaited(work: Coroutine[Any, Any, R]) -> R:
    return await work
