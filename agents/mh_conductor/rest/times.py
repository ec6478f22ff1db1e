"""Times as Nova's API writes them."""

import datetime as dt

NANOSECONDS = 10**9


def written(nanoseconds: int) -> str:
    """UTC without saying so, to the microsecond: `2026-01-02T03:04:05.000006`."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None, microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds")
