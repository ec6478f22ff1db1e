"""Who may do what over HTTP: the policy of the configuration (`libmh.policy`), as on the other transports.

Roles that came with a token count; without any, the table `[authority]` says what an identity may. Where
there is no such table, whoever asks on loopback is an operator.
"""

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.call import Request, Verb
from libmh.dispatch import Objects
from libmh.errors import InvalidArguments, NotAuthorized
from libmh.policy import NOBODY, Asked, Decision, NeedsObjects, Policy, asked, fits, policy
from libmh.spec import Interface, Member
from libmh.watched import Watched, watch
from mh_conductor.rest.entrance import LOOPBACK, Entrant

log = logging.getLogger("mh_conductor.rest")
DEFAULT: Mapping[str, str] = {LOOPBACK: "operator"}
MAX_SHOWN = 200


def _read(text: str) -> Policy:
    try:
        return policy(tomllib.loads(text), DEFAULT)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArguments(str(error)) from error


@dataclass(frozen=True, slots=True)
class HttpAuthority:
    """`libmh.dispatch.Authority`. `file` has the policy, and may change; without one it is `fixed`."""

    fixed: Policy
    file: Watched[Policy] | None = None

    def _policy(self) -> Policy:
        return self.fixed if self.file is None else self.file.current()

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None:
        """Raise `NotAuthorized`, naming action and identity, unless a rule allows it."""
        said = await self._decision(request, interface, member, objects)
        if not said.allowed:
            action = f"{interface.name}.{member.name if member else '*'}"
            identity = request.caller.identity[:MAX_SHOWN]
            log.info("'%s' may not use '%s': %s", identity, action, said.reason)
            raise NotAuthorized(f"'{identity}' may not use '{action}'", action=action, identity=identity)

    async def _decision(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> Decision:
        if member is None or request.verb is not Verb.CALL:
            return Decision(allowed=False, reason="nothing but calls comes this way")
        try:
            return self._decide(request, asked(request, interface, member, None))
        except NeedsObjects:
            return self._decide(request, asked(request, interface, member, await objects()))

    def _decide(self, request: Request, wanted: Asked) -> Decision:
        current, caller = self._policy(), request.caller
        roles = caller.roles if isinstance(caller, Entrant) else ()
        if not roles:
            return current.decide(caller.identity, wanted)
        for role in roles:
            for rule in current.roles.get(role, ()) if role != NOBODY else ():
                if fits(rule, wanted):
                    return Decision(rule.allows, f"it has the role '{role}'; rule {rule.place}: {rule}")
        return Decision(allowed=False, reason=f"no rule of its roles fits: {', '.join(roles)}")


def authority(config: Mapping[str, Any], source: str | None) -> HttpAuthority:
    """The authority of a configuration and the file that it is from. Raises `InvalidArguments`."""
    return HttpAuthority(
        policy(config, DEFAULT), None if source is None else watch(Path(source), _read, "the policy")
    )
