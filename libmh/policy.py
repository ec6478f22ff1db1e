"""Who may do what: identities have roles, roles have rules, the first rule that fits decides, and where none
fits the answer is no.

::

    [authority]                      # shell patterns over identities; the first that fits counts
    "CN=console-*" = "operator"
    "CN=web" = "web"

    [roles.web]
    rules = [
        { deny = "Services.*", on = { name = "ssh*" } },
        { allow = "Services.restart", on = { name = ["nginx.service", "php*"] } },
        { allow = "Network.set_mtu", where = { mtu = "<= 9000" } },
        { allow = "Host.*", effect = "reads" },
        { use = "guest" },
    ]

`allow` and `deny` are shell patterns over `Interface.member`, the interface in full or by its last word.
`on` has shell patterns over what is acted on, as the host itself calls it; `where` has requirements
(`libmh.match`) over arguments; what is written to a property has the property's name. `effect` (reads,
changes, disrupts) and `access` (open, admin) take in what does that alone, or needs that locally. `use`
puts another role's rules in its place.
"""

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from libmh.call import Request, Verb
from libmh.errors import InvalidArguments
from libmh.match import read
from libmh.spec import Access, Effect, Interface, Kind, Member, Plain

MAX_ROLES = 1000
MAX_RULES = 1000
MAX_PATTERN = 300
MAX_SHOWN = 200
ANYTHING = "*"
NOBODY = ""
"""The role of who has none: it may tell what is there to be told, such as reports."""
BUILT_IN: Mapping[str, Sequence[Mapping[str, str]]] = {
    "none": [],
    NOBODY: [{"allow": ANYTHING, "access": "open", "effect": "changes"}],
    "guest": [{"allow": ANYTHING, "access": "open"}],
    "read-only": [{"allow": ANYTHING, "effect": "reads"}, {"use": NOBODY}],
    "operator": [{"allow": ANYTHING}],
}
ACCESS = {"open": Access.OPEN, "admin": Access.ADMIN}
CONDITIONS = frozenset({"on", "where", "effect", "access"})
VERDICTS = ("allow", "deny", "use")


@dataclass(frozen=True, slots=True)
class Rule:
    """`place` is where it stands, for people: `operator 1`."""

    place: str
    allows: bool
    pattern: str
    on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None
    access: Access | None = None

    def __str__(self) -> str:
        told = [f"{'allow' if self.allows else 'deny'} {self.pattern}"]
        told += [f"that {self.effect}"] if self.effect else []
        told += (
            [f"whose access is {'open' if self.access is Access.OPEN else 'admin'}"] if self.access else []
        )
        told += [f"on {name} {' or '.join(globs)}" for name, globs in self.on.items()]
        told += [f"where {name} {wanted}" for name, wanted in self.where.items()]
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to do. `objects` and `arguments` are asked for when a rule looks at them."""

    interface: Interface
    member: Member
    verb: Verb
    objects: Mapping[str, str] | None = None
    arguments: Mapping[str, Plain] = field(default_factory=dict)

    @property
    def effect(self) -> Effect:
        if self.verb is Verb.SET and self.member.setter is None:
            return Effect.CHANGES  # it is meant to, whatever comes of it
        return Effect.READS if self.verb in (Verb.GET, Verb.GET_ALL) else self.member.effect

    @property
    def access(self) -> Access:
        """Reading a property is open to everybody."""
        if self.verb is Verb.SET and self.member.setter is None:
            return Access.ADMIN
        return Access.OPEN if self.verb in (Verb.GET, Verb.GET_ALL) else self.member.access


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` names the rule that decided and the identity's role."""

    allowed: bool
    reason: str


@runtime_checkable
class Explaining(Protocol):
    """An authority that decides by a policy."""

    def explain(self, identity: str, asked: Asked) -> tuple[str | None, Decision]:
        """The identity's role, and what the policy says."""
        ...


