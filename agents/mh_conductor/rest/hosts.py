"""What the inventory says of a host, as Nova's clients look for it: a compute service and its one node.

Ids are made of the host's UUID: Nova has numbers up to 2.52 and UUIDs from 2.53 on.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from libmh.api.aggregates import HostState
from mh_conductor.rest.times import written

BINARY = "nova-compute"
UUIDS = 53
SPACE = uuid.UUID("7f1ac2f0-6f43-5b4c-9a3e-5d0c1a7e3b10")
NUMBER_BITS = 53  # what every reader of JSON takes
Host = Mapping[str, Any]


def is_up(host: Host) -> bool:
    return bool(host["state"] == HostState.UP)


def updated(host: Host) -> str | None:
    """When it was heard of last."""
    return written(host["last_seen"]) if host["last_seen"] else None


def node_id(host: Host, version: int) -> str | int:
    """The id of the hypervisor."""
    return _uuid(host["uuid"]) if version >= UUIDS else _number(host["uuid"])


def service_id(host: Host, version: int) -> str | int:
    """The id of the compute service."""
    made = str(uuid.uuid5(SPACE, f"service {host['uuid']}"))
    return made if version >= UUIDS else _number(host["uuid"])


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:  # a host may call itself otherwise
        return str(uuid.uuid5(SPACE, text))


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - NUMBER_BITS) or 1
