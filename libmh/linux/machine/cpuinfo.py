"""/proc/cpuinfo, which every architecture writes in its own way."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from libmh.context import Root

CPUINFO = "/proc/cpuinfo"
MAX_CPUINFO = 1 << 24  # 1.5 kB a processor
MAX_VALUE = 16_384
UNKNOWN = "unknown"

# MIDR_EL1's implementers and parts (Arm's technical reference manuals): arm64 gives no name
IMPLEMENTERS = {
    "0x41": "ARM",
    "0x42": "Broadcom",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x50": "APM",
    "0x51": "Qualcomm",
    "0x53": "Samsung",
    "0x56": "Marvell",
    "0x61": "Apple",
    "0x6d": "Microsoft",
    "0xc0": "Ampere",
}
ARM_PARTS = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
    "0xd84": "Neoverse-V3",
    "0xd8e": "Neoverse-N3",
}


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """`flags` are separated by blanks; `packages` and `cores` are 0 where the file does not tell."""

    model: str
    flags: str
    threads: int
    cores: int
    packages: int


def read(root: Root) -> CpuInfo:
    """Raises what `Root.read` raises."""
    return parse_cpuinfo(root.read(CPUINFO, MAX_CPUINFO))


def parse_cpuinfo(text: str) -> CpuInfo:
    """Counts of all processors; model and flags of the first."""
    entries = tuple(_entries(text))
    first: dict[str, str] = {}
    for key, value in entries:
        first.setdefault(key, value)
    cores, packages = _layout(entries)
    return CpuInfo(_model(first), _flags(entries), _threads(entries), cores, packages)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip().lower(), " ".join(value.split())[:MAX_VALUE]


def _threads(entries: tuple[tuple[str, str], ...]) -> int:
    # s390: `processor 0: version = FF, ...`; an old 32-bit Arm kernel calls the *model* `Processor`
    return sum(
        1
        for key, value in entries
        if (key == "processor" and value.isdecimal()) or re.fullmatch(r"processor [0-9]+", key)
    )


def _layout(entries: tuple[tuple[str, str], ...]) -> tuple[int, int]:
    """Cores and packages as x86 tells them: one pair of `physical id` and `core id` for each processor."""
    pairs: set[tuple[str, str]] = set()
    package = ""
    for key, value in entries:
        if key == "physical id":
            package = value
        elif key == "core id":
            pairs.add((package, value))
    return len(pairs), len({package for package, _ in pairs})


def _model(first: dict[str, str]) -> str:
    for key in ("model name", "cpu model", "uarch"):  # x86 and LoongArch, MIPS, RISC-V
        if first.get(key):
            return first[key]
    if "cpu implementer" in first:
        return _arm_model(first["cpu implementer"].lower(), first.get("cpu part", "").lower())
    if first.get("vendor_id") == "IBM/S390":
        machine = re.search(r"machine = (\w+)", first.get("processor 0", ""))
        return f"IBM/S390 {machine[1]}" if machine else "IBM/S390"
    if first.get("cpu"):  # PowerPC: `POWER9 (architected), altivec supported`
        return first["cpu"].partition(",")[0]
    processor = first.get("processor", "")
    return UNKNOWN if not processor or processor.isdecimal() else processor


def _arm_model(implementer: str, part: str) -> str:
    maker = IMPLEMENTERS.get(implementer, f"implementer {implementer}")
    name = ARM_PARTS.get(part) if implementer == "0x41" else None
    return f"{maker} {name or f'part {part}'}" if part else maker


def _flags(entries: tuple[tuple[str, str], ...]) -> str:
    """The ancestor looked for `features` in lower case alone, which Arm does not write."""
    for key, value in entries:
        if key.startswith(("flags", "features")):
            return value or UNKNOWN
        if "altivec supported" in value:
            return "altivec"
    return UNKNOWN