class NeedsObjects(Exception):
    """A rule looks at what is acted on, and nobody has said what that is."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`holders`: pattern over identities -> role; `roles`: role -> its rules, `use` taken in."""

    holders: tuple[tuple[str, str], ...]
    roles: Mapping[str, tuple[Rule, ...]]

    def role(self, identity: str) -> str | None:
        """An identity's role; None when it has none."""
        return next((role for glob, role in self.holders if fnmatch.fnmatchcase(identity, glob)), None)

    def decide(self, identity: str, asked: Asked) -> Decision:
        """Whether an identity may do that, and why. Raises `NeedsObjects`."""
        role = self.role(identity)
        called = f"'{identity[:MAX_SHOWN]}' has {f'the role {role!r}' if role is not None else 'no role'}"
        for rule in self.roles[NOBODY if role is None else role]:
            if fits(rule, asked):
                return Decision(rule.allows, f"{called}; rule {rule.place}: {rule}")
        return Decision(allowed=False, reason=f"{called}; no rule fits")

    def decide_whatever(self, identity: str, interface: Interface, member: Member) -> Decision | None:
        """Whether an identity may call a member whatever it acts on, and why; None where a rule looks at
        objects or arguments first."""
        role = self.role(identity)
        for rule in self.roles[NOBODY if role is None else role]:
            if (rule.on or rule.where) and _named(rule.pattern, interface, member):
                return None
        return self.decide(identity, Asked(interface, member, Verb.CALL, {}))

    def decide_all(self, identity: str, interface: Interface) -> Decision:
        """Whether all properties may be read at once: each has to be."""
        said = Decision(allowed=False, reason=f"'{interface.name}' has no properties")
        for member in interface.of(Kind.PROPERTY):
            said = self.decide(identity, Asked(interface, member, Verb.GET, {}))
            if not said.allowed:
                break
        return said

    def idle(self, interfaces: Sequence[Interface]) -> Iterator[str]:
        """Rules that no member of these fits: mistyped, most likely; a deny of that kind forbids nothing."""
        known = [(each, member) for each in interfaces for member in each.members.values()]
        for rule in {rule.place: rule for rules in self.roles.values() for rule in rules}.values():
            members = [member for each, member in known if _named(rule.pattern, each, member)]
            if not members:
                yield f"rule {rule.place}: nothing is called '{rule.pattern}'"
                continue
            objects = {name for member in members for name in member.objects}
            arguments = {argument.name for member in members for argument in member.arguments}
            written = {member.name for member in members if member.kind is Kind.PROPERTY}
            for name in (rule.on.keys() - objects) | (rule.where.keys() - arguments - written):
                yield f"rule {rule.place}: nothing that is called '{rule.pattern}' has '{name}'"


def asked(
    request: Request, interface: Interface, member: Member, objects: Mapping[str, str] | None
) -> Asked:
    """What a request wants: its arguments by name, with the defaults of those that it leaves out."""
    given = request.arguments
    left_out = (argument for argument in member.arguments if not argument.required)
    named: dict[str, Any] = {argument.name: argument.default for argument in left_out}
    if request.verb is Verb.SET:
        values = list(given.values()) if isinstance(given, Mapping) else given
        named |= dict(zip((member.name,), values, strict=False))
    elif isinstance(given, Mapping):
        named |= given
    else:
        named |= dict(zip((argument.name for argument in member.arguments), given, strict=False))
    return Asked(interface, member, request.verb, objects, named)


def fits(rule: Rule, wanted: Asked) -> bool:
    """Whether a rule is about that. Raises `NeedsObjects`."""
    if not _named(rule.pattern, wanted.interface, wanted.member):
        return False
    if rule.effect not in (None, wanted.effect) or rule.access not in (None, wanted.access):
        return False
    if rule.on and wanted.objects is None:
        raise NeedsObjects
    objects = wanted.objects or {}
    for name, globs in rule.on.items():
        value = objects.get(name)
        if value is None or not any(fnmatch.fnmatchcase(value, glob) for glob in globs):
            return False
    return all(read(needed).match(wanted.arguments.get(name)) for name, needed in rule.where.items())


def _named(pattern: str, interface: Interface, member: Member) -> bool:
    return pattern == ANYTHING or any(
        fnmatch.fnmatchcase(f"{name}.{member.name}", pattern) for name in (interface.name, interface.short)
    )


