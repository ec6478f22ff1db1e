"""The requirement grammar that filters, aggregate rules and flavors share: `match(value, requirement)`.

It is Nova's `extra_specs_ops`, with a reason for every answer and without its exceptions::

    avx512f               the value is exactly this text, blanks and all
    = 8   >= 8            a number of at least 8 (`=` is historical: it does not mean "equal")
    == 8  != 8  <= 8      numbers; there is no `>` and no `<`
    s== b  s!= s< s<= s> s>=   the order of strings
    <in> avx512f          a member of a list, or a part of a string
    <all-in> aes avx2     all of these are in the value
    <or> amd <or> intel   the value is one of these

The first word is an operator only if it is exactly one of these; anything else is compared whole. A missing
value never matches, not even `!=`; an operator without an operand never matches. Words too many are ignored.

`match` answers as Nova does wherever that answers, also for a value that is no string: there the number 8
is not the text "8". A `Requirement` that was `read` is for facts, which have types: a number or a bool
counts as the text that it is written as, alone and in lists.

A host is held against a flavor's extra specs by `host_matches` and its neighbours (`fitting`), which are
true or false where Nova's filters are; those that fit are weighed as Nova does (`weighing`). All of it is
pure, and needs the standard library alone.
"""

from libmh.match.extra_specs import Asked, asked, warnings
from libmh.match.fitting import (
    Finding,
    Fit,
    capabilities_match,
    host_matches,
    image_fits,
    isolation_fits,
    size_fits,
    tenant_fits,
    traits_match,
    zone_fits,
)
from libmh.match.grammar import (
    ALL_IN,
    IN,
    NUMERIC,
    OPERATORS,
    OR,
    TEXTUAL,
    Match,
    Requirement,
    advice,
    match,
    read,
)
from libmh.match.weighing import WEIGHERS, Weigher, multiplier_of, normalize

__all__ = [
    "ALL_IN",
    "IN",
    "NUMERIC",
    "OPERATORS",
    "OR",
    "TEXTUAL",
    "WEIGHERS",
    "Asked",
    "Finding",
    "Fit",
    "Match",
    "Requirement",
    "Weigher",
    "advice",
    "asked",
    "capabilities_match",
    "host_matches",
    "image_fits",
    "isolation_fits",
    "match",
    "multiplier_of",
    "normalize",
    "read",
    "size_fits",
    "tenant_fits",
    "traits_match",
    "warnings",
    "zone_fits",
]
