"""What a report may be. Hosts are the least trusted part: nothing of one that fails here is kept."""

import math
import re
from collections.abc import Mapping

from libmh.api.aggregates import CapabilityReport
from libmh.api.host import Fact
from libmh.capability import SCHEMA
from libmh.errors import InvalidArguments

MAX_FACTS = 512
MAX_TRAITS = 1024
MAX_METRICS = 64
MAX_REPORT = 256 * 1024
MAX_WORD = 128
MAX_IDENTITY = 255
MAX_SOURCE = 1024
MAX_REASON = 2000
MAX_COUNT = 2**63 - 1  # what a database's integer holds
SHOWN = 60
UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?")
FACT = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
TRAIT = re.compile(r"[A-Z][A-Z0-9_]{0,254}")


def check(report: CapabilityReport) -> None:
    """Raises `InvalidArguments` with the field's name and what was expected of it."""
    check_schema(report.schema)
    _check_identity(report)
    _expect(1 <= report.sequence <= MAX_COUNT, "sequence", f"1 to {MAX_COUNT}", report.sequence)
    _expect(report.generation <= MAX_COUNT, "generation", f"at most {MAX_COUNT}", report.generation)
    _expect(len(report.facts) <= MAX_FACTS, "facts", f"at most {MAX_FACTS}", len(report.facts))
    _expect(len(report.traits) <= MAX_TRAITS, "traits", f"at most {MAX_TRAITS}", len(report.traits))
    for name, fact in report.facts.items():
        _check_fact(name, fact)
    for trait in report.traits:
        _expect(TRAIT.fullmatch(trait), "traits", "names of capitals, digits and '_'", trait)
    _check_metrics(report.metrics or {})


def _check_metrics(metrics: Mapping[str, float]) -> None:
    _expect(len(metrics) <= MAX_METRICS, "metrics", f"at most {MAX_METRICS}", len(metrics))
    for name, value in metrics.items():
        _expect(FACT.fullmatch(name), "metrics", "names of letters, digits and any of '_.:-'", name)
        _expect(math.isfinite(value), f"metrics.{name}", "a finite number", value)


def check_schema(schema: str) -> None:
    """The same major version, and a minor one that is not above ours."""
    asked, ours = VERSION.fullmatch(schema), VERSION.fullmatch(SCHEMA)
    known = asked and ours and asked[1] == ours[1] and int(asked[2]) <= int(ours[2])
    if not known:
        raise InvalidArguments(
            f"report.schema: version '{schema[:SHOWN]}' is not taken in by version '{SCHEMA}'",
            argument="report.schema",
        )


def check_host(hostname: str, uuid: str = "", identity: str = "") -> None:
    """What a host may be registered by. Raises `InvalidArguments`."""
    for name, text, fits, expected in (
        ("hostname", hostname, HOSTNAME.fullmatch(hostname), "a host name"),
        ("uuid", uuid, not uuid or UUID.fullmatch(uuid), "32 hexadecimal digits, dashes aside"),
        ("identity", identity, len(identity) <= MAX_IDENTITY and identity.isprintable(), "a name"),
    ):
        if not fits:
            raise InvalidArguments(f"{name}: expected {expected}, got {text[:SHOWN]!r}", argument=name)


def _check_identity(report: CapabilityReport) -> None:
    _expect(UUID.fullmatch(report.uuid), "uuid", "32 hexadecimal digits, dashes aside", report.uuid)
    _expect(HOSTNAME.fullmatch(report.hostname), "hostname", "a host name", report.hostname)
    for name, text in (("boot_id", report.boot_id), ("agent_version", report.agent_version)):
        fits = 1 <= len(text) <= MAX_WORD and text.isprintable()
        _expect(fits, name, f"1 to {MAX_WORD} printable characters", text)


def _check_fact(name: str, fact: Fact) -> None:
    _expect(FACT.fullmatch(name), "facts", "names of letters, digits and any of '_.:-'", name)
    where = f"facts.{name}"
    _expect(
        len(fact.source) <= MAX_SOURCE, f"{where}.source", f"at most {MAX_SOURCE} characters", fact.source
    )
    reason = fact.reason or ""
    _expect(len(reason) <= MAX_REASON, f"{where}.reason", f"at most {MAX_REASON} characters", len(reason))


def check_size(text: str) -> None:
    """Of the report as it is kept."""
    _expect(len(text) <= MAX_REPORT, "", f"at most {MAX_REPORT} characters of JSON", len(text))


def _expect(holds: object, field: str, expected: str, got: object) -> None:
    if not holds:
        where = f"report.{field}" if field else "report"
        shown = repr(got) if len(repr(got)) <= SHOWN else repr(got)[:SHOWN] + "..."
        raise InvalidArguments(f"{where}: expected {expected}, got {shown}", argument=where)
