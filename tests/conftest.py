"""A skip must say what is missing; an unattended run has everything that can be installed."""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

from dbus_either import either  # noqa: F401 - a fixture of every module
from openstack_servers import openstack_servers  # noqa: F401 - one for all modules
from postgresql import (  # noqa: F401 - where they are needed
    new_store_url,
    postgresql_new_url,
    postgresql_server,
    postgresql_shared,
    postgresql_url,
    store_url,
)
from testbed import needs

AnyReport = TypeVar("AnyReport", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield))


def _judged(report: AnyReport) -> AnyReport:
    """Turn a skip that nobody should accept into a failure."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if fault := needs.fault(reason, unattended=os.environ.get("CI") == "true"):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} was skipped: {reason!r}: {fault}"
    return report
