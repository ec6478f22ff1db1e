"""Records <-> the JSON text that the store keeps."""

import json
from collections.abc import Iterable

from libmh.api.aggregates import CapabilityReport, Evidence
from libmh.declaration import type_of
from libmh.wire import dump, parse

EVIDENCE = type_of("evidence", list[Evidence])
REPORT = type_of("report", CapabilityReport)


def as_json(shown: Iterable[Evidence]) -> str:
    """The text of evidence."""
    return json.dumps(dump(EVIDENCE, list(shown), "evidence"), separators=(",", ":"))


def evidence_of(text: str) -> list[Evidence]:
    """The evidence of a text that `as_json` made."""
    found: list[Evidence] = parse(EVIDENCE, json.loads(text), "evidence")
    return found


def report_of(text: str) -> CapabilityReport:
    """The report of a text that the intake made."""
    report: CapabilityReport = parse(REPORT, json.loads(text), "report")
    return report
