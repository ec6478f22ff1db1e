"""Requests of Nova's API, good and bad, in the order in which they are sent; both Nova and we answer them.

`$name` stands for the id of an aggregate that was kept under that name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rest_serving import NEWEST, Reply

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?")
UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
SERVER = re.compile(r"http://127\.0\.0\.1:\d+")
LONG = "n" * 256


@dataclass(frozen=True, slots=True)
class Step:
    """`keep`: the name for the id that is answered; `shape`: compare only which fields there are, of which
    kind; `differs`: why the answers are not the same."""

    method: str
    path: str
    body: Any = None
    version: str = NEWEST
    keep: str = ""
    shape: bool = False
    differs: str = ""
    content: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {self.path} {str(self.body)[:60]} {self.version}"


def aggregate(**values: Any) -> Any:
    return {"aggregate": values}


def act(action: str, **values: Any) -> Any:
    return {action: values}


def meta(**values: Any) -> Any:
    return {"set_metadata": {"metadata": values}}


def flavor(**values: Any) -> Any:
    return {"flavor": {"name": "small", "ram": 512, "vcpus": 1, "disk": 1, **values}}


MENDED_TIME = "our updated_at changes with every change, Nova's with some"
NO_V2 = "the deprecated v2.0 is not served here"
HTML = "Nova's router answers HTML before its API is asked"
UNSHOWN = "a regular expression of all printable characters is no help"
UNSAID = "Nova loses the reason that it means to give"

VERSIONS: Sequence[Step] = (
    Step("GET", "/", differs=NO_V2),
    Step("GET", "/v2.1", differs="Nova has a link to its documentation beside"),
    Step("GET", "/os-aggregates", version="2.1"),
    Step("GET", "/os-aggregates", version="latest"),
    Step("GET", "/os-aggregates", version="2.105"),
    Step("GET", "/os-aggregates", version="3.1"),
    Step("GET", "/os-aggregates", version="2.0"),
    Step("GET", "/os-aggregates", version="2"),
    Step("GET", "/os-aggregates", version="two"),
    Step("GET", "/os-aggregates", version="2.01"),
    Step("GET", "/os-aggregates", version=""),
    Step("GET", "/os-nothing", differs=HTML),
    Step("PATCH", "/os-aggregates", {}, differs=HTML),
    Step("DELETE", "/os-aggregates", differs=HTML),
)
AGGREGATES: Sequence[Step] = (
    Step("POST", "/os-aggregates", aggregate(name="one", availability_zone="az1"), keep="a"),
    Step("POST", "/os-aggregates", aggregate(name="one")),
    Step("POST", "/os-aggregates", aggregate(name="two"), "2.1", keep="b"),
    Step("POST", "/os-aggregates", aggregate(name="three", availability_zone=None), "2.40", keep="c"),
    Step("POST", "/os-aggregates", aggregate(name="ONE", availability_zone="az2"), "2.41", keep="d"),
    Step("POST", "/os-aggregates", aggregate(name="")),
    Step("POST", "/os-aggregates", aggregate(name=LONG)),
    Step("POST", "/os-aggregates", aggregate(name=" x")),
    Step("POST", "/os-aggregates", aggregate(name="x ")),
    Step("POST", "/os-aggregates", aggregate(name="x\ty")),
    Step("POST", "/os-aggregates", aggregate(name="x\x00y")),
    Step("POST", "/os-aggregates", aggregate(name="\U0001f600")),
    Step("POST", "/os-aggregates", aggregate(name=5)),
    Step("POST", "/os-aggregates", aggregate(name=None)),
    Step("POST", "/os-aggregates", aggregate(availability_zone="az1")),
    Step("POST", "/os-aggregates", aggregate(name="x", availability_zone="")),
    Step("POST", "/os-aggregates", aggregate(name="x", availability_zone="a:b")),
    Step("POST", "/os-aggregates", aggregate(name="x", availability_zone=LONG)),
    Step("POST", "/os-aggregates", aggregate(name="x", other=1)),
    Step("POST", "/os-aggregates", aggregate(name="x") | {"more": 1}),
    Step("POST", "/os-aggregates", {}),
    Step("POST", "/os-aggregates", []),
    Step("POST", "/os-aggregates", {"aggregate": []}),
    Step("POST", "/os-aggregates", b""),
    Step("POST", "/os-aggregates", b"{"),
    Step("POST", "/os-aggregates", b"\xff\xfe", differs="Nova stumbles over it, and answers 500"),
    Step("POST", "/os-aggregates", aggregate(name="x"), content="application/xml"),
    Step("GET", "/os-aggregates"),
    Step("GET", "/os-aggregates?x=1"),
    Step("GET", "/os-aggregates?x=1", version="2.101"),
    Step("GET", "/os-aggregates/$a"),
    Step("GET", "/os-aggregates/$a", version="2.40"),
    Step("GET", "/os-aggregates/$a?x=1"),
    Step("GET", "/os-aggregates/9999"),
    Step("GET", "/os-aggregates/one"),
    Step("GET", "/os-aggregates/-1"),
    Step("GET", "/os-aggregates/1.5"),
    Step("GET", "/os-aggregates/99999999999999999999999"),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="node1"), differs=MENDED_TIME),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="node1")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="nope")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="NODE1")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="a b")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host=1)),
    Step("POST", "/os-aggregates/$a/action", act("add_host")),
    Step("POST", "/os-aggregates/$a/action", act("add_host", host="node2", more=1)),
    Step("POST", "/os-aggregates/9999/action", act("add_host", host="node1")),
    Step("POST", "/os-aggregates/x/action", act("add_host", host="node1")),
    Step("POST", "/os-aggregates/$d/action", act("add_host", host="node1")),
    Step("POST", "/os-aggregates/$b/action", act("add_host", host="node1"), differs=MENDED_TIME),
    Step("POST", "/os-aggregates/$a/action", act("bad", host="node1")),
    Step("POST", "/os-aggregates/$a/action", {}),
    Step("POST", "/os-aggregates/$a/action", {"add_host": {"host": "node1"}, "more": {}}),
    Step("POST", "/os-aggregates/$a/action", b"["),
    Step("POST", "/os-aggregates/$b/action", meta(ssd="true", rack="r1")),
    Step("POST", "/os-aggregates/$b/action", meta(ssd="false", rack=None, gone=None)),
    Step("POST", "/os-aggregates/$b/action", meta()),
    Step("POST", "/os-aggregates/$b/action", meta(ssd=1)),
    Step("POST", "/os-aggregates/$b/action", meta(ssd="v" * 256)),
    Step("POST", "/os-aggregates/$b/action", meta(**{"a/b": "1"})),
    Step("POST", "/os-aggregates/$b/action", meta(**{"k" * 256: "1"})),
    Step("POST", "/os-aggregates/$b/action", {"set_metadata": {}}),
    Step("POST", "/os-aggregates/9999/action", meta(a="b")),
    Step("POST", "/os-aggregates/$b/action", meta(availability_zone="az2")),
    Step("POST", "/os-aggregates/$b/action", meta(availability_zone="az1")),
    Step("POST", "/os-aggregates/$b/action", meta(availability_zone=None)),
    Step("POST", "/os-aggregates/$b/action", meta(availability_zone="")),
    Step("POST", "/os-aggregates/$a/action", meta(availability_zone="az2")),
    Step("PUT", "/os-aggregates/$a", aggregate(availability_zone="az3")),
    Step("PUT", "/os-aggregates/$c", aggregate(name=" third ")),
    Step("PUT", "/os-aggregates/$c", aggregate(name="third", availability_zone="az3")),
    Step("PUT", "/os-aggregates/$c", aggregate(name="one")),
    Step("PUT", "/os-aggregates/$c", aggregate(availability_zone=None)),
    Step("PUT", "/os-aggregates/$c", aggregate(availability_zone="")),
    Step("PUT", "/os-aggregates/$c", aggregate()),
    Step("PUT", "/os-aggregates/$c", aggregate(name="")),
    Step("PUT", "/os-aggregates/$c", aggregate(name=LONG)),
    Step("PUT", "/os-aggregates/$c", aggregate(hosts=[])),
    Step("PUT", "/os-aggregates/9999", aggregate(name="x")),
    Step("PUT", "/os-aggregates/x", aggregate(name="x")),
    Step("GET", "/os-aggregates/$c"),
    Step("DELETE", "/os-aggregates/$a"),
    Step("DELETE", "/os-aggregates/9999"),
    Step("DELETE", "/os-aggregates/x"),
    Step("POST", "/os-aggregates/$a/action", act("remove_host", host="node2")),
    Step("POST", "/os-aggregates/$a/action", act("remove_host", host="nope")),
    Step("POST", "/os-aggregates/9999/action", act("remove_host", host="node1")),
    Step("POST", "/os-aggregates/$a/action", act("remove_host", host="node1"), shape=True),
    Step("POST", "/os-aggregates/$b/action", act("remove_host", host="node1"), shape=True),
    Step("DELETE", "/os-aggregates/$a"),
    Step("DELETE", "/os-aggregates/$a"),
    Step("DELETE", "/os-aggregates/$b"),
    Step("DELETE", "/os-aggregates/$c"),
    Step("DELETE", "/os-aggregates/$d"),
    Step("GET", "/os-aggregates"),
)
FLAVORS: Sequence[Step] = (
    Step("POST", "/flavors", flavor(id="1")),
    Step("POST", "/flavors", flavor(id="1", name="other")),
    Step("POST", "/flavors", flavor(id="2")),
    Step("POST", "/flavors", flavor(id="auto", name="old", swap=1, rxtx_factor="2.5"), "2.1"),
    Step("POST", "/flavors", flavor(id=3, name="number", ram="1024", description="d"), "2.55"),
    Step(
        "POST", "/flavors", flavor(id="p", name="private", **{"os-flavor-access:is_public": False}), "2.61"
    ),
    Step("POST", "/flavors", flavor(name="made", **{"OS-FLV-EXT-DATA:ephemeral": 4}), shape=True),
    Step("POST", "/flavors", flavor(id="x", name="x", description="d"), "2.54"),
    Step("POST", "/flavors", flavor(id="x", name="x", rxtx_factor=1.0)),
    Step("POST", "/flavors", flavor(id="x", name="x", ram=0)),
    Step("POST", "/flavors", flavor(id="x", name="x", ram=-1)),
    Step("POST", "/flavors", flavor(id="x", name="x", ram="0")),
    Step("POST", "/flavors", flavor(id="x", name="x", ram="many")),
    Step("POST", "/flavors", flavor(id="x", name="x", ram=1.5)),
    Step("POST", "/flavors", flavor(id="x", name="x", ram=2**31)),
    Step("POST", "/flavors", flavor(id="x", name="x", vcpus=0)),
    Step("POST", "/flavors", flavor(id="x", name="x", disk=-1)),
    Step("POST", "/flavors", flavor(id="x", name="x", swap=-1)),
    Step("POST", "/flavors", flavor(id=" x", name="x")),
    Step("POST", "/flavors", flavor(id="a/b", name="x")),
    Step("POST", "/flavors", flavor(id="x", name="")),
    Step("POST", "/flavors", flavor(id="x", name=LONG)),
    Step("POST", "/flavors", flavor(id="x", name="x", **{"os-flavor-access:is_public": "maybe"})),
    Step("POST", "/flavors", flavor(id="x", name="x", rxtx_factor=0), "2.1"),
    Step("POST", "/flavors", flavor(id="x", name="x", more=1)),
    Step("POST", "/flavors", flavor(id="x", name="x", description="a\nb"), differs=UNSHOWN),
    Step("POST", "/flavors", {"flavor": {"name": "x"}}),
    Step("GET", "/flavors/1"),
    Step("GET", "/flavors/1", version="2.1"),
    Step("GET", "/flavors/1", version="2.55"),
    Step("GET", "/flavors/1", version="2.61"),
    Step("GET", "/flavors/1?x=1"),
    Step("GET", "/flavors/small"),
    Step("GET", "/flavors/nope"),
    Step("GET", "/flavors?name=small", version="2.102"),
    Step("GET", "/flavors?name=small", version="2.101"),
    Step("GET", "/flavors?is_public=false"),
    Step("GET", "/flavors?is_public=maybe"),
    Step("GET", "/flavors?minRam=1000", version="2.1"),
    Step("GET", "/flavors?minRam=x"),
    Step("GET", "/flavors?minDisk=x"),
    Step("GET", "/flavors?limit=0"),
    Step("GET", "/flavors?limit=2&sort_key=name&is_public=None", version="2.1"),
    Step("GET", "/flavors?limit=2&sort_key=name&sort_dir=desc&is_public=None&marker=p", version="2.1"),
    Step("GET", "/flavors?limit=-1"),
    Step("GET", "/flavors?limit=x"),
    Step("GET", "/flavors?marker=nope"),
    Step("GET", "/flavors?sort_key=nope"),
    Step("GET", "/flavors?sort_key=rxtx_factor"),
    Step("GET", "/flavors/detail?name=number", version="2.102"),
    Step("GET", "/flavors/detail?minRam=1000", version="2.1"),
    Step("PUT", "/flavors/1", {"flavor": {"description": "for tests"}}),
    Step("PUT", "/flavors/1", {"flavor": {"description": None}}, "2.55"),
    Step("PUT", "/flavors/1", {"flavor": {"description": "x"}}, "2.54"),
    Step("PUT", "/flavors/1", {"flavor": {}}),
    Step("PUT", "/flavors/1", {"flavor": {"name": "x"}}),
    Step("PUT", "/flavors/nope", {"flavor": {"description": "x"}}),
    Step("GET", "/flavors/1/os-extra_specs"),
    Step("POST", "/flavors/1/os-extra_specs", {"extra_specs": {"a": "b", "n": 1}}),
    Step("POST", "/flavors/1/os-extra_specs", {"extra_specs": {"a": None}}),
    Step("POST", "/flavors/1/os-extra_specs", {"extra_specs": {"a/b": "1"}}),
    Step("POST", "/flavors/1/os-extra_specs", {"extra_specs": {"a": "v" * 256}}),
    Step("POST", "/flavors/1/os-extra_specs", {}),
    Step("POST", "/flavors/nope/os-extra_specs", {"extra_specs": {"a": "b"}}),
    Step("GET", "/flavors/1/os-extra_specs"),
    Step("GET", "/flavors/1/os-extra_specs/n"),
    Step("GET", "/flavors/1/os-extra_specs/nope"),
    Step("GET", "/flavors/nope/os-extra_specs/n"),
    Step("PUT", "/flavors/1/os-extra_specs/a", {"a": "c"}),
    Step("PUT", "/flavors/1/os-extra_specs/a", {"b": "c"}),
    Step("PUT", "/flavors/1/os-extra_specs/a", {"a": "c", "b": "d"}),
    Step("PUT", "/flavors/1/os-extra_specs/a", {}),
    Step("DELETE", "/flavors/1/os-extra_specs/a"),
    Step("DELETE", "/flavors/1/os-extra_specs/a"),
    Step("DELETE", "/flavors/nope/os-extra_specs/a"),
    Step(
        "POST",
        "/flavors/1/os-extra_specs",
        {"extra_specs": {"hw:nope": "1"}},
        differs="what Nova's drivers know about is not known here",
    ),
    Step("GET", "/flavors/p/os-flavor-access"),
    Step("GET", "/flavors/1/os-flavor-access"),
    Step("DELETE", "/flavors/1"),
    Step("DELETE", "/flavors/1"),
    Step("DELETE", "/flavors/auto"),
    Step("DELETE", "/flavors/3"),
    Step("DELETE", "/flavors/p"),
)
HOSTS: Sequence[Step] = (
    Step("GET", "/os-services", shape=True),
    Step("GET", "/os-services", version="2.1", shape=True),
    Step("GET", "/os-services?host=node1", version="2.10", shape=True),
    Step("GET", "/os-services?host=nope"),
    Step("GET", "/os-services?binary=nova-scheduler"),
    Step("GET", "/os-services?x=1"),
    Step("GET", "/os-hypervisors", shape=True),
    Step("GET", "/os-hypervisors", version="2.1", shape=True),
    Step("GET", "/os-hypervisors?limit=1", version="2.33", shape=True),
    Step("GET", "/os-hypervisors?limit=1&limit=2"),
    Step("GET", "/os-hypervisors?marker=nope"),
    Step("GET", "/os-hypervisors?hypervisor_hostname_pattern=nope"),
    Step("GET", "/os-hypervisors?hypervisor_hostname_pattern=node1&limit=1", differs=UNSAID),
    Step("GET", "/os-hypervisors?hypervisor_hostname_pattern=node1&with_servers=true", shape=True),
    Step("GET", "/os-hypervisors?with_servers=maybe"),
    Step("GET", "/os-hypervisors?x=1"),
    Step("GET", "/os-hypervisors/nope"),
    Step("GET", "/os-hypervisors/nope", version="2.52"),
    Step("GET", "/os-hypervisors/99999999", version="2.52"),
    Step("GET", "/os-hypervisors/11111111-2222-4333-8444-555555555555"),
    Step("GET", "/os-hypervisors/node1/search", version="2.52", shape=True),
    Step("GET", "/os-hypervisors/nope/search", version="2.52"),
    Step("GET", "/os-hypervisors/node1/search"),
    Step("GET", "/os-hypervisors/statistics"),
    Step("GET", "/os-hypervisors/statistics", version="2.87", shape=True),
    Step("GET", "/os-availability-zone"),
    Step("GET", "/os-availability-zone?x=1"),
    Step("GET", "/os-availability-zone/detail?x=1"),
)
STEPS = (*VERSIONS, *AGGREGATES, *FLAVORS, *HOSTS)
Ask = Callable[[str, str, Any, str, str], Reply]


def masked(value: Any, kept: Mapping[str, int]) -> Any:
    """Without what is another's every time."""
    if isinstance(value, dict):
        return {key: _own(key, each, kept) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each, kept) for each in value]
    if isinstance(value, str):
        value = SERVER.sub("<server>", UUID.sub("<uuid>", TIME.sub("<time>", value)))
        for name, number in kept.items():
            value = re.sub(rf"(?i)(?<=aggregate ){number}\b", f"${name}", value)
    return value


def _own(key: str, value: Any, kept: Mapping[str, int]) -> Any:
    if key == "id" and isinstance(value, int):
        return next((f"${name}" for name, number in kept.items() if number == value), value)
    return masked(value, kept)


def shape(value: Any) -> Any:
    """Which fields there are, and of which kind; of a list, its first item."""
    if isinstance(value, dict):
        # Nova's computes are but records here, which have never reported
        return {key: "time" if key == "updated_at" else shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


def speak(ask: Ask, steps: Sequence[Step]) -> list[tuple[int, Any]]:
    """Send the steps; (status, masked body) of each."""
    kept: dict[str, int] = {}
    answers = []
    for step in steps:
        path = step.path
        for name, number in kept.items():
            path = path.replace(f"${name}", str(number))
        reply = ask(step.method, path, step.body, step.version, step.content)
        if step.keep:
            kept[step.keep] = reply.body["aggregate"]["id"]
        body = masked(reply.body, kept)
        answers.append((reply.status, shape(body) if step.shape else body))
    return answers
