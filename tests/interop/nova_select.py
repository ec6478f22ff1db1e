"""How long Nova's scheduler takes to filter and weigh hosts. On stdin a JSON object: `hosts` (each with
`facts`, numbers of its `aggregates`, and what it has `free`), `aggregates` (their metadata), `extra_specs`,
`project`, `runs`; on stdout `seconds`, the median, and how many `fit`.

Its own filters and its RAM weigher, in an environment that has Nova; reading hosts from a database, asking
Placement and the rest of its way are left out.
"""

import json
import logging
import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any

from nova_answers import Flavor, config, ram, weights  # type: ignore[import-not-found]
from nova_answers import aggregate_instance_extra_specs as extra_specs
from nova_answers import aggregate_multitenancy_isolation as projects
from nova_answers import compute_capabilities_filter as capabilities


def main() -> None:
    config.CONF([], project="nova", default_config_files=[])
    logging.disable(logging.DEBUG)
    told: dict[str, Any] = json.load(sys.stdin)
    aggregates = [SimpleNamespace(metadata=each) for each in told["aggregates"]]
    hosts = [
        SimpleNamespace(
            **each["facts"],
            stats={},
            host=f"h{number}",
            nodename=f"h{number}",
            free_ram_mb=each["free"],
            aggregates=[aggregates[at] for at in each["aggregates"]],
        )
        for number, each in enumerate(told["hosts"])
    ]
    request = Flavor(flavor=Flavor(extra_specs=told["extra_specs"]), project_id=told["project"])
    chosen = (
        projects.AggregateMultiTenancyIsolation(),
        extra_specs.AggregateInstanceExtraSpecsFilter(),
        capabilities.ComputeCapabilitiesFilter(),
    )
    weighing = weights.HostWeightHandler()
    seconds, fit = [], 0
    for _ in range(told["runs"]):
        started = time.perf_counter()
        left = list(hosts)
        for each in chosen:
            left = list(each.filter_all(left, request))
        fit = len(weighing.get_weighed_objects([ram.RAMWeigher()], left, {}))
        seconds.append(time.perf_counter() - started)
    json.dump({"seconds": statistics.median(seconds), "fit": fit}, sys.stdout)


if __name__ == "__main__":
    main()
