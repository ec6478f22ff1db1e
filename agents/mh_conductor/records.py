"""Records <-> the JSON text that the store keeps."""

import json
from collections.abc import Iterable

from libmh.api.aggregates import CapabilityReport, Evidence
from libmh.api.host import Fact
from libmh.declaration import type_of
from libmh.spec import Plain
from libmh.wire import parse

EVIDENCE = type_of("evidence", list[Evidence])
REPORT = type_of("report", CapabilityReport)
canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
compact = json.JSONEncoder(separators=(",", ":")).encode


def as_json(shown: Iterable[Evidence]) -> str:
    """The text of evidence."""
    return compact([_plain_evidence(each) for each in shown])


def _plain_evidence(shown: Evidence) -> dict[str, Plain]:
    """As `dump` makes it, by hand: what was seen came out of a report, and there is very much of it."""
    plain: dict[str, Plain] = {
        "rule": shown.rule,
        "fact": shown.fact,
        "requirement": shown.requirement,
        "matched": shown.matched,
        "reason": shown.reason,
    }
    told = {"seen": shown.seen, "status": shown.status, "source": shown.source, "observed": shown.observed}
    plain.update({name: value for name, value in told.items() if value is not None})
    return plain


def evidence_of(text: str) -> list[Evidence]:
    """The evidence of a text that `as_json` made."""
    found: list[Evidence] = parse(EVIDENCE, json.loads(text), "evidence")
    return found


def plain_report(report: CapabilityReport) -> dict[str, Plain]:
    """As `dump` makes it, by hand: a report has come through `parse` already, and many come."""
    metrics: dict[str, Plain] = {} if report.metrics is None else {"metrics": dict(report.metrics)}
    return {
        "schema": report.schema,
        "uuid": report.uuid,
        "hostname": report.hostname,
        "boot_id": report.boot_id,
        "sequence": report.sequence,
        "generation": report.generation,
        "created": report.created,
        "agent_version": report.agent_version,
        "facts": {name: _plain_fact(fact) for name, fact in report.facts.items()},
        "traits": list(report.traits),
        **metrics,
    }


def _plain_fact(fact: Fact) -> dict[str, Plain]:
    plain: dict[str, Plain] = {"status": fact.status, "source": fact.source, "observed": fact.observed}
    if fact.value is not None:
        plain["value"] = fact.value
    if fact.reason is not None:
        plain["reason"] = fact.reason
    return plain


def report_of(text: str) -> CapabilityReport:
    """The report of a text that the intake made."""
    report: CapabilityReport = parse(REPORT, json.loads(text), "report")
    return report
