"""Lists in pages: `limit` and `marker`, and the link to the next one."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from mh_conductor.rest.exchange import Exchange
from mh_conductor.rest.faults import Fault

MAX_PAGE = 1000
MAX_SHOWN = 200
MAX_DIGITS = 9
T = TypeVar("T")
Links = list[dict[str, str]]


def limit_of(exchange: Exchange) -> int:
    """How many are asked for; never more than `MAX_PAGE`. Raises the `Fault` for what is no number."""
    text = exchange.last("limit")
    if text is None or len(text) > MAX_DIGITS:
        return MAX_PAGE
    try:
        return min(MAX_PAGE, int(text))
    except ValueError:  # the schema takes a line's end alone
        raise Fault(400, "limit param must be an integer") from None


def missing(marker: str) -> Fault:
    """What a marker is answered that is nobody's name."""
    return Fault(400, f"marker [{marker[:MAX_SHOWN]}] not found")


def link(exchange: Exchange, path: str, last: str) -> Links:
    """To what comes after an item, for the same request."""
    asked = {key: exchange.last(key) for key in sorted(exchange.query)} | {"marker": last}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    return [{"rel": "next", "href": f"{exchange.base}{path}?{query}"}]


def page(
    exchange: Exchange, items: Sequence[T], name: Callable[[T], str], path: str
) -> tuple[Sequence[T], Links]:
    """The items after the marker, at most as many as asked for, and the link to those after them. Raises the
    `Fault` for a marker that is nobody's name."""
    limit, marker = limit_of(exchange), exchange.last("marker")
    start = 0
    if marker is not None:
        found = next((at for at, item in enumerate(items) if name(item) == marker), None)
        if found is None:
            raise missing(marker)
        start = found + 1
    some = items[start : start + limit]
    return some, link(exchange, path, name(some[-1])) if limit and len(some) == limit else []
