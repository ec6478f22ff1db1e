"""`/os-hypervisors`, so far as hosts are listed and looked up with it: no servers run here."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from libmh.errors import InvalidArguments, NotFound
from mh_conductor.rest import schemas
from mh_conductor.rest.exchange import Exchange, Operation, Since
from mh_conductor.rest.faults import Fault
from mh_conductor.rest.hosts import UUIDS, Host, is_up, node_id, service_id
from mh_conductor.rest.paging import limit_of, link, missing
from mh_conductor.rest.schemas import YES

PATH = "/os-hypervisors"
KIND = "matahari"
CPU_RECORD, PAGED, EMPTY_SERVERS, LEAN = 28, 33, 75, 88
MIB_PER_GIB = 1024
MAX_SHOWN = 200
NO_PAGES = "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
USED = ("vcpus_used", "memory_mb_used", "local_gb_used", "current_workload", "running_vms")
SUMMED = ("vcpus", "memory_mb", "local_gb", "free_ram_mb", "free_disk_gb", *USED)


def shown(host: Host, version: int) -> dict[str, Any]:
    """A host as clients see it in a list."""
    return {
        "id": node_id(host, version),
        "hypervisor_hostname": host["hostname"],
        "state": "up" if is_up(host) else "down",
        "status": "enabled",
    }


def in_detail(host: Host, version: int) -> dict[str, Any]:
    """Everything that Nova tells of a hypervisor."""
    found = shown(host, version) | {
        "hypervisor_type": KIND,
        "hypervisor_version": _version(host["agent_version"]),
        "host_ip": None,
        "service": {
            "id": service_id(host, version),
            "host": host["hostname"],
            "disabled_reason": None,
        },
    }
    if version >= LEAN:
        return found | {"uptime": None}
    cpu = {"arch": host["summary"].get("arch")}
    return found | _sizes(host) | {"cpu_info": cpu if version >= CPU_RECORD else json.dumps(cpu)}


def _sizes(host: Host) -> dict[str, Any]:
    summary = host["summary"]
    memory = int(_number(summary.get("memory_gib")) * MIB_PER_GIB)
    told: dict[str, Any] = {
        "vcpus": int(_number(summary.get("cpu_count"))),
        "memory_mb": memory,
        "local_gb": 0,
    }
    free = {"free_ram_mb": memory, "free_disk_gb": 0, "disk_available_least": None}
    return told | free | dict.fromkeys(USED, 0)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _version(text: str) -> int:
    """1.2.3 as 1002003, which is how hypervisors write it."""
    parts = [
        int(part) for part in text.split(".")[:3] if part.isascii() and part.isdigit() and len(part) < 4
    ]
    major, minor, patch = (*parts, 0, 0, 0)[:3]
    return (major * 1000 + minor) * 1000 + patch


async def index(exchange: Exchange) -> Any:
    return await _list(exchange, detail=False)


async def detail(exchange: Exchange) -> Any:
    return await _list(exchange, detail=True)


async def _list(exchange: Exchange, *, detail: bool) -> Any:
    pattern = exchange.last("hypervisor_hostname_pattern")
    if pattern is not None:
        if exchange.last("limit") is not None or exchange.last("marker") is not None:
            raise Fault(400, NO_PAGES)
        return {"hypervisors": _all(exchange, await _matching(exchange, pattern), detail=detail)}
    if exchange.version < PAGED:
        return {"hypervisors": _all(exchange, await exchange.fleet.ask("hosts"), detail=detail)}
    limit, marker = limit_of(exchange), exchange.last("marker")
    some = (await _after(exchange, marker, limit or 1))[:limit]
    found: dict[str, Any] = {"hypervisors": _all(exchange, some, detail=detail)}
    if not limit or len(some) < limit:
        return found
    last = str(node_id(some[-1], exchange.version))
    return found | {"hypervisors_links": link(exchange, f"{PATH}/detail" if detail else PATH, last)}


async def _after(exchange: Exchange, marker: str | None, limit: int) -> Sequence[Host]:
    """At least as many hosts from behind the one with that id, as far as there are some."""
    if marker is None:
        first: Sequence[Host] = await exchange.fleet.ask("hosts", limit=limit)
        return first
    for uuid in (marker.replace("-", ""), marker) if exchange.version >= UUIDS else ():
        with contextlib.suppress(NotFound, InvalidArguments):  # it calls itself otherwise, if it is there
            some: Sequence[Host] = await exchange.fleet.ask("hosts", after=uuid, limit=limit)
            return some
    hosts: Sequence[Host] = await exchange.fleet.ask("hosts")
    for at, host in enumerate(hosts):
        if str(node_id(host, exchange.version)) == marker:
            return hosts[at + 1 :]
    raise missing(marker)


def _all(exchange: Exchange, hosts: Sequence[Host], *, detail: bool) -> list[dict[str, Any]]:
    told = in_detail if detail else shown
    return [told(host, exchange.version) | _servers(exchange) for host in hosts]


def _servers(exchange: Exchange) -> dict[str, Any]:
    wanted = (exchange.last("with_servers") or "").lower() in YES
    return {"servers": []} if wanted and exchange.version >= EMPTY_SERVERS else {}


async def _matching(exchange: Exchange, pattern: str) -> list[Host]:
    found = [host for host in await exchange.fleet.ask("hosts") if pattern in host["hostname"]]
    if not found:
        raise Fault(404, f"No hypervisor matching '{pattern[:MAX_SHOWN]}' could be found.")
    return found


async def search(exchange: Exchange) -> Any:
    return {"hypervisors": _all(exchange, await _matching(exchange, exchange.path["id"]), detail=False)}


async def show(exchange: Exchange) -> Any:
    text = exchange.path["id"]
    if exchange.version >= UUIDS and not _is_uuid(text):
        raise Fault(400, f"Invalid uuid {text[:MAX_SHOWN]}")
    wanted = text.replace("-", "").lower() if exchange.version >= UUIDS else text
    for host in await exchange.fleet.ask("hosts"):
        if str(node_id(host, exchange.version)).replace("-", "") == wanted:
            return {"hypervisor": in_detail(host, exchange.version) | _servers(exchange)}
    raise Fault(404, f"Hypervisor with ID '{text[:MAX_SHOWN]}' could not be found.")


def _is_uuid(text: str) -> bool:
    import uuid

    try:
        return str(uuid.UUID(text)).replace("-", "") == text.lower().replace("-", "")
    except ValueError:
        return False


async def statistics(exchange: Exchange) -> Any:
    hosts = await exchange.fleet.ask("hosts")
    every = [_sizes(host) for host in hosts]
    sums: dict[str, Any] = {name: sum(each[name] for each in every) for name in SUMMED}
    return {"hypervisor_statistics": {"count": len(every), "disk_available_least": 0, **sums}}


_LISTED = (
    Since(53, schemas.LIST_HYPERVISORS_53),
    Since(33, schemas.LIST_HYPERVISORS_33),
    Since(0, schemas.ANY_QUERY),
)
OPERATIONS = (
    Operation("GET", PATH, index, query=_LISTED),
    Operation("GET", f"{PATH}/detail", detail, query=_LISTED),
    Operation("GET", f"{PATH}/statistics", statistics, versions=(1, 87)),
    Operation(
        "GET",
        PATH + "/{id}",
        show,
        query=(Since(53, schemas.SHOW_HYPERVISOR_53), Since(0, schemas.ANY_QUERY)),
    ),
    Operation("GET", PATH + "/{id}/search", search, versions=(1, 52)),
)
