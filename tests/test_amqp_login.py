"""Who comes in: by certificate, by password, by the credentials of a Unix socket; and who does not."""

import asyncio
import datetime as dt
import os
import shutil
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from proton import Message
from proton.utils import BlockingConnection
from scramp import ScramMechanism

from amqp_peers import HOST, LIMITS, Echo, listening
from certificates import Authority, authority
from libmh.errors import BackendFailed, InvalidArguments, NotAuthorized, Problem, Unavailable
from mh_amqp.engine import Connection, Door, Listener, Login, dial, listen
from mh_amqp.limits import Limits
from mh_amqp.security import ANONYMOUS, EXTERNAL, PLAIN, SCRAM
from mh_amqp.tls import Files, Tls
from mh_amqp.users import Users, parse, verifier
from test_amqp_engine import run
from waiting import eventually

PASSWORD = "correct horse"
SHORT = replace(LIMITS, handshake=2.0, closing=0.2)
BY_CERTIFICATE = (EXTERNAL, ANONYMOUS)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("theirs"), "Another Authority")


@pytest.fixture
def users(tmp_path: Path) -> Users:
    path = tmp_path / "users"
    path.write_text(f"# who may come in\n\n{verifier('otto', PASSWORD).line('otto')}\n")
    return Users(path)


async def who(listener: Listener, echo: Echo, login: Login) -> str:
    """Whom the listener takes a dialler for."""
    connection = await dial(HOST, listener.port, container="test", login=login, limits=SHORT)
    await eventually(lambda: echo.peers)
    connection.abort()
    return echo.peers[-1].user


def taken_for(door: Door, login: Login, limits: Limits = SHORT) -> str:
    found: list[str] = []

    async def test() -> None:
        echo = Echo()
        async with listening(echo, limits, door) as listener:
            found.append(await who(listener, echo, login))

    run(test())
    return found[0]


# by certificate


def test_a_certificate_says_who_comes(ours: Authority) -> None:
    door = Door(tls=Tls(ours.give("agent")))
    login = Login(BY_CERTIFICATE, tls=Tls(ours.give("console", "Example, Inc.")))
    assert taken_for(door, login) == "CN=console,O=Example\\, Inc."


def test_what_travels_cannot_be_read(ours: Authority) -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, Door(tls=Tls(ours.give("agent")))) as listener:
            reader, writer = await asyncio.open_connection(HOST, listener.port)
            writer.write(b"AMQP\x03\x01\x00\x00")
            assert not (await reader.read(8)).startswith(b"AMQP")
            writer.close()
            with pytest.raises(Unavailable):
                await dial(HOST, listener.port, container="test", limits=SHORT)
            assert not echo.peers

    run(test())


@pytest.mark.parametrize("case", ["none", "foreign", "expired", "revoked"])
def test_no_good_certificate_no_entry(ours: Authority, theirs: Authority, case: str) -> None:
    mine = ours.give("agent")
    if case == "none":
        shown = Files(authorities=ours.path)
    elif case == "foreign":
        shown = replace(theirs.give("console"), authorities=ours.path)
    else:
        shown = ours.give("console", days=-1 if case == "expired" else 30)
    if case == "revoked":
        mine = replace(mine, revoked=ours.revoke(shown))
    with pytest.raises((NotAuthorized, Unavailable)):
        taken_for(Door(tls=Tls(mine)), Login(BY_CERTIFICATE, tls=Tls(shown)))


