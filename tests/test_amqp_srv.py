"""Brokers by DNS: looked up at every try, with a real server of names on loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import dns.message
import dns.rcode
import dns.rrset
import pytest

from amqp_peers import HOST, Echo, listening
from amqp_serving import run
from certificates import authority
from libmh.errors import InvalidArguments, NotAuthorized, Unavailable
from mh_amqp import srv, upkeep
from mh_amqp.engine import Door
from mh_amqp.names import Place, place
from mh_amqp.tls import Tls
from mh_amqp.upkeep import dial_place

Zone = Mapping[str, Sequence[str]]


class Names(asyncio.DatagramProtocol):
    """Answers for SRV records, and for nothing else."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text()
        self.asked.append(name)
        answer = dns.message.make_response(question)
        if name in self.zone:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *self.zone[name]))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def names(zone: Zone) -> AsyncIterator[tuple[Names, Sequence[tuple[str, int]]]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Names(zone), local_addr=(HOST, 0))
    try:
        yield server, [transport.get_extra_info("sockname")]
    finally:
        transport.close()


async def found(url: str, zone: Zone) -> list[tuple[str, int]]:
    async with names(zone) as (_, servers):
        return [(each.host, each.port) for each in await srv.targets(place(url), servers)]


def test_a_domain_says_who_its_brokers_are() -> None:
    async def test() -> None:
        zone = {"_amqps._tcp.example.org.": ["20 0 5671 late.example.org.", "10 0 5672 first.example.org."]}
        assert await found("amqps+srv://example.org", zone) == [
            ("first.example.org", 5672),
            ("late.example.org", 5671),
        ]
        assert await found("amqps+srv://example.org.", zone) == await found("amqps+srv://example.org", zone)
        ours = {"_matahari._tls.example.org.": ["0 0 49000 broker.example.org."]}
        assert await found("amqps+srv://example.org", ours) == [("broker.example.org", 49000)]
        plain = {"_matahari._tcp.example.org.": ["0 0 49000 broker.example.org."]}
        assert await found("amqp+srv://example.org", plain) == [("broker.example.org", 49000)]
        with pytest.raises(Unavailable, match=r"no broker is known for 'example\.org'"):
            await found("amqps+srv://example.org", plain)

    run(test())


def test_a_domain_without_a_broker_says_so() -> None:
    async def test() -> None:
        zone = {"_amqp._tcp.example.org.": ["0 0 0 ."]}
        with pytest.raises(Unavailable, match="says that there is none"):
            await found("amqp+srv://example.org", zone)
        with pytest.raises(Unavailable, match=r"_amqp\._tcp\.example\.org"):
            await found("amqp+srv://example.org", {})

    run(test())


def test_a_server_of_names_that_is_silent_costs_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(srv, "LOOKUP_SECONDS", 0.2)
        loop = asyncio.get_running_loop()
        silent, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(HOST, 0))
        with pytest.raises(Unavailable):
            await srv.targets(place("amqp+srv://example.org"), [silent.get_extra_info("sockname")])
        silent.close()

    run(test(), 10)


def test_a_place_that_is_named_is_not_looked_up() -> None:
    where = place("amqp://h:1/uuid")
    assert asyncio.run(srv.targets(where)) == [where]


@pytest.mark.parametrize("url", ["amqp+srv://h:1", "amqp+srv://", "amqp+dns://h"])
def test_a_url_that_says_two_things_is_refused(url: str) -> None:
    with pytest.raises(InvalidArguments):
        place(url)


def test_it_is_shown_as_it_was_given() -> None:
    assert place("amqps+srv://me:secret@example.org").shown == "amqps+srv://example.org"


def test_the_first_that_answers_is_taken_and_has_to_be_the_domains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = authority(tmp_path)

    async def test() -> None:
        async with listening(Echo(), door=Door(tls=Tls(trusted.give("broker")))) as listener:
            records = ["10 0 1 127.0.0.1.", f"20 0 {listener.port} 127.0.0.1."]
            zone = {f"_amqps._tcp.{domain}.": records for domain in ("localhost", "another.example")}
            async with names(zone) as (server, servers):

                async def looked_up(where: Place) -> list[Place]:
                    return await srv.targets(where, servers)

                monkeypatch.setattr(upkeep, "targets", looked_up)
                shown = Tls(trusted.give("console"))
                for _ in range(2):
                    connection = await dial_place(place("amqps+srv://localhost"), "test", tls=shown)
                    await connection.close()
                assert server.asked == ["_amqps._tcp.localhost."] * 2
                with pytest.raises(NotAuthorized, match="could not prove who it is"):
                    await dial_place(place("amqps+srv://another.example"), "test", tls=shown)

    run(test())
