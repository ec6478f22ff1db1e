"""Who may report for which host: the identity that the broker vouched for, never what a report says.

The first identity that reports for a host, or the one that it was registered with, is the only one from then
on. `[reports] identity = "CN={hostname}"` in the configuration asks for more: that every sender is called as
the host that it reports for.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libmh.caller import Caller
from libmh.errors import InvalidArguments, NotAuthorized

ANONYMOUS = "anonymous"
ACTION = "org.matahariproject.Reports.report"
MAX_IDENTITY = 255
MAX_PATTERN = 300
BLANKS = ("{hostname}", "{uuid}")


def sender(caller: Caller) -> str | None:
    """The identity that a transport vouched for; None where it knows nobody: anybody is `anonymous`."""
    name, at, _ = caller.identity.partition("@")
    if caller.transport != "amqp" or (name == ANONYMOUS and (at or caller.identity == ANONYMOUS)):
        return None
    if len(caller.identity) <= MAX_IDENTITY:
        return caller.identity
    # what two long names begin with may be the same
    return "sha256:" + hashlib.sha256(caller.identity.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Senders:
    """`pattern` is what a sender has to be called, with `{hostname}` or `{uuid}` in it; empty: anything."""

    pattern: str = ""

    def check(self, who: str | None, uuid: str, hostname: str, tied: str | None) -> str | None:
        """The identity that the host is tied to from now on, None as long as nobody vouched for one. Raises
        `NotAuthorized` where `who` may not report for it."""
        if self.pattern:
            wanted = self.pattern.replace("{hostname}", hostname).replace("{uuid}", uuid)
            if who != wanted:
                raise _refused(who, hostname, f"'{wanted}' only")
        if tied is not None and who != tied:
            raise _refused(who, hostname, "another identity; `forget` or `register` it to change that")
        return who


def _refused(who: str | None, hostname: str, expected: str) -> NotAuthorized:
    name = "an unknown sender" if who is None else f"'{who}'"
    return NotAuthorized(f"{name} may not report for '{hostname}', which is for {expected}", action=ACTION)


def senders(config: Mapping[str, Any]) -> Senders:
    """As the table `[reports]` of a configuration says. Raises `InvalidArguments`."""
    table = config.get("reports", {})
    unknown = set(table) - {"identity"}
    if unknown:
        raise InvalidArguments(f"[reports]: there is no '{min(unknown)}' here, expected identity")
    pattern = table.get("identity", "")
    named = isinstance(pattern, str) and any(blank in pattern for blank in BLANKS)
    if "identity" in table and (not named or len(pattern) > MAX_PATTERN):
        raise InvalidArguments(
            f"[reports] identity: expected a text with {' or '.join(BLANKS)} in it, as 'CN={{hostname}}'"
        )
    return Senders(pattern)
