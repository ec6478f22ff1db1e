"""Who would be taken for another, or do what the policy or the signer does not allow."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import dns.asyncresolver
import pytest

from amqp_peers import HOST, Echo, listening
from amqp_serving import (
    TOY,
    UUID,
    Toy,
    ask,
    asking,
    broker_agent,
    code,
    direct_agent,
    request,
    run,
    running_broker,
)
from certificates import authority
from libmh.api.host import Host
from libmh.call import Request
from libmh.caller import Caller
from libmh.dispatch import no_objects
from libmh.errors import NotAuthorized, Unavailable
from libmh.events import Event
from libmh.keys import PrivateKey, Trusted, generate, load, trust
from libmh.spec import interface_of
from mh_amqp import codec, messages, signatures, tls
from mh_amqp.authority import roles
from mh_amqp.connection import Connection
from mh_amqp.engine import Door, Login, dial
from mh_amqp.events import decode_event
from mh_amqp.limits import Limits
from mh_amqp.messages import Message
from mh_amqp.names import MANAGEMENT, host_address, place
from mh_amqp.sasl import CHALLENGE, MECHANISMS, SASL_HEADER, Dialling, Refused, frame_of
from mh_amqp.security import EXTERNAL, SCRAM
from mh_amqp.server import identity_at
from mh_amqp.signatures import Seen, Signatures, signed
from mh_amqp.spool import Spool
from mh_amqp.srv import targets
from mh_amqp.tls import Tls
from waiting import eventually, wait_for

ID = codec.string("0123456789abcdef0123456789abcdef")
SHORT = Limits(handshake=3.0, closing=0.5)
SIGNERS = {"authority": {"key:*": "operator"}}


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    generate("ops", tmp_path / "console.key")
    return load(tmp_path / "console.key")


@pytest.fixture
def checks(tmp_path: Path, key: PrivateKey) -> Iterator[Signatures]:
    trust(key.public, tmp_path / "keys")
    found = Signatures(Trusted(tmp_path / "keys"), Seen(tmp_path / "was-seen"))
    found.seen.open()
    yield found
    found.seen.close()


# signed requests


@pytest.mark.parametrize(
    ("to", "name", "status"),
    [
        (host_address(UUID), "self", 200),
        ("mh.hosts", "self", 200),
        (MANAGEMENT, UUID, 200),
        (MANAGEMENT, "self", 403),
        (host_address("f" * 32), "self", 403),
        ("mh.group.web", "self", 403),
    ],
)
def test_what_was_signed_for_another_host_is_not_done_here(
    tmp_path: Path, checks: Signatures, key: PrivateKey, to: str, name: str, status: int
) -> None:
    """Whoever has overheard it can send it by a link to any host: the link says where it goes."""

    async def test() -> None:
        async with direct_agent(tmp_path, authority=roles(SIGNERS)) as here:
            here.served.intake.signatures = checks
            here.served.intake.also = frozenset({"mh.hosts"})
            connection = await dial(HOST, here.listener.port, container="thief")
            came: list[Message] = []
            replies = await connection.receiver(
                None, lambda each: came.append(messages.decode(each.raw)), dynamic=True, credit=9
            )
            link = await connection.sender(host_address(UUID))
            asked = request(
                "strike", body={"what": "a bell"}, message_id=ID, to=to, properties={"name": name}
            )
            link.send(messages.encode(replace(signed(asked, key), reply_to=replies.address)), settled=True)
            await eventually(lambda: came)
            assert code(came[0]) == status
            assert here.toy.calls["strike"] == (status == 200)
            await connection.close()

    run(test())


def test_a_second_body_is_no_message(key: PrivateKey) -> None:
    asked = signed(request("strike", body={"what": "a bell"}, message_id=ID), key)
    raw = messages.encode(asked)
    messages.decode(raw)
    for more in (messages.data_section(b""), messages.section(messages.SEQUENCE, codec.list_of([]))):
        with pytest.raises(codec.Malformed, match="one kind of body"):
            messages.decode(raw + more)


# at a broker


def section_late(user: bytes, asked: Message) -> bytes:
    """The properties behind the application-properties, where no broker looks for them."""
    fields = [asked.message_id, codec.binary(user), codec.string(asked.to or ""), codec.NULL]
    fields.append(codec.string(asked.reply_to or ""))
    return (
        messages.application_section(asked.properties)
        + messages.properties_section(fields)
        + messages.value_section(asked.value or codec.NULL)
    )


def section_odd(user: bytes, asked: Message) -> bytes:
    """A descriptor that is a uint."""
    fields = [asked.message_id, codec.binary(user), codec.string(asked.to or ""), codec.NULL]
    fields.append(codec.string(asked.reply_to or ""))
    raw = messages.properties_section(fields)
    return (
        raw[:1]
        + codec.uint(messages.PROPERTIES)
        + raw[3:]
        + messages.application_section(asked.properties)
        + messages.value_section(asked.value or codec.NULL)
    )


@pytest.mark.parametrize("made", [section_late, section_odd])
def test_nobody_hides_a_user_from_the_broker(tmp_path: Path, made: object) -> None:
    assert callable(made)

    async def test() -> None:
        policy = roles({"authority": {"CN=chief": "operator"}})
        async with (
            running_broker() as (_, port),
            broker_agent(tmp_path, port, authority=policy) as here,
        ):
            connection = await dial(HOST, port, container="thief")
            link = await connection.sender(host_address(UUID))
            asked = request("strike", body={"what": "a bell"}, message_id=ID, to=host_address(UUID))
            link.send(made(b"CN=chief", replace(asked, reply_to="mh.reply.x")), settled=True)
            refused = here.served.intake.counters
            async with asking(port) as console:
                await eventually(lambda: refused.malformed or here.toy.calls["strike"])
                assert here.toy.calls["strike"] == 0
                assert code(await ask(console, replace(asked, message_id=codec.string("e" * 32)))) == 403
            await connection.close()

    run(test())


# TLS


def test_who_shows_a_certificate_is_known_after_ours_was_renewed(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    mine = ours.give("agent")
    login = Login((EXTERNAL,), tls=Tls(ours.give("console")))

    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, Door(tls=Tls(mine))) as listener:
            for _ in range(2):
                connection = await dial(HOST, listener.port, container="test", login=login, limits=SHORT)
                await eventually(lambda: echo.peers)
                assert echo.peers.pop().user == "CN=console"
                connection.abort()
                ours.give("agent")

    run(test())


def test_who_was_revoked_stays_out_when_a_file_is_broken_later(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    shown = ours.give("console")
    mine = replace(ours.give("agent"), revoked=ours.revoke())

    async def comes(port: int) -> bool:
        with contextlib.suppress(Exception):
            login = Login((EXTERNAL,), tls=Tls(shown))
            connection = await dial(HOST, port, container="test", login=login, limits=SHORT)
            connection.abort()
            return True
        return False

    async def test() -> None:
        async with listening(Echo(), SHORT, Door(tls=Tls(mine))) as listener:
            assert await comes(listener.port)
            ours.revoke(shown)
            assert not await comes(listener.port)
            (tmp_path / "agent.pem").write_text("no certificate")
            assert not await comes(listener.port)

    run(test())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_no_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Who resumes a session shows nothing, and nobody looks whether he may still come."""
    ours = authority(tmp_path)
    shown = ours.give("console")
    door = Door(tls=Tls(replace(ours.give("agent"), revoked=ours.revoke())))

    async def test() -> None:
        async with listening(Echo(), SHORT, door) as listener:
            made = await asyncio.to_thread(sessions, listener.port)
            ours.revoke(shown)
            assert not await asyncio.to_thread(resumed, listener.port, made)

    def connected(port: int, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        with (
            socket.create_connection((HOST, port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=HOST, session=session) as peer,
        ):
            peer.sendall(SASL_HEADER)
            said = b""
            while len(said) < 30 and (more := peer.recv(4096)):
                said += more
            return b"EXTERNAL" in said, peer.session

    def sessions(port: int) -> ssl.SSLSession | None:
        offered, session = connected(port, None)
        assert offered
        return session

    def resumed(port: int, session: ssl.SSLSession | None) -> bool:
        try:
            return connected(port, session)[0]
        except OSError:
            return False

    context = ssl.create_default_context(cafile=str(ours.path))
    context.load_cert_chain(str(shown.certificate), str(shown.key))
    context.maximum_version = version
    run(test())


# policy


def test_a_policy_that_changed_before_anybody_asked_is_read(tmp_path: Path) -> None:
    file = tmp_path / "amqp.toml"
    file.write_text('[authority]\n"*" = "none"\n')
    found = roles({"authority": {"*": "operator"}}, str(file))  # as it was when the process began
    interface = interface_of(Host)
    asked = Request(interface.name, "reboot", caller=Caller("amqp", "x"))
    with pytest.raises(NotAuthorized):
        asyncio.run(found.authorise(asked, interface, interface.members["reboot"], no_objects))


def test_a_rule_looks_at_what_is_written(tmp_path: Path) -> None:
    rules = [{"deny": "Toy.level", "where": {"level": ">= 100"}}, {"allow": "*"}]
    policy = roles({"authority": {"*": "mine"}, "roles": {"mine": {"rules": rules}}})

    async def test() -> None:
        async with direct_agent(tmp_path, authority=policy) as here, asking(here.listener.port) as console:
            assert code(await ask(console, request("UPDATE", TOY, {"level": 99}))) == 200
            assert code(await ask(console, request("UPDATE", TOY, {"level": 100}))) == 403
            assert here.toy.held == 99

    run(test())


def test_a_rule_that_can_never_fit_is_told() -> None:
    rules = [
        {"deny": "Host.*", "on": {"nmae": "x"}},
        {"deny": "Host.update_interval", "where": {"update_interval": ">= 9"}},
        {"deny": "Host.update_interval", "where": {"interval": ">= 9"}},
    ]
    found = roles({"authority": {"*": "mine"}, "roles": {"mine": {"rules": rules}}}).policy
    assert list(found.idle([interface_of(Host)])) == [
        "rule mine 1: nothing that is called 'Host.*' has 'nmae'",
        "rule mine 3: nothing that is called 'Host.update_interval' has 'interval'",
    ]


def test_it_is_told_when_an_agent_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mistyped = roles({"roles": {"mine": {"rules": [{"deny": "Toy.strkie"}]}}})

    async def test() -> None:
        async with direct_agent(tmp_path, authority=mistyped):
            assert "rule mine 1: nothing is called 'Toy.strkie': it does nothing here" in caplog.text

    run(test())


# what was seen


def test_what_cannot_be_kept_whole_is_not_done_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = int(time.time() * 1000) + 60_000
    seen = Seen(tmp_path / "seen")
    seen.open()
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:9]))  # as a full disk does
    with pytest.raises(Unavailable, match="cannot be kept"):
        seen.remember(b"one", until)
    monkeypatch.undo()
    seen.remember(b"two", until)
    seen.close()
    again = Seen(tmp_path / "seen")
    again.open()
    assert set(again.earlier) == {b"two"}


