"""Blocking calls on D-Bus, for providers: from any thread, over one background loop for the whole process.

Every wait has a deadline, and every failure is a `Problem`.
"""

import asyncio
import concurrent.futures
import functools
from collections.abc import Sequence
from typing import Any

from libmh.bus import CALL_DEADLINE, CONNECT_DEADLINE, GRACE, SYSTEM, Bus, BusCall, background, connect
from libmh.errors import Problem, Timeout


class SystemBus:
    """Blocking calls from any thread. It connects at the first call, and again after a loss."""

    def __init__(self, address: str = SYSTEM) -> None:
        self._address = address
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: Any,
        timeout: float = CALL_DEADLINE,
        raw: bool = False,
    ) -> list[Any]:
        """Call a method and return the values of its answer, variants unwrapped unless `raw`. Raises as
        `connect` and `Bus.call`; `timeout` is for both together."""
        (outcome,) = self.call_many(
            [BusCall(destination, path, interface, member, signature, arguments)], timeout=timeout, raw=raw
        )
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def call_many(
        self, calls: Sequence[BusCall], *, timeout: float = CALL_DEADLINE, raw: bool = False
    ) -> list[list[Any] | Problem]:
        """Make calls side by side, and return for each its values or the failure that it met. `timeout` is
        for all together; where there is no bus every call fails the same way."""
        future = asyncio.run_coroutine_threadsafe(self._all(calls, timeout, raw=raw), background())
        try:
            return future.result(timeout + GRACE)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise Timeout(f"the bus at '{self._address}' did not answer within {timeout:g} s") from None

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
        bus, self._bus = self._bus, None
        if bus is not None:
            asyncio.run_coroutine_threadsafe(bus.close(), background()).result(2 * GRACE)

    async def _all(
        self, calls: Sequence[BusCall], seconds: float, *, raw: bool
    ) -> list[list[Any] | Problem]:
        end = asyncio.get_running_loop().time() + seconds
        try:
            bus = await self._connected(seconds)
        except Problem as problem:
            return [problem for _ in calls]
        left = max(end - asyncio.get_running_loop().time(), 0.0)
        return list(await asyncio.gather(*(_outcome(bus, call, left, raw=raw) for call in calls)))

    async def _connected(self, seconds: float) -> Bus:
        async with self._connecting:
            if self._bus is None or not self._bus.connected:
                self._bus = await connect(self._address, timeout=min(seconds, CONNECT_DEADLINE))
            return self._bus


async def _outcome(bus: Bus, call: BusCall, seconds: float, *, raw: bool) -> list[Any] | Problem:
    try:
        return await bus.make(call, timeout=seconds, raw=raw)
    except Problem as problem:
        return problem


@functools.cache
def system_bus(address: str = SYSTEM) -> SystemBus:
    """The process's own connection to a bus, shared by its providers."""
    return SystemBus(address)