def test_an_authority_of_the_system_is_none_of_ours(
    ours: Authority, theirs: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2026-105031: in proton what the system trusts comes in beside what was configured."""
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.path))
    shown = replace(theirs.give("rogue"), authorities=ours.path)
    with pytest.raises((NotAuthorized, Unavailable)):
        taken_for(Door(tls=Tls(ours.give("agent"))), Login(BY_CERTIFICATE, tls=Tls(shown)))


@pytest.mark.parametrize("case", ["foreign", "expired", "another name"])
def test_a_listener_that_is_not_whom_we_trust_learns_nothing(
    ours: Authority, theirs: Authority, case: str
) -> None:
    async def test() -> None:
        shown = theirs.give("agent") if case == "foreign" else ours.give("agent")
        shown = ours.give("agent", days=-1) if case == "expired" else shown
        host = "127.0.0.2" if case == "another name" else HOST
        echo, door = Echo(), Door(tls=Tls(replace(shown, authorities=ours.path)))
        listener = await listen(host, 0, echo, container="here", door=door, limits=SHORT)
        login = Login(BY_CERTIFICATE, tls=Tls(ours.give("console")))
        with pytest.raises(NotAuthorized, match="could not prove who it is"):
            await dial(host, listener.port, container="test", login=login)
        assert not echo.peers
        await listener.close()

    run(test())


def test_certificates_are_renewed_without_a_restart(ours: Authority, tmp_path: Path) -> None:
    async def serial(listener: Listener) -> str:
        context = ssl.create_default_context(cafile=str(ours.path))
        context.load_cert_chain(str(console.certificate), str(console.key))
        _, writer = await asyncio.open_connection(HOST, listener.port, ssl=context)
        told = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        writer.close()
        return str(told)

    async def test() -> None:
        async with listening(Echo(), SHORT, Door(tls=Tls(mine))) as listener:
            before = await serial(listener)
            assert await serial(listener) == before
            for kind in ("pem", "key"):
                (tmp_path / f"agent.{kind}").replace(ours.directory / f"renews.{kind}")
            assert await serial(listener) != before
            (ours.directory / "renews.pem").write_text("no certificate")
            await serial(listener)  # what was read before is still good

    console = ours.give("console")
    mine = ours.give("renews")
    ours.give("renews", file="next")
    for kind in ("pem", "key"):
        shutil.move(ours.directory / f"next.{kind}", tmp_path / f"agent.{kind}")
    run(test())


def test_when_a_certificate_ends_is_known(ours: Authority) -> None:
    left = Tls(ours.give("agent", days=5)).expires()
    assert left is not None
    assert dt.timedelta(days=4) < left - dt.datetime.now(dt.UTC) < dt.timedelta(days=6)
    assert Tls(Files(authorities=ours.path)).expires() is None


def test_files_that_are_no_certificates_are_named(tmp_path: Path, ours: Authority) -> None:
    bad = tmp_path / "bad.pem"
    with pytest.raises(BackendFailed, match=r"bad\.pem"):
        Tls(Files(bad, bad)).listening(strict=True)
    bad.write_text("no certificate")
    with pytest.raises(BackendFailed, match=r"bad\.pem"):
        Tls(Files(bad, bad)).listening(strict=True)
    with pytest.raises(BackendFailed, match="TLS cannot be set up"):
        Tls(replace(ours.give("one"), key=ours.give("two").key)).dialling()
    with pytest.raises(InvalidArguments, match="needs a certificate"):
        Tls(Files(authorities=ours.path)).listening(strict=True)


# by password


@pytest.mark.parametrize("mechanism", [*SCRAM, PLAIN])
def test_a_password_says_who_comes(users: Users, mechanism: str) -> None:
    assert taken_for(Door(users=users), Login((mechanism,), "otto", PASSWORD)) == "otto"


def test_a_password_over_tls(users: Users, ours: Authority) -> None:
    door = Door(users=users, tls=Tls(ours.give("agent")))
    login = Login((*SCRAM, PLAIN), "otto", PASSWORD, tls=Tls(Files(authorities=ours.path)))
    assert taken_for(door, login) == "otto"


@pytest.mark.parametrize("mechanism", [*SCRAM, PLAIN])
@pytest.mark.parametrize(
    ("name", "password"),
    [("otto", "wrong"), ("nobody", PASSWORD), ("otto", ""), ("", ""), ("anonymous", "")],
)
def test_a_wrong_password_is_refused(users: Users, mechanism: str, name: str, password: str) -> None:
    with pytest.raises(Problem) as refused:
        taken_for(Door(users=users), Login((mechanism,), name, password))
    assert isinstance(refused.value, NotAuthorized)


def test_strangers_are_not_let_in_where_there_are_users(users: Users) -> None:
    with pytest.raises(NotAuthorized, match="offers SCRAM-SHA-256, PLAIN, and we have ANONYMOUS"):
        taken_for(Door(users=users), Login())


def test_users_come_and_go_without_a_restart(users: Users) -> None:
    async def test() -> None:
        echo = Echo()
        async with listening(echo, SHORT, Door(users=users)) as listener:
            ada = Login(SCRAM, "ada", "s3cret")
            with pytest.raises(NotAuthorized):
                await who(listener, echo, ada)
            with users.path.open("a") as file:
                file.write(verifier("ada", "s3cret").line("ada") + "\n")
            assert await who(listener, echo, ada) == "ada"
            users.path.write_text("what is this\n")
            with pytest.raises(NotAuthorized):
                await who(listener, echo, ada)

    run(test())


def test_a_listener_that_does_not_know_the_password_is_noticed(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could let us in all the same, and hear what we ask."""

    class Liar:
        def set_client_first(self, said: str) -> None:
            self.nonce = said.rpartition("r=")[2]

        def get_server_first(self) -> str:
            return f"r={self.nonce}more,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096"

        def set_client_final(self, said: str) -> None: ...

        def get_server_final(self) -> str:
            return "v=bm9uc2Vuc2U="

    monkeypatch.setattr(ScramMechanism, "make_server", lambda _, keys: keys("otto") and Liar())
    with pytest.raises(NotAuthorized, match="could not prove who it is"):
        taken_for(Door(users=users), Login(SCRAM, "otto", PASSWORD))
    monkeypatch.setattr(Liar, "get_server_final", lambda _: "")
    with pytest.raises(NotAuthorized, match="did not prove that it knows the password"):
        taken_for(Door(users=users), Login(SCRAM, "otto", PASSWORD))
    monkeypatch.setattr(Liar, "get_server_first", lambda self: f"r={self.nonce}m,s=c2FsdA==,i=9999999")
    with pytest.raises(NotAuthorized, match="rounds of SCRAM"):
        taken_for(Door(users=users), Login(SCRAM, "otto", PASSWORD))


@pytest.mark.parametrize("user", ["otto", "wrong"])
def test_protons_own_client_logs_in_by_plain(users: Users, user: str) -> None:
    async def test() -> None:
        class Seen(Echo):
            def opened(self, connection: Connection) -> None:
                super().opened(connection)
                came.append(connection.user)

        came: list[str] = []
        async with listening(Seen(), SHORT, Door(users=users)) as listener:
            url = f"amqp://{HOST}:{listener.port}"

            def work() -> None:
                connection = BlockingConnection(
                    url, user=user, password=PASSWORD, allowed_mechs=PLAIN, timeout=5
                )
                connection.create_sender("q").send(Message(body="hello"))
                connection.close()

            if user == "otto":
                await asyncio.to_thread(work)
                assert came == ["otto"]
            else:
                with pytest.raises(Exception, match=r"Authentication|authentication|refused|Connection"):
                    await asyncio.to_thread(work)
                assert not came

    run(test())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("otto", "line 1"),
        ("# x\notto:SCRAM-SHA-256$4096:!$a:b", "line 2"),
        ("anonymous:SCRAM-SHA-256$4096:YQ==$YQ==:YQ==", "line 1"),
        ("a:SCRAM-SHA-256$4096:YQ==$YQ==:YQ==\na:SCRAM-SHA-256$4096:YQ==$YQ==:YQ==", "line 2"),
    ],
)
def test_a_bad_line_is_named(text: str, why: str) -> None:
    with pytest.raises(BackendFailed, match=why):
        parse(text, "users")


