"""Which hosts are meant: requirements over what a host reports of itself, all of which have to hold.

A requirement is written `fact=requirement`, in the grammar of `libmh.match`::

    cpu_flags=<in> avx2      memory=>= 8000000      traits=<all-in> HW_CPU_X86_AVX2 STORAGE_DISK_SSD
    hostname=web1            os_id=<or> debian <or> ubuntu

Facts are those of a capability report, with `uuid`, `hostname` and the list `traits` beside them. A fact
that is not known matches nothing. Host and conductor judge by the same rules here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from libmh.errors import InvalidArguments
from libmh.match import Requirement, advice, read
from libmh.spec import Plain

MAX_REQUIREMENTS = 64
MAX_LENGTH = 1000
MAX_TEXT = 32_000
MAX_SHOWN = 60
UUID, HOSTNAME, TRAITS = "uuid", "hostname", "traits"


@dataclass(frozen=True, slots=True)
class Where:
    """Requirements by fact, in order; without any it means every host."""

    requirements: tuple[tuple[str, Requirement], ...] = ()

    def texts(self) -> list[str]:
        """As they are written."""
        return [f"{fact}={requirement.text}" for fact, requirement in self.requirements]

    def text(self) -> str:
        """For the way: JSON."""
        return json.dumps(self.texts(), ensure_ascii=False)

    def fits(self, known: Mapping[str, Plain]) -> bool:
        """Whether a host of which this is known is meant. Never raises."""
        return not self.lacking(known)

    def lacking(self, known: Mapping[str, Plain]) -> str:
        """Why a host is not meant; empty for one that is."""
        for fact, requirement in self.requirements:
            found = requirement.match(known.get(fact))
            if not found:
                return f"{fact} {found.reason}"
        return ""


EVERY_HOST = Where()


def where(texts: Iterable[str]) -> Where:
    """Read requirements as people write them. Raises `InvalidArguments` for what could not match anything,
    or would mean something else than it looks like."""
    found = Where(tuple(_split(text) for text in texts))
    if len(found.requirements) > MAX_REQUIREMENTS:
        raise InvalidArguments(
            f"where: expected at most {MAX_REQUIREMENTS} requirements, got {len(found.requirements)}",
            argument="where",
        )
    for _, requirement in found.requirements:
        said = advice(requirement.text)
        if said is not None:
            raise InvalidArguments(f"where: {said}", argument="where")
    return found


def _split(text: str) -> tuple[str, Requirement]:
    fact, equals, requirement = text.partition("=")
    fact = fact.strip()
    if not fact or not equals or not requirement.strip() or len(text) > MAX_LENGTH:
        raise InvalidArguments(
            f"where: expected FACT=REQUIREMENT, such as 'memory=>= 8000000', got '{text[:MAX_SHOWN]}'",
            argument="where",
        )
    return fact, read(requirement.strip())


def received(text: str) -> Where:
    """Read what came over the way: a JSON list of `fact=requirement`, or an object fact -> requirement.
    Raises `InvalidArguments`."""
    try:
        told = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, Mapping):
        told = [f"{fact}={text}" if isinstance(text, str) else None for fact, text in told.items()]
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise InvalidArguments("mh:where: expected a JSON list of FACT=REQUIREMENT", argument="mh:where")
    if len(told) > MAX_REQUIREMENTS:
        raise InvalidArguments(f"mh:where: expected at most {MAX_REQUIREMENTS}", argument="mh:where")
    return Where(tuple(_split(each) for each in told))


def known(uuid: str, hostname: str, facts: Mapping[str, Plain], traits: Sequence[str]) -> dict[str, Plain]:
    """What requirements are held against."""
    return {**facts, UUID: uuid, HOSTNAME: hostname, TRAITS: list(traits)}