def policy(config: Mapping[str, Any], default: Mapping[str, str]) -> Policy:
    """The policy of a configuration's tables `authority` and `roles`; `default` says who has which role
    where there is no table. Raises `InvalidArguments`, which says where."""
    tables = config.get("roles", {})
    if len(tables) > MAX_ROLES:
        raise InvalidArguments(f"[roles]: expected at most {MAX_ROLES} roles", argument="roles")
    for name in tables:
        if name in BUILT_IN or not name:
            raise InvalidArguments(f"[roles.{name}]: this role is built in", argument="roles")
    written = {name: _entries(name, table) for name, table in tables.items()} | dict(BUILT_IN)
    roles = {name: tuple(_rules(name, written, (name,))) for name in written}
    holders = config.get("authority", default)
    for identity, role in holders.items():
        if not isinstance(role, str) or role not in roles or role == NOBODY:
            words = ", ".join(name for name in roles if name)
            raise InvalidArguments(
                f"[authority] '{identity[:MAX_SHOWN]}': expected one of {words}, got '{role}'",
                argument="authority",
            )
    return Policy(tuple(holders.items()), roles)


def _entries(role: str, table: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(table, dict) or set(table) != {"rules"} or not isinstance(table["rules"], list):
        raise InvalidArguments(f"[roles.{role}]: expected rules, a list of tables", argument="roles")
    if len(table["rules"]) > MAX_RULES:
        raise InvalidArguments(f"[roles.{role}]: expected at most {MAX_RULES} rules", argument="roles")
    return table["rules"]


def _rules(
    role: str, written: Mapping[str, Sequence[Mapping[str, Any]]], within: tuple[str, ...]
) -> Iterator[Rule]:
    for number, entry in enumerate(written[role], 1):
        where = f"{role} {number}".strip()
        words = [word for word in VERDICTS if isinstance(entry, dict) and word in entry]
        if len(words) != 1 or not isinstance(entry[words[0]], str):
            raise _bad(where, "expected a table with one of allow, deny and use, which is a string")
        if words[0] != "use":
            yield _rule(where, entry, words[0])
        elif set(entry) != {"use"} or entry["use"] not in written or entry["use"] in within:
            raise _bad(where, "use: expected another role, which does not use this one, alone")
        else:
            yield from _rules(entry["use"], written, (*within, entry["use"]))


def _rule(where: str, entry: Mapping[str, Any], verdict: str) -> Rule:
    unknown = set(entry) - CONDITIONS - {verdict}
    if unknown:
        raise _bad(where, f"there is no '{min(unknown)}' in a rule")
    pattern = entry[verdict]
    if len(pattern) > MAX_PATTERN or (pattern != ANYTHING and "." not in pattern):
        raise _bad(where, f"expected Interface.member, or a pattern of these, got '{pattern[:MAX_SHOWN]}'")
    return Rule(
        where,
        verdict == "allow",
        pattern,
        _conditions(where, entry.get("on", {}), "on", _globs),
        _conditions(where, entry.get("where", {}), "where", _requirement),
        _word(where, entry.get("effect"), {str(each): each for each in Effect}),
        _word(where, entry.get("access"), ACCESS),
    )


def _conditions(where: str, table: object, name: str, read: "Callable[[object], Any]") -> dict[str, Any]:
    if not isinstance(table, dict):
        raise _bad(where, f"{name}: expected a table by argument")
    try:
        return {key: read(value) for key, value in table.items()}
    except ValueError as error:
        raise _bad(where, f"{name}: {error}") from error


def _globs(value: object) -> tuple[str, ...]:
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(each, str) and len(each) <= MAX_PATTERN for each in given):
        raise ValueError("expected a pattern, or a list of them")
    return tuple(given)


def _requirement(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_PATTERN:
        raise ValueError("expected a requirement, as '<= 9000'")
    return value


def _word(where: str, value: object, known: Mapping[str, Any]) -> Any:
    if value is not None and value not in known:
        raise _bad(where, f"expected one of {', '.join(known)}, got '{value}'")
    return None if value is None else known[str(value)]


def _bad(where: str, words: str) -> InvalidArguments:
    return InvalidArguments(f"[roles] rule {where}: {words}", argument="roles")
