"""Which of the hosts that fit is the best: raw values, normalised over the candidates, times a multiplier,
and summed; as in `nova.weights`. Pure.

Hosts with more to spare come first; a negative multiplier turns that round. A host that does not tell what a
weigher looks at is the worst of the candidates there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

SUFFIX = "_weight_multiplier"
MOST = 1e300
"""Of a measure and of a multiplier: sums of what is more are not numbers any longer, and have no order."""
Facts = Mapping[str, object]
Metrics = Mapping[str, float]


def _cpu(metrics: Metrics, _facts: Facts) -> float | None:
    used = metrics.get("cpu_utilization")
    return None if used is None else 1.0 - used


def _ram(metrics: Metrics, _facts: Facts) -> float | None:
    return metrics.get("memory_available")


def _load(metrics: Metrics, facts: Facts) -> float | None:
    load, count = metrics.get("load_1m"), facts.get("cpu_count")
    if load is None:
        return None
    return -load / count if isinstance(count, int) and count > 0 else -load


@dataclass(frozen=True, slots=True)
class Weigher:
    """`raw` of what a host measures and reports: the more, the better; None: not known. `minimum`, where
    there is one, is what counts as 0, instead of the least of the candidates."""

    name: str
    description: str
    raw: Callable[[Metrics, Facts], float | None]
    minimum: float | None = None

    @property
    def key(self) -> str:
        """The metadata of aggregates that sets the multiplier of their hosts."""
        return self.name + SUFFIX


WEIGHERS: Mapping[str, Weigher] = MappingProxyType(
    {
        each.name: each
        for each in (
            Weigher("cpu", "idle share of the processors, 0 to 1", _cpu, 0.0),
            Weigher("ram", "memory that is available, kB", _ram, 0.0),
            Weigher("load", "minus the load of one minute for each processor", _load),
        )
    }
)


def raws_of(metrics: Metrics, facts: Facts) -> tuple[float | None, ...]:
    """What every weigher sees of a host, in their order; what cannot be measured is not known."""
    found = (weigher.raw(metrics, facts) for weigher in WEIGHERS.values())
    return tuple(None if raw is None or not abs(raw) <= MOST else raw for raw in found)


def normalize(raws: Sequence[float], minimum: float | None = None) -> list[float]:
    """Values to 0..1 over all of them, all 0 where they are equal (`nova.weights.normalize`, whose weighers
    lift what is below the minimum up to it)."""
    if not raws:
        return []
    if minimum is not None and min(raws) < minimum:
        raws = [max(raw, minimum) for raw in raws]
    low, high = float(min(raws) if minimum is None else minimum), float(max(raws))
    if low == high:
        return [0.0] * len(raws)
    span = high - low
    return [(raw - low) / span for raw in raws]


def normalized(
    raws: Sequence[float | None], multipliers: Sequence[float], minimum: float | None = None
) -> list[float]:
    """As `normalize`; what is not known is the worst, whichever side its multiplier makes that."""
    known = normalize([raw for raw in raws if raw is not None], minimum)
    if len(known) == len(raws):
        return known
    left = iter(known)
    return [
        (1.0 if times < 0 else 0.0) if raw is None else next(left)
        for raw, times in zip(raws, multipliers, strict=True)
    ]


def multiplier_of(aggregates: Sequence[Mapping[str, str]], key: str, default: float) -> float:
    """The least of what a host's aggregates say; what is configured where they say nothing, or where one of
    them says what is no number (`nova.scheduler.utils.get_weight_multiplier`)."""
    texts = [each[key] for each in aggregates if key in each]
    if not texts:
        return default
    try:
        found = min(float(text) for text in texts)
    except ValueError:  # as Nova: one that cannot be read spoils all
        return default
    return found if abs(found) <= MOST else default
