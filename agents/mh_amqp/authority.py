"""Who may do what over AMQP: a role by identity, and nothing for anybody else.

::

    [authority]
    "CN=console-*" = "operator"
    "anonymous" = "read-only"

The keys are shell patterns over identities, the first that matches counts. `guest` may do what any local
user may without polkit being asked: read properties, and call methods that are open to everybody;
`read-only` reads whatever there is, logs too; `operator` also changes and disrupts; `none` is refused
everything. Without the table, `anonymous` (which exists on loopback alone: through a broker elsewhere it is
`anonymous@HOST`) is `guest`. Methods that are
declared open to everybody and change only what their interface is for, as sending a report does, need no
role, but are closed to `none`.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from libmh.call import Request, Verb
from libmh.dispatch import Objects
from libmh.errors import InvalidArguments, NotAuthorized
from libmh.spec import Access, Effect, Interface, Kind, Member

ANONYMOUS = "anonymous"
MAX_KNOWN = 1024
MAX_SHOWN = 200


class Role(StrEnum):
    """What an identity may do."""

    NONE = "none"
    GUEST = "guest"
    READ_ONLY = "read-only"
    OPERATOR = "operator"


DEFAULT: Mapping[str, Role] = {ANONYMOUS: Role.GUEST}


@dataclass(slots=True)
class Roles:
    """`libmh.dispatch.Authority` by the roles of a configuration; identities that match nothing have no
    role."""

    roles: Mapping[str, Role] = field(default_factory=lambda: DEFAULT)
    _known: dict[str, Role | None] = field(default_factory=dict)

    def role(self, identity: str) -> Role | None:
        if identity not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = (role for glob, role in self.roles.items() if fnmatch.fnmatchcase(identity, glob))
            self._known[identity] = next(found, None)
        return self._known[identity]

    def may_read(self, identity: str) -> bool:
        return self.role(identity) in (Role.GUEST, Role.READ_ONLY, Role.OPERATOR)

    async def authorise(
        self, request: Request, interface: Interface, member: Member | None, objects: Objects
    ) -> None:
        """Raise `NotAuthorized`, naming action and identity, unless the role is enough."""
        del objects  # a role is for all objects alike
        if not self._allows(request, member):
            identity = request.caller.identity[:MAX_SHOWN]
            action = f"{interface.name}.{member.name if member else request.member or '*'}"
            verb = "change" if request.verb is Verb.SET else "use" if request.verb is Verb.CALL else "read"
            raise NotAuthorized(f"'{identity}' may not {verb} '{action}'", action=action, identity=identity)

    def _allows(self, request: Request, member: Member | None) -> bool:
        role = self.role(request.caller.identity)
        if role is Role.OPERATOR:
            return True
        if member is None or request.verb in (Verb.GET, Verb.GET_ALL):
            return self.may_read(request.caller.identity)
        if request.verb is Verb.CALL and member.kind is Kind.METHOD:
            is_open = member.access is Access.OPEN
            if member.effect is Effect.READS:
                return role is Role.READ_ONLY or (is_open and role is Role.GUEST)
            return is_open and role is not Role.NONE
        return False


def roles(config: Mapping[str, Any]) -> Roles:
    """The roles of a configuration file. Raises `InvalidArguments` for a word that is no role."""
    table = config.get("authority")
    if table is None:
        return Roles()
    known = [str(role) for role in Role]
    for identity, word in table.items():
        if word not in known:
            raise InvalidArguments(
                f"[authority] '{identity}': expected one of {', '.join(known)}, got '{word}'",
                argument="authority",
            )
    return Roles({identity: Role(word) for identity, word in table.items()})
