"""What may be said of aggregates and flavors, key by key."""

from collections.abc import Mapping

from libmh.errors import InvalidArguments
from mh_conductor.limits import MAX_KEYS, key_fault, value_fault

MAX_SHOWN = 60


def check(argument: str, value: str, fault: str | None) -> None:
    """Raises `InvalidArguments` where there is a fault."""
    if fault:
        shown = repr(value) if len(value) <= MAX_SHOWN else repr(value[:MAX_SHOWN]) + "..."
        raise InvalidArguments(f"{argument}: {fault}, not {shown}", argument=argument)


def check_metadata(metadata: Mapping[str, str | None], what: str = "metadata") -> None:
    """Raises `InvalidArguments` for a key or a value that Nova would not take, and for too many of them."""
    if len(metadata) > 2 * MAX_KEYS:
        raise InvalidArguments(
            f"{what}: expected at most {MAX_KEYS} keys, got {len(metadata)}", argument=what
        )
    for key, value in metadata.items():
        check(what, key, key_fault(key))
        if value is not None:
            check(f"{what}.{key}", value, value_fault(value))


def described(changes: Mapping[str, str | None]) -> str:
    """`set a='1', b='2'; removed c`."""
    coming = ", ".join(f"{key}='{value}'" for key, value in changes.items() if value is not None)
    going = ", ".join(key for key, value in changes.items() if value is None)
    return "; ".join([*([f"set {coming}"] if coming else []), *([f"removed {going}"] if going else [])])
