"""The hub: declared events and property changes, delivered to all who subscribed."""

import threading

import pytest

from libmh.api.host import Host
from libmh.events import Event, Hub
from libmh.spec import BadDeclaration, interface_of
from probe import OUTER, Probe

BEAT = {"timestamp": 1, "sequence": 2, "hostname": "h", "uuid": "u"}


def test_an_event_reaches_everybody_with_its_fields() -> None:
    hub, one, two = Hub(), list[Event](), list[Event]()
    hub.subscribe(one.append)
    hub.subscribe(two.append)
    hub.emit(Host.heartbeat, **BEAT)
    assert one == two
    assert (one[0].interface, one[0].member, one[0].fields) == (interface_of(Host).name, "heartbeat", BEAT)
    assert one[0].name == "org.matahariproject.Host.heartbeat"


def test_events_are_numbered_from_one() -> None:
    hub, seen = Hub(), list[Event]()
    hub.subscribe(seen.append)
    for _ in range(3):
        hub.emit(Host.heartbeat, **BEAT)
    hub.changed(Host, custom_uuid="x")
    assert [event.sequence for event in seen] == [1, 2, 3, 4]
    assert seen[0].time <= seen[-1].time


def test_who_left_gets_nothing() -> None:
    hub, seen = Hub(), list[Event]()
    end = hub.subscribe(seen.append)
    end()
    end()
    hub.emit(Host.heartbeat, **BEAT)
    assert seen == []


def test_a_change_of_properties_has_no_member() -> None:
    hub, seen = Hub(), list[Event]()
    hub.subscribe(seen.append)
    hub.changed(interface_of(Host), update_interval=7, custom_uuid="x")
    assert (seen[0].member, seen[0].fields) == ("", {"update_interval": 7, "custom_uuid": "x"})


def test_records_become_plain_trees() -> None:
    hub, seen = Hub(), list[Event]()
    hub.subscribe(seen.append)
    hub.emit(Probe.announced, outer=OUTER, maybe=None, count=1)
    outer = seen[0].fields["outer"]
    assert isinstance(outer, dict)
    assert outer["by_name"] == {"n": -1}
    assert seen[0].fields["maybe"] is None


def test_a_subscriber_whose_loop_has_ended_disturbs_nobody() -> None:
    def gone(event: Event) -> None:
        raise RuntimeError("Event loop is closed")

    hub, seen = Hub(), list[Event]()
    hub.subscribe(gone)
    hub.subscribe(seen.append)
    hub.emit(Host.heartbeat, **BEAT)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"timestamp": 1}, "takes the fields"),
        (BEAT | {"extra": 1}, "takes the fields"),
        (BEAT | {"sequence": -1}, r"does not fit its declaration: .*heartbeat\(sequence\): expected u32"),
    ],
)
def test_a_raiser_that_breaks_the_declaration_is_told_so(fields: dict[str, object], says: str) -> None:
    with pytest.raises(BadDeclaration, match=says):
        Hub().emit(Host.heartbeat, **fields)


def test_only_what_is_declared_can_be_raised() -> None:
    with pytest.raises(BadDeclaration, match="is not an event"):
        Hub().emit(Host.identify)
    with pytest.raises(BadDeclaration, match="is not a property"):
        Hub().changed(Host, identify=1)
    with pytest.raises(BadDeclaration, match="is not a property"):
        Hub().changed(Host, nothing=1)
    with pytest.raises(BadDeclaration, match="does not fit its declaration"):
        Hub().changed(Host, update_interval="often")


def test_threads_may_raise_at_once() -> None:
    hub, seen = Hub(), list[Event]()
    hub.subscribe(seen.append)

    def raise_many() -> None:
        for _ in range(200):
            hub.emit(Host.heartbeat, **BEAT)

    threads = [threading.Thread(target=raise_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(event.sequence for event in seen) == list(range(1, 801))