def test_a_record_that_cannot_be_swept_refuses_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "MAX_SEEN", 3)
    now = int(time.time() * 1000)
    seen = Seen(tmp_path / "seen")
    seen.open()
    for number in range(3):
        seen.remember(bytes([number]), now + 200 if number else now - 1)

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            seen.remember(b"x", now + 60_000)
    wait_for(lambda: time.time() * 1000 > now + 200)
    seen.remember(b"x", now + 60_000)
    seen.close()
    again = Seen(tmp_path / "seen")
    again.open()
    assert set(again.earlier) == {b"x"}


def test_a_key_that_was_overwritten_in_its_place_is_not_trusted(
    tmp_path: Path, key: PrivateKey, checks: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmh.keys.LOOK_SECONDS", 0.0)
    file, directory = tmp_path / "keys" / "ops.pub", tmp_path / "keys"
    os.utime(directory, (1, 1))
    assert checks.trusted.find(key.public.id) is not None
    other = generate("ops", tmp_path / "other.key")
    file.write_text(other.line + "\n")
    os.utime(directory, (1, 1))
    assert checks.trusted.find(key.public.id) is None
    assert checks.trusted.find(other.id) is not None


# what is written down


def test_nobody_writes_lines_of_his_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    forged = "x\nINFO libmh.audit: call Host.reboot"

    async def test() -> None:
        async with (
            direct_agent(tmp_path, authority=roles({})) as here,
            asking(here.listener.port) as console,
        ):
            here.served.intake.signatures = Signatures(Trusted(tmp_path / "keys"), required=True)
            assert code(await ask(console, request(forged * 100, forged))) == 403
            here.served.intake.signatures = None
            assert code(await ask(console, request("strike", body={"what": forged}))) == 403

    run(test())
    assert "denied" in caplog.text or "strike" in caplog.text
    assert not [line for each in caplog.records for line in each.getMessage().splitlines()[1:]]
    assert max(len(each.getMessage()) for each in caplog.records) < 2000


def test_what_the_node_refuses_is_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def test() -> None:
        nobody = roles({"authority": {"*": "none"}})
        async with direct_agent(tmp_path, authority=nobody) as here, asking(here.listener.port) as console:
            assert code(await ask(console, request("GET-TYPES", "org.amqp.management"))) == 403
            assert code(await ask(console, request("QUERY", "org.amqp.management"))) == 403

    run(test())
    said = [each.getMessage() for each in caplog.records if each.name == "libmh.audit"]
    assert [word for each in said for word in ("GET-TYPES", "QUERY") if word in each] == [
        "GET-TYPES",
        "QUERY",
    ]


# names


def test_a_host_that_knows_no_server_of_names_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = dns.asyncresolver.Resolver
    monkeypatch.setattr(dns.asyncresolver, "Resolver", lambda **_: made(filename="/nowhere/resolv.conf"))
    with pytest.raises(Unavailable, match="nobody to ask"):
        asyncio.run(targets(place("amqps+srv://example.org")))


def test_scram_may_not_take_as_long_as_it_likes() -> None:
    side = Dialling(Login(SCRAM, "otto", "secret"))
    said, _ = side.take(SASL_HEADER + frame_of(MECHANISMS, codec.symbol(SCRAM[0])))
    nonce = said.rpartition(b"r=")[2].decode()
    asked = f"r={nonce}more,i=4096,s=c2FsdA==,i=999999999"
    with pytest.raises(Refused, match="rounds of SCRAM"):
        side.take(frame_of(CHALLENGE, codec.binary(asked.encode())))


# events


@pytest.mark.parametrize(
    ("rules", "heard"),
    [
        ([], []),
        ([{"allow": "Toy.rang"}], ["rang"]),
        ([{"deny": "Toy.rang"}, {"allow": "*"}], [""]),
        ([{"deny": "Toy.blob"}, {"use": "guest"}], ["rang"]),
        ([{"use": "guest"}], ["rang", ""]),
    ],
)
def test_events_are_told_to_those_who_may_read(
    tmp_path: Path, rules: list[dict[str, str]], heard: list[str]
) -> None:
    policy = roles({"authority": {"*": "mine"}, "roles": {"mine": {"rules": rules}}})

    async def test() -> None:
        async with direct_agent(tmp_path, authority=policy) as here, asking(here.listener.port) as console:
            came: list[Event | None] = []
            await console.connection.receiver(
                "mh.event.#", lambda each: came.append(decode_event(messages.decode(each.raw))), credit=99
            )
            await ask(console, request("READ"))  # the credit has come by then
            hub = here.dispatcher.context.events
            hub.emit(Toy.rang, times=1, at=0)
            hub.changed(interface_of(Toy), level=7)
            await ask(console, request("READ"))  # and so has what was told
            assert [each.member for each in came if each is not None and each.interface == TOY] == heard

    run(test())


def test_events_on_disk_are_nobody_elses(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        spool = Spool(tmp_path / "events")
        spool.open()
        spool.add("mh.event.x", b"secret", time.time_ns())
        found = list(tmp_path.glob("events*"))
        assert len(found) > 1  # SQLite's own beside it
        assert {each.stat().st_mode & 0o077 for each in found} == {0}
        spool.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("subject", "written"),
    [
        (((("commonName", "a"),), (("organizationName", "B"),)), "O=B,CN=a"),
        (((("commonName", "a"), ("organizationName", "B")),), "CN=a+O=B"),
        (((("commonName", "a+O=B"),),), "CN=a\\+O=B"),
        (((("commonName", "a\0\n"),),), "CN=a\\00\\0A"),
        (((("commonName", "\u200b"),),), "CN=\\E2\\80\\8B"),
        ((), ""),
    ],
)
def test_two_subjects_are_never_written_alike(subject: object, written: str) -> None:
    class Shown:
        session_reused = False

        def getpeercert(self) -> dict[str, object]:
            return {"subject": subject}

    assert tls.subject(cast("ssl.SSLObject", Shown())) == written


@pytest.mark.parametrize(
    ("peer", "said", "known"),
    [
        ("127.0.0.1:5672", "uid:0", "uid:0"),
        ("192.0.2.1:5672", "uid:0", "anonymous@192.0.2.1"),
        ("192.0.2.1:5672", "key:ops", "anonymous@192.0.2.1"),
        ("192.0.2.1:5672", "a\nb", "anonymous@192.0.2.1"),
        ("192.0.2.1:5672", "CN=a", "CN=a"),
    ],
)
def test_a_broker_elsewhere_knows_no_users_of_this_machine(peer: str, said: str, known: str) -> None:
    class Far:
        pass

    far = Far()
    far.peer = peer  # type: ignore[attr-defined]  # all that is asked of it
    found = identity_at(cast("Connection", far))
    assert found(Message(user_id=said.encode())) == known
