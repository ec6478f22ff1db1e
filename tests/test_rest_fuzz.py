"""Whatever is sent to Nova's API, the answer is an answer: never a failure of ours, never a traceback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mh_conductor.rest.application import OPERATIONS
from mh_conductor.rest.exchange import Operation
from rest_serving import Rest, rest

WORDS = (
    *(
        "aggregate",
        "name",
        "availability_zone",
        "add_host",
        "remove_host",
        "set_metadata",
        "host",
        "metadata",
    ),
    *(
        "flavor",
        "ram",
        "vcpus",
        "disk",
        "id",
        "swap",
        "rxtx_factor",
        "description",
        "extra_specs",
        "a",
        "node1",
    ),
    *(
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "is_public",
        "minRam",
        "with_servers",
        "1",
        "0",
        "-1",
        "true",
    ),
)
word = some.sampled_from(WORDS) | some.text(max_size=20)
leaf = word | some.none() | some.booleans() | some.integers() | some.floats() | some.integers(0, 5)
tree = some.recursive(
    leaf,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(word, inner, max_size=4),
    max_leaves=12,
)
shaped = some.one_of(
    some.fixed_dictionaries({"aggregate": some.dictionaries(word, leaf, max_size=3)}),
    some.fixed_dictionaries({"add_host": some.fixed_dictionaries({"host": leaf})}),
    some.fixed_dictionaries({"remove_host": some.fixed_dictionaries({"host": leaf})}),
    some.fixed_dictionaries(
        {"set_metadata": some.fixed_dictionaries({"metadata": some.dictionaries(word, leaf)})}
    ),
    some.fixed_dictionaries(
        {
            "flavor": some.fixed_dictionaries(
                dict.fromkeys(("name", "ram", "vcpus", "disk"), leaf),
                optional=dict.fromkeys(("id", "swap", "rxtx_factor", "description"), leaf),
            )
        }
    ),
    some.fixed_dictionaries({"extra_specs": some.dictionaries(word, leaf, max_size=3)}),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    with rest(Path(tmp_path_factory.mktemp("rest"))) as made:
        made.ask("POST", "/os-aggregates", {"aggregate": {"name": "one"}})
        made.ask("POST", "/flavors", {"flavor": {"name": "f", "id": "1", "ram": 1, "vcpus": 1, "disk": 0}})
        yield made


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    operation=some.sampled_from(OPERATIONS),
    words=some.lists(word, min_size=2, max_size=2),
    query=some.dictionaries(word, word, max_size=3),
    body=shaped | tree,
    version=some.integers(1, 104),
)
def test_an_answer_is_an_answer(
    here: Rest, operation: Operation, words: list[str], query: dict[str, str], body: Any, version: int
) -> None:
    path = operation.path
    for name, value in zip(("{id}", "{key}"), words, strict=True):
        path = path.replace(name, quote(value, safe="", errors="replace"))
    path = path.replace("{flavor}", quote(words[0], safe="", errors="replace"))
    asked = "&".join(
        f"{quote(key, errors='replace')}={quote(value, errors='replace')}" for key, value in query.items()
    )
    sent = json.dumps(body).encode() if operation.method in ("POST", "PUT") else None
    said = here.ask(operation.method, f"{path}?{asked}", sent, f"2.{version}")
    assert said.status < 500, (operation, path, asked, sent, said)
    if said.status >= 400:
        assert said.message
