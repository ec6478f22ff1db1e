"""What a peer tells in fields that are not known here: it is kept as it came, beside what is known."""

from collections.abc import Mapping

from libmh.api.aggregates import CapabilityReport
from libmh.api.host import Fact
from libmh.call import Request
from libmh.spec import Anything, Plain
from libmh.wire import parse

REPORT_FIELDS = frozenset(CapabilityReport.__dataclass_fields__)
FACT_FIELDS = frozenset(Fact.__dataclass_fields__)
ARGUMENT = "report"
ANYTHING = Anything()


def report_as_it_came(request: Request | None) -> Mapping[str, Plain]:
    """The plain tree of the report that a request brings; empty where there is none."""
    given = request.arguments if request else ()
    plain = given.get(ARGUMENT) if isinstance(given, Mapping) else given[0] if given else None
    return plain if isinstance(plain, dict) else {}


def keep_unknown(kept: dict[str, Plain], came: Mapping[str, Plain]) -> None:
    """Add the fields of a report, and of its facts, that are not known here. Raises `InvalidArguments`."""
    _keep(kept, came, REPORT_FIELDS, ARGUMENT)
    facts, told = kept["facts"], came.get("facts")
    if isinstance(facts, dict) and isinstance(told, dict):
        for name, fact in told.items():
            held = facts.get(name)
            if isinstance(fact, dict) and isinstance(held, dict):
                _keep(held, fact, FACT_FIELDS, f"{ARGUMENT}.facts.{name}")


def _keep(kept: dict[str, Plain], came: Mapping[str, Plain], known: frozenset[str], where: str) -> None:
    for name in came.keys() - known:
        parse(ANYTHING, name, where)
        kept[name] = parse(ANYTHING, came[name], f"{where}.{name}")
