"""An agent that is told to stop while a call is in flight, over every transport that has a process."""

import importlib
import signal
import threading
from pathlib import Path

import pytest

from libmh.api.agent import Agent
from libmh.call import Request
from libmh.errors import Problem, Unavailable
from probe import Probe
from transports import TRANSPORTS, Transport, in_memory, plug_in
from waiting import wait_for

REMOTE = [transport for transport in TRANSPORTS if transport is not in_memory]


@pytest.mark.parametrize("transport", REMOTE, ids=lambda transport: transport.__name__)
def test_a_call_in_flight_is_finished_or_refused(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = plug_in(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    ended: list[object] = []
    with transport(tmp_path, environment) as reached:
        assert reached.agent is not None
        probe, itself = reached.connection.proxy(Probe), reached.connection.proxy(Agent)

        def call() -> None:
            try:
                ended.append(probe.wait("a", 1.5))
            except Problem as problem:
                ended.append(type(problem))

        before = itself.calls().outstanding
        calling = threading.Thread(target=call)
        calling.start()
        wait_for(lambda: itself.calls().outstanding > before)
        reached.agent.process.send_signal(signal.SIGTERM)
        calling.join(20)
        assert ended in ([False], [Unavailable])
        assert reached.agent.process.wait(15) == 0
        with pytest.raises(Problem) as met:
            reached.connection.request(Request("org.matahariproject.Agent", "ping", deadline=0.5))
        assert met.value.word in {"unavailable", "timeout"}
