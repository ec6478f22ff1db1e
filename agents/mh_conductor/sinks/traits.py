"""Names -> custom traits: `CUSTOM_[A-Z0-9_]+`, at most 255 characters (placement.schemas.trait)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREFIX = "CUSTOM_MH_"
MAX_TRAIT = 255
CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]+")
OTHERS = re.compile(r"[^A-Z0-9_]")


@dataclass(frozen=True, slots=True)
class Names:
    """`traits` by name; `faults` are the names that none can be made of, each with the reason; `disputed`
    the traits that several names would share: nobody gets them."""

    traits: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()


def named(names: Iterable[str], prefix: str = PREFIX) -> Names:
    """The traits of names. One that is a trait with the prefix already stands for itself."""
    traits: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in sorted(set(names)):
        trait = normalised(name, prefix)
        fault = trait_fault(name, trait, prefix)
        if fault:
            faults[name] = fault
        else:
            traits[name] = trait
    by_trait: dict[str, list[str]] = {}
    for name, trait in traits.items():
        by_trait.setdefault(trait, []).append(name)
    disputed = {trait: sharing for trait, sharing in by_trait.items() if len(sharing) > 1}
    for trait, sharing in disputed.items():
        for name in sharing:
            others = ", ".join(f"'{each}'" for each in sharing if each != name)
            faults[name] = f"'{name}' would be {trait}, and so would {others}"
            del traits[name]
    return Names(traits, faults, frozenset(disputed))


def normalised(name: str, prefix: str = PREFIX) -> str:
    """Upper case, with '_' for everything that a trait cannot have, and the prefix once."""
    bare = OTHERS.sub("_", name.upper())
    return bare if bare.startswith(prefix) else prefix + bare


def trait_fault(name: str, trait: str, prefix: str = PREFIX) -> str | None:
    """What is wrong with a trait that was made of a name."""
    bare = trait.removeprefix(prefix)
    if not bare.strip("_"):
        return f"'{name}' has no letter or digit that a trait can have"
    if bare.startswith("CUSTOM_"):
        return f"'{name}' would be {trait[:MAX_TRAIT]}, with two prefixes"
    if len(trait) > MAX_TRAIT:
        return f"'{name}' would be a trait of {len(trait)} characters, {MAX_TRAIT} are the limit"
    return None
