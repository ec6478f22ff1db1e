"""Nova's and Placement's own API applications on SQLite, without a cloud: no Keystone, no broker, no compute
service. Prints its port once it listens, and serves until it is ended.

    openstack_server.py make DIR HOST=HYPERVISOR=UUID...     databases, cells and computes
    openstack_server.py nova|placement DIR                   serve
"""

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
CELL1 = "11111111-1111-4111-8111-111111111111"
ADMIN = {
    "HTTP_X_AUTH_TOKEN": "admin",
    "HTTP_X_USER_ID": "admin",
    "HTTP_X_PROJECT_ID": "admin",
    "HTTP_X_ROLES": "admin",
}


def as_admin(application: Application) -> Application:
    """Everybody is the administrator: what Keystone's middleware would have found out of a token."""

    def authenticated(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ.update(ADMIN)
        return application(environ, start_response)

    return authenticated


def make(directory: str, hosts: list[str]) -> None:
    from nova import monkey_patch  # type: ignore[import-not-found]

    monkey_patch.patch(backend="threading")
    from nova import config, context, objects
    from nova.db import migration  # type: ignore[import-not-found]

    config.parse_args(["make"], default_config_files=[f"{directory}/nova.conf"])
    objects.register_all()
    for database in ("api", "main"):
        migration.db_sync(database=database)
    admin = context.get_admin_context()
    cells = {}
    for uuid, name, transport in (
        (objects.CellMapping.CELL0_UUID, "cell0", "none:///"),
        (CELL1, "cell1", "fake:///"),
    ):
        database = f"sqlite:///{directory}/{'main' if uuid == CELL1 else 'cell0'}.db"
        cells[name] = objects.CellMapping(
            admin, uuid=uuid, name=name, transport_url=transport, database_connection=database
        )
        cells[name].create()
    with context.target_cell(admin, cells["cell0"]) as cell0:
        migration.db_sync(database="main", context=cell0)
    with context.target_cell(admin, cells["cell1"]) as cell1:
        for number, host in enumerate(hosts):
            compute(cell1, cells["cell1"], number, *host.split("="))


def compute(admin: Any, cell: Any, number: int, host: str, hypervisor: str, uuid: str) -> None:
    """What nova-compute would have written of itself."""
    from nova import objects

    service = objects.Service.get_by_host_and_binary(admin, host, "nova-compute")
    if service is None:
        service = objects.Service(admin, host=host, binary="nova-compute", topic="compute", report_count=1)
        service.last_seen_up = datetime.now(UTC)
        service.create()
        objects.HostMapping(admin, cell_mapping=cell, host=host).create()
    node = objects.ComputeNode(admin, uuid=uuid, host=host, hypervisor_hostname=hypervisor)
    node.service_id = service.id
    sizes = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used")
    for size in (
        *sizes,
        "hypervisor_version",
        "free_ram_mb",
        "free_disk_gb",
        "running_vms",
        "current_workload",
    ):
        setattr(node, size, 1)
    node.hypervisor_type = "QEMU"
    node.cpu_info = "{}"
    node.host_ip = f"127.0.0.{number + 1}"
    node.mapped = 1
    node.create()


def nova(directory: str) -> Application:
    os.environ["OS_NOVA_CONFIG_DIR"] = directory
    from nova.wsgi.osapi_compute import application  # type: ignore[import-not-found]

    found: Application = application
    return found


def placement(directory: str) -> Application:
    os.environ["OS_PLACEMENT_CONFIG_DIR"] = directory
    from placement.wsgi.api import application  # type: ignore[import-not-found]

    found: Application = application
    return found


def serve(application: Application) -> None:
    import waitress  # type: ignore[import-untyped]

    server = waitress.create_server(as_admin(application), host="127.0.0.1", port=0, threads=4)
    print(server.effective_port, flush=True)
    server.run()


def main(what: str, directory: str, *hosts: str) -> None:
    del sys.argv[1:]  # which both take for their own options
    if what == "make":
        make(directory, list(hosts))
    else:
        serve({"nova": nova, "placement": placement}[what](directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
