"""`mhctl` and the fleet's nouns, at a conductor with a store of its own: what people type, and what becomes
of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fleet
from libmh.api.aggregates import Reports
from libmh.api.conductor import Conductor
from libmh.call import Request
from libmh.cli.main import mhctl
from libmh.cli.session import Session
from libmh.context import Context
from libmh.errors import Timeout
from libmh.remote import BlockingConnection
from libmh.testing import loopback
from mh_conductor.conductor_service import FleetConductor
from mh_conductor.intake import Intake
from mh_conductor.reporting import ReportIntake
from mh_conductor.service import FleetAggregates
from mh_conductor.sinks.service import FleetSinks
from mh_conductor.sinks.settings import sinks


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingConnection]:
    store, rules, context = fleet.new_store(tmp_path), fleet.rules(), Context()
    with loopback(
        ReportIntake(Intake(store, rules), context.events),
        FleetAggregates(store, rules, context.events),
        FleetConductor(store, rules, context.events),
        FleetSinks(store, sinks({"out": {"type": "file", "path": str(tmp_path / "out.json")}})),
        context=context,
    ) as opened:
        monkeypatch.setattr(Session, "connection", lambda _self: opened)
        monkeypatch.setattr(Session, "close", lambda _self: None)
        for number, memory in ((1, 16), (2, 64)):
            opened.proxy(Reports).report(fleet.report(number, memory_gib=memory))
        yield opened
    store.close()


def run(*words: str) -> Result:
    return CliRunner().invoke(mhctl, list(words))


def told(*words: str) -> Any:
    done = run("--json", *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_way_of_an_operator(connection: BlockingConnection) -> None:
    """An aggregate, one that is a zone, hosts, metadata, a flavor that asks for it: where would it go?"""
    assert "availability_zone" not in told("aggregate", "create", "fast")
    made = told("aggregate", "create", "racks", "--zone", "az1", "--property", "rack=7")
    assert (made["availability_zone"], made["metadata"]["rack"]) == ("az1", "7")
    assert told("aggregate", "add-host", "racks", "node1", "node2")["hosts"] == ["node1", "node2"]
    told("aggregate", "add-host", "fast", "node2")
    assert told("aggregate", "set", "fast", "--property", "coolhardware=true")["metadata"] == {
        "coolhardware": "true"
    }
    flavor = told(
        "flavor", "create", "cool", "--vcpus", "2", "--ram", "512", "--property", "coolhardware=true"
    )
    assert (flavor["vcpus"], flavor["extra_specs"]) == (2, {"coolhardware": "true"})
    found = told("select", "--flavor", "cool", "--zone", "az1")
    assert [each["hostname"] for each in found["hosts"]] == ["node2"]
    assert told("zone", "list")[0]["hosts"] == {"node1": True, "node2": True}
    assert [line.split() for line in run("zone", "list", "--long").stdout.splitlines()][1] == [
        *("az1", "node1", "yes"),
    ]
    assert [each["name"] for each in told("flavor", "list")] == ["cool"]

    assert told("aggregate", "set", "fast", "--name", "faster", "--property", "x=1")["name"] == "faster"
    assert told("aggregate", "unset", "faster", "--property", "x")["metadata"] == {"coolhardware": "true"}
    assert told("flavor", "unset", "cool", "--property", "coolhardware")["extra_specs"] == {}
    assert told("flavor", "set", "cool", "--property", "a=b")["extra_specs"] == {"a": "b"}
    assert run("flavor", "delete", "cool").stdout == "cool: deleted\n"
    refused = run("aggregate", "delete", "faster", "--yes")
    assert (refused.exit_code, "is not empty" in refused.stderr) == (2, True)
    told("aggregate", "remove-host", "faster", "node2")
    assert run("aggregate", "delete", "faster").exit_code != 0  # nobody there who could agree
    assert run("aggregate", "delete", "faster", "--yes").stdout == "faster: deleted\n"
    assert {each["change"] for each in told("aggregate", "history", "racks")} >= {"created", "host-added"}


def test_an_aggregate_is_made_whole_or_not_at_all(connection: BlockingConnection) -> None:
    done = run("aggregate", "create", "half", "--property", f"key={'x' * 300}")
    assert done.exit_code == 2, done.stderr
    assert run("aggregate", "show", "half").exit_code == 1
    for wrong in ("novalue", "=x"):
        assert "expected KEY=VALUE" in run("aggregate", "create", "a", "--property", wrong).stderr
    assert "given twice" in run("aggregate", "create", "a", "--property", "a=1", "--property", "a=2").stderr
    assert "nothing to set" in run("aggregate", "set", "arch-x86_64").stderr


def test_where_nothing_fits_it_says_why(connection: BlockingConnection) -> None:
    done = run("select", "memory_gib=>= 100")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "0 of 2 hosts" in done.stderr
    assert "2 hosts: " in done.stderr
    assert "memory_gib" in done.stderr
    done = run("select", "memory_gib=>= 60", "--rejected")
    assert done.exit_code == 0
    assert "node2" in done.stdout
    assert "node1" in done.stdout.partition("REASON")[2]
    assert [each["hostname"] for each in told("select", "--limit", "1")["hosts"]] in (["node1"], ["node2"])


def test_the_fleet_at_a_glance(connection: BlockingConnection) -> None:
    head, *rows = run("hosts").stdout.splitlines()
    assert head.split()[:3] == ["HOSTNAME", "STATE", "VERSION"]
    assert [row.split()[:2] for row in rows] == [["node1", "up"], ["node2", "up"]]
    assert "64 GiB" in rows[1]
    assert run("hosts", "register", "node8", "node9").stdout.splitlines()[1] == "node9: registered"
    listed = told("hosts", "list", "--state", "registered")
    assert [each["hostname"] for each in listed] == ["node8", "node9"]
    assert "never" in run("hosts").stdout
    assert run("hosts", "register", "a", "b", "--uuid", "1" * 32).exit_code == 2
    assert run("hosts", "forget", "node9", "--yes").exit_code == 0
    assert [each["hostname"] for each in told("hosts", "list", "--state", "registered")] == ["node8"]
    assert told("hosts", "show", "node1")["uuid"] == fleet.uuid_of(1)
    assert told("why", "node2", "big")[0]["matched"] is True
    assert any(each["aggregate"] == "big" for each in told("hosts", "history", "node2"))


def test_a_page_follows_the_other(connection: BlockingConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmh.cli.hosts.PAGE", 2)
    told("hosts", "register", "node3", "node4", "node5")
    assert [each["hostname"] for each in told("hosts")] == [f"node{number}" for number in range(1, 6)]


def test_pages_go_on_when_their_end_is_forgotten(
    connection: BlockingConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmh.cli.hosts.PAGE", 2)
    told("hosts", "register", "node3", "node4", "node5")
    ask, left = Session.ask, ["node2", "node4"]

    def forgetful(self: Session, *words: Any, **options: Any) -> Any:
        answer: Any = ask(self, *words, **options)
        ends = [each["uuid"] for each in answer if each["hostname"] in left][-1:]
        for uuid in ends:
            connection.proxy(Conductor).forget(uuid)
        return answer

    monkeypatch.setattr(Session, "ask", forgetful)
    assert [each["hostname"] for each in told("hosts")] == [f"node{number}" for number in range(1, 6)]


def test_a_name_of_nothing_is_refused(connection: BlockingConnection) -> None:
    told("aggregate", "create", "racks", "--zone", "az1")
    for option in ("--name", "--zone"):
        done = run("aggregate", "set", "racks", option, "", "--property", "x=1")
        assert (done.exit_code, f"{option}: expected a name" in done.stderr) == (2, True)
    assert told("aggregate", "show", "racks")["metadata"] == {"availability_zone": "az1"}


def test_hosts_of_a_state(connection: BlockingConnection) -> None:
    told("hosts", "register", "node3")
    assert [each["hostname"] for each in told("hosts", "--state", "registered")] == ["node3"]
    assert run("hosts", "--state", "up", "show", "node1").exit_code == 2


def test_a_hint_without_a_value_is_called_a_hint(connection: BlockingConnection) -> None:
    assert "--hint: expected KEY=VALUE, got 'x'" in run("select", "--hint", "x").stderr


def test_a_host_alone_tells_where_the_fleet_is_asked() -> None:
    done = run("hosts")
    assert (done.exit_code, "--on amqp://HOST:5672" in done.stderr) == (1, True)


def test_no_answer_asks_for_a_conductor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        def request(self, _request: Request) -> None:
            raise Timeout("nobody answered within 2 s")

    monkeypatch.setattr(Session, "connection", lambda _self: Deaf())
    monkeypatch.setattr(Session, "close", lambda _self: None)
    done = run("hosts")
    assert (done.exit_code, "is a conductor (mh-conductor) running" in done.stderr) == (5, True)
    assert "mh-conductor" not in run("host", "show").stderr


def test_interrupted_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_self: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "connection", interrupted)
    done = run("--json", "hosts")
    assert (done.exit_code, done.stdout) == (130, "")


def test_a_sink_is_looked_at_before_it_is_filled(connection: BlockingConnection, tmp_path: Path) -> None:
    assert [each["name"] for each in told("sink", "list")] == ["out"]
    assert run("sink", "drift", "out").exit_code == 1
    plan = told("sink", "plan", "out")
    assert plan["steps"]
    assert not (tmp_path / "out.json").exists()
    assert run("sink", "apply", "out").exit_code != 0  # nobody there who could agree
    assert told("sink", "apply", "out", "--plan", plan["id"], "--yes")["failed"] == []
    assert "arch-x86_64" in (tmp_path / "out.json").read_text()
    assert run("sink", "drift", "out").stdout == "no drift\n"
    assert "nothing to do" in run("sink", "apply", "out").stdout
    assert run("sink", "plan", "absent").exit_code == 1
