"""What is ours in Nova's API: bad input of every kind, and what is mended. The rest is in test_rest_nova."""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from libmh.errors import PROBLEMS, NotAuthorized
from mh_conductor.rest.application import MAX_BODY
from mh_conductor.rest.faults import fault_of
from rest_serving import Reply, Rest, ask, rest

SQL = "x'; DROP TABLE aggregates; --"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Rest]:
    with rest(tmp_path) as made:
        yield made


@pytest.fixture
def there(tmp_path: Path, store_url: str) -> Iterator[Rest]:
    """On each kind of store."""
    with rest(tmp_path, store_url=store_url) as made:
        yield made


def make(here: Rest, name: str, zone: str | None = None) -> Any:
    body = {"aggregate": {"name": name, **({"availability_zone": zone} if zone else {})}}
    made = here.ask("POST", "/os-aggregates", body)
    assert made.status == 200, made
    return made.body["aggregate"]


def act(here: Rest, which: int | str, action: str, **values: Any) -> Reply:
    return here.ask("POST", f"/os-aggregates/{which}/action", {action: values})


def test_names_that_are_numbers_or_uuids_are_nobody_elses(here: Rest) -> None:
    one = make(here, "one")
    trap = make(here, "1")
    twin = make(here, one["uuid"])
    assert here.ask("GET", "/os-aggregates/1").body["aggregate"]["name"] == "one"
    assert act(here, 1, "set_metadata", metadata={"a": "b"}).status == 200
    shown = {each["id"]: each["metadata"] for each in here.ask("GET", "/os-aggregates").body["aggregates"]}
    assert shown == {one["id"]: {"a": "b"}, trap["id"]: {}, twin["id"]: {}}
    assert here.ask("DELETE", "/os-aggregates/1").status == 200
    assert here.ask("GET", "/os-aggregates/1").message == "Aggregate 1 could not be found."
    assert len(here.ask("GET", "/os-aggregates").body["aggregates"]) == 2


def test_sql_is_text(there: Rest) -> None:
    made = make(there, SQL, SQL)
    assert act(there, made["id"], "set_metadata", metadata={"k": SQL}).status == 200
    assert act(there, made["id"], "add_host", host=SQL).status == 400
    assert (
        there.ask("POST", "/flavors", {"flavor": {"name": SQL, "ram": 1, "vcpus": 1, "disk": 0}}).status
        == 200
    )
    assert there.ask("GET", f"/flavors/{quote(SQL)}").status == 404
    assert there.ask("GET", f"/flavors?name={quote(SQL)}").body["flavors"][0]["name"] == SQL
    (shown,) = there.ask("GET", "/os-aggregates").body["aggregates"]
    assert (shown["name"], shown["metadata"]["k"], shown["availability_zone"]) == (SQL, SQL, SQL)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b'{"aggregate": {"name": Infinity}}',
        b"[" * 60_000,
        b'{"aggregate": {"name": "\\ud800"}}',
        b'{"aggregate": {"name": "a\\u0000b"}}',
        b'{"aggregate": {"name": "a\\u202eb"}}',
        b'{"aggregate": {"name": "a\\u2028b"}}',
        b'{"aggregate": {"name": "one", "availability_zone": "\\ud800"}}',
        b"\xff",
        b"1" * 5000,
        b'"text"',
        b"null",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_bad_body_is_refused_and_changes_nothing(here: Rest, body: bytes) -> None:
    said = here.ask("POST", "/os-aggregates", body)
    assert said.status == 400
    assert said.message
    assert here.ask("GET", "/os-aggregates").body == {"aggregates": []}


def test_values_that_no_store_can_keep_are_refused(there: Rest) -> None:
    made = make(there, "one")
    for value in ("\x00", "\ud800"):
        assert act(there, made["id"], "set_metadata", metadata={"k": value}).status == 400
    for key in ("", "k\n", "\x00"):
        assert act(there, made["id"], "set_metadata", metadata={key: "v"}).status == 400
    flavor = {"name": "f", "ram": 1, "vcpus": 1, "disk": 0, "description": "\x1b[2J"}
    assert there.ask("POST", "/flavors", {"flavor": flavor}).status == 400
    assert there.ask("GET", f"/os-aggregates/{made['id']}").body["aggregate"]["metadata"] == {}


