"""Which aggregate there is which of ours.

An aggregate is ours when its metadata say so, or while it is being made, when its name does: Nova takes
metadata only for what exists already. All others are left alone, whatever they are called.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mh_conductor.sinks.state import OWNER_KEY, RESERVED, UUID_KEY, Found, Wanted


@dataclass(frozen=True, slots=True)
class Matched:
    """`pairs`: what is here and there; `new`: only here; `gone`: ours, and only there; `foreign`: by name,
    those that are not ours."""

    pairs: tuple[tuple[Wanted, Found], ...] = ()
    new: tuple[Wanted, ...] = ()
    gone: tuple[Found, ...] = ()
    foreign: Mapping[str, Found] = field(default_factory=dict)


def tentative(owner: str, uuid: str) -> str:
    """What an aggregate is called until it has its metadata."""
    return f"{RESERVED}{owner}:{uuid}"


def is_ours(found: Found, owner: str) -> bool:
    mark = found.metadata.get(OWNER_KEY)
    return mark == owner or (mark is None and found.name.startswith(tentative(owner, "")))


def match(wanted: Sequence[Wanted], found: Iterable[Found], owner: str) -> Matched:
    """By the UUID in the mark, then by name: an aggregate that was made anew here takes the old one over."""
    ours: dict[int, Found] = {}
    foreign: dict[str, Found] = {}
    for each in sorted(found, key=lambda each: each.id):
        if is_ours(each, owner):
            ours[each.id] = each
        else:
            foreign[each.name] = each
    pairs: dict[str, tuple[Wanted, Found]] = {}
    keys: tuple[tuple[Callable[[Wanted], str], Callable[[Found], str]], ...] = (
        (lambda here: here.uuid, lambda there: there.metadata.get(UUID_KEY, "")),
        (lambda here: tentative(owner, here.uuid), lambda there: there.name),
        (lambda here: here.name, lambda there: there.name),
    )
    for of_wanted, of_found in keys:
        there = {of_found(each): each for each in reversed(ours.values())}
        for want in wanted:
            fitting = there.get(of_wanted(want))
            if fitting and want.uuid not in pairs and fitting.id in ours:
                pairs[want.uuid] = (want, ours.pop(fitting.id))
    new = tuple(each for each in wanted if each.uuid not in pairs)
    return Matched(tuple(pairs.values()), new, tuple(ours.values()), foreign)
