"""The file sink, the table `[sink]`, and what is kept of plans."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotFound
from libmh.testing import unanswered
from mh_conductor.main import main
from mh_conductor.sinks import kept
from mh_conductor.sinks.kept import KEPT_SECONDS, MAX_PLANS, SECOND
from mh_conductor.sinks.service import FleetSinks
from mh_conductor.sinks.settings import File, OpenStack, sinks
from mh_conductor.tables import SINK_PLANS
from sink_stage import SINK, Stage, lines, stage, stage_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "aggregates.json"


@pytest.fixture
def there(tmp_path: Path, path: Path) -> Iterator[Stage]:
    with stage(tmp_path, type="file", path=str(path)) as made:
        yield made


@pytest.fixture
def stored(store_url: str, path: Path) -> Iterator[Stage]:
    """On each kind of store."""
    with stage(store_url, type="file", path=str(path)) as made:
        yield made


def test_everything_declared_is_answered() -> None:
    assert unanswered(FleetSinks) == []


def test_the_file_has_everything(stored: Stage, path: Path) -> None:
    host = stored.host(1, "CUSTOM_MH_FAST", "HW_CPU_X86_AVX2")
    stored.host(2)
    stored.aggregate("ssd", host, ssd="true", availability_zone="az1")
    made = stored.plan()
    assert lines(made.steps) == [
        "create ssd availability_zone=az1, ssd=true",
        f"add-host ssd {host}",
        f"set-traits {host} +CUSTOM_MH_FAST",
    ]
    assert not path.exists(), "nothing is done yet"
    result = stored.sinks.apply(SINK, made.id)
    assert (result.done, result.failed, result.drift) == (3, [], [])
    told = json.loads(path.read_text())
    (aggregate,) = told["aggregates"]
    assert aggregate.pop("uuid")
    assert aggregate == {
        "name": "ssd",
        "hosts": [host],
        "metadata": {"availability_zone": "az1", "ssd": "true"},
    }
    assert told["traits"] == {host: ["CUSTOM_MH_FAST"]}
    assert stored.plan().steps == []


def test_only_what_differs_is_told(there: Stage, path: Path) -> None:
    one, two = there.host(1, "CUSTOM_MH_FAST"), there.host(2)
    there.aggregate("a", one, x="1", y="1")
    there.aggregate("gone")
    there.push()
    there.aggregates.rename("a", "b")
    there.aggregates.set_metadata("b", {"x": "2", "y": None})
    there.aggregates.add_host("b", two)
    there.aggregates.remove_host("b", one)
    there.aggregates.delete("gone")
    there.host(1, sequence=2)
    assert lines(there.plan().steps) == [
        "rename a 'b'",
        "set-metadata b x=2",
        f"add-host b {two}",
        f"remove-host b {one}",
        "unset-metadata b -y",
        "delete gone",
        f"set-traits {one} -CUSTOM_MH_FAST",
    ]
    assert there.push().drift == []
    assert json.loads(path.read_text())["traits"] == {}


def test_a_change_by_hand_is_drift_and_is_mended(there: Stage, path: Path) -> None:
    there.aggregate("a", there.host(1))
    there.push()
    path.write_text(path.read_text().replace('"node1.example.org"', ""))
    assert there.drift() == ["add-host a node1.example.org"]
    made = there.plan()
    path.unlink()
    with pytest.raises(Conflict, match="it would now create 'a'"):
        there.sinks.apply(SINK, made.id)
    assert there.push().drift == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my notes",
        "[]",
        "{}",
        '{"schema": "1.0", "owner": "another", "aggregates": [], "traits": {}}',
        '{"schema": "2.0", "owner": "matahari", "aggregates": [], "traits": {}}',
        '{"schema": "1.0", "owner": "matahari", "aggregates": [7], "traits": {}}',
        '{"schema": "1.0", "owner": "matahari", "aggregates": [], "traits": {"node1": [1, "b"]}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(there: Stage, path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(Conflict, match="is left alone"):
        there.plan()
    assert path.read_text() == text
    (told,) = there.sinks.list_sinks()
    assert told.last_error
    assert "is left alone" in told.last_error


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with stage(tmp_path, type="file", path=str(tmp_path / "no" / "where.json")) as there:
        there.aggregate("a")
        with pytest.raises(BackendFailed, match="cannot write"):
            there.push()
    with (
        stage(tmp_path, type="file", path=str(tmp_path)) as there,
        pytest.raises(BackendFailed, match="cannot read"),
    ):
        there.plan()


def test_hosts_of_one_name_and_names_that_make_no_trait_are_told(tmp_path: Path, path: Path) -> None:
    with stage(tmp_path, type="file", path=str(path), aggregate_traits=True) as there:
        there.host(1, hostname="same")
        there.host(2, hostname="same")
        there.aggregate("日本")
        made = there.plan()
    assert lines(made.conflicts) == ["name same", "name 日本"]


def test_plans_are_kept_for_an_hour_and_not_without_end(stored: Stage) -> None:
    stored.aggregate("a")
    first = stored.plan()
    with stored.store.write() as connection:
        old = SINK_PLANS.c.made - (KEPT_SECONDS + 1) * SECOND
        connection.execute(update(SINK_PLANS).values(made=old))
    with pytest.raises(NotFound, match="plans are kept for an hour"):
        stored.sinks.apply(SINK, first.id)
    plans = [stored.plan() for _ in range(MAX_PLANS + 2)]
    with stored.store.read() as connection:
        ids = set(connection.execute(select(SINK_PLANS.c.id)).scalars())
    assert ids == {made.id for made in plans[2:]}


def test_a_plan_is_for_its_sink(tmp_path: Path) -> None:
    tables = {name: {"type": "file", "path": str(tmp_path / name)} for name in ("a", "b")}
    with stage_of(tmp_path, tables) as there:
        made = there.sinks.plan("a")
        with pytest.raises(NotFound, match=f"there is no plan '{made.id}' for 'b'"):
            there.sinks.apply("b", made.id)
        assert [(each.name, each.type, each.applied) for each in there.sinks.list_sinks()] == [
            ("a", "file", None),
            ("b", "file", None),
        ]


def test_tables_become_sinks() -> None:
    found = sinks(
        {
            "prod": {"type": "openstack", "cloud": "home", "owner": "east", "timeout": 5},
            "lab": {"type": "openstack", "compute": "http://c/v2.1", "placement": "http://p"},
            "file": {"type": "file", "path": "/var/lib/x.json"},
        }
    )
    assert found == {
        "file": File("file", Path("/var/lib/x.json")),
        "lab": OpenStack("lab", compute="http://c/v2.1", placement="http://p"),
        "prod": OpenStack("prod", cloud="home", owner="east", timeout=5),
    }
    assert [each.target for each in found.values()] == ["/var/lib/x.json", "http://c/v2.1", "home"]


GOOD = {"type": "openstack", "cloud": "home"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (7, r"expected tables \[sink.NAME\]"),
        ({"a": 7}, r"expected a table \[sink.a\], got 7"),
        ({"a b": GOOD}, r"\[sink.a b\]: expected a name"),
        ({"a": {}}, r"\[sink.a\] type: expected file or openstack, got None"),
        ({"a": {"type": ["file"]}}, r"\[sink.a\] type: expected file or openstack"),
        ({"a": {**GOOD, "colour": 1}}, r"\[sink.a\]: unknown key 'colour': expected cloud, "),
        ({"a": {**GOOD, "traits": "yes"}}, r"\[sink.a\] traits: expected a value of type bool, got 'yes'"),
        ({"a": {**GOOD, "timeout": True}}, r"\[sink.a\] timeout: expected a value of type int, got True"),
        ({"a": {**GOOD, "timeout": 0}}, r"timeout: expected 1 to 120 seconds, got 0"),
        ({"a": {**GOOD, "owner": "a:b"}}, r"owner: expected 1 to 64 letters"),
        ({"a": {**GOOD, "prefix": "COMPUTE_"}}, r"prefix: expected a prefix of custom traits"),
        ({"a": {**GOOD, "prefix": "CUSTOM_"}}, r"prefix: expected a prefix of custom traits"),
        ({"a": {**GOOD, "compute": "http://c", "placement": "http://p"}}, "expected either cloud"),
        ({"a": {"type": "openstack", "compute": "http://c"}}, "expected either cloud"),
        ({"a": {"type": "file", "path": "x.json"}}, "path: expected an absolute path, got 'x.json'"),
        ({f"s{number}": GOOD for number in range(33)}, "expected at most 32 sinks, got 33"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tables: Any, message: str) -> None:
    with pytest.raises(InvalidArguments, match=message):
        sinks(tables)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_no_table_raises_anything_else(tables: Any) -> None:
    try:
        found = sinks(tables)
    except InvalidArguments:
        return
    assert found == {}


def test_a_table_that_is_wrong_ends_the_conductor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "conductor.toml"
    config.write_text('[sink.lab]\ntype = "cloud"\n')
    assert main(["--broker", "amqp://127.0.0.1:1", "--config", str(config), "--state", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert "[sink.lab] type: expected file or openstack, got 'cloud'" in said


def test_a_pipe_that_somebody_has_put_there_is_not_waited_for(there: Stage, path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(Conflict, match="is no file, and is left alone"):
        there.plan()
    assert path.is_fifo()


def test_of_two_who_apply_a_plan_one_does(there: Stage) -> None:
    there.aggregate("a")
    made = there.plan()
    with there.store.write() as connection:
        kept.drop(connection, made.id)
    with there.store.write() as connection, pytest.raises(NotFound, match="applied meanwhile"):
        kept.drop(connection, made.id)
