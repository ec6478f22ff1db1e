"""The documents by which clients find out where the API is and which microversions it speaks."""

from collections.abc import Mapping
from typing import Any

from mh_conductor.rest.microversions import NEWEST, OLDEST

VERSION = "v2.1"
JSON_TYPE = "application/vnd.openstack.compute+json;version=2.1"
UPDATED = "2013-07-23T11:33:21Z"
_ABOUT: Mapping[str, Any] = {"id": VERSION, "status": "CURRENT", "version": NEWEST, "min_version": OLDEST}
_MEDIA = [{"base": "application/json", "type": JSON_TYPE}]


def every(root: str) -> Mapping[str, Any]:
    """`/`; `root` is the URL of the server without a slash at its end."""
    links = [{"rel": "self", "href": f"{root}/{VERSION}/"}]
    return {"versions": [{**_ABOUT, "updated": UPDATED, "links": links}]}


def one(root: str) -> Mapping[str, Any]:
    """`/v2.1`."""
    links = [{"rel": "self", "href": f"{root}/{VERSION}/"}]
    return {"version": {**_ABOUT, "updated": UPDATED, "links": links, "media-types": _MEDIA}}


def choices(root: str, path: str) -> Mapping[str, Any]:
    """What a path outside of every version might mean."""
    links = [{"rel": "self", "href": f"{root}/{VERSION}{path}"}]
    return {"choices": [{"id": VERSION, "status": "CURRENT", "links": links, "media-types": _MEDIA}]}
