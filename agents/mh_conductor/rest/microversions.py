"""Microversions of Nova's API: which one a request wants, and what the answer says of it.

Requests and answers name it as `OpenStack-API-Version: compute 2.x` or, the older way, as
`X-OpenStack-Nova-API-Version: 2.x`; a request without either means the oldest.
"""

import re
from collections.abc import Iterable, Mapping

from mh_conductor.rest.faults import Fault

HEADER = "OpenStack-API-Version"
OLD_HEADER = "X-OpenStack-Nova-API-Version"
SERVICE = "compute"
MAJOR, FIRST, LAST = 2, 1, 104
OLDEST, NEWEST = f"{MAJOR}.{FIRST}", f"{MAJOR}.{LAST}"
LATEST = "latest"
MAX_SHOWN = 100
_VERSION = re.compile(r"([1-9][0-9]{0,8})\.([1-9][0-9]{0,8}|0)")


def wanted(headers: Iterable[tuple[str, str]]) -> int:
    """The minor version that a request's headers ask for. Raises the `Fault` that Nova answers with: 400 for
    what is no version, 406 for one that is not served."""
    text = _named([(name.lower(), value) for name, value in headers])
    if text is None:
        return FIRST
    if text == LATEST:
        return LAST
    found = _VERSION.fullmatch(text)
    if found is None:
        raise Fault(
            400,
            f"API Version String {text[:MAX_SHOWN]} is of invalid format. "
            "Must be of format MajorNum.MinorNum.",
        )
    major, minor = int(found[1]), int(found[2])
    if major != MAJOR or not FIRST <= minor <= LAST:
        said = f"Version {text} is not supported by the API. Minimum is {OLDEST} and maximum is {NEWEST}."
        raise Fault(406, said, told(text))
    return minor


def _named(headers: list[tuple[str, str]]) -> str | None:
    """The last value that is for us; a later one wins."""
    for value in reversed(_values(headers, HEADER)):
        service, _, version = value.partition(" ")
        if service.lower() == SERVICE and version.strip():
            return version.strip()
    old = _values(headers, OLD_HEADER)
    return old[-1] if old else None


def _values(headers: list[tuple[str, str]], header: str) -> list[str]:
    found = [value for name, value in headers if name == header.lower()]
    return [each.strip() for value in found for each in value.split(",")]


def told(version: str) -> Mapping[str, str]:
    """The headers of an answer in this version."""
    return {HEADER: f"{SERVICE} {version}", OLD_HEADER: version, "Vary": f"{HEADER}, {OLD_HEADER}"}
