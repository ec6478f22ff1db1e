"""Who may do what, as polkit decides: org.freedesktop.PolicyKit1.Authority on the same bus.

Reading properties and what is declared open asks nobody, and root asks nobody. For the rest polkit is asked
about the action `<interface>.<member>` with the caller's unique name as its subject and, as details that a
rule may look at, the member and each argument that names what is acted on, as the host itself calls it: a
rule about a unit is not passed by its alias. No polkit, or no sense from it,
is a refusal.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from libmh.bus import DAEMON, Bus, Message, variant
from libmh.call import Request, Verb
from libmh.dispatch import Objects
from libmh.errors import NotAuthorized, Problem, Timeout
from libmh.spec import Access, Interface, Member

log = logging.getLogger("mh_dbus.polkit")

NAME = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
CHECK = "(sa{sv})sa{ss}us"
ALLOW_USER_INTERACTION = 1
DECISION_SECONDS = 20.0
DIALOG_SECONDS = 120.0
CANCEL_SECONDS = 5.0
MAX_DETAIL = 1024
MAX_DIALOGS = 32  # each is an unanswered call of the one connection, which may have 64
MAX_DIALOGS_PER_USER = 8
MAX_CHECKS = 24  # without a dialog; what is left of the 64 is for asking the bus who calls


class Polkit:
    """`libmh.dispatch.Authority` of the D-Bus agent; `attach` tells it the connection of the day."""

    def __init__(self) -> None:
        self._bus: Bus | None = None
        self._interactive: set[str] = set()
        self._dialogs: Counter[int] = Counter()
        self._checks = asyncio.Semaphore(MAX_CHECKS)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def attach(self, bus: Bus | None) -> None:
        """Ask on `bus` from now on; None when there is no connection."""
        self._bus = bus
        if bus is not None:
            bus.on_signal(self._owner_changed)

    @contextmanager
    def asking(self, request: Request, *, interactive: bool) -> Iterator[None]:
        """While a request is under way: whether its caller wants its user to be asked."""
        if interactive:
            self._interactive.add(request.id)
        try:
            yield
        finally:
            self._interactive.discard(request.id)

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None:
        """Return when the caller may go on. Raises `NotAuthorized` with the action."""
        del interface
        if member is None or request.verb in (Verb.GET, Verb.GET_ALL) or member.access is Access.OPEN:
            return
        if request.caller.uid == 0:
            return
        bus = self._bus
        if bus is None or request.caller.uid is None:
            raise NotAuthorized(
                f"nobody can tell whether '{member.action}' is allowed", action=member.action
            )
        details = {name: value[:MAX_DETAIL] for name, value in (await objects()).items()} | {
            "member": member.name
        }
        try:
            allowed, challenge = await self._decide(bus, request, member.action, details)
        except Problem as problem:  # polkit is absent, slow, or does not know the action
            log.warning("polkit did not decide about '%s': %s", member.action, problem)
            raise NotAuthorized(
                f"polkit did not allow '{member.action}': {problem}", action=member.action
            ) from problem
        if not allowed:
            raise _refusal(member.action, challenge=challenge)

    async def _decide(
        self, bus: Bus, request: Request, action: str, details: Mapping[str, str]
    ) -> tuple[bool, bool]:
        if request.id not in self._interactive:
            return await self._quick(bus, request, action, details)
        uid = request.caller.uid or 0
        if self._dialogs.total() >= MAX_DIALOGS or self._dialogs[uid] >= MAX_DIALOGS_PER_USER:
            raise NotAuthorized("too many dialogs are open", action=action)
        self._dialogs[uid] += 1
        try:
            return await self._dialog(bus, request, action, details)
        finally:
            self._dialogs[uid] -= 1
            if not self._dialogs[uid]:
                del self._dialogs[uid]

    async def _quick(
        self, bus: Bus, request: Request, action: str, details: Mapping[str, str]
    ) -> tuple[bool, bool]:
        try:
            async with asyncio.timeout(DECISION_SECONDS), self._checks:
                return await _check(bus, request, action, details, "")
        except TimeoutError:
            raise Timeout(f"polkit did not decide within {DECISION_SECONDS:g} s", source=NAME) from None

    async def _dialog(
        self, bus: Bus, request: Request, action: str, details: Mapping[str, str]
    ) -> tuple[bool, bool]:
        # a person may be asked, which takes long: whoever goes away meanwhile closes the dialog
        caller = request.caller.identity
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rule = f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{caller}'"
        self._waiting.setdefault(caller, set()).add(gone)
        check = asyncio.ensure_future(_check(bus, request, action, details, request.id))
        try:
            await bus.ask("AddMatch", "s", rule)
            (present,) = await bus.ask("NameHasOwner", "s", caller)
            if present:
                both: set[asyncio.Future[Any]] = {check, gone}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not check.done():
                raise NotAuthorized(f"the caller of '{action}' went away", action=action)
            return check.result()
        except (Timeout, NotAuthorized):  # nobody answered the dialog, or nobody waits for it
            await _cancel(bus, request.id)
            raise
        finally:
            check.cancel()
            self._forget(caller, gone)
            await _unmatch(bus, rule)

    def _forget(self, caller: str, gone: "asyncio.Future[None]") -> None:
        waiting = self._waiting.get(caller, set())
        waiting.discard(gone)
        if not waiting:
            self._waiting.pop(caller, None)

    def _owner_changed(self, message: Message) -> None:
        if message.member != "NameOwnerChanged" or message.sender != DAEMON or message.signature != "sss":
            return
        name, _, owner = message.body
        if not owner:
            for gone in self._waiting.get(name, ()):
                if not gone.done():
                    gone.set_result(None)


async def _check(
    bus: Bus, request: Request, action: str, details: Mapping[str, str], cancellation: str
) -> tuple[bool, bool]:
    """CheckAuthorization: whether it is allowed, and whether it could be after a dialog."""
    subject = ["system-bus-name", {"name": variant("s", request.caller.identity)}]
    answer = await bus.call(
        NAME,
        PATH,
        AUTHORITY,
        "CheckAuthorization",
        CHECK,
        [subject, action, dict(details), ALLOW_USER_INTERACTION if cancellation else 0, cancellation],
        timeout=DIALOG_SECONDS if cancellation else DECISION_SECONDS,
    )
    match answer:
        case [[bool(allowed), bool(challenge), _]]:
            return allowed, challenge
    raise NotAuthorized(f"polkit answered what is no decision about '{action}'", action=action)


async def _cancel(bus: Bus, cancellation: str) -> None:
    try:
        await bus.call(
            NAME,
            PATH,
            AUTHORITY,
            "CancelCheckAuthorization",
            "s",
            [cancellation],
            timeout=CANCEL_SECONDS,
        )
    except Problem as problem:  # it has ended by itself
        log.debug("the check could not be cancelled: %s, ignoring", problem)


async def _unmatch(bus: Bus, rule: str) -> None:
    try:
        await bus.ask("RemoveMatch", "s", rule)
    except Problem as problem:  # the connection, and the rule with it, is gone
        log.debug("the match rule could not be removed: %s, ignoring", problem)


def _refusal(action: str, *, challenge: bool) -> NotAuthorized:
    hint = ": somebody has to authenticate for it, and nobody can be asked" if challenge else ""
    return NotAuthorized(f"You are not authorized for specified action '{action}'{hint}", action=action)
