"""A Nova that does not answer as Nova does, or not at all."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmh.caller import LOCAL, answering
from libmh.errors import BackendFailed, Unavailable
from mh_conductor.sinks.cloud import connect
from mh_conductor.sinks.settings import OpenStack
from openstack_servers import Answer, Gate, gate
from sink_stage import SINK, Stage, settings_of, stage

ANSWERS: list[tuple[Answer, type[Exception], str]] = [
    ((500, b"oops"), BackendFailed, "Nova of 'there' answers 500: oops"),
    ((401, b'{"error": {"message": "who are you"}}'), BackendFailed, "answers 401: who are you"),
    ((200, b"<html>"), BackendFailed, "expected JSON, got '<html>'"),
    ((200, b"[]"), BackendFailed, "expected a JSON object"),
    ((200, b""), BackendFailed, "'there' does not answer as expected: KeyError"),
    ((200, b'{"aggregates": [{"id": 1}]}'), BackendFailed, "'there' does not answer as expected: KeyError"),
    ((200, b'{"aggregates": 7}'), BackendFailed, "'there' does not answer as expected: TypeError"),
    (
        (200, b'{"aggregates": [{"id": 1, "uuid": "", "name": "", "hosts": [], "metadata": "ab"}]}'),
        BackendFailed,
        "'there' does not answer as expected: ValueError",
    ),
    ((200, b"[" * 100_000), BackendFailed, "expected JSON"),
    ((404, b"[" * 100_000), BackendFailed, "'there' could not be read: [["),
    ((404, b'{"itemNotFound": {"message": "no such page"}}'), BackendFailed, "no such page"),
    ((404, b""), BackendFailed, "'there' could not be read: status 404"),
    ((429, b"slowly"), Unavailable, "Nova of 'there' answers 429: slowly"),
    ((504, b""), Unavailable, "answers 504"),
]


@pytest.fixture
def nova() -> Iterator[Gate]:
    with gate() as made:
        yield made


@pytest.fixture
def there(nova: Gate, tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, **settings_of(nova.port, nova.port, timeout=60)) as made:
        yield made


@pytest.mark.parametrize(("answer", "problem", "message"), ANSWERS)
def test_what_is_no_answer_of_nova_is_told(
    there: Stage, nova: Gate, answer: Answer, problem: type[Exception], message: str
) -> None:
    nova.before = lambda *_: answer
    with pytest.raises(problem) as told:
        there.plan()
    assert message in str(told.value)
    (sink,) = there.sinks.list_sinks()
    assert sink.last_error == str(told.value)
    with pytest.raises(problem):
        there.sinks.drift(SINK)


def test_nobody_is_there(tmp_path: Path) -> None:
    with (
        stage(tmp_path, **settings_of(1, 1)) as there,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        there.plan()


def test_an_answer_that_does_not_come_is_not_waited_for(nova: Gate, tmp_path: Path) -> None:
    over = threading.Event()

    def hang(*_: str) -> Answer:
        over.wait(60)
        return 503, b""

    nova.before = hang
    try:
        with (
            stage(tmp_path, **settings_of(nova.port, nova.port, timeout=1)) as there,
            pytest.raises(Unavailable, match="cannot be reached"),
        ):
            there.plan()
    finally:
        over.set()


def test_who_has_given_up_asks_nothing_more(nova: Gate) -> None:
    """Each answer may take its time, and there are many."""
    cloud = connect(OpenStack("there", compute=f"http://127.0.0.1:{nova.port}", placement="http://[::1]:1"))
    with (
        answering(LOCAL, ends=time.monotonic()),
        pytest.raises(Unavailable, match="whoever asked has given up"),
    ):
        cloud.nova("GET", "/os-aggregates")
    assert nova.seen == []
