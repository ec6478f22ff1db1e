"""Nova's own clients, unmodified, at our API: the `openstack` command line, and openstacksdk."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack.connection import Connection

from foreign_clients import DRIVERS, python_environment
from libmh.watched import watch
from mh_conductor.rest.entrance import WithTokens, tokens_of
from rest_serving import Rest, rest

SECONDS = 120
SPEC = "aggregate_instance_extra_specs:coolhardware=true"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Rest]:
    with rest(tmp_path) as made:
        yield made


def command_line(url: str, commands: Sequence[str]) -> tuple[list[Any], str]:
    """What one `openstack` process says to commands: what was printed as JSON, and its complaints."""
    python = python_environment("openstackclient", DRIVERS / "openstackclient.txt")
    settings = {
        "OS_AUTH_TYPE": "none",
        "OS_ENDPOINT": f"{url}/v2.1",
        "OS_COMPUTE_API_VERSION": "2.104",
        "OS_IDENTITY_API_VERSION": "3",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        [str(Path(python).with_name("openstack"))],
        input="".join(f"{each}\n" for each in commands),
        env={**{key: value for key, value in os.environ.items() if not key.startswith("OS_")}, **settings},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return list(trees(done.stdout)), done.stderr


def trees(text: str) -> Iterator[Any]:
    """The JSON values that a text is made of."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def test_the_command_line_edits_aggregates(here: Rest) -> None:
    told, complaints = command_line(
        here.url,
        (
            "aggregate create -f json --zone az1 one",
            "aggregate add host -f json one node1",
            "aggregate set --property coolhardware=true --property rack=r1 one",
            "aggregate unset --property rack one",
            "aggregate list -f json --long",
            "availability zone list -f json --compute --long",
            "aggregate set --name uno --zone az9 one",
            "aggregate show -f json uno",
            "aggregate add host -f json uno node1",
            "aggregate add host -f json uno nowhere",
            "aggregate delete uno",
            "aggregate remove host -f json uno node1",
            "aggregate delete uno",
            "aggregate list -f json",
        ),
    )
    made, added, listed, zones, shown, removed, left = told
    assert (made["name"], made["availability_zone"], made["updated_at"]) == ("one", "az1", None)
    assert added["hosts"] == ["node1"]
    (line,) = listed
    assert line == {
        "ID": 1,
        "UUID": made["uuid"],
        "Name": "one",
        "Availability Zone": "az1",
        "Properties": {"coolhardware": "true"},
        "Hosts": ["node1"],
    }
    assert {each["Host Name"]: each["Zone Name"] for each in zones} == {
        "node1": "az1",
        "node2": "nova",
        "node3": "nova",
    }
    assert all(each["Zone Status"] == "available" for each in zones)
    assert (shown["name"], shown["availability_zone"], shown["hosts"]) == ("uno", "az9", ["node1"])
    assert "Aggregate 1 already has host node1." in complaints
    assert "Compute host nowhere could not be found." in complaints
    assert "Host aggregate is not empty." in complaints
    assert removed["hosts"] == []
    assert left == []


def test_the_command_line_keeps_flavors_and_lists_hosts(here: Rest) -> None:
    told, complaints = command_line(
        here.url,
        (
            f"flavor create -f json --id f1 --vcpus 2 --ram 512 --disk 1 --property {SPEC} small",
            "flavor set --property a=b --property c=d --description hello small",
            "flavor unset --property a small",
            "flavor show -f json small",
            "flavor create -f json --private --ram 64 hidden",
            "flavor list -f json --all",
            "flavor create -f json --id f1 other",
            "hypervisor list -f json --long",
            "hypervisor show -f json node1",
            "compute service list -f json",
            "flavor delete small hidden",
            "flavor list -f json --all",
        ),
    )
    made, shown, hidden, listed, hypervisors, hypervisor, services, left = told
    key, _, value = SPEC.partition("=")
    assert made["properties"] == {key: value}
    assert shown["properties"] == {key: value, "c": "d"}
    assert (shown["id"], shown["vcpus"], shown["ram"], shown["description"]) == ("f1", 2, 512, "hello")
    assert hidden["os-flavor-access:is_public"] is False
    assert {each["Name"] for each in listed} == {"small", "hidden"}
    assert "Flavor with ID f1 already exists." in complaints
    assert [each["Hypervisor Hostname"] for each in hypervisors] == ["node1", "node2", "node3"]
    assert (hypervisor["hypervisor_hostname"], hypervisor["state"]) == ("node1", "up")
    assert [(each["Host"], each["Binary"], each["State"]) for each in services] == [
        (f"node{number}", "nova-compute", "up") for number in (1, 2, 3)
    ]
    assert left == []


def test_the_sdk_works(here: Rest) -> None:
    at = f"{here.url}/v2.1"
    cloud = Connection(auth_type="none", endpoint=at, compute_endpoint_override=at)
    compute = cloud.compute
    compute.default_microversion = "2.104"
    made = compute.create_aggregate(name="sdk", availability_zone="z")
    compute.add_host_to_aggregate(made, "node2")
    compute.set_aggregate_metadata(made, {"x": "y", "gone": None})
    (listed,) = compute.aggregates()
    assert (listed.name, listed.hosts, listed.metadata) == (
        "sdk",
        ["node2"],
        {"x": "y", "availability_zone": "z"},
    )
    zones = {zone.name: zone.hosts for zone in compute.availability_zones(details=True)}
    assert set(zones["z"]) == {"node2"}
    assert [each.name for each in compute.hypervisors(details=True)] == ["node1", "node2", "node3"]
    assert [each.name for each in compute.hypervisors(limit=1)] == ["node1", "node2", "node3"]
    assert [each.host for each in compute.services(binary="nova-compute")] == ["node1", "node2", "node3"]
    flavor = compute.create_flavor(name="f", ram=1, vcpus=1, disk=0)
    compute.create_flavor_extra_specs(flavor, {"a": "b"})
    found = compute.find_flavor("f", get_extra_specs=True)
    assert found is not None
    assert found.extra_specs == {"a": "b"}
    with pytest.raises(openstack.exceptions.NotFoundException, match="Compute host no could not be found"):
        compute.add_host_to_aggregate(made, "no")
    with pytest.raises(openstack.exceptions.ConflictException, match="already has host node2"):
        compute.add_host_to_aggregate(made, "node2")
    compute.remove_host_from_aggregate(made, "node2")
    compute.delete_aggregate(made)
    compute.delete_flavor(flavor)
    assert list(compute.aggregates()) == []
    assert list(compute.flavors()) == []
    cloud.close()


def test_a_token_of_the_file_is_the_administrators_of_the_sdk(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens.write_text(f'[[token]]\nsha256 = "{digest}"\nidentity = "me"\nroles = ["operator"]\n')
    with rest(tmp_path, WithTokens(watch(tokens, tokens_of, "the tokens"))) as here:
        for token, works in (("secret", True), ("guess", False)):
            auth = {"endpoint": f"{here.url}/v2.1", "token": token}
            cloud = Connection(
                auth_type="admin_token", auth=auth, compute_endpoint_override=f"{here.url}/v2.1"
            )
            if works:
                assert cloud.compute.create_aggregate(name="a").name == "a"
            else:
                with pytest.raises(openstack.exceptions.HttpException, match="requires authentication"):
                    cloud.compute.create_aggregate(name="b")
            cloud.close()
