"""CPU flags, architectures and disks -> names of the os-traits vocabulary (OpenStack's `os_traits` package).

The tables are literal, so that an agent does not need that package; a test compares every name with it.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

HYPERTHREADING = "HW_CPU_HYPERTHREADING"
SOLID_DISK = "STORAGE_DISK_SSD"
ROTATING_DISK = "STORAGE_DISK_HDD"

ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "x86_64": "HW_ARCH_X86_64",
        "i686": "HW_ARCH_I686",
        "i386": "HW_ARCH_I686",
        "aarch64": "HW_ARCH_AARCH64",
        "armv6l": "HW_ARCH_ARMV6",
        "armv7l": "HW_ARCH_ARMV7",
        "ppc64": "HW_ARCH_PPC64",
        "ppc64le": "HW_ARCH_PPC64LE",
        "s390x": "HW_ARCH_S390X",
        "mips64": "HW_ARCH_MIPS64",
        "ia64": "HW_ARCH_IA64",
    }
)
"""By uname(2)'s machine."""

# flags of /proc/cpuinfo that are named like their trait
SAME_X86 = (
    "3dnow abm avx avx2 avx512bw avx512cd avx512dq avx512er avx512f avx512ifma avx512pf avx512vbmi avx512vl "
    "bmi2 f16c fma4 mmx mpx pdpe1gb sgx sse sse2 sse4a ssse3 stibp tbm xop"
)
SAME_AARCH64 = (
    "aes asimd asimddp asimdhp asimdrdm atomics cpuid crc32 dcpop evtstrm fcma fp fphp jscvt lrcpc pmull "
    "sha1 sha2 sha3 sha512 sm3 sm4 sve"
)
RENAMED_X86: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aes": ("AESNI",),
        "amx_bf16": ("AMXBF16",),
        "amx_int8": ("AMXINT8",),
        "amx_tile": ("AMXTILE",),
        "avx512_bitalg": ("AVX512BITALG",),
        "avx512_vbmi2": ("AVX512VBMI2",),
        "avx512_vnni": ("AVX512VNNI",),
        "avx512_vpopcntdq": ("AVX512VPOPCNTDQ",),
        "bmi1": ("BMI",),
        "fma": ("FMA3",),
        "gfni": ("AVX512GFNI",),
        "md_clear": ("INTEL_MD_CLEAR",),
        "pclmulqdq": ("CLMUL",),
        "pni": ("SSE3",),
        "rtm": ("TSX",),
        "sev": ("AMD_SEV",),
        "sev_es": ("AMD_SEV_ES",),
        "sev_snp": ("AMD_SEV_SNP",),
        "sha_ni": ("SHA",),
        "sse4_1": ("SSE41",),
        "sse4_2": ("SSE42",),
        "svm": ("SVM", "AMD_SVM"),
        "vaes": ("AVX512VAES",),
        "vmx": ("VMX", "INTEL_VMX"),
        "vpclmulqdq": ("AVX512VPCLMULQDQ",),
    }
)


def _prefixed(
    prefix: str, same: str, renamed: Mapping[str, tuple[str, ...]]
) -> Mapping[str, tuple[str, ...]]:
    names = {flag: (flag.upper(),) for flag in same.split()} | dict(renamed)
    return MappingProxyType({flag: tuple(prefix + name for name in of) for flag, of in names.items()})


X86 = _prefixed("HW_CPU_X86_", SAME_X86, RENAMED_X86)
AARCH64 = _prefixed("HW_CPU_AARCH64_", SAME_AARCH64, {})
FLAGS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"x86_64": X86, "i686": X86, "i386": X86, "aarch64": AARCH64}
)
"""By architecture and flag."""
KNOWN = frozenset(
    {HYPERTHREADING, SOLID_DISK, ROTATING_DISK, *ARCHITECTURES.values()}
    | {trait for table in FLAGS.values() for names in table.values() for trait in names}
)
"""All that a host may report."""


def of_flags(arch: str, flags: Iterable[object]) -> set[str]:
    """The traits of a processor's flags; flags that have none are left out."""
    table = FLAGS.get(arch, {})
    return {trait for flag in flags if isinstance(flag, str) for trait in table.get(flag, ())}
