"""A fake authentication agent: the dialog that a desktop would show, held open until the test closes it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libmh.bus import Bus, Message, connect, variant
from testbed.child import GRACE

POLKIT = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
ROOT = ["unix-user", {"uid": 0}]


@dataclass(slots=True)
class Dialog:
    """Dialogs by cookie: those that are open, and those that polkit took away."""

    bus: Bus
    open: dict[str, Message] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def take(self, message: Message) -> None:
        if message.member == "BeginAuthentication":
            self.open[message.body[4]] = message  # answered when the person has decided
        elif message.member == "CancelAuthentication":
            self.cancelled.append(message.body[0])
            self.bus.reply(message)

    async def agree(self) -> None:
        """Authenticate as root in the dialog that is open."""
        cookie, message = self.open.popitem()
        identity = [ROOT[0], {"uid": variant("u", 0)}]
        await self.bus.call(*POLKIT, "AuthenticationAgentResponse2", "us(sa{sv})", [0, cookie, identity])
        self.bus.reply(message)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@asynccontextmanager
async def dialog(address: str, process: "subprocess.Popen[Any]") -> AsyncIterator[Dialog]:
    """Be the authentication agent of one process."""
    bus = await connect(address)
    shown = Dialog(bus)
    bus.on_call(shown.take)
    started = variant("t", start_time(process.pid))
    subject = ["unix-process", {"pid": variant("u", process.pid), "start-time": started}]
    await bus.call(*POLKIT, "RegisterAuthenticationAgent", "(sa{sv})ss", [subject, "C", "/test/agent"])
    try:
        yield shown
    finally:
        await bus.close()


@asynccontextmanager
async def held(command: Sequence[str]) -> AsyncIterator["subprocess.Popen[str]"]:
    """A process that becomes `command` when a line is written to it, so that its pid is known before."""
    process = subprocess.Popen(  # noqa: ASYNC220 - it forks, and is waited for in a thread
        ["sh", "-c", 'read line; exec "$@"', "held", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate, None, GRACE)
