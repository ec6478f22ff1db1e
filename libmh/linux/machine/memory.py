"""Memory and swap, from /proc/meminfo (proc_meminfo(5)): psutil gives the same numbers, at 16 ms of
start-up."""

from collections.abc import Mapping

from libmh.context import Root
from libmh.errors import BackendFailed

MEMINFO = "/proc/meminfo"


def read(root: Root) -> dict[str, int]:
    """/proc/meminfo in kB by name. Raises what `Root.read` raises."""
    return parse_meminfo(root.read(MEMINFO))


def parse_meminfo(text: str) -> dict[str, int]:
    """Lines `MemTotal: 24684084 kB`; the few without a unit are counts, and those of another form are
    skipped."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        value = rest.split(None, 1)[0] if rest.strip() else ""
        if value.isascii() and value.isdecimal() and len(value) < 20:
            found[name] = int(value)
    return found


def amount(memory: Mapping[str, int], name: str) -> int:
    """One value in kB; `backend-failed` where the kernel does not give it."""
    try:
        return memory[name]
    except KeyError:
        raise BackendFailed(f"'{MEMINFO}' has no line '{name}'", source=MEMINFO) from None


def available(memory: Mapping[str, int]) -> int:
    """MemAvailable in kB; before Linux 3.14, what is free or can be dropped."""
    if "MemAvailable" in memory:
        return memory["MemAvailable"]
    return amount(memory, "MemFree") + memory.get("Buffers", 0) + memory.get("Cached", 0)
