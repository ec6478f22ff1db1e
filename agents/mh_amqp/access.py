"""Who may use which addresses of the embedded broker: identities have roles, roles have rules, the first
rule that fits decides, and where none fits the answer is no.

::

    [access]                             # shell patterns over identities; the first that fits counts
    "CN=agent-*" = "host"
    "CN=ops-*" = "console"
    "CN=conductor" = "conductor"
    "CN=recorder" = "recorder"

    [addresses.recorder]
    rules = [
        { deny = "mh.event.org.matahariproject.Sysconfig.*" },
        { allow = "mh.event.*", to = "receive" },
        { use = "none" },
    ]

    [hosts]                              # which hosts an identity is; see `mh_amqp.owners`
    "CN=agent-web1" = "9f2c1d..."

`allow` and `deny` are shell patterns over addresses, or lists of them; `{host}` in one stands for the UUID
of a host that the identity is, or becomes when it receives from there. `to` is `send` or `receive`, else
both. With `own = true` a message has to name such a host as its `mh:host`. Who has any rule may have reply
addresses of his own, and send to those of others.
"""

import fnmatch
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from libmh.errors import InvalidArguments
from libmh.watched import Watched
from mh_amqp.addresses import REPLY_PREFIX, has_wildcards
from mh_amqp.names import CONDUCTOR, HOST_PREFIX, REPORT
from mh_amqp.owners import Declared, Owners, declared

HOST = "{host}"
MAX_PATTERN = 300
MAX_RULES = 1000
MAX_KNOWN = 20_000
MAX_NAMED = 300
"""What is longer than this, with the name of who asks, is looked at each time."""
TABLES = frozenset({"access", "addresses", "hosts"})
WILD = re.compile(r"[*?\[]")
WORDS = re.compile(r"[*#]")
VERDICTS = ("allow", "deny", "use")
CASTS = ["mh.hosts", "mh.group.*"]
CONDUCTORS = [
    f"mh.event.org.matahariproject.{name}.*" for name in ("Aggregates", "Conductor", "Reports", "Sinks")
]
BUILT_IN: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "none": [],
    "host": [
        {"allow": [HOST_PREFIX + HOST, *CASTS], "to": "receive"},
        {"deny": CONDUCTORS, "to": "send"},
        {"allow": "mh.event.*", "to": "send", "own": True},
        {"allow": [HOST_PREFIX + HOST, REPORT, CONDUCTOR], "to": "send"},
    ],
    "console": [
        {"allow": "mh.event.*", "to": "receive"},
        {"allow": [f"{HOST_PREFIX}*", *CASTS, CONDUCTOR], "to": "send"},
    ],
    "conductor": [
        {"allow": [REPORT, CONDUCTOR], "to": "receive"},
        {"allow": "mh.event.*", "to": "send"},
        {"use": "console"},
    ],
    "member": [{"use": "host"}, {"use": "console"}],
    "operator": [{"allow": "*"}],
}
EVERYBODY: Mapping[str, str] = {"*": "member"}
"""Who has which role where people have to log in and nothing else is said."""


class Way(StrEnum):
    SEND = "send"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True)
class Rule:
    """`place` is where it stands, for people: `console 1`."""

    place: str
    allows: bool
    patterns: tuple[str, ...]
    way: Way | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """`holders`: pattern over identities -> role; `roles`: role -> its rules, `use` taken in."""

    holders: tuple[tuple[str, str], ...]
    roles: Mapping[str, tuple[Rule, ...]]
    hosts: Declared = ()

    def role(self, identity: str) -> str:
        return next((role for glob, role in self.holders if fnmatch.fnmatchcase(identity, glob)), "none")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`own`: a message has to name a host of the sender's. `why` is for those who write the rules."""

    allowed: bool
    why: str
    own: bool = False