def test_numbers_that_are_no_json_are_refused(here: Rest) -> None:
    flavor = {"name": "f", "ram": 1, "vcpus": 1, "disk": 0, "id": "f"}
    assert here.ask("POST", "/flavors", {"flavor": flavor}).status == 200
    for number in (b"1e999", b"-1e400", b"NaN", b"Infinity"):
        said = here.ask("POST", "/flavors/f/os-extra_specs", b'{"extra_specs": {"a": %s}}' % number)
        assert (said.status, said.message) == (400, "Malformed request body")
    assert here.ask("GET", "/flavors/f/os-extra_specs").body == {"extra_specs": {}}


def test_ten_thousand_keys_are_too_many(here: Rest) -> None:
    made = make(here, "one")
    said = act(here, made["id"], "set_metadata", metadata={f"k{number}": "" for number in range(9_000)})
    assert said.status in (400, 413)
    assert here.ask("GET", "/os-aggregates/1").body["aggregate"]["metadata"] == {}


def test_a_body_beyond_the_limit_is_not_read(here: Rest) -> None:
    said = here.ask("POST", "/os-aggregates", b" " * (MAX_BODY + 1))
    assert said.body == {"overLimit": {"code": 413, "message": "Request is too large."}}
    assert said.headers["connection"] == "close"


def test_parts_of_a_body_come_as_they_come(here: Rest) -> None:
    at = urlsplit(here.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
    parts = (each.encode() for each in ('{"aggreg', 'ate": {"name"', ': "one"}}'))
    connection.request("POST", "/v2.1/os-aggregates", parts, {}, encode_chunked=True)
    assert json.loads(connection.getresponse().read())["aggregate"]["name"] == "one"
    connection.close()


def test_odd_queries_are_refused(here: Rest) -> None:
    for query in ("limit=%ff", "limit=%0A", "marker=%80", "&".join(f"a{number}=" for number in range(2000))):
        assert here.ask("GET", f"/flavors?{query}").status == 400
    assert here.ask("GET", "/os-hypervisors?limit=%0A").message == "limit param must be an integer"
    assert here.ask("GET", "/flavors?limit=99999999999999999999").status == 200
    assert here.ask("GET", "/flavors?minRam=" + "9" * 5000).status in (200, 400)


def test_odd_paths_are_nothing(here: Rest) -> None:
    for path in (
        "/os-aggregates/",
        "/os-aggregates//",
        "/flavors/%00",
        "/flavors/a%2Fb",
        "/flavors/%ff",
        "/%2e%2e",
    ):
        said = here.ask("GET", path)
        assert (said.status, list(said.body)) == (404, ["itemNotFound"]), path


def test_catalogues_may_have_the_project_in_the_path(here: Rest) -> None:
    make(here, "one")
    for project in ("0123456789abcdef0123456789abcdef", "7b3f7a9e-2f4c-4b0e-9c1d-0d8f0a1b2c3d"):
        assert here.ask("GET", f"/{project}/os-aggregates/1").body["aggregate"]["name"] == "one"


def test_an_update_is_whole_or_not_at_all(there: Rest) -> None:
    one, two = make(there, "one", "az1"), make(there, "two", "az1")
    for each in (one, two):
        assert act(there, each["id"], "add_host", host="node1").status == 200
    body = {"aggregate": {"name": "other", "availability_zone": "az2"}}
    said = there.ask("PUT", f"/os-aggregates/{one['id']}", body)
    assert said.status == 400
    assert "already in availability zone(s) ['az1']" in said.message
    assert there.ask("GET", f"/os-aggregates/{one['id']}").body["aggregate"]["name"] == "one"


def test_many_at_once_lose_nothing(there: Rest) -> None:
    made = make(there, "one")

    def set_key(number: int) -> int:
        return act(there, made["id"], "set_metadata", metadata={f"k{number}": "v"}).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(set_key, range(24))) == {200}
        added = list(
            pool.map(lambda _each: act(there, made["id"], "add_host", host="node1").status, range(8))
        )
    assert sorted(added) == [200] + [409] * 7
    shown = there.ask("GET", f"/os-aggregates/{made['id']}").body["aggregate"]
    assert shown["metadata"] == {f"k{number}": "v" for number in range(24)}
    assert shown["hosts"] == ["node1"]


