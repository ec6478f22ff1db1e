"""How an agent does, for who watches without asking."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from certificates import authority
from libmh.agent import ThisAgent
from libmh.connections import Connections
from libmh.events import Event, Hub
from libmh.health import Certificates, Files, keep, metrics, status, write
from libmh.providers import Providers
from mh_amqp import tls
from mh_amqp.tls import Tls
from processes import agent
from waiting import eventually, wait_for

URL = "amqp://broker:5672"
LINE = re.compile(r'[a-z_]+\{([a-z]+="[^"\n]*",?)+\} -?[0-9.e+]+')


def this(hub: Hub | None = None) -> tuple[ThisAgent, Connections]:
    connections = Connections(hub or Hub())
    return ThisAgent("mh-test", Providers({}, []), connections), connections


def test_what_the_files_say(tmp_path: Path) -> None:
    me, connections = this()
    connections.connected(URL)
    connections.waiting("amqp://user:secret@other:1", 'it said "no"')
    write(Files(tmp_path / "s.json", tmp_path / "m.prom"), me)
    told = json.loads((tmp_path / "s.json").read_text())
    assert told.keys() == status(me).keys()
    assert [(each["url"], each["state"]) for each in told["connections"]] == [
        (URL, "connected"),
        ("amqp://other:1", "waiting"),
    ]
    lines = (tmp_path / "m.prom").read_text().splitlines()
    assert lines == list(metrics(me))
    assert f'matahari_connected{{agent="mh-test",url="{URL}"}} 1' in lines
    assert 'matahari_connected{agent="mh-test",url="amqp://other:1"} 0' in lines
    assert all(line.startswith("# ") or LINE.fullmatch(line) for line in lines)
    assert len({line for line in lines if line.startswith("# TYPE")}) == sum(
        line.startswith("# TYPE") for line in lines
    )
    assert "secret" not in "".join(lines) + (tmp_path / "s.json").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_change_is_written_soon_and_a_disk_that_refuses_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        hub = Hub()
        me, connections = this(hub)
        place = tmp_path / "later" / "status.json"
        task = asyncio.create_task(keep(Files(place), me, hub))
        await eventually(lambda: "cannot be written" in caplog.text)
        place.parent.mkdir()
        connections.connected(URL)
        await eventually(lambda: place.exists() and URL in place.read_text())
        connections.waiting(URL, "gone")
        await eventually(lambda: "waiting" in place.read_text())
        assert caplog.text.count("cannot be written") == 1
        task.cancel()

    asyncio.run(test())


def test_an_agent_keeps_them_and_tells_when_its_certificate_ends(tmp_path: Path) -> None:
    files = authority(tmp_path).give("agent", days=3)
    lines = [f'status-file = "{tmp_path}/s"', f'metrics-file = "{tmp_path}/m"', "[tls]"]
    lines += [f'{name} = "{getattr(files, name)}"' for name in ("certificate", "key", "authorities")]
    (tmp_path / "agent.toml").write_text("\n".join(lines))
    options = ("--listen", "127.0.0.1:0", "--state", f"{tmp_path}/a", "--config", f"{tmp_path}/agent.toml")
    with agent("mh-amqp", *options):
        wait_for((tmp_path / "s").exists)
        told = json.loads((tmp_path / "s").read_text())
        assert (told["name"], told["pid"] > 1) == ("mh-amqp", True)
        wait_for(lambda: str(files.certificate) in (tmp_path / "m").read_text(), seconds=20)


def test_a_certificate_that_ends_soon_is_announced_until_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)
        monkeypatch.setattr(tls, "AGAIN", 0.1)
        hub, heard = Hub(), list[Event]()
        hub.subscribe(heard.append)
        certificates = Certificates(hub)
        shown = Tls(ours.give("agent", days=5))
        task = asyncio.create_task(tls.watch(shown, certificates))
        await eventually(lambda: len(heard) >= 2)
        assert {event.member for event in heard} == {"certificate_expiring"}
        ours.give("agent", days=60)
        ends = heard[0].fields["certificate"]
        assert isinstance(ends, dict)
        await eventually(lambda: certificates.list()[0].expires > ends["expires"])
        count = len(heard)
        await asyncio.sleep(0.3)
        assert len(heard) == count
        assert shown.files.certificate is not None
        shown.files.certificate.write_text("no certificate")
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()

    ours = authority(tmp_path)
    asyncio.run(test())
