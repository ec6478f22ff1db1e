"""Who may do what over AMQP: the policy of the agent's configuration (`libmh.policy`), read again when the
file has changed.

Without a table `[authority]`, `anonymous` (which exists on loopback alone: through a broker elsewhere it is
`anonymous@HOST`) and `uid:N`, who came by a Unix socket, are `guest`: that reads properties, and calls what
is open to everybody, as any local user may without polkit being asked.
"""

import logging
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libmh.call import Request, Verb
from libmh.dispatch import Objects
from libmh.errors import NotAuthorized
from libmh.policy import Asked, Decision, NeedsObjects, Policy, asked, policy
from libmh.spec import Interface, Kind, Member
from libmh.watched import Watched

log = logging.getLogger(__name__)
ANONYMOUS = "anonymous"
DEFAULT: Mapping[str, str] = {ANONYMOUS: "guest", "uid:*": "guest"}
MAX_SHOWN = 200
MAX_KNOWN = 4096
MAX_NAMED = 500
"""Who has a longer name than this is looked at each time."""


@dataclass(slots=True)
class Roles:
    """`libmh.dispatch.Authority` by a policy, and by the file that it was read from."""

    policy: Policy = field(default_factory=lambda: policy({}, DEFAULT))
    file: Watched[Policy] | None = None
    _said: dict[tuple[str, str], Decision] = field(default_factory=dict)
    _whatever: dict[tuple[str, str], Decision | None] = field(default_factory=dict)

    def may_read(self, identity: str, interface: Interface) -> bool:
        """Whether all properties of an interface may be read; remembered until the policy changes."""
        return self._all(identity, interface).allowed

    def may_hear(self, identity: str, interface: Interface, name: str) -> bool:
        """Whether an event may be told: as a property of its name could be read; a change of properties, who
        may read them all. Remembered until the policy changes."""
        member = interface.members.get(name)
        if member is None:
            return self.may_read(identity, interface)
        return self._remembered(
            identity,
            member.action,
            lambda policy: policy.decide(identity, Asked(interface, member, Verb.GET, {})),
        ).allowed

    def _all(self, identity: str, interface: Interface) -> Decision:
        return self._remembered(
            identity, interface.name, lambda policy: policy.decide_all(identity, interface)
        )

    def _remembered(self, identity: str, what: str, decide: Callable[[Policy], Decision]) -> Decision:
        current = self._current()  # it forgets what is remembered when the policy has changed
        said = self._said.get((identity, what))
        if said is None and len(identity) > MAX_NAMED:
            return decide(current)
        if said is None:
            if len(self._said) >= MAX_KNOWN:
                self._said.clear()
            said = self._said[identity, what] = decide(current)
        return said

    def _call(self, policy: Policy, identity: str, interface: Interface, member: Member) -> Decision | None:
        key = (identity, member.action)
        if len(identity) > MAX_NAMED:
            return None
        if key not in self._whatever:
            if len(self._whatever) >= MAX_KNOWN:
                self._whatever.clear()
            self._whatever[key] = policy.decide_whatever(identity, interface, member)
        return self._whatever[key]  # None: a rule looks at what is acted on, each time

    def explain(self, identity: str, asked: Asked) -> tuple[str | None, Decision]:
        """The identity's role, and what the policy that is in force says."""
        current = self._current()
        return current.role(identity), current.decide(identity, asked)

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None:
        """Raise `NotAuthorized`, naming action and identity, unless the policy allows it."""
        identity = request.caller.identity
        said = await self._decision(request, interface, member, objects)
        if not said.allowed:
            action = f"{interface.name}.{member.name if member else '*'}"
            verb = "change" if request.verb is Verb.SET else "use" if request.verb is Verb.CALL else "read"
            # why is for those who write the policy
            log.info("'%s' may not %s '%s': %s", identity[:MAX_SHOWN], verb, action, said.reason)
            raise NotAuthorized(
                f"'{identity[:MAX_SHOWN]}' may not {verb} '{action}'",
                action=action,
                identity=identity[:MAX_SHOWN],
            )

    async def _decision(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> Decision:
        current, identity = self._current(), request.caller.identity
        if member is None:
            return self._all(identity, interface)
        if member.kind is Kind.EVENT:
            return Decision(allowed=False, reason="an event is not asked for")
        if request.verb is Verb.CALL and (said := self._call(current, identity, interface, member)):
            return said
        try:
            return current.decide(identity, asked(request, interface, member, None))
        except NeedsObjects:
            return current.decide(identity, asked(request, interface, member, await objects()))

    def _current(self) -> Policy:
        found = self.policy if self.file is None else self.file.current()
        if found is not self.policy:
            self.policy = found
            self._said.clear()
            self._whatever.clear()
        return found


def roles(config: Mapping[str, Any], source: str | None = None) -> Roles:
    """The authority of a configuration, and the file that it is from. Raises `InvalidArguments`, which says
    what is wrong where."""
    found = policy(config, DEFAULT)
    return Roles(found, None if source is None else Watched(Path(source), _read, found, "the policy"))


def _read(text: str) -> Policy:
    return policy(tomllib.loads(text), DEFAULT)
