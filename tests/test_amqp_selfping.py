"""A broker that keeps connections and carries nothing is noticed, and left."""

from pathlib import Path

import pytest

from amqp_serving import UUID, broker_agent, run, running_broker
from libmh import audit
from libmh.keys import Trusted
from mh_amqp import selfping
from mh_amqp.asking import asker
from mh_amqp.broker import Broker
from mh_amqp.names import host_address
from mh_amqp.post import Post
from mh_amqp.selfping import ping
from mh_amqp.signatures import Signatures
from mh_amqp.upkeep import Pace
from waiting import eventually


def test_a_broker_that_carries_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", audit.log.name)
    monkeypatch.setattr(selfping, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(selfping, "ANSWER_SECONDS", 0.3)

    own: set[bytes] = set()

    async def extra(through: Post) -> None:
        await ping(await asker(through.connection, sending=through), host_address(UUID), own)

    async def test() -> None:
        async with running_broker() as (broker, port), broker_agent(tmp_path, port) as agent:
            agent.served.extras.append(extra)
            agent.served.intake.own = own
            agent.served.intake.signatures = Signatures(Trusted(tmp_path), required=True)
            agent.served.pace = Pace(first=0.05, most=0.1)
            await eventually(lambda: [s.state for s in agent.connections.list()] == ["connected"])
            for connection in list(broker._owners.values()):
                connection.abort()  # the next one has the extra, too
            await eventually(lambda: broker.counters.received > 10)
            assert [s.state for s in agent.connections.list()] == ["connected"]
            with monkeypatch.context() as deaf:
                deaf.setattr(Broker, "_keep", lambda _, _queue, delivery, *_rest: delivery.accept())
                await eventually(lambda: "does not come back" in str(agent.connections.list()[0].last_error))
            await eventually(lambda: [s.state for s in agent.connections.list()] == ["connected"])

    run(test(), 30)
    assert not own
    assert not [record for record in caplog.records if record.name == audit.log.name]