@dataclass(slots=True)
class Access:
    """The rules in force, read again when the file has changed, and whose hosts are whose."""

    rules: Rules
    owners: Owners = field(default_factory=Owners)
    file: Watched[Rules] | None = None
    _known: dict[tuple[str, Way, str], Verdict] = field(default_factory=dict)
    _changed: bool = False

    def changed(self) -> bool:
        """Whether other rules are in force than when this was asked last."""
        self._current()
        changed, self._changed = self._changed, False
        return changed

    def judge(self, identity: str, way: Way, address: str) -> Verdict:
        """Whether an identity may send to an address or receive from it, which may be a pattern of events.
        What depends on whose host it is, is looked up each time."""
        rules = self._current()
        key = (identity, way, address)
        found = self._known.get(key)
        if found is None:
            found, lasting = self._judged(rules, identity, way, address)
            if lasting and len(identity) + len(address) <= MAX_NAMED:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = found
        return found

    def any_host(self, identity: str) -> bool:
        """Whether an identity may take what is asked of any host: then it may answer for any, too."""
        return self.judge(identity, Way.RECEIVE, f"{HOST_PREFIX}*").allowed

    def _judged(self, rules: Rules, identity: str, way: Way, address: str) -> tuple[Verdict, bool]:
        role, lasting, wild = rules.role(identity), True, has_wildcards(address)
        if address.startswith(REPLY_PREFIX):
            return Verdict(bool(rules.roles[role]), f"its role is '{role}'"), True
        for rule in rules.roles[role]:
            if rule.way not in (None, way):
                continue
            for pattern in rule.patterns:
                lasting = lasting and (wild or HOST not in pattern)
                if self._fits(rule, pattern, identity, way, address):
                    return Verdict(rule.allows, f"rule {rule.place}", rule.own), lasting
        return Verdict(allowed=False, why=f"its role is '{role}', no rule of which fits"), lasting

    def _fits(self, rule: Rule, pattern: str, identity: str, way: Way, address: str) -> bool:
        if HOST in pattern and not (has_wildcards(address) and not rule.allows):
            head, _, tail = pattern.partition(HOST)
            if has_wildcards(address) or not (address.startswith(head) and address.endswith(tail)):
                return False
            known = self.owners.may_be if way is Way.RECEIVE else self.owners.is_one
            return known(identity, address[len(head) : len(address) - len(tail)])
        if not has_wildcards(address):
            return fnmatch.fnmatchcase(address, pattern)
        wanted, meant = _head(WORDS, address), _head(WILD, pattern).partition(HOST)[0]
        if rule.allows:  # all that the subscription could bring has to be allowed
            return pattern == meant + "*" and wanted.startswith(meant)
        return wanted.startswith(meant) or meant.startswith(wanted)  # nothing of it may be denied

    def _current(self) -> Rules:
        found = self.rules if self.file is None else self.file.current()
        if found is not self.rules:
            self.rules = found
            self.owners.declare(found.hosts)
            self._known.clear()
            self._changed = True
        return found


def _read(text: str) -> Rules:
    if not text.strip():  # it is being written, or was: nothing said is more than most rules allow
        raise InvalidArguments("it is empty")
    return rules_of(tomllib.loads(text))


def _head(wild: re.Pattern[str], pattern: str) -> str:
    found = wild.search(pattern)
    return pattern if found is None else pattern[: found.start()]


def access_of(config: Mapping[str, Any], source: str | None, state: Path) -> Access:
    """The access of a configuration, and the file that it is from; `state` is where it is kept whose hosts
    are whose. Raises `InvalidArguments`, which says what is wrong where."""
    rules = rules_of(config)
    owners = Owners(state / "broker.hosts")
    owners.declare(rules.hosts)
    watched = None if source is None else Watched(Path(source), _read, rules, "access")
    return Access(rules, owners, watched)


def rules_of(config: Mapping[str, Any]) -> Rules:
    """The rules of a configuration's tables. Raises `InvalidArguments`, which says where."""
    written = dict(config.get("addresses", {}))
    for name in written:
        if name in BUILT_IN or not name:
            raise _bad(name, "this role is built in")
    entries = {name: _entries(name, table) for name, table in written.items()} | dict(BUILT_IN)
    roles = {name: tuple(_rules(name, entries, (name,))) for name in entries}
    holders = config.get("access", EVERYBODY)
    for identity, role in holders.items():
        if not isinstance(role, str) or role not in roles:
            raise InvalidArguments(
                f"[access] '{identity[:MAX_PATTERN]}': expected one of {', '.join(roles)}, got '{role}'",
                argument="access",
            )
    return Rules(tuple(holders.items()), roles, declared(config.get("hosts", {})))


def _entries(role: str, table: object) -> Sequence[Mapping[str, Any]]:
    rules = table.get("rules") if isinstance(table, dict) and set(table) == {"rules"} else None
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise _bad(role, f"expected rules, a list of at most {MAX_RULES} tables")
    return rules


def _rules(
    role: str, written: Mapping[str, Sequence[Mapping[str, Any]]], within: tuple[str, ...]
) -> Iterator[Rule]:
    for number, entry in enumerate(written[role], 1):
        place = f"{role} {number}"
        words = [word for word in VERDICTS if isinstance(entry, dict) and word in entry]
        if len(words) != 1:
            raise _bad(place, "expected a table with one of allow, deny and use")
        if words[0] != "use":
            yield _rule(place, entry, words[0])
        elif set(entry) != {"use"} or entry["use"] not in written or entry["use"] in within:
            raise _bad(place, "use: expected another role, which does not use this one, alone")
        else:
            yield from _rules(entry["use"], written, (*within, entry["use"]))


def _rule(place: str, entry: Mapping[str, Any], verdict: str) -> Rule:
    unknown = set(entry) - {verdict, "to", "own"}
    if unknown:
        raise _bad(place, f"there is no '{min(unknown)}' in a rule")
    given = entry[verdict] if isinstance(entry[verdict], list) else [entry[verdict]]
    for pattern in given:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
            raise _bad(place, f"{verdict}: expected a pattern of addresses, or a list of them")
        if HOST in pattern and WILD.search(pattern):
            raise _bad(place, f"'{pattern}': {HOST} stands among characters that mean themselves")
    way, own = entry.get("to"), entry.get("own", False)
    if way not in (None, *Way) or not isinstance(own, bool):
        raise _bad(place, "expected to, which is send or receive, and own, which is true or false")
    return Rule(place, verdict == "allow", tuple(given), None if way is None else Way(way), own)


def _bad(place: str, words: str) -> InvalidArguments:
    return InvalidArguments(f"[addresses] {place}: {words}", argument="addresses")
