"""The system's time zone: what /etc/localtime links to (localtime(5))."""

import os
import re

from libmh.context import Root
from libmh.errors import NotImplementedHere

LOCALTIME = "/etc/localtime"
DEBIAN = "/etc/timezone"
ZONE = re.compile(r"[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+){0,3}")


def name(root: Root) -> str:
    """`Europe/Amsterdam`; `UTC` where none is set, `not-implemented` where the zone is a copy without a
    name."""
    try:
        target = os.readlink(root.path(LOCALTIME))  # noqa: PTH115 - as text: it points outside a captured root
    except FileNotFoundError:
        return from_debian(root.read_optional(DEBIAN)) or "UTC"
    except OSError:  # a copy of the zone's file; its name may still be kept beside it
        target = ""
    zone = from_link(target) or from_debian(root.read_optional(DEBIAN))
    if zone is None:
        raise NotImplementedHere(
            f"'{LOCALTIME}' is no link into zoneinfo, so the zone has no name", source=LOCALTIME
        )
    return zone


def from_link(target: str) -> str | None:
    """`../usr/share/zoneinfo/Etc/UTC` is `Etc/UTC`."""
    _, found, zone = target.partition("zoneinfo/")
    zone = zone.removeprefix("posix/").removeprefix("right/")
    return zone if found and ZONE.fullmatch(zone) else None


def from_debian(text: str | None) -> str | None:
    """The first line of /etc/timezone, when it can be a zone."""
    line = (text or "").partition("\n")[0].strip()
    return line if ZONE.fullmatch(line) else None
