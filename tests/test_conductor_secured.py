"""Reports through a secured broker: each is from whoever the broker vouches for, whatever it says."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import fleet
from certificates import Authority, authority
from libmh.api.aggregates import Accepted, Aggregates, CapabilityReport, FleetHost, Reports
from libmh.api.conductor import Conductor, Status
from libmh.client import connect
from libmh.errors import NotAuthorized
from libmh.remote import connect_async
from processes import agent
from test_amqp_secured import tls_table

SECONDS = 60


@dataclass
class Site:
    """A secured broker and a conductor; whoever calls shows a certificate."""

    url: str
    trusted: Authority
    directory: Path
    patch: pytest.MonkeyPatch
    audit: Path

    def as_(self, name: str) -> str:
        """What is connected from here on is called so."""
        file = self.directory / f"{name}.toml"
        file.write_text(tls_table(self.trusted.give(name)))
        self.patch.setenv("MATAHARI_CONSOLE", str(file))
        return self.url

    def report(self, name: str, *reports: CapabilityReport) -> list[Accepted]:
        url = self.as_(name)

        async def send() -> list[Accepted]:
            async with asyncio.timeout(SECONDS), await connect_async(url) as connection:
                return [await connection.call(Reports.report, each) for each in reports]

        return asyncio.run(send())

    def hosts(self) -> list[FleetHost]:
        with connect(self.as_("console")) as connection:
            return connection.proxy(Aggregates).hosts()

    def status(self) -> Status:
        with connect(self.as_("console")) as connection:
            return connection.proxy(Conductor).status()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    trusted = authority(tmp_path / "ours")
    access = '[access]\n"CN=conductor" = "conductor"\n"CN=console" = "console"\n"CN=node*" = "member"\n'
    access += '[authority]\n"CN=conductor" = "guest"\n'
    (tmp_path / "broker.toml").write_text(access + tls_table(trusted.give("broker")))
    (tmp_path / "conductor.toml").write_text(
        '[authority]\n"CN=console" = "operator"\n[reports]\nidentity = "CN={hostname}"\n'
        + tls_table(trusted.give("conductor"))
    )
    broker = ("--listen", "127.0.0.1:0", "--state", f"{tmp_path}/b", "--config", f"{tmp_path}/broker.toml")
    audit = tmp_path / "audit.json"
    with ExitStack() as stack:
        url = "amqps://" + stack.enter_context(agent("mh-broker", *broker)).ready.rpartition(" ")[2]
        options = ("--broker", url, "--state", f"{tmp_path}/c", "--audit-file", str(audit))
        stack.enter_context(agent("mh-conductor", *options, "--config", f"{tmp_path}/conductor.toml"))
        yield Site(url, trusted, tmp_path, monkeypatch, audit)


def test_a_report_is_from_whom_the_broker_says(site: Site) -> None:
    (accepted,) = site.report("node1", fleet.report(1))
    assert accepted.changed
    for spoof in (fleet.report(2), fleet.report(1, 2, hostname="node2"), fleet.report(2, hostname="nodes")):
        with pytest.raises(NotAuthorized, match="'CN=node1' may not report for"):
            site.report("node1", spoof)
    with pytest.raises(NotAuthorized, match="'CN=node2' may not report for 'node2'"):
        site.report("node2", fleet.report(1, 2, hostname="node2"))
    site.report("node2", fleet.report(2))
    assert [(each.hostname, each.identity, each.sequence) for each in site.hosts()] == [
        ("node1", "CN=node1", 1),
        ("node2", "CN=node2", 1),
    ]
    written = [json.loads(line) for line in site.audit.read_text().splitlines()]
    refused = [(each["identity"], each["action"]) for each in written if each["outcome"] == "not-authorized"]
    action = "org.matahariproject.Reports.report"
    assert refused == [("CN=node1", action)] * 3 + [("CN=node2", action)]
    assert site.status().queued == 0
