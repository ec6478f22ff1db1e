"""What Nova's own scheduler code answers: cases as a JSON list on stdin, their answers as one on stdout.

Runs in an environment that has Nova. An answer is what the code returns, or {"raised": "the exception"}.
"""

import json
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from nova import monkey_patch  # type: ignore[import-not-found]

monkey_patch.patch(backend="threading")  # before anything else of Nova's

from nova import config, objects  # noqa: E402
from nova.scheduler import utils, weights  # type: ignore[import-not-found]  # noqa: E402
from nova.scheduler.filters import (  # type: ignore[import-not-found]  # noqa: E402
    aggregate_image_properties_isolation,
    aggregate_instance_extra_specs,
    aggregate_multitenancy_isolation,
    compute_capabilities_filter,
    extra_specs_ops,
)
from nova.scheduler.weights import ram  # type: ignore[import-not-found]  # noqa: E402

Case = Mapping[str, Any]


class Flavor(SimpleNamespace):
    """`in` tells whether a field is set, as of Nova's objects."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


class Properties(dict[str, str]):
    """An image's; Nova's raise for a name that it does not know, which the cases do not use."""


def state(case: Case) -> SimpleNamespace:
    """A host, with nothing but what the filters look at."""
    facts = case.get("facts", {})
    aggregates = [SimpleNamespace(metadata=each) for each in case.get("aggregates", [])]
    return SimpleNamespace(**{"stats": {}, "host": "h", "nodename": "h", **facts, "aggregates": aggregates})


def request(case: Case) -> SimpleNamespace:
    return SimpleNamespace(
        flavor=Flavor(extra_specs=case.get("extra_specs", {})),
        project_id=case.get("project"),
        image=SimpleNamespace(properties=Properties(case.get("properties", {}))),
    )


def filtered(filter_: Any) -> Callable[[Case], bool]:
    def passes(case: Case) -> bool:
        return bool(filter_.host_passes(state(case), request(case)))

    return passes


def traits(case: Case) -> bool:
    """What the extra specs require and forbid, in all groups, held against one provider's traits."""
    wanted = utils.ResourceRequest()
    wanted._process_extra_specs(Flavor(extra_specs=case["extra_specs"]))
    groups = wanted._rg_by_id.values()
    has = set(case["traits"])
    return all(each.required_traits <= has and not each.forbidden_traits & has for each in groups)


def multiplier(case: Case) -> float:
    return float(utils.get_weight_multiplier(state(case), case["key"], case["default"]))


class _Weigher(ram.RAMWeigher):  # type: ignore[misc]
    def __init__(self, minimum: float | None) -> None:
        self.minval = minimum

    def weight_multiplier(self, host_state: Any) -> float:
        return float(utils.get_weight_multiplier(host_state, "ram_weight_multiplier", 1.0))


def weighed(case: Case) -> list[tuple[int, float]]:
    """(number of the host, its weight), the best first."""
    hosts = []
    for number, (free, aggregates) in enumerate(case["hosts"]):
        host = state({"facts": {"free_ram_mb": free}, "aggregates": aggregates})
        host.number = number
        hosts.append(host)
    found = weights.HostWeightHandler().get_weighed_objects([_Weigher(case["minimum"])], hosts, {})
    return [(each.obj.number, each.weight) for each in found]


def matched(case: Case) -> Any:
    return extra_specs_ops.match(case["value"], case["requirement"])


ANSWERS: Mapping[str, Callable[[Case], Any]] = {
    "match": matched,
    "aggregates": filtered(aggregate_instance_extra_specs.AggregateInstanceExtraSpecsFilter()),
    "capabilities": filtered(compute_capabilities_filter.ComputeCapabilitiesFilter()),
    "tenant": filtered(aggregate_multitenancy_isolation.AggregateMultiTenancyIsolation()),
    "image": filtered(aggregate_image_properties_isolation.AggregateImagePropertiesIsolation()),
    "traits": traits,
    "multiplier": multiplier,
    "weighed": weighed,
}


def answer(case: Case) -> Any:
    try:
        return ANSWERS[case["kind"]](case)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return {"raised": repr(error)}


if __name__ == "__main__":
    config.CONF([], project="nova", default_config_files=[])
    objects.register_all()
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