@pytest.mark.parametrize("name", ["", "anonymous", "anonymous@x", "CN=x", "uid:0", "a b", "x" * 65])
def test_a_name_that_could_be_anothers_is_none(name: str) -> None:
    with pytest.raises(InvalidArguments):
        verifier(name, PASSWORD)


# on a Unix socket, and without any of it


def test_a_unix_socket_says_who_comes(tmp_path: Path) -> None:
    async def test() -> None:
        echo, path = Echo(), str(tmp_path / "socket")
        listener = await listen(path, 0, echo, container="here", limits=SHORT)
        for login, expected in ((Login((EXTERNAL,)), f"uid:{os.getuid()}"), (Login(), "anonymous")):
            connection = await dial(path, 0, container="test", login=login)
            await eventually(lambda: echo.peers and echo.peers[-1].user == expected)  # noqa: B023
            connection.abort()
        await listener.close()

    run(test())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_nobody_listens_to_strangers_without_knowing_who_they_are(
    host: str, ours: Authority, users: Users
) -> None:
    async def refused(door: Door) -> None:
        with pytest.raises(InvalidArguments, match=f"cannot listen on '{host}'"):
            await listen(host, 0, Echo(), container="here", door=door)

    async def test() -> None:
        await refused(Door())
        await refused(Door(users=users))
        await refused(Door(tls=Tls(replace(ours.give("agent"), authorities=None))))

    run(test())


def test_a_password_is_not_sent_where_others_could_read_it() -> None:
    async def test() -> None:
        with pytest.raises(InvalidArguments, match="without TLS: expected amqps"):
            await dial("192.0.2.1", 5672, container="test", login=Login(SCRAM, "otto", PASSWORD))

    run(test())