def test_hosts_come_in_pages(there: Rest) -> None:
    there.hosts(*range(4, 8))
    names: list[str] = []
    path = "/v2.1/os-hypervisors?limit=3"
    for _page in range(4):
        said = ask(there.url, "GET", path)
        names += [each["hypervisor_hostname"] for each in said.body["hypervisors"]]
        links = said.body.get("hypervisors_links")
        if not links:
            break
        path = links[0]["href"].removeprefix(there.url)
    assert names == [f"node{number}" for number in range(1, 8)]


def test_one_host_is_found_by_each_of_its_ids(here: Rest) -> None:
    for version in ("2.1", "2.53", "2.104"):
        for each in here.ask("GET", "/os-hypervisors", version=version).body["hypervisors"]:
            found = here.ask("GET", f"/os-hypervisors/{each['id']}", version=version).body["hypervisor"]
            assert found["hypervisor_hostname"] == each["hypervisor_hostname"]


def test_the_one_of_two_headers_that_names_the_service_counts(here: Rest) -> None:
    for value, version in (
        ("compute 2.41, volume 3.60", "2.41"),
        ("volume 3.60", "2.1"),
        ("compute 2.1, compute 2.53", "2.53"),
        ("Compute 2.53", "2.53"),
        ("compute", "2.1"),
        ("compute latest", "2.104"),
    ):
        said = here.ask("GET", "/os-aggregates", version="", OpenStack_API_Version=value)
        assert said.headers["openstack-api-version"] == f"compute {version}"
        assert said.headers["x-openstack-nova-api-version"] == version
        assert said.headers["vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
    old = here.ask("GET", "/os-aggregates", version="", X_OpenStack_Nova_API_Version="2.41")
    assert old.headers["openstack-api-version"] == "compute 2.41"


def test_versions_that_are_not_served_are_not_acceptable(here: Rest) -> None:
    said = here.ask("GET", "/os-aggregates", version="2.105")
    assert said.body == {
        "computeFault": {
            "code": 406,
            "message": "Version 2.105 is not supported by the API. Minimum is 2.1 and maximum is 2.104.",
        }
    }
    assert here.ask("GET", "", version="9.9").status == 406
    assert here.ask("GET", "/os-aggregates", version="9" * 4000).status == 400
    assert here.ask("GET", "/os-aggregates", version="2.\u0661".encode().decode("latin-1")).status == 400


def test_every_answer_can_be_looked_up(here: Rest) -> None:
    one, two = (here.ask("GET", path).headers["x-openstack-request-id"] for path in ("/flavors", "/nothing"))
    assert one.startswith("req-")
    assert one != two


def test_every_problem_has_a_status() -> None:
    known = {problem.word: fault_of(problem("said")).status for problem in PROBLEMS}
    assert known == {
        "not-implemented": 501,
        "invalid-arguments": 400,
        "download-failed": 500,
        "backend-failed": 500,
        "not-authorized": 403,
        "failed": 500,
        "not-found": 404,
        "timeout": 503,
        "unavailable": 503,
        "conflict": 409,
        "internal": 500,
    }
    assert fault_of(NotAuthorized("x", action="a.b")).message == "Policy doesn't allow a.b to be performed."


def test_a_bug_tells_an_id_and_nothing_else(here: Rest) -> None:
    here.store.close()
    with here.store.write() as connection:
        connection.exec_driver_sql("ALTER TABLE flavors RENAME TO elsewhere")
    said = here.ask("GET", "/flavors")
    assert said.status == 500
    assert list(said.body) == ["computeFault"]
    assert "SELECT" not in said.message
