"""Nova's own API server and ours, asked the same: the answers differ where `rest_dialogue` says why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openstack_servers import HOST, OpenStack
from rest_dialogue import AGGREGATES, FLAVORS, HOSTS, VERSIONS, Ask, Step, speak
from rest_serving import Reply, ask, rest

DIALOGUES = {"versions": VERSIONS, "aggregates": AGGREGATES, "flavors": FLAVORS, "hosts": HOSTS}
DOCUMENTS = ("/", "/v2.1")


def asker(url: str) -> Ask:
    def send(method: str, path: str, body: Any, version: str, content: str) -> Reply:
        at = path if path in DOCUMENTS else f"/v2.1{path}"
        return ask(url, method, at, body, version, Content_Type=content)

    return send


@pytest.mark.parametrize("steps", DIALOGUES.values(), ids=DIALOGUES)
def test_answers_are_those_of_nova(
    steps: Sequence[Step], openstack_servers: OpenStack, tmp_path: Path
) -> None:
    openstack_servers.clear()
    theirs = speak(asker(f"http://{HOST}:{openstack_servers.nova.upstream}"), steps)
    with rest(tmp_path) as here:
        ours = speak(asker(here.url), steps)
    for step, our, their in zip(steps, ours, theirs, strict=True):
        if step.differs:
            assert our != their, f"{step}: the reason has gone: {step.differs}"
        else:
            assert our == their, f"{step}:\n  ours   {our}\n  theirs {their}"
